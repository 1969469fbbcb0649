//! On which members a partition's replicas go.
//!
//! Greedy, and the same for the same members in any order: partition by partition, replica by replica, the best member
//! by this order of wishes:
//!
//! 1. a zone that this partition uses least: so a second replica goes to a used zone only when all are used;
//! 2. for the first replica, which is preferred as leader: the member that is first of the fewest partitions;
//! 3. the member with the fewest replicas;
//! 4. the next in turn, zones alternating.
//!
//! Zones of different sizes make the load uneven: a zone of one member carries one replica of every partition if it
//! must.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::{ErrorCode, Rejection};
use crate::command::PartitionRecord;
use crate::ids::{MemberName, NodeId};
use crate::limits::PARTITIONS_MAX;

/// A member that may carry replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: MemberName,
    /// Its data directory's identity.
    pub node: NodeId,
    /// Its failure domain. Empty if unknown; all unknown ones count as one zone.
    pub zone: String,
}

/// A candidate with what was placed on it.
struct Seat<'a> {
    candidate: &'a Candidate,
    /// Its place in turn, from 0.
    turn: usize,
    leads: u32,
    load: u32,
}

/// Places `partitions` partitions with `replicas` replicas each. The first replica of each is its preferred leader.
///
/// # Errors
/// `invalid_argument`, naming the field: no or too many partitions, no replicas or more than members, a member twice.
pub fn place(partitions: u32, replicas: u32, members: &[Candidate]) -> Result<Vec<PartitionRecord>, Rejection> {
    validate(partitions, replicas, members)?;
    let mut seats = in_turn(members);
    Ok((0..partitions).map(|_| place_one(replicas, &mut seats)).collect())
}

fn validate(partitions: u32, replicas: u32, members: &[Candidate]) -> Result<(), Rejection> {
    let invalid = |message: String| Err(Rejection::new(ErrorCode::InvalidArgument, message));
    if !(1..=PARTITIONS_MAX).contains(&partitions) {
        return invalid(format!("partitions: is {partitions}; choose 1 to {PARTITIONS_MAX}"));
    }
    let count = members.len();
    if replicas == 0 {
        return invalid(format!("replicas: is 0; choose 1 to {count}, the number of members"));
    }
    if usize::try_from(replicas).unwrap_or(usize::MAX) > count {
        return invalid(format!(
            "replicas: is {replicas}, but there are {count} members; add members or ask for fewer"
        ));
    }
    let mut seen = BTreeSet::new();
    match members.iter().find(|member| !seen.insert(&member.name)) {
        Some(twice) => invalid(format!("members: lists `{}` twice; list it once", twice.name)),
        None => Ok(()),
    }
}

/// Members with zones alternating: the first of each zone by name, then the second of each, and so on.
fn in_turn(members: &[Candidate]) -> Vec<Seat<'_>> {
    let mut zones: BTreeMap<&str, Vec<&Candidate>> = BTreeMap::new();
    for member in members {
        zones.entry(&member.zone).or_default().push(member);
    }
    let mut ranked: Vec<(usize, &str, &Candidate)> = Vec::with_capacity(members.len());
    for (zone, mut members) in zones {
        members.sort_by(|a, b| a.name.cmp(&b.name));
        ranked.extend(members.into_iter().enumerate().map(|(rank, member)| (rank, zone, member)));
    }
    ranked.sort_by_key(|(rank, zone, _)| (*rank, *zone));
    let seat = |(turn, (_, _, candidate))| Seat { candidate, turn, leads: 0, load: 0 };
    ranked.into_iter().enumerate().map(seat).collect()
}

fn place_one(replicas: u32, seats: &mut [Seat<'_>]) -> PartitionRecord {
    let mut chosen: Vec<usize> = Vec::new();
    for slot in 0..replicas {
        let best = (0..seats.len()).filter(|at| !chosen.contains(at)).min_by_key(|at| wishes(seats, &chosen, *at));
        let best = best.expect("there are at least as many members as replicas");
        seats[best].load += 1;
        seats[best].leads += u32::from(slot == 0);
        chosen.push(best);
    }
    let replica = |at: usize| (seats[at].candidate.name.clone(), seats[at].candidate.node);
    PartitionRecord { replicas: chosen.into_iter().map(replica).collect() }
}

/// Smaller is better.
fn wishes(seats: &[Seat<'_>], chosen: &[usize], at: usize) -> (usize, u32, u32, usize) {
    let seat = &seats[at];
    let in_zone = chosen.iter().filter(|other| seats[**other].candidate.zone == seat.candidate.zone).count();
    let leads = if chosen.is_empty() { seat.leads } else { 0 };
    (in_zone, leads, seat.load, seat.turn)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Members `a1`, `a2`, … of zone `a` and so on.
    fn members(zones: &[(&str, usize)]) -> Vec<Candidate> {
        let of_zone = |(zone, count): &(&str, usize)| {
            let zone = (*zone).to_owned();
            (1..=*count).map(move |number| Candidate {
                name: MemberName(format!("{zone}{number}")),
                node: NodeId(number as u64),
                zone: zone.clone(),
            })
        };
        zones.iter().flat_map(of_zone).collect()
    }

    fn names(record: &PartitionRecord) -> Vec<&str> {
        record.replicas.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// How far apart the members' numbers of leaderships, and of replicas, are.
    fn unevenness(placed: &[PartitionRecord], members: &[Candidate]) -> (usize, usize) {
        let spread = |count: &dyn Fn(&MemberName) -> usize| {
            let counts: Vec<usize> = members.iter().map(|member| count(&member.name)).collect();
            counts.iter().max().unwrap() - counts.iter().min().unwrap()
        };
        let leads = spread(&|name| placed.iter().filter(|record| record.replicas[0].0 == *name).count());
        let load = spread(&|name| placed.iter().flat_map(|record| &record.replicas).filter(|(n, _)| n == name).count());
        (leads, load)
    }

    #[test]
    fn s104_three_partitions_on_three_members_have_three_leaders() {
        let placed = place(3, 3, &members(&[("a", 1), ("b", 1), ("c", 1)])).unwrap();
        let leaders: BTreeSet<_> = placed.iter().map(|record| names(record)[0]).collect();
        assert_eq!(leaders, BTreeSet::from(["a1", "b1", "c1"]));
        assert!(placed.iter().all(|record| record.replicas.len() == 3));
    }

    #[test]
    fn leaders_and_load_are_even_when_zones_are_equal() {
        for zones in [&[("a", 3)][..], &[("a", 5)], &[("a", 2), ("b", 2)], &[("a", 2), ("b", 2), ("c", 2)], &[("a", 9)]]
        {
            let members = members(zones);
            for replicas in 1..=members.len() as u32 {
                for partitions in 1..=40 {
                    let placed = place(partitions, replicas, &members).unwrap();
                    let (leads, load) = unevenness(&placed, &members);
                    assert!(leads <= 1 && load <= 1, "{zones:?} x{replicas} p{partitions}: {leads}, {load}");
                }
            }
        }
    }

    #[test]
    fn a_second_replica_goes_to_a_used_zone_only_when_all_zones_are_used() {
        for zones in [&[("a", 4), ("b", 1)][..], &[("a", 1), ("b", 2), ("c", 5)], &[("", 3), ("z", 2)]] {
            let members = members(zones);
            for replicas in 1..=members.len() as u32 {
                for record in place(24, replicas, &members).unwrap() {
                    let used: BTreeSet<_> =
                        names(&record).iter().map(|name| name.trim_end_matches(char::is_numeric)).collect();
                    assert_eq!(used.len(), zones.len().min(replicas as usize), "{record:?}");
                    let distinct: BTreeSet<_> = names(&record).into_iter().collect();
                    assert_eq!(distinct.len(), replicas as usize, "a member carries a partition once");
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_members_does_not_matter() {
        let mut members = members(&[("a", 3), ("b", 2), ("c", 1)]);
        let placed = place(16, 3, &members).unwrap();
        members.reverse();
        assert_eq!(place(16, 3, &members).unwrap(), placed);
    }

    #[test]
    fn replicas_carry_the_identity_that_they_were_placed_with() {
        let placed = place(1, 2, &members(&[("a", 2)])).unwrap();
        assert_eq!(placed[0].replicas, [(MemberName::from("a1"), NodeId(1)), (MemberName::from("a2"), NodeId(2))]);
    }

    #[test]
    fn what_cannot_be_placed_is_refused_with_the_numbers() {
        let two = members(&[("a", 2)]);
        let twice = [two.clone(), two.clone()].concat();
        let cases = [
            (1, 3, &two, "replicas: is 3, but there are 2 members"),
            (1, 0, &two, "replicas: is 0"),
            (0, 1, &two, "partitions: is 0"),
            (PARTITIONS_MAX + 1, 1, &two, "partitions: is 129"),
            (1, 1, &twice, "`a1` twice"),
        ];
        for (partitions, replicas, members, expected) in cases {
            let rejection = place(partitions, replicas, members).unwrap_err();
            assert_eq!(rejection.code, ErrorCode::InvalidArgument);
            assert!(rejection.message.contains(expected), "{}", rejection.message);
        }
    }
}
