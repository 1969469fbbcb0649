//! What applications do in the simulation, and what must hold of what they saw. Each part starts its clients on a host, and
//! has its checks beside the others': a further primitive adds one more.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::checkers::linearizability::{self, Answer, Call, Operation};
use crate::checkers::watches::stretches;
use crate::checkers::{self, leadership};
use crate::cluster::Life;
use crate::history::Seen;

mod call;
pub mod groups;
pub mod locks;
pub mod registers;
pub mod watches;

/// Starts all clients of one life.
pub fn start(life: &Life) {
    registers::start(life);
    locks::start(life);
    groups::start(life);
    watches::start(life);
}

/// Checks what all clients saw, over the whole life of a cluster.
///
/// # Errors
/// The first promise that was broken.
pub fn check(seen: &Seen) -> Result<()> {
    let operations: Vec<_> = seen.operations.iter().flatten().cloned().collect();
    linearizability::check(&operations)?;
    checkers::locks::check(&seen.holds)?;
    leadership::check_claims(&seen.claims)?;
    for (of, told) in &seen.told {
        let stretches = stretches(of, told)?;
        let acknowledged = if of == registers::MAP { acknowledged(&operations) } else { BTreeMap::new() };
        checkers::watches::check(of, &stretches, &acknowledged)?;
        leadership::check_events(of, &stretches, groups::read)?;
    }
    Ok(())
}

/// What watchers of the registers must have been told, by revision.
fn acknowledged(operations: &[Operation]) -> BTreeMap<u64, String> {
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
    operations.iter().filter_map(change).collect()
}
