//! Terms rise for the life of a group's name, also when it is deleted and made again (S25–S27, D4).

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::happened::Happened;
use super::watches::Place;

/// Checks all that watchers of a group were told.
///
/// # Errors
/// An election in a term that is not above every one before.
pub fn check(group: &str, all: &BTreeMap<Place, Happened>) -> Result<()> {
    let mut last = 0;
    for (place, happened) in all {
        let Happened::Elected { term, .. } = *happened else { continue };
        if term <= last {
            bail!("group {group} at {place:?}: term {term} after term {last}");
        }
        last = term;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_that_comes_again_is_found_also_after_the_group_was_deleted() {
        let elected = |term| Happened::Elected { term, leader: term };
        let checked = |events: &[Happened]| check("g", &(1..).map(|at| (at, 0)).zip(events.iter().copied()).collect());
        checked(&[elected(1), Happened::Deleted, elected(2), elected(7)]).expect("right");
        for wrong in [vec![elected(1), elected(1)], vec![elected(3), Happened::Deleted, elected(1)]] {
            let error = checked(&wrong).expect_err("wrong").to_string();
            assert!(error.contains("after term"), "{error}");
        }
    }
}
