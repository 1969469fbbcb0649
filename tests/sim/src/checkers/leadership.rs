//! Leaders of groups: whoever is told that it leads for a while leads alone, one leader a term, terms that rise for the
//! life of the name, in the order of standing, and ids that are given once (S22, S24–S27, S31, S32, D3, D4).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use super::watches::{Place, Stretch};

/// A member was told that it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The group's name.
    pub group: String,
    /// The member.
    pub member: u64,
    /// Its term.
    pub term: u64,
    /// When it was told, in simulated milliseconds.
    pub from_ms: u64,
    /// Up to when it may act on that.
    pub until_ms: u64,
}

/// What happened in a group, as its events say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A member joined.
    Joined(u64),
    /// It left.
    Left(u64),
    /// It leads in a term.
    Elected {
        /// The term.
        term: u64,
        /// The member.
        leader: u64,
    },
    /// It leads no more.
    Vacated(u64),
    /// The group is gone.
    Deleted,
}

/// Checks what members were told of themselves.
///
/// # Errors
/// Two that led at one time, or one term with two leaders.
pub fn check_claims(claims: &[Claim]) -> Result<()> {
    let mut groups: BTreeMap<&str, Vec<&Claim>> = BTreeMap::new();
    for claim in claims.iter().filter(|claim| claim.from_ms < claim.until_ms) {
        groups.entry(&claim.group).or_default().push(claim);
    }
    for (group, mut claims) in groups {
        claims.sort_by_key(|claim| (claim.from_ms, claim.term));
        let mut leaders: BTreeMap<u64, u64> = BTreeMap::new();
        let mut latest: Option<&Claim> = None;
        for claim in claims {
            let leader = *leaders.entry(claim.term).or_insert(claim.member);
            if leader != claim.member {
                bail!("group {group}: members {leader} and {} both led in term {}", claim.member, claim.term);
            }
            if let Some(before) = latest.filter(|before| before.member != claim.member) {
                if claim.from_ms < before.until_ms {
                    bail!("group {group}: two led at one time\n{before:?}\n{claim:?}");
                }
                if claim.term <= before.term {
                    bail!("group {group}: a later leader has no larger term\n{before:?}\n{claim:?}");
                }
            }
            if latest.is_none_or(|before| before.until_ms <= claim.until_ms) {
                latest = Some(claim);
            }
        }
    }
    Ok(())
}

/// Checks all that watchers of a group were told; `read` reads what they were told of an event.
///
/// # Errors
/// The first promise that was broken.
pub fn check_events(group: &str, stretches: &[Stretch], read: impl Fn(&str) -> Option<Happened>) -> Result<()> {
    let mut all: BTreeMap<Place, Happened> = BTreeMap::new();
    for stretch in stretches {
        let events: BTreeMap<Place, Happened> =
            stretch.events.iter().filter_map(|(place, what)| Some((*place, read(what)?))).collect();
        check_turns(group, &events)?;
        all.extend(events);
    }
    let (mut ids, mut last) = (BTreeSet::new(), 0);
    for (place, happened) in all {
        match happened {
            Happened::Joined(member) if !ids.insert(member) => {
                bail!("group {group} at {place:?}: {member} joined again");
            }
            Happened::Elected { term, .. } if term <= last => {
                bail!("group {group} at {place:?}: term {term} after term {last}");
            }
            Happened::Elected { term, .. } => last = term,
            Happened::Joined(_) | Happened::Left(_) | Happened::Vacated(_) | Happened::Deleted => {}
        }
    }
    Ok(())
}

/// Checks that of the members of whom one stretch tells since when they stand the one that stands for longest is elected.
fn check_turns(group: &str, events: &BTreeMap<Place, Happened>) -> Result<()> {
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
    use crate::checkers::watches::{self, Told, ToldAll};

    fn claim(member: u64, term: u64, from_ms: u64, until_ms: u64) -> Claim {
        Claim { group: "g".into(), member, term, from_ms, until_ms }
    }

    /// Checks events that one watcher was told, each of a revision of its own.
    fn checked(events: &[Happened]) -> Result<()> {
        let told = (2..).zip(0..events.len()).map(|(revision, at)| Told::Event((revision, 0), at.to_string()));
        let told = ToldAll::from([("a".to_owned(), std::iter::once(Told::View(1)).chain(told).collect())]);
        let stretches = watches::stretches("g", &told).expect("in order");
        check_events("g", &stretches, |at| Some(events[at.parse::<usize>().expect("a number")]))
    }

    #[test]
    fn one_leader_after_the_other_is_right() {
        check_claims(&[claim(1, 1, 0, 50), claim(1, 1, 40, 90), claim(2, 2, 90, 120)]).expect("right");
    }

    #[test]
    fn two_leaders_at_a_time_and_terms_that_do_not_rise_are_found() {
        for (wrong, what) in [
            ([claim(1, 1, 0, 50), claim(2, 2, 49, 90)], "two led at one time"),
            ([claim(1, 1, 0, 50), claim(2, 1, 60, 90)], "both led in term 1"),
            ([claim(1, 2, 0, 50), claim(2, 1, 60, 90)], "no larger term"),
        ] {
            let error = check_claims(&wrong).expect_err("wrong").to_string();
            assert!(error.contains(what), "{error}");
        }
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
    fn elections_out_of_turn_and_ids_and_terms_that_come_again_are_found() {
        use Happened::{Elected, Joined, Vacated};
        for (events, what) in [
            (vec![Joined(1), Joined(1)], "joined again"),
            (vec![Joined(1), Joined(2), Elected { term: 1, leader: 2 }], "though 1 stands for longer"),
            (vec![Elected { term: 1, leader: 1 }, Elected { term: 2, leader: 2 }], "while 1 leads"),
            (vec![Elected { term: 1, leader: 1 }, Vacated(1), Elected { term: 1, leader: 2 }], "after term 1"),
        ] {
            let error = checked(&events).expect_err("wrong").to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
