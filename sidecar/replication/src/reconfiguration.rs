//! What the next step is from a partition's present membership to a declared one. Pure; it remembers nothing.
//!
//! | the membership is | and | the step |
//! |---|---|---|
//! | joint | this leader is not among the voters to come | give the lead to one of those that follow |
//! | joint | else | leave it: to the declared voters if they are one side of it, else to the later side |
//! | uniform | this leader is no voter | give the lead to a voter that follows |
//! | uniform | has learners that are not declared | drop them |
//! | uniform | the declared voters vote | none: done |
//! | uniform | a declared learner does not follow yet | wait for it |
//! | uniform | a declared voter is missing | add one as a learner |
//! | uniform | less than a majority of the declared voters follows | wait for them |
//! | uniform | else | one joint configuration of the present and the declared voters |
//!
//! Since only what is committed decides, whoever leads next goes on from the step that was reached. Joint consensus is
//! that of the Raft paper, section 6; a learner before it that of Ongaro's thesis, section 4.2.1. The number of voters is
//! that of the old or of the declared set at any time outside of a joint configuration, in which a majority of *each* is
//! needed: so a lost volume is replaced by swapping identities, never by one voter more.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{Membership, Seat};

/// The declared voters.
pub(crate) type Declared = BTreeMap<u64, Seat>;

/// What the leader does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The membership is the declared one.
    Done,
    /// This membership follows on the present one.
    Append(Membership),
    /// Nothing, until these replicas have caught up with this leader's log.
    Await(BTreeSet<u64>),
    /// One of these voters leads from here on.
    HandOver(BTreeSet<u64>),
}

/// Why a declared membership cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no voters are declared; a partition has one at least")]
    NoVoters,
    #[error(
        "{member} is declared twice, as node {first} and as node {second}; a member whose volume was lost is declared \
         as its new identity only, and the old one goes in the same change"
    )]
    MemberTwice { member: String, first: u64, second: u64 },
    #[error("node {node} is declared as {declared}, and it is {known}: an identity is never that of another member")]
    OtherMember { node: u64, declared: String, known: String },
    #[error("the partition has no membership yet: it is formed first")]
    NotFormed,
}

/// The next step of leader `own`. `follows` says whether a replica holds about what is committed and was heard of lately.
pub(crate) fn next_step(
    own: u64,
    membership: &Membership,
    declared: &Declared,
    follows: impl Fn(u64) -> bool,
) -> Result<Step, Refusal> {
    check(membership, declared)?;
    let goal: BTreeSet<u64> = declared.keys().copied().collect();
    let known = |node: &u64| membership.get_node(node).is_some();
    match membership.get_joint_config().as_slice() {
        [] => Err(Refusal::NotFormed),
        [voters] if !voters.contains(&own) => Ok(hand_over(voters, follows)),
        [voters] => {
            if membership.learner_ids().any(|learner| !goal.contains(&learner)) {
                return Ok(Step::Append(uniform(membership, voters, &goal)));
            }
            if *voters == goal {
                return Ok(Step::Done);
            }
            let behind: BTreeSet<u64> = goal.iter().copied().filter(|node| *node != own && !follows(*node)).collect();
            let newcomers: BTreeSet<u64> = goal.difference(voters).copied().collect();
            // One at a time: the leader sends its state to one newcomer and its log to all.
            let late: BTreeSet<u64> = newcomers.intersection(&behind).copied().filter(known).collect();
            if !late.is_empty() {
                return Ok(Step::Await(late));
            }
            if let Some((node, seat)) = declared.iter().find(|(node, _)| !known(node)) {
                return Ok(Step::Append(with_learner(membership, *node, seat)));
            }
            // A joint configuration that cannot commit would stop the partition.
            if 2 * (goal.len() - behind.len()) <= goal.len() {
                return Ok(Step::Await(behind));
            }
            Ok(Step::Append(make(vec![voters.clone(), goal], nodes(membership))))
        }
        [sides @ .., later] => {
            let to = sides.iter().find(|side| **side == goal).unwrap_or(later);
            if !to.contains(&own) {
                return Ok(hand_over(to, follows));
            }
            Ok(Step::Append(uniform(membership, to, &goal)))
        }
    }
}

fn check(membership: &Membership, declared: &Declared) -> Result<(), Refusal> {
    if declared.is_empty() {
        return Err(Refusal::NoVoters);
    }
    let mut by_member = BTreeMap::new();
    for (node, seat) in declared {
        if let Some(first) = by_member.insert(&seat.member, *node) {
            return Err(Refusal::MemberTwice { member: seat.member.clone(), first, second: *node });
        }
        match membership.get_node(node) {
            Some(known) if known != seat => {
                let (declared, known) = (seat.member.clone(), known.member.clone());
                return Err(Refusal::OtherMember { node: *node, declared, known });
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

fn hand_over(voters: &BTreeSet<u64>, follows: impl Fn(u64) -> bool) -> Step {
    let fit: BTreeSet<u64> = voters.iter().copied().filter(|node| follows(*node)).collect();
    if fit.is_empty() { Step::Await(voters.clone()) } else { Step::HandOver(fit) }
}

fn nodes(membership: &Membership) -> BTreeMap<u64, Seat> {
    membership.nodes().map(|(node, seat)| (*node, seat.clone())).collect()
}

fn make(voters: Vec<BTreeSet<u64>>, nodes: BTreeMap<u64, Seat>) -> Membership {
    Membership::new(voters, nodes).expect("every voter is one of the nodes, and no set of voters is empty")
}

/// These voters alone; of the others only those stay, as learners, that are declared.
fn uniform(membership: &Membership, voters: &BTreeSet<u64>, goal: &BTreeSet<u64>) -> Membership {
    let mut nodes = nodes(membership);
    nodes.retain(|node, _| voters.contains(node) || goal.contains(node));
    make(vec![voters.clone()], nodes)
}

fn with_learner(membership: &Membership, node: u64, seat: &Seat) -> Membership {
    let mut nodes = nodes(membership);
    nodes.insert(node, seat.clone());
    make(membership.get_joint_config().clone(), nodes)
}

#[cfg(test)]
mod tests;
