//! The id of a member is given once in the life of a group's name (D3).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use super::happened::Happened;
use super::watches::Place;

/// Checks all that watchers of a group were told.
///
/// # Errors
/// A member that joined again.
pub fn check(group: &str, all: &BTreeMap<Place, Happened>) -> Result<()> {
    let mut ids = BTreeSet::new();
    for (place, happened) in all {
        if let Happened::Joined(member) = *happened
            && !ids.insert(member)
        {
            bail!("group {group} at {place:?}: {member} joined again");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_given_twice_is_found() {
        use Happened::{Joined, Left};
        let checked = |events: [Happened; 3]| check("g", &(1..).map(|at| (at, 0)).zip(events).collect());
        checked([Joined(1), Left(1), Joined(2)]).expect("right");
        let error = checked([Joined(1), Left(1), Joined(1)]).expect_err("wrong").to_string();
        assert!(error.contains("joined again"), "{error}");
    }
}
