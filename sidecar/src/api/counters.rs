//! Requests, counted by operation and code, for `/metrics`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use coterie_core::Rejection;

/// The label of a request that succeeded.
pub const OK: &str = "ok";

type Counts = BTreeMap<(&'static str, &'static str), AtomicU64>;

/// The counters of one process. Cheap to clone. Both labels come from fixed sets, so it stays small.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<RwLock<Counts>>);

impl Counters {
    /// Counts one request.
    pub fn count<T>(&self, op: &'static str, result: &Result<T, Rejection>) {
        let code = result.as_ref().map_or_else(|rejection| rejection.code.label(), |_| OK);
        let counts = self.0.read().expect("no panic while the lock is held");
        if let Some(count) = counts.get(&(op, code)) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        drop(counts);
        let mut counts = self.0.write().expect("no panic while the lock is held");
        counts.entry((op, code)).or_default().fetch_add(1, Ordering::Relaxed);
    }

    /// Operation, code and number, in order.
    pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        let counts = self.0.read().expect("no panic while the lock is held");
        counts.iter().map(|((op, code), count)| (*op, *code, count.load(Ordering::Relaxed))).collect()
    }
}
