//! Sessions and what hangs on them.

use super::*;
use crate::limits::SESSIONS_PER_MEMBER_MAX;

fn expire(sessions: &[SessionId]) -> Command {
    Command::ExpireSessions(sessions.to_vec())
}

#[test]
fn a_session_is_the_revision_that_opened_it() {
    let mut partition = Partition::new();
    partition.ok(create("g"));
    let id = partition.session("pod-1");
    assert_eq!(id, SessionId(2));
    let view = SessionView { id, member: "pod-1".into(), incarnation: 1, ttl_ms: 5_000 };
    assert_eq!(partition.machine.session_timeouts(SessionId(0)).collect::<Vec<_>>(), [(id, 5_000)]);
    assert_eq!(partition.machine.session_timeouts(id).count(), 0, "none was opened after it");
    assert!(partition.machine.has_session(id) && !partition.machine.has_session(SessionId(1)));
    assert_eq!(partition.machine.session(id), Some(view.clone()));
    assert_eq!(partition.machine.session(SessionId(1)), None);
    let held_by = |member: &str, run| partition.machine.session_held_by(id, &member.into(), run);
    assert_eq!((held_by("pod-1", 1), held_by("pod-1", 2), held_by("pod-2", 1)), (Some(5_000), None, None));
    assert_eq!(partition.machine.sessions(), [view]);
}

#[test]
fn opening_again_in_the_same_run_gives_the_same_session() {
    let mut partition = Partition::new();
    let id = partition.session("pod-1");
    let member = partition.join("g", id);
    let longer = Command::OpenSession { member: "pod-1".into(), incarnation: 1, ttl_ms: 60_000 };
    assert_eq!(session_of(&partition.ok(longer)), id);
    assert_eq!(partition.machine.sessions()[0].ttl_ms, 60_000);
    assert_eq!(partition.leader("g").1, Some(member), "nothing that it held is released");
}

#[test]
fn s22_what_an_earlier_run_of_a_sidecar_held_stays_until_its_session_expires() {
    let mut partition = Partition::new();
    let before = partition.session("pod-1");
    let (first, token) = (partition.join("g", before), partition.ok(acquire("l", before)));
    let Reply::Placed(Placed { token, .. }) = token else { panic!("{token:?}") };
    let after = session_of(&partition.ok(open("pod-1", 2)));
    assert_ne!(after, before);
    let (second, lock) = (partition.join("g", after), LockName::from("l"));
    assert_eq!(partition.leader("g"), (Term(1), Some(first)), "its application may act on what it was told");
    assert_eq!(partition.machine.standing(&lock, token), Standing::Holds);
    assert_eq!(session_of(&partition.ok(open("pod-1", 2))), after, "of the newest run");

    partition.ok(expire(&[before]));
    assert_eq!(partition.leader("g"), (Term(2), Some(second)));
    assert_eq!(partition.machine.standing(&lock, token), Standing::Gone);
    assert_eq!(session_of(&partition.ok(open("pod-1", 2))), after, "the member's session is the one of its newest run");
}

#[test]
fn sessions_of_earlier_runs_of_a_sidecar_are_bounded() {
    let mut partition = Partition::new();
    let runs: Vec<_> = (0..SESSIONS_PER_MEMBER_MAX as u64).map(|run| partition.ok(open("pod-1", run))).collect();
    let next = open("pod-1", runs.len() as u64);
    assert_eq!(partition.refused(next.clone()).code, ErrorCode::LimitReached);
    partition.session("pod-2");
    partition.ok(expire(&[session_of(&runs[3])]));
    partition.ok(next);
}

#[test]
fn s8_s11_s12_members_of_an_expired_session_are_removed_and_announced() {
    let mut partition = Partition::new();
    let (lost, kept) = (partition.session("pod-1"), partition.session("pod-2"));
    let (a, b) = (partition.join("g", lost), partition.join("g", kept));
    let events = partition.events(expire(&[lost]));
    assert_eq!(
        events,
        [
            GroupEvent::Left { member: a, reason: LeaveReason::SessionExpired },
            GroupEvent::Vacated { term: Term(1), leader: a },
            GroupEvent::Term(Term(2)),
            GroupEvent::Elected { term: Term(2), leader: b },
        ]
    );
}

#[test]
fn s22_nobody_whose_session_expires_in_the_same_entry_is_elected() {
    let mut partition = Partition::new();
    let sessions = ["pod-1", "pod-2", "pod-3"].map(|pod| partition.session(pod));
    let [a, b, c] = sessions.map(|session| partition.join("g", session));
    let events = partition.events(expire(&sessions[..2]));
    let left = |member| GroupEvent::Left { member, reason: LeaveReason::SessionExpired };
    assert_eq!(events[..2], [left(a), left(b)]);
    assert_eq!(partition.leader("g"), (Term(2), Some(c)), "one election for both");
}

#[test]
fn a_session_that_ends_releases_its_members_in_every_group() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    for group in ["a", "b", "c"] {
        partition.join(group, session);
    }
    let applied = partition.send(Command::CloseSession(session));
    let groups: Vec<_> = applied.events.iter().map(|event| &*event.of.name).collect();
    assert_eq!(groups, ["a", "a", "b", "b", "c", "c"]);
    assert_eq!(partition.machine.sessions(), []);
}

#[test]
fn s38_ending_a_session_that_ended_already_does_nothing() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    for end in [Command::CloseSession(session), Command::CloseSession(session), expire(&[session, SessionId(99)])] {
        assert_eq!(partition.events(end), []);
    }
    let next = partition.session("pod-1");
    assert_ne!(next, session, "ids are never used again");
}

#[test]
fn s7_a_member_that_left_does_not_leave_again_with_its_session() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let id = partition.join("g", session);
    partition.ok(leave("g", id));
    assert_eq!(partition.events(Command::CloseSession(session)), []);
}

#[test]
fn the_management_group_takes_sessions() {
    let mut partition = Partition::management();
    partition.session("pod-1");
    assert_eq!(partition.machine.sessions().len(), 1);
}

#[test]
fn sessions_out_of_bounds_are_refused_with_the_field() {
    let mut partition = Partition::new();
    let with = |member: &str, ttl_ms| Command::OpenSession { member: member.into(), incarnation: 1, ttl_ms };
    for (command, expected) in [
        (with("", 5_000), "member: is empty"),
        (with("a/b", 5_000), "member: contains `/`"),
        (with("a", 999), "ttl_ms: is 999; choose 1000 to 3600000"),
        (with("a", 3_600_001), "ttl_ms: is 3600001"),
    ] {
        let rejection = partition.refused(command);
        assert_eq!(rejection.code, ErrorCode::InvalidArgument);
        assert!(rejection.message.starts_with(expected), "{rejection}");
    }
}
