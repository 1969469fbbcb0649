#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;

use super::*;

fn seat(node: u64) -> Seat {
    Seat { member: format!("member-{node}") }
}

fn declare(nodes: &[u64]) -> Declared {
    nodes.iter().map(|node| (*node, seat(*node))).collect()
}

/// Sets of voters, and learners.
fn membership(voters: &[&[u64]], learners: &[u64]) -> Membership {
    let nodes = voters.iter().copied().flatten().chain(learners).map(|node| (*node, seat(*node))).collect();
    make(voters.iter().map(|side| side.iter().copied().collect()).collect(), nodes)
}

fn set(nodes: &[u64]) -> BTreeSet<u64> {
    nodes.iter().copied().collect()
}

#[test]
fn each_row_of_the_table() {
    let all: &[u64] = &[1, 2, 3, 4, 5, 6, 7];
    let append = |voters, learners| Step::Append(membership(voters, learners));
    // The leader, sets of voters, learners, declared, who follows: the step.
    type Row<'a> = (u64, &'a [&'a [u64]], &'a [u64], &'a [u64], &'a [u64], Step);
    let rows: &[Row<'_>] = &[
        (1, &[&[1, 2, 3]], &[], &[1, 2, 3], &[], Step::Done),
        (1, &[&[1, 2, 3]], &[4], &[1, 2, 3], all, append(&[&[1, 2, 3]], &[])),
        // One learner at a time, and only once the one before follows.
        (1, &[&[1]], &[], &[1, 2, 3], all, append(&[&[1]], &[2])),
        (1, &[&[1]], &[2], &[1, 2, 3], &[3], Step::Await(set(&[2]))),
        (1, &[&[1]], &[2], &[1, 2, 3], &[2], append(&[&[1]], &[2, 3])),
        (1, &[&[1]], &[2, 3], &[1, 2, 3], all, append(&[&[1], &[1, 2, 3]], &[])),
        // A swap, with the one to go dead, and one that is not declared any longer.
        (1, &[&[1, 2, 3]], &[5], &[1, 2, 4], all, append(&[&[1, 2, 3]], &[])),
        (1, &[&[1, 2, 3]], &[4], &[1, 2, 4], &[2, 4], append(&[&[1, 2, 3], &[1, 2, 4]], &[])),
        (1, &[&[1, 2, 3], &[1, 2, 4]], &[], &[1, 2, 4], &[], append(&[&[1, 2, 4]], &[])),
        // Voters go without anybody coming, if a majority of the others follows.
        (1, &[&[1, 2, 3]], &[], &[1], &[], append(&[&[1, 2, 3], &[1]], &[])),
        (1, &[&[1, 2, 3]], &[], &[1, 2], &[3], Step::Await(set(&[2]))),
        // The leader goes.
        (1, &[&[1, 2, 3]], &[4], &[2, 3, 4], all, append(&[&[1, 2, 3], &[2, 3, 4]], &[])),
        (1, &[&[1, 2, 3], &[2, 3, 4]], &[], &[2, 3, 4], &[1, 4], Step::HandOver(set(&[4]))),
        (1, &[&[1, 2, 3], &[2, 3, 4]], &[], &[2, 3, 4], &[1], Step::Await(set(&[2, 3, 4]))),
        (4, &[&[1, 2, 3], &[2, 3, 4]], &[], &[2, 3, 4], all, append(&[&[2, 3, 4]], &[])),
        (1, &[&[2, 3]], &[], &[2, 3], all, Step::HandOver(set(&[2, 3]))),
        // The target changed midway: back, and on. Who is declared again stays as a learner.
        (1, &[&[1, 2, 3], &[1, 2, 4]], &[], &[1, 2, 3], &[], append(&[&[1, 2, 3]], &[])),
        (1, &[&[1, 2, 3], &[1, 2, 4]], &[6], &[1, 3, 5], all, append(&[&[1, 2, 4]], &[3])),
    ];
    for (own, voters, learners, declared, following, step) in rows {
        let before = membership(voters, learners);
        let next = next_step(*own, &before, &declare(declared), |node| following.contains(&node));
        assert_eq!(next.as_ref(), Ok(step), "{own} leads {before}, {declared:?} declared, {following:?} follow");
    }
}

#[test]
fn what_cannot_be_is_refused_with_a_sentence() {
    let present = membership(&[&[1, 2, 3]], &[4]);
    let refused = |declared: &Declared| next_step(1, &present, declared, |_| true).unwrap_err().to_string();
    assert!(refused(&Declared::new()).contains("no voters"));
    let mut twice = declare(&[1, 2, 3]);
    twice.insert(9, seat(3));
    let refusal = refused(&twice);
    assert!(refusal.contains("member-3 is declared twice, as node 3 and as node 9"), "{refusal}");
    for known in [3, 4] {
        let mut renamed = declare(&[1, 2]);
        renamed.insert(known, seat(8));
        let refusal = refused(&renamed);
        assert!(
            refusal.contains(&format!("node {known} is declared as member-8, and it is member-{known}")),
            "{refusal}"
        );
    }
    let nothing = next_step(1, &Membership::default(), &declare(&[1]), |_| true);
    assert_eq!(nothing, Err(Refusal::NotFormed));
    // The old identity of a member may be there while the new one comes.
    let swap: Declared = [(1, seat(1)), (2, seat(2)), (9, seat(3))].into();
    assert!(matches!(next_step(1, &present, &swap, |_| true), Ok(Step::Append(_))));
}

/// What may happen between two steps.
#[derive(Clone, Debug)]
enum Event {
    /// The leader makes its next step, with these followers.
    Step { following: BTreeSet<u64> },
    /// The leader crashes, and this one of the voters leads next, if a crash of the others still lets it be elected.
    Crash { next: usize },
    /// Others are declared.
    Declare(BTreeSet<u64>),
}

fn voters(of: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = BTreeSet<u64>> {
    proptest::collection::btree_set(of, 1..=5)
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => proptest::collection::btree_set(1..=8_u64, 0..=8).prop_map(|following| Event::Step { following }),
        1 => (0..8_usize).prop_map(|next| Event::Crash { next }),
        1 => voters(1..=8).prop_map(Event::Declare),
    ];
    proptest::collection::vec(event, 0..40)
}

struct Model {
    leader: u64,
    membership: Membership,
    declared: Declared,
    /// Sets of voters that were in force alone.
    stood_alone: BTreeSet<BTreeSet<u64>>,
    was_declared: BTreeSet<BTreeSet<u64>>,
}

impl Model {
    fn declare(&mut self, voters: &BTreeSet<u64>) {
        self.declared = voters.iter().map(|node| (*node, seat(*node))).collect();
        self.was_declared.insert(voters.clone());
    }

    /// Whether there was something to do.
    fn step(&mut self, following: &BTreeSet<u64>) -> bool {
        let follows = |node| node == self.leader || following.contains(&node);
        match next_step(self.leader, &self.membership, &self.declared, follows).unwrap() {
            Step::Done => {
                assert_eq!(self.membership, membership(&[&self.declared.keys().copied().collect::<Vec<_>>()], &[]));
                return false;
            }
            Step::Await(nodes) => assert!(nodes.iter().any(|node| !follows(*node))),
            Step::HandOver(fit) => {
                assert!(
                    fit.iter().all(|node| follows(*node) && self.membership.voter_ids().any(|voter| voter == *node))
                );
                self.leader = *fit.first().unwrap();
            }
            Step::Append(next) => {
                self.check(&next, following);
                self.membership = next;
            }
        }
        true
    }

    fn check(&mut self, next: &Membership, following: &BTreeSet<u64>) {
        let (old, new) = (self.membership.get_joint_config(), next.get_joint_config());
        assert_ne!(self.membership, *next);
        assert!(old.iter().any(|side| new.contains(side)), "every two majorities have a replica in common");
        let follows = |node: &u64| *node == self.leader || following.contains(node);
        match new.as_slice() {
            [alone] => {
                assert!(self.stood_alone.contains(alone) || self.was_declared.contains(alone));
                assert!(alone.contains(&self.leader), "nobody leads who does not vote");
                self.stood_alone.insert(alone.clone());
                // At most one comes, and nobody is left behind who is not declared.
                let come = next.nodes().filter(|(node, _)| self.membership.get_node(node).is_none()).count();
                assert!(come <= 1);
                if old.len() == 2 {
                    assert!(next.learner_ids().all(|node| self.declared.contains_key(&node)));
                }
                if come == 1 {
                    assert!(self.membership.learner_ids().all(|learner| follows(&learner)));
                }
            }
            [from, to] => {
                assert_eq!(old.as_slice(), std::slice::from_ref(from));
                assert!(to.iter().copied().eq(self.declared.keys().copied()));
                assert!(to.difference(from).all(follows));
                assert!(2 * to.iter().filter(|node| follows(node)).count() > to.len(), "it can commit");
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn whatever_happens_the_declared_voters_are_reached_and_no_others_ever_vote_alone(
        first in voters(1..=5),
        events in events(),
    ) {
        let nodes = first.iter().copied().collect::<Vec<_>>();
        let mut model = Model {
            leader: nodes[0],
            membership: membership(&[&nodes], &[]),
            declared: Declared::new(),
            stood_alone: [first.clone()].into(),
            was_declared: BTreeSet::new(),
        };
        model.declare(&first);
        for event in events {
            match event {
                Event::Step { following } => drop(model.step(&following)),
                Event::Crash { next } => {
                    let voters: Vec<u64> = model.membership.voter_ids().collect();
                    model.leader = voters[next % voters.len()];
                }
                Event::Declare(voters) => model.declare(&voters),
            }
        }
        let everyone = (1..=8).collect();
        // A joint configuration to be left, a learner dropped, five added, one more joint configuration, two hand-overs.
        let mut left = 12;
        while model.step(&everyone) {
            left -= 1;
            prop_assert!(left > 0, "{} for {:?}", model.membership, model.declared);
        }
    }
}
