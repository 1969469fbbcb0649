//! Who stands for longest is elected, when nobody leads (S24, S32, D3).

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::happened::Happened;
use super::watches::Place;

/// Checks one stretch of what a watcher of a group was told: of the members of whom it tells since when they stand, the one
/// that stands for longest is elected.
///
/// # Errors
/// An election out of turn, or while another leads.
pub fn check(group: &str, events: &BTreeMap<Place, Happened>) -> Result<()> {
    let mut leading = None;
    let mut standing: BTreeMap<u64, Place> = BTreeMap::new();
    for (place, happened) in events {
        match *happened {
            Happened::Joined(member) => _ = standing.insert(member, *place),
            Happened::Left(member) => _ = standing.remove(&member),
            Happened::Elected { leader, .. } => {
                if let Some(leading) = leading {
                    bail!("group {group} at {place:?}: {leader} is elected while {leading} leads");
                }
                let since = standing.get(&leader);
                if let Some((other, _)) = standing.iter().find(|(_, stands)| since.is_some_and(|since| *stands < since))
                {
                    bail!("group {group} at {place:?}: {leader} is elected, though {other} stands for longer");
                }
                leading = Some(leader);
            }
            Happened::Vacated(member) => {
                leading = None;
                standing.entry(member).and_modify(|since| *since = *place);
            }
            Happened::Deleted => {
                standing.clear();
                leading = None;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(events: &[Happened]) -> Result<()> {
        check("g", &(1..).map(|at| (at, 0)).zip(events.iter().copied()).collect())
    }

    #[test]
    fn an_election_in_the_order_of_standing_is_right() {
        use Happened::{Elected, Joined, Left, Vacated};
        let events = [
            Joined(1),
            Elected { term: 1, leader: 1 },
            Joined(2),
            Vacated(1),
            Elected { term: 2, leader: 2 },
            Left(2),
            Vacated(2),
            Elected { term: 3, leader: 1 },
        ];
        checked(&events).expect("right");
    }

    #[test]
    fn elections_out_of_turn_are_found() {
        use Happened::{Elected, Joined};
        for (events, what) in [
            (vec![Joined(1), Joined(2), Elected { term: 1, leader: 2 }], "though 1 stands for longer"),
            (vec![Elected { term: 1, leader: 1 }, Elected { term: 2, leader: 2 }], "while 1 leads"),
        ] {
            let error = checked(&events).expect_err("wrong").to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
