//! A retry is applied once, or not at all (D11).

use super::*;
use crate::limits::{CLIENT_CLOCK_AHEAD_MS_MAX, CLIENTS_MAX, RESULT_AGE_MS_MAX, RESULTS_PER_CLIENT_MAX};

/// Logical time at the start of these tests.
const NOW_MS: u64 = 10_000_000;

fn partition() -> Partition {
    Partition { now_ms: NOW_MS, ..Partition::new() }
}

fn with(request: RequestId, command: Command) -> Envelope {
    Envelope { request: Some(request), command }
}

impl Partition {
    /// Sends a request that changes nothing when it is applied.
    fn probe(&mut self, request: RequestId) -> Outcome {
        self.apply(&with(request, Command::CloseSession(SessionId(0)))).outcome
    }

    /// Joins; tells whether it was applied.
    fn joins(&mut self, request: RequestId, session: SessionId) -> Result<bool, ErrorCode> {
        let applied = self.apply(&with(request, join("g", session)));
        applied.outcome.map(|_| !applied.events.is_empty()).map_err(|rejection| rejection.code)
    }
}

#[test]
fn d11_a_retry_is_applied_once_and_answers_the_same_member() {
    let mut partition = partition();
    let session = partition.session("pod-1");
    let envelope = with(request(1, NOW_MS, 1), join("g", session));
    let first = partition.apply(&envelope);
    let again = partition.apply(&envelope);
    assert_eq!(again.events, []);
    assert_eq!(joined(&first.outcome.unwrap()).0, joined(&again.outcome.unwrap()).0);
    assert_eq!(partition.view("g").members.len(), 1);
}

#[test]
fn d11_a_request_id_that_is_used_for_another_request_is_refused_and_nothing_is_done() {
    let mut partition = partition();
    let session = partition.session("pod-1");
    partition.ok(put("m", "k", "v"));
    let done = [
        join("g", session),
        join("other", session),
        join_with("g", session, metadata(&[("a", "b")]), ""),
        create("g"),
        step_down("g"),
        leave("g", MemberId(1)),
        leave("g", MemberId(2)),
        op("g", GroupOp::Delete),
        put("m", "k", "v"),
        put("m", "k", "w"),
        put("m", "l", "v"),
        put_if("m", "k", "v", Condition::Absent),
        delete("m", "k", Condition::Always),
        map("m", MapOp::Drop),
        acquire("l", session),
        lock("l", LockOp::Release(Token(1))),
        lock("l", LockOp::Release(Token(2))),
    ];
    for (number, first) in (1..).zip(&done) {
        let first = with(request(1, NOW_MS, number), first.clone());
        let outcome = partition.apply(&first).outcome;
        let before = partition.machine.view(&Primitive { kind: PrimitiveKind::Group, name: "g".into() });
        for other in done.iter().filter(|other| **other != first.command) {
            let applied = partition.apply(&with(request(1, NOW_MS, number), other.clone()));
            let rejection = applied.outcome.expect_err("it asks for something else");
            assert_eq!(rejection.code, ErrorCode::InvalidArgument, "{:?}, then {other:?}", first.command);
            assert_eq!(rejection.message, "request_id: belongs to another request; mint one for each request");
            assert_eq!(applied.events, []);
        }
        let after = partition.machine.view(&Primitive { kind: PrimitiveKind::Group, name: "g".into() });
        let members = |view: Option<View>| match view {
            Some(View::Group(view)) => Some((view.term, view.members)),
            _ => None,
        };
        assert_eq!(members(after), members(before));
        // What was asked first is still answered.
        assert_eq!(partition.apply(&first).outcome.map_err(|it| it.code).is_ok(), outcome.is_ok());
    }
}

#[test]
fn d11_a_retry_by_another_sidecar_and_at_another_time_is_the_same_request() {
    let mut partition = partition();
    let (here, there) = (partition.session("pod-1"), partition.session("pod-2"));
    let configure = |limit, revision| {
        let config = GroupConfig { max_members: limit, ..GroupConfig::default() };
        op("g", GroupOp::Configure { config, if_config_revision: Some(Revision(revision)), if_term: None })
    };
    partition.ok(create("g"));
    let revision = partition.view("g").config_revision.0;
    let ask = |session, wait| lock("l", LockOp::Acquire { session, wait });
    let pairs = [
        (join_with("g", here, metadata(&[]), "a"), join_with("g", there, metadata(&[]), "b")),
        (configure(7, revision), configure(9, revision + 100)),
        (ask(here, true), ask(there, false)),
        (open("pod-3", 5), open("pod-3", 5)),
    ];
    for (number, (first, retry)) in (1..).zip(pairs) {
        let applied = partition.apply(&with(request(1, NOW_MS, number), first));
        assert!(applied.outcome.is_ok(), "{applied:?}");
        let again = partition.apply(&with(request(1, NOW_MS, number), retry));
        assert!(again.outcome.is_ok() && again.events.is_empty(), "{again:?}");
    }
}

#[test]
fn d11_the_answer_of_a_retry_shows_the_group_as_it_is_now() {
    let mut partition = partition();
    let session = partition.session("pod-1");
    let envelope = with(request(1, NOW_MS, 1), join("g", session));
    partition.apply(&envelope);
    partition.join("g", session);
    let reply = partition.apply(&envelope).outcome.unwrap();
    assert_eq!(joined(&reply).1, &partition.view("g"));
}

#[test]
fn d11_a_member_that_left_since_still_finds_itself_in_the_answer_of_its_join() {
    for delete in [false, true] {
        let mut partition = partition();
        let session = partition.session("pod-1");
        let envelope = with(request(1, NOW_MS, 1), join("g", session));
        let (id, then) = match partition.apply(&envelope).outcome.unwrap() {
            Reply::Joined(joined) => *joined,
            other => panic!("{other:?}"),
        };
        partition.ok(if delete { op("g", GroupOp::Delete) } else { leave("g", id) });
        let reply = partition.apply(&envelope).outcome.unwrap();
        let (again, view) = joined(&reply);
        assert_eq!((again, view), (id, &then), "as of the join");
    }
}

#[test]
fn d11_a_refusal_is_repeated_even_if_the_request_would_succeed_now() {
    let mut partition = partition();
    let envelope = with(request(1, NOW_MS, 1), op("g", GroupOp::Delete));
    let first = partition.apply(&envelope).outcome;
    assert_eq!(first.as_ref().unwrap_err().code, ErrorCode::GroupUnknown);
    partition.ok(create("g"));
    assert_eq!(partition.apply(&envelope).outcome, first);
}

#[test]
fn d11_a_refusal_that_says_later_is_tried_again() {
    let mut partition = partition();
    let session = partition.session("pod-1");
    let id = partition.join("g", session);
    partition.ok(configure("g", GroupConfig { max_members: 1, ..GroupConfig::default() }));
    let join = request(1, NOW_MS, 1);
    assert_eq!(partition.joins(join, session), Err(ErrorCode::LimitReached));
    partition.ok(leave("g", id));
    assert_eq!(partition.joins(join, session), Ok(true));
    assert_eq!(partition.joins(join, session), Ok(false));
}

#[test]
fn d11_the_same_request_id_of_another_client_is_another_request() {
    let mut partition = partition();
    let session = partition.session("pod-1");
    assert_eq!(partition.joins(request(1, NOW_MS, 1), session), Ok(true));
    assert_eq!(partition.joins(request(2, NOW_MS, 1), session), Ok(true));
}

#[test]
fn d11_results_are_kept_across_the_end_of_the_session() {
    let mut partition = partition();
    let session = partition.session("pod-1");
    let join = request(1, NOW_MS, 1);
    assert_eq!(partition.joins(join, session), Ok(true));
    partition.ok(Command::CloseSession(session));
    assert_eq!(partition.joins(join, session), Ok(false));
}

#[test]
fn d11_results_beyond_the_count_are_expired_and_never_applied() {
    let mut partition = partition();
    let session = partition.session("pod-1");
    let count = RESULTS_PER_CLIENT_MAX as u64;
    for number in 0..=count {
        assert_eq!(partition.joins(request(1, NOW_MS, number), session), Ok(true));
    }
    assert_eq!(partition.joins(request(1, NOW_MS, 0), session), Err(ErrorCode::Expired));
    assert_eq!(partition.joins(request(1, NOW_MS, 1), session), Ok(false), "the oldest that is kept");
    assert_eq!(partition.view("g").members.len(), RESULTS_PER_CLIENT_MAX + 1);
}

#[test]
fn d11_a_request_below_those_that_were_dropped_is_expired_even_if_it_was_never_seen() {
    let mut partition = partition();
    for number in 1..=RESULTS_PER_CLIENT_MAX as u64 + 1 {
        partition.probe(request(1, NOW_MS, number * 10)).unwrap();
    }
    assert_eq!(partition.probe(request(1, NOW_MS, 9)).unwrap_err().code, ErrorCode::Expired);
    partition.probe(request(1, NOW_MS, 11)).expect("above the floor: it was never applied");
}

#[test]
fn d11_results_beyond_the_age_are_expired_and_never_applied() {
    let mut partition = partition();
    let session = partition.session("pod-1");
    let old = request(1, NOW_MS, 1);
    assert_eq!(partition.joins(old, session), Ok(true));
    partition.now_ms += RESULT_AGE_MS_MAX - 1;
    partition.probe(request(2, partition.now_ms, 2)).unwrap();
    assert_eq!(partition.joins(old, session), Ok(false), "kept");
    partition.now_ms += 1;
    // The next client has the old results forgotten.
    partition.probe(request(3, partition.now_ms, 2)).unwrap();
    assert_eq!(partition.joins(old, session), Err(ErrorCode::Expired));
    let unknown_client = partition.probe(request(4, NOW_MS, 1)).unwrap_err();
    assert_eq!(unknown_client.code, ErrorCode::Expired, "old, and nothing known of it");
    assert!(unknown_client.message.contains("600000 ms ago"), "{unknown_client}");
    partition.probe(request(4, NOW_MS + 1, 1)).expect("nobody else forgot anything of it");
    partition.probe(request(1, NOW_MS + 1, 1)).expect("above the floor");
}

#[test]
fn d11_of_clients_that_are_not_heard_of_for_long_the_floor_is_left() {
    let mut partition = partition();
    for client in 0..10 {
        partition.probe(request(client, NOW_MS, 1)).unwrap();
    }
    partition.now_ms += RESULT_AGE_MS_MAX + 1;
    for number in 0..100 {
        partition.probe(request(100, partition.now_ms, number)).unwrap();
    }
    let clients = partition.machine.dedup.clients();
    assert_eq!(clients.len(), 11);
    assert_eq!(clients.values().filter(|client| client.results().next().is_some()).count(), 1);
    // By a leader whose clock is right, where that one's was ahead.
    partition.now_ms = NOW_MS + 1;
    for client in 0..10 {
        assert_eq!(partition.probe(request(client, NOW_MS, 1)).unwrap_err().code, ErrorCode::Expired);
        partition.probe(request(client, NOW_MS, 2)).expect("above the floor");
    }
}

#[test]
fn d11_the_client_whose_newest_request_is_the_oldest_makes_room_and_is_expired() {
    let mut partition = partition();
    let session = partition.session("pod-1");
    let first = request(0, NOW_MS, 1);
    assert_eq!(partition.joins(first, session), Ok(true));
    partition.probe(request(0, NOW_MS + 2, 1)).unwrap();
    for client in 1..CLIENTS_MAX as u128 {
        partition.probe(request(client, NOW_MS + 1, 1)).unwrap();
    }
    partition.probe(request(u128::MAX, NOW_MS + 2, 1)).unwrap();
    assert_eq!(partition.machine.dedup.clients().len(), CLIENTS_MAX);
    assert_eq!(partition.joins(first, session), Ok(false), "client 1 went, it has asked nothing for longer");
    assert_eq!(partition.probe(request(1, NOW_MS + 1, 1)).unwrap_err().code, ErrorCode::Expired);
    let unseen = partition.probe(request(5, NOW_MS + 1, 0)).unwrap_err();
    assert_eq!(unseen.code, ErrorCode::Expired, "the horizon is the partition's");
    partition.probe(request(1, NOW_MS + 2, 2)).expect("issued after all that was dropped");
}

#[test]
fn d11_a_client_whose_clock_is_ahead_expires_nothing_of_others_when_room_is_made() {
    let mut partition = partition();
    let ahead = request(0, NOW_MS + CLIENT_CLOCK_AHEAD_MS_MAX, 1);
    partition.probe(ahead).unwrap();
    for client in 1..=2 * CLIENTS_MAX as u128 {
        partition.now_ms += 1;
        partition.probe(request(client, partition.now_ms, 1)).expect("issued now");
        assert_eq!(partition.machine.dedup.clients().len(), (client as usize + 1).min(CLIENTS_MAX));
    }
    let newest = partition.apply(&with(ahead, create("g"))).outcome.unwrap_err();
    assert_eq!(newest.code, ErrorCode::InvalidArgument, "it is remembered: {newest}");
}

#[test]
fn d11_a_client_whose_clock_is_far_ahead_is_told_so() {
    let mut partition = partition();
    partition.probe(request(1, NOW_MS + CLIENT_CLOCK_AHEAD_MS_MAX, 1)).unwrap();
    let rejection = partition.probe(request(1, NOW_MS + CLIENT_CLOCK_AHEAD_MS_MAX + 1, 1)).unwrap_err();
    assert_eq!(rejection.code, ErrorCode::InvalidArgument);
    assert!(rejection.message.contains("300001 ms ahead"), "{rejection}");
    partition.now_ms += 1;
    partition.probe(request(1, NOW_MS + CLIENT_CLOCK_AHEAD_MS_MAX + 1, 1)).expect("it was not kept as a refusal");
}

#[test]
fn logical_time_does_not_step_back_with_a_leaders_clock() {
    let mut partition = partition();
    partition.ok(create("g"));
    partition.now_ms = 5;
    partition.ok(create("h"));
    assert_eq!(partition.machine.logical_ms(), NOW_MS);
    let session = partition.session("pod-1");
    partition.join("g", session);
    assert_eq!(partition.view("g").members[0].joined_ms, NOW_MS);
}

#[test]
fn d11_a_leaders_clock_that_was_ahead_for_a_moment_expires_nothing_that_is_asked_afterwards() {
    const HOUR_MS: u64 = 3_600_000;
    let mut partition = partition();
    let session = partition.session("pod-1");
    let before = request(1, NOW_MS, 1);
    assert_eq!(partition.joins(before, session), Ok(true));
    partition.now_ms += HOUR_MS;
    for number in 0..100 {
        // Of the sidecar beside that leader, whose clock it is as well.
        partition.probe(request(2, partition.now_ms, number)).unwrap();
    }
    assert_eq!(partition.machine.logical_ms(), NOW_MS + HOUR_MS);
    partition.now_ms = NOW_MS + 5;
    for client in 1..50 {
        partition.probe(request(client, NOW_MS + 5, 1)).expect("clients whose clocks are right go on");
    }
    assert_eq!(partition.joins(before, session), Err(ErrorCode::Expired), "forgotten early, and never applied again");
}

#[test]
fn commands_without_a_request_are_not_deduplicated() {
    let mut partition = partition();
    let session = partition.session("pod-1");
    partition.join("g", session);
    partition.join("g", session);
    assert_eq!(partition.view("g").members.len(), 2);
}

#[test]
fn results_of_large_groups_are_kept_without_their_members() {
    let mut partition = partition();
    let session = partition.session("pod-1");
    for number in 0..100 {
        let big = metadata(&[("key", &"x".repeat(1_000))]);
        partition.apply(&with(request(1, NOW_MS, number), join_with("g", session, big, "")));
    }
    let bytes = pieces(&partition.machine).concat().len();
    assert!(bytes < 150_000, "100 members with 1,000 bytes each and 100 results took {bytes} bytes");
}
