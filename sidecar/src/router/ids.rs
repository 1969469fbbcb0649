//! The ids under which a sidecar sends what it asks for by itself (D11).

use std::sync::Mutex;

use coterie_core::RequestId;
use coterie_env::Random;
use coterie_env::random::uuid_v7;

use crate::limits::{CLIENT_IDS, CLIENT_RUN, CLOCK_BACK_MS_MAX};

/// Mints request ids that rise with the wall clock. Where that is set back by so much that ids which go on from the newest
/// would be refused as ahead of time, and ids that do not as older than what was forgotten, clients begin anew instead.
pub(super) struct Ids {
    clients: [u128; CLIENT_IDS],
    last: Mutex<Last>,
}

/// What was minted so far.
struct Last {
    minted: usize,
    newest_ms: u64,
    /// How often clients began anew.
    epoch: u128,
}

impl Ids {
    pub(super) fn new(random: &dyn Random, wall_ms: u64) -> Self {
        let clients = std::array::from_fn(|_| uuid_v7(random, wall_ms));
        Self { clients, last: Mutex::new(Last { minted: 0, newest_ms: wall_ms, epoch: 0 }) }
    }

    pub(super) fn mint(&self, random: &dyn Random, wall_ms: u64) -> RequestId {
        let mut last = self.last.lock().expect("no panic while the lock is held");
        if wall_ms.saturating_add(CLOCK_BACK_MS_MAX) < last.newest_ms {
            last.newest_ms = wall_ms;
            last.epoch += 1;
        }
        last.newest_ms = last.newest_ms.max(wall_ms);
        // Some of one client after another: what partitions keep of it is at hand for the next.
        let client = self.clients[last.minted / CLIENT_RUN % CLIENT_IDS].wrapping_add(last.epoch);
        last.minted = last.minted.wrapping_add(1);
        RequestId { client, request: uuid_v7(random, last.newest_ms) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicU64, Ordering};

    use coterie_env::Random;

    use super::*;

    struct Counting(AtomicU64);

    impl Random for Counting {
        fn next_u64(&self) -> u64 {
            self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
        }
    }

    const NOW_MS: u64 = 1_700_000_000_000;

    fn minted(ids: &Ids, random: &Counting, wall_ms: u64) -> Vec<RequestId> {
        (0..CLIENT_IDS * CLIENT_RUN).map(|_| ids.mint(random, wall_ms)).collect()
    }

    fn clients(ids: &[RequestId]) -> BTreeSet<u128> {
        ids.iter().map(|id| id.client).collect()
    }

    #[test]
    fn d11_ids_do_not_fall_when_the_clock_is_set_back_a_little() {
        let random = Counting(AtomicU64::new(1));
        let ids = Ids::new(&random, NOW_MS);
        let before = minted(&ids, &random, NOW_MS);
        let after = minted(&ids, &random, NOW_MS - CLOCK_BACK_MS_MAX);
        assert_eq!(clients(&before), clients(&after));
        assert!(after.iter().all(|id| id.issued_ms() == NOW_MS));
    }

    #[test]
    fn d11_clients_begin_anew_when_the_clock_is_set_back_far() {
        let random = Counting(AtomicU64::new(1));
        let ids = Ids::new(&random, NOW_MS);
        let before = minted(&ids, &random, NOW_MS);
        let right_ms = NOW_MS - CLOCK_BACK_MS_MAX - 1;
        let after = minted(&ids, &random, right_ms);
        assert!(after.iter().all(|id| id.issued_ms() == right_ms));
        assert_eq!(clients(&after).len(), CLIENT_IDS, "begun anew once, not by every request");
        assert!(clients(&before).is_disjoint(&clients(&after)));
    }
}
