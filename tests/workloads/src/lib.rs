//! What applications do in tests while machines fail, and what must hold of what they saw. The simulator (`tests/sim`), real
//! processes (`tests/processes`) and a real Kubernetes (`tests/e2e`) run the same.
//!
//! Each workload starts its clients beside a sidecar, and has its checks beside the others': a further primitive adds one
//! more. Clients put what they see into one [`History`](history::History); checkers are pure.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::checkers::linearizability::{self, Answer, Call, Operation};
use crate::checkers::watches::stretches;
use crate::checkers::{elections, exactly_once, happened, identities, leaders, terms};
use crate::history::Seen;
use crate::side::Side;

mod call;
pub mod chance;
pub mod checkers;
pub mod groups;
pub mod history;
pub mod locks;
#[cfg(feature = "real")]
pub mod real;
pub mod registers;
#[cfg(feature = "real")]
mod sdk;
pub mod side;
pub mod totals;
pub mod watches;

/// Starts all clients beside a sidecar, as tasks of the present runtime.
pub fn start(side: &Side) {
    registers::start(side);
    locks::start(side);
    groups::start(side);
    watches::start(side);
}

/// Checks what all clients saw, over the whole life of a cluster.
///
/// # Errors
/// The first promise that was broken.
pub fn check(seen: &Seen) -> Result<()> {
    if let Some(violation) = seen.violations.first() {
        bail!("{violation}");
    }
    let operations = seen.known_operations();
    linearizability::check(&operations)?;
    exactly_once::check(&seen.repeated)?;
    checkers::locks::check(&seen.holds)?;
    leaders::check(&seen.claims)?;
    checkers::sessions::check(&seen.sessions)?;
    for (of, told) in &seen.told {
        let stretches = stretches(of, told)?;
        let acknowledged = if of == registers::MAP { acknowledged(&operations) } else { BTreeMap::new() };
        checkers::watches::check(of, &stretches, &acknowledged)?;
        let mut all = BTreeMap::new();
        for stretch in &stretches {
            let events = happened::of_stretch(stretch, groups::read);
            elections::check(of, &events)?;
            all.extend(events);
        }
        terms::check(of, &all)?;
        identities::check(of, &all)?;
    }
    Ok(())
}

/// What watchers of the registers must have been told, by revision.
fn acknowledged<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> BTreeMap<u64, String> {
    let change = |operation: &Operation| {
        let (_, Answer::Changed { revision, previous }) = operation.answered? else { return None };
        let value = match operation.call {
            Call::Write(value, _) => Some(value),
            // To delete what is not there changes nothing.
            Call::Delete(_) if previous > 0 => None,
            Call::Delete(_) | Call::Read => return None,
        };
        Some((revision, watches::changed(&operation.key, value)))
    };
    operations.into_iter().filter_map(change).collect()
}
