//! Whether a member's data directory is the one that is known (D14).
//!
//! Each member keeps, durably, what it has seen of every other's directory: its identity and how often a process was
//! started on it. Two sides compare before anything else passes between them, once a second while they run, and tell
//! each other what they know of third ones. So a directory is refused
//!
//! | that was | because |
//! |---|---|
//! | emptied | it carries another identity than the one that is known |
//! | rolled back | its start counter is not above the last one seen, or its log ends before what it told a leader it holds |
//! | copied | the process on the original is alive, or started with the same counter |
//!
//! This decides only. Nothing here waits or does I/O.

use std::collections::BTreeMap;

use coterie_core::config::Timing;
use coterie_core::{ErrorCode, Rejection};
use coterie_mutants::{Mutant, is_on};
use coterie_proto::peer;
use coterie_store::directory::{Identity, KnownPeer};

/// A process that is known to run at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Its run.
    pub run: u64,
}

/// What a leader here knows of another member's log: it told so, after it had flushed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The partition's name in the store.
    pub key: String,
    /// Up to where.
    pub index: u64,
}

/// Judges what another member says of itself. `alive` is the run that is connected right now under the same name, `held`
/// what leaders here knew of its log before this process of it was met. Accepted: what to remember durably, if anything is new.
pub fn judge(
    own: &Identity,
    alive: Option<Alive>,
    held: &[Held],
    from: &peer::Identity,
) -> Result<Option<KnownPeer>, Rejection> {
    if from.cluster != own.cluster {
        return Err(Rejection::new(
            ErrorCode::Forbidden,
            format!("{} belongs to the cluster {:?}, this member to {:?}", from.member, from.cluster, own.cluster),
        ));
    }
    if let (Some(own_id), Some(their_id)) = (own.cluster_id, cluster_id(&from.cluster_id))
        && own_id != their_id
    {
        return Err(Rejection::new(
            ErrorCode::DirectoryReplaced,
            format!(
                "{}'s data directory carries the cluster id {their_id:032x}, {}'s carries {own_id:032x}: \
                     volumes of different clusters are mixed; give every member its own cluster's volume",
                from.member, own.member
            ),
        ));
    }
    if !from.voter || from.node_id == 0 {
        return Ok(None);
    }
    let presented = KnownPeer { node_id: from.node_id, start_counter: from.start_counter, run: from.run };
    let is_trusted = is_on(Mutant::FormTwice);
    if let Some(seat) = seat_of(own, &from.member).filter(|seat| *seat != from.node_id && !is_trusted) {
        return Err(replaced(&from.member, seat, from.node_id));
    }
    let Some(known) = own.peers.get(&from.member) else { return Ok(Some(presented)) };
    if known.node_id != presented.node_id {
        // Before the cluster is formed an identity holds no seat, and an emptied directory has lost nothing.
        if own.formed && !is_trusted {
            return Err(replaced(&from.member, known.node_id, presented.node_id));
        }
        return Ok(Some(presented));
    }
    compare(&from.member, known, &presented)?;
    held.iter().try_for_each(|held| reaches(from, held))?;
    if let Some(alive) = alive.filter(|alive| alive.run != presented.run) {
        return Err(Rejection::new(
            ErrorCode::DirectoryCopied,
            format!(
                "another process (run {:016x}) is running on {}'s data directory or a copy of it; this is run {:016x}",
                alive.run, from.member, presented.run
            ),
        ));
    }
    Ok(if *known == presented { None } else { Some(presented) })
}

/// Whether a member runs with the same timers as this one, which votes. If both vote they must: a leader answers `leased`
/// reads for as long as it believes that the others keep from voting.
pub fn agree(own: Timing, from: &peer::Identity) -> Result<(), Rejection> {
    // One that says nothing is of the version before, which had no other.
    let theirs = if from.timing.is_empty() { Timing::Normal.label() } else { &from.timing };
    if !from.voter || theirs == own.label() {
        return Ok(());
    }
    Err(Rejection::new(
        ErrorCode::InvalidArgument,
        format!(
            "{} runs with `timing: {theirs}`, this member with `timing: {}`: give all members the same `timing`, and stop \
             all of them before changing it",
            from.member,
            own.label()
        ),
    ))
}

/// Judges this member by what another one knows of it.
pub fn judge_self(own: &Identity, run: u64, known: &[peer::Known]) -> Result<(), Rejection> {
    let presented = KnownPeer { node_id: own.node_id, start_counter: own.start_counter, run };
    for known in known.iter().filter(|known| known.member == own.member) {
        let known = KnownPeer { node_id: known.node_id, start_counter: known.start_counter, run: known.run };
        if known.node_id == own.node_id {
            compare(&own.member, &known, &presented)?;
        }
    }
    Ok(())
}

/// What another member knows of third ones that this one did not know: to be remembered durably.
pub fn learn(own: &Identity, known: &[peer::Known]) -> BTreeMap<String, KnownPeer> {
    let mut news = BTreeMap::new();
    for known in known.iter().filter(|known| known.member != own.member && known.node_id != 0) {
        let told = KnownPeer { node_id: known.node_id, start_counter: known.start_counter, run: known.run };
        let newer = match own.peers.get(&known.member) {
            None => true,
            Some(present) => present.node_id == told.node_id && told.start_counter > present.start_counter,
        };
        if newer {
            news.insert(known.member.clone(), told);
        }
    }
    news
}

/// Whether a directory still holds what it said it holds.
fn reaches(from: &peer::Identity, held: &Held) -> Result<(), Rejection> {
    let index = from.marks.iter().find(|mark| mark.key == held.key).map_or(0, |mark| mark.index);
    if index >= held.index {
        return Ok(());
    }
    Err(Rejection::new(
        ErrorCode::DirectoryRolledBack,
        format!(
            "{}'s data directory was rolled back: its log of {} ends at {index}, but it has said that it holds {}; \
             it must be emptied and replaced as a new member",
            from.member, held.key, held.index
        ),
    ))
}

fn compare(member: &str, known: &KnownPeer, presented: &KnownPeer) -> Result<(), Rejection> {
    if presented.start_counter < known.start_counter {
        return Err(Rejection::new(
            ErrorCode::DirectoryRolledBack,
            format!(
                "{member}'s data directory was rolled back or is a copy: it says start {}, the cluster has seen start {}; \
                 it must be emptied and replaced as a new member",
                presented.start_counter, known.start_counter
            ),
        ));
    }
    if presented.start_counter == known.start_counter && presented.run != known.run {
        return Err(Rejection::new(
            ErrorCode::DirectoryCopied,
            format!(
                "{member}'s data directory was rolled back or copied: start {} was already made by another process \
                 (run {:016x}, this is run {:016x}); it must be emptied and replaced as a new member",
                presented.start_counter, known.run, presented.run
            ),
        ));
    }
    Ok(())
}

fn replaced(member: &str, known: u64, presented: u64) -> Rejection {
    Rejection::new(
        ErrorCode::DirectoryReplaced,
        format!(
            "{member}'s data directory was emptied or replaced: it carries the identity {presented:016x}, the cluster knows \
             {known:016x}; it never votes under the old identity and waits to be replaced as a new member"
        ),
    )
}

/// The identity that holds this member's seat in the management group, as far as this directory knows.
fn seat_of(own: &Identity, member: &str) -> Option<u64> {
    if !own.formed {
        return None;
    }
    let formation = own.formation.as_ref()?;
    formation.seats.iter().find(|seat| seat.member == member).map(|seat| seat.node_id)
}

/// A cluster id from the wire; `None` before formation.
pub fn cluster_id(bytes: &[u8]) -> Option<u128> {
    <[u8; 16]>::try_from(bytes).ok().map(u128::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Identity {
        Identity {
            version: 1,
            cluster: "default".into(),
            cluster_id: Some(7),
            member: "member-1".into(),
            node_id: 1,
            start_counter: 3,
            formation: None,
            formed: true,
            peers: BTreeMap::from([("member-2".into(), KnownPeer { node_id: 2, start_counter: 5, run: 50 })]),
        }
    }

    fn from(node_id: u64, start_counter: u64, run: u64) -> peer::Identity {
        peer::Identity {
            cluster: "default".into(),
            cluster_id: 7_u128.to_be_bytes().to_vec().into(),
            member: "member-2".into(),
            node_id,
            start_counter,
            run,
            voter: true,
            ..Default::default()
        }
    }

    fn code(result: Result<Option<KnownPeer>, Rejection>) -> ErrorCode {
        result.expect_err("refused").code
    }

    #[test]
    fn d14_a_later_start_of_the_same_directory_is_remembered() {
        let seen = judge(&own(), None, &[], &from(2, 6, 60)).expect("accepted").expect("new");
        assert_eq!(seen, KnownPeer { node_id: 2, start_counter: 6, run: 60 });
        assert_eq!(judge(&own(), Some(Alive { run: 50 }), &[], &from(2, 5, 50)), Ok(None));
    }

    #[test]
    fn d14_an_emptied_directory_is_refused() {
        assert_eq!(code(judge(&own(), None, &[], &from(9, 1, 60))), ErrorCode::DirectoryReplaced);
    }

    #[test]
    fn d14_an_emptied_directory_is_taken_before_the_cluster_is_formed() {
        let own = Identity { formed: false, cluster_id: None, ..own() };
        assert!(judge(&own, None, &[], &from(9, 1, 60)).is_ok());
    }

    #[test]
    fn d14_a_rolled_back_directory_is_refused() {
        assert_eq!(code(judge(&own(), None, &[], &from(2, 4, 60))), ErrorCode::DirectoryRolledBack);
        assert_eq!(code(judge(&own(), None, &[], &from(2, 5, 60))), ErrorCode::DirectoryCopied);
    }

    #[test]
    fn d14_a_directory_whose_log_ends_before_what_it_said_it_holds_is_refused() {
        let held = |index| [Held { key: "system-1-0".into(), index }];
        let mark = peer::Mark { key: "system-1-0".into(), index: 20 };
        let restarted = peer::Identity { marks: vec![mark], ..from(2, 6, 60) };
        assert!(judge(&own(), None, &held(20), &restarted).is_ok());
        assert_eq!(code(judge(&own(), None, &held(21), &restarted)), ErrorCode::DirectoryRolledBack);
        assert_eq!(code(judge(&own(), None, &held(1), &from(2, 6, 60))), ErrorCode::DirectoryRolledBack);
    }

    #[test]
    fn d14_a_copy_is_refused_while_the_original_runs() {
        assert_eq!(code(judge(&own(), Some(Alive { run: 50 }), &[], &from(2, 6, 60))), ErrorCode::DirectoryCopied);
    }

    #[test]
    fn d14_a_mixture_of_clusters_is_refused_and_named() {
        let mut mixed = from(2, 6, 60);
        mixed.cluster_id = 8_u128.to_be_bytes().to_vec().into();
        let rejection = judge(&own(), None, &[], &mixed).expect_err("refused");
        assert_eq!(rejection.code, ErrorCode::DirectoryReplaced);
        assert!(rejection.message.contains("volumes of different clusters are mixed"), "{}", rejection.message);
    }

    #[test]
    fn a_voter_of_other_timers_is_refused_with_both_values_and_the_fix() {
        let timed = |timing: &str| peer::Identity { timing: timing.into(), ..from(2, 6, 60) };
        let rejection = agree(Timing::Normal, &timed("fast")).expect_err("refused");
        assert_eq!(rejection.code, ErrorCode::InvalidArgument);
        assert_eq!(
            rejection.message,
            "member-2 runs with `timing: fast`, this member with `timing: normal`: give all members the same `timing`, and \
             stop all of them before changing it"
        );
        assert!(agree(Timing::Fast, &timed("fast")).is_ok());
        assert!(agree(Timing::Normal, &timed("of a later version")).is_err());
        // A version that did not say it had only one.
        assert!(agree(Timing::Normal, &timed("")).is_ok());
        assert!(agree(Timing::Slow, &timed("")).is_err());
        let client = peer::Identity { voter: false, ..timed("fast") };
        assert!(agree(Timing::Normal, &client).is_ok(), "who has no vote grants no lease");
    }

    #[test]
    fn d14_a_member_learns_from_others_that_it_is_the_old_one() {
        let known = [peer::Known { member: "member-1".into(), node_id: 1, start_counter: 4, run: 9 }];
        assert_eq!(judge_self(&own(), 30, &known).expect_err("refused").code, ErrorCode::DirectoryRolledBack);
        let known = [peer::Known { member: "member-1".into(), node_id: 1, start_counter: 3, run: 9 }];
        assert_eq!(judge_self(&own(), 30, &known).expect_err("refused").code, ErrorCode::DirectoryCopied);
        assert_eq!(judge_self(&own(), 9, &known), Ok(()));
    }

    #[test]
    fn d14_news_of_third_members_only_raise_counters() {
        let told = |start_counter| [peer::Known { member: "member-2".into(), node_id: 2, start_counter, run: 70 }];
        assert!(learn(&own(), &told(5)).is_empty());
        assert_eq!(learn(&own(), &told(6))["member-2"].start_counter, 6);
    }
}
