//! How the management group comes to be, once in a cluster's life.
//!
//! It is the only partition that is formed from a list; every other one is formed by a record in it (S106). The first
//! listed member forms it after every listed member has answered with its identity and "no log, no vote" and has recorded
//! the proposed list durably. From then on members come back by what they recorded, never by the list.
//!
//! | this directory | the others | so |
//! |---|---|---|
//! | recorded a formation and has a log | a majority (with itself) is accepted | opens its replica |
//! | recorded a formation, no log | | opens an empty replica, and the first listed proposes the formation again |
//! | no formation, first listed | all answered, none has a log | mints the cluster's id and proposes |
//! | no formation, not first | | waits for the proposal |
//! | no formation | one says that it is formed | is refused: its directory was emptied |
//!
//! [`decide`] is this table; it does no I/O.

use std::collections::BTreeMap;

use coterie_core::{ErrorCode, MemberName, Rejection};
use coterie_mutants::{Mutant, is_on};
use coterie_proto::peer;
use coterie_store::directory::{Formation, Identity, Seat};

use crate::greetings::Met;

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Wait for these members.
    Wait(Vec<String>),
    /// Propose this list to all others, and form the group when all have recorded it.
    Propose(Vec<Seat>),
    /// Open the replica; others form it, or it is formed.
    Open,
    /// This directory must not take part.
    Refuse(Rejection),
}

/// What is decided on.
pub struct Situation<'a> {
    /// This directory.
    pub own: &'a Identity,
    /// Whether it has a log or vote of the management group.
    pub has_log: bool,
    /// Whether everyone that can be called was asked since this process started.
    pub greeted: bool,
    /// The listed members, in order.
    pub listed: &'a [MemberName],
    /// Everyone met.
    pub met: &'a BTreeMap<MemberName, Met>,
    /// Where this member can be dialled.
    pub address: &'a str,
}

/// The table above.
pub fn decide(situation: &Situation<'_>) -> Step {
    let Situation { own, has_log, greeted, listed, met, address } = situation;
    let others = || listed.iter().filter(|member| member.0 != own.member);
    let accepted = |member: &&MemberName| met.get(*member).is_some_and(|met| met.refused.is_none() && met.accepts);
    let missing =
        || -> Vec<String> { others().filter(|member| !accepted(member)).map(|member| member.0.clone()).collect() };
    if own.formation.is_some() && (own.formed || *has_log) {
        let present = 1 + others().filter(accepted).count();
        // A leader that knows more of this log than there is must have had the chance to say so.
        return if *greeted && present * 2 > listed.len() { Step::Open } else { Step::Wait(missing()) };
    }
    let formed = met.iter().find(|(_, met)| met.refused.is_none() && met.identity.formed);
    if let Some((member, _)) = formed.filter(|_| !is_on(Mutant::FormTwice)) {
        if own.formation.is_none() {
            return Step::Refuse(Rejection::new(
                ErrorCode::DirectoryReplaced,
                format!(
                    "{}'s data directory is empty, but {member} has seen the cluster formed with another one: it was emptied \
                     or replaced, and waits to be replaced as a new member",
                    own.member
                ),
            ));
        }
        return Step::Open;
    }
    if listed.first().is_none_or(|first| first.0 != own.member) {
        return match own.formation {
            Some(_) => Step::Open,
            None => {
                Step::Wait(vec![format!("the proposal of {}", listed.first().map_or("nobody", MemberName::as_str))])
            }
        };
    }
    let missing = missing();
    if !missing.is_empty() {
        return Step::Wait(missing);
    }
    let has_log = met.iter().find(|(member, met)| listed.contains(member) && met.identity.has_log);
    if let Some((member, _)) = has_log.filter(|_| !is_on(Mutant::FormTwice)) {
        return Step::Refuse(Rejection::new(
            ErrorCode::DirectoryReplaced,
            format!(
                "{member} already has a log of the management group, {}'s data directory has none: it was emptied or replaced",
                own.member
            ),
        ));
    }
    let seat = |member: &MemberName| match met.get(member) {
        Some(met) => {
            Seat { member: member.0.clone(), node_id: met.identity.node_id, address: met.identity.address.clone() }
        }
        None => Seat { member: own.member.clone(), node_id: own.node_id, address: (*address).to_owned() },
    };
    Step::Propose(listed.iter().map(seat).collect())
}

/// Whether a proposed formation may be recorded by this member.
pub fn acceptable(
    own: &Identity,
    has_log: bool,
    listed: &[MemberName],
    proposal: &peer::Formation,
) -> Result<Formation, Rejection> {
    let refuse = |message: String| Err(Rejection::new(ErrorCode::ExistsDifferently, message));
    let Some(cluster_id) = crate::peers::admission::cluster_id(&proposal.cluster_id) else {
        return refuse("the proposal carries no cluster id".to_owned());
    };
    let seats = proposal.seats.iter().map(|seat| Seat {
        member: seat.member.clone(),
        node_id: seat.node_id,
        address: seat.address.clone(),
    });
    let formation = Formation { cluster_id, seats: seats.collect() };
    if own.formation.as_ref() == Some(&formation) {
        return Ok(formation);
    }
    if (own.formed || has_log) && !is_on(Mutant::FormTwice) {
        return refuse(format!("{} has a log of the management group already; it is not formed twice", own.member));
    }
    let proposed: Vec<&str> = formation.seats.iter().map(|seat| seat.member.as_str()).collect();
    let own_list: Vec<&str> = listed.iter().map(MemberName::as_str).collect();
    if proposed != own_list || own_list.first() != Some(&proposal.proposer.as_str()) {
        return refuse(format!(
            "{} proposes the members {}, but {} lists {}: give all members the same list",
            proposal.proposer,
            proposed.join(", "),
            own.member,
            own_list.join(", ")
        ));
    }
    if !formation.seats.iter().any(|seat| seat.member == own.member && seat.node_id == own.node_id) {
        return refuse(format!("the proposal has another identity for {} than {:016x}", own.member, own.node_id));
    }
    Ok(formation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: [&str; 3] = ["member-1", "member-2", "member-3"];

    fn listed() -> Vec<MemberName> {
        LISTED.iter().map(|name| MemberName::from(*name)).collect()
    }

    fn own(member: &str) -> Identity {
        Identity {
            version: 1,
            cluster: "default".into(),
            cluster_id: None,
            member: member.into(),
            node_id: 1,
            start_counter: 1,
            formation: None,
            formed: false,
            peers: BTreeMap::new(),
        }
    }

    fn formation() -> Formation {
        let seat = |(index, member): (usize, &&str)| Seat {
            member: (*member).into(),
            node_id: index as u64 + 1,
            address: String::new(),
        };
        Formation { cluster_id: 9, seats: LISTED.iter().enumerate().map(seat).collect() }
    }

    fn met(change: impl Fn(&mut peer::Identity)) -> BTreeMap<MemberName, Met> {
        let met = |(index, name): (usize, &&str)| {
            let mut identity =
                peer::Identity { member: (*name).into(), node_id: index as u64 + 1, ..Default::default() };
            change(&mut identity);
            (MemberName::from(*name), Met::accepted(identity))
        };
        LISTED.iter().enumerate().skip(1).map(met).collect()
    }

    fn decided(own: &Identity, has_log: bool, met: &BTreeMap<MemberName, Met>) -> Step {
        decide(&Situation { own, has_log, greeted: true, listed: &listed(), met, address: "" })
    }

    #[test]
    fn s106_the_first_member_waits_for_every_listed_one() {
        let mut some = met(|_| {});
        some.remove(&MemberName::from("member-3"));
        assert_eq!(decided(&own("member-1"), false, &some), Step::Wait(vec!["member-3".into()]));
    }

    #[test]
    fn s106_only_the_first_listed_member_proposes() {
        assert_eq!(decided(&own("member-1"), false, &met(|_| {})), Step::Propose(formation().seats));
        assert!(matches!(decided(&own("member-2"), false, &met(|_| {})), Step::Wait(_)));
    }

    #[test]
    fn d14_an_emptied_directory_never_forms_a_second_cluster() {
        let formed = met(|identity| identity.formed = true);
        assert!(matches!(decided(&own("member-1"), false, &formed), Step::Refuse(_)));
        assert!(matches!(decided(&own("member-2"), false, &formed), Step::Refuse(_)));
        let with_log = met(|identity| identity.has_log = identity.member == "member-3");
        assert!(matches!(decided(&own("member-1"), false, &with_log), Step::Refuse(_)));
    }

    #[test]
    fn a_restarted_member_waits_for_a_majority_to_accept_it() {
        let own = Identity { formation: Some(formation()), formed: true, ..own("member-1") };
        assert!(matches!(decided(&own, true, &BTreeMap::new()), Step::Wait(_)));
        let mut one = met(|_| {});
        one.remove(&MemberName::from("member-3"));
        assert_eq!(decided(&own, true, &one), Step::Open);
    }

    #[test]
    fn a_proposal_is_recorded_only_by_those_that_have_nothing_to_lose() {
        let proposal = peer::Formation {
            cluster_id: 9_u128.to_be_bytes().to_vec().into(),
            proposer: "member-1".into(),
            seats: formation()
                .seats
                .into_iter()
                .map(|seat| peer::Seat { member: seat.member, node_id: seat.node_id, address: seat.address })
                .collect(),
            cluster: "default".into(),
        };
        let own = Identity { node_id: 2, ..own("member-2") };
        assert_eq!(acceptable(&own, false, &listed(), &proposal), Ok(formation()));
        assert!(acceptable(&own, true, &listed(), &proposal).is_err());
        let recorded = Identity { formation: Some(formation()), formed: true, ..own.clone() };
        assert_eq!(acceptable(&recorded, true, &listed(), &proposal), Ok(formation()), "asked again, same answer");
        assert!(acceptable(&Identity { node_id: 7, ..own }, false, &listed(), &proposal).is_err());
        assert!(acceptable(&recorded, false, &listed()[..2], &peer::Formation { seats: vec![], ..proposal }).is_err());
    }
}
