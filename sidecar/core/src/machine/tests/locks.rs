//! Locks.

use super::*;

/// A partition with three sessions.
fn partition() -> (Partition, [SessionId; 3]) {
    let mut partition = Partition::with(Machine::new(2));
    let sessions = ["pod-1", "pod-2", "pod-3"].map(|pod| partition.session(pod));
    (partition, sessions)
}

fn ask(partition: &mut Partition, session: SessionId) -> (Token, Standing) {
    placed(&partition.ok(acquire("l", session)))
}

fn events(applied: &Applied) -> Vec<LockEvent> {
    let of = |event: &Event| match &event.kind {
        EventKind::Lock(event) => event.clone(),
        other => panic!("{other:?} is not of a lock"),
    };
    applied.events.iter().map(of).collect()
}

fn holder(partition: &Partition) -> Option<Token> {
    partition.machine.lock_view(&"l".into()).holder.map(|holder| holder.token)
}

fn granted(token: Token, sidecar: &str) -> LockEvent {
    LockEvent::Granted { token, sidecar: sidecar.into() }
}

fn left(token: Token, reason: LockLeaveReason) -> LockEvent {
    LockEvent::Left { token, reason }
}

#[test]
fn a_lock_is_granted_in_the_order_of_asking_and_its_tokens_rise() {
    let (mut partition, sessions) = partition();
    let places = sessions.map(|session| ask(&mut partition, session));
    assert_eq!(places.map(|(_, standing)| standing), [Standing::Holds, Standing::Waits, Standing::Waits]);
    let [first, second, third] = places.map(|(token, _)| token);
    assert!(Token(2 << TERM_BITS) < first && first < second && second < third);
    let applied = partition.send(lock("l", LockOp::Release(first)));
    assert_eq!(events(&applied), [left(first, LockLeaveReason::Released), granted(second, "pod-2")]);
    partition.ok(lock("l", LockOp::Release(second)));
    assert_eq!(holder(&partition), Some(third));
    partition.ok(lock("l", LockOp::Release(third)));
    assert_eq!((holder(&partition), partition.machine.locks.len()), (None, 0), "a free lock takes no memory");
    assert!(ask(&mut partition, sessions[0]).0 > third);
}

#[test]
fn tokens_are_above_those_of_the_partition_that_had_the_name_before() {
    let mut partition = Partition::with(Machine::new(3));
    let session = partition.session("pod-1");
    partition.join("g", session);
    partition.ok(op("g", GroupOp::Delete));
    let (token, _) = ask(&mut partition, session);
    assert_eq!(token, Token((3 << TERM_BITS) + partition.revision));
}

#[test]
fn who_waits_may_leave_the_queue() {
    let (mut partition, sessions) = partition();
    let [first, second, third] = sessions.map(|session| ask(&mut partition, session).0);
    let applied = partition.send(lock("l", LockOp::Release(second)));
    assert_eq!(events(&applied), [left(second, LockLeaveReason::Released)]);
    partition.ok(lock("l", LockOp::Release(first)));
    assert_eq!(holder(&partition), Some(third));
}

#[test]
fn a_lock_that_is_held_is_refused_to_who_does_not_wait() {
    let (mut partition, sessions) = partition();
    let now = |session| lock("l", LockOp::Acquire { session, wait: false });
    partition.ok(now(sessions[0]));
    assert_eq!(partition.refused(now(sessions[1])).code, ErrorCode::LockHeld);
}

#[test]
fn a_place_that_was_given_up_cannot_be_given_up_again() {
    let (mut partition, sessions) = partition();
    let (token, _) = ask(&mut partition, sessions[0]);
    let release = Envelope { request: Some(request(1, 1_000, 0)), command: lock("l", LockOp::Release(token)) };
    partition.apply(&release).outcome.unwrap();
    assert_eq!(partition.refused(release.command.clone()).code, ErrorCode::TokenUnknown);
    assert_eq!(partition.apply(&release).outcome, Ok(Reply::Done), "d11: the same request is answered as before");
}

#[test]
fn d16_the_places_of_a_session_go_with_it_and_the_next_is_granted_once() {
    let (mut partition, [one, two, three]) = partition();
    let tokens = [one, one, two, one, three].map(|session| ask(&mut partition, session).0);
    let applied = partition.send(Command::ExpireSessions(vec![one, two]));
    let expired = |token| left(token, LockLeaveReason::SessionExpired);
    let mut expected: Vec<_> = tokens[..4].iter().copied().map(expired).collect();
    expected.push(granted(tokens[4], "pod-3"));
    assert_eq!(events(&applied), expected);
    let applied = partition.send(Command::CloseSession(three));
    assert_eq!(events(&applied), [left(tokens[4], LockLeaveReason::SessionClosed)]);
}

#[test]
fn d11_an_acquire_that_is_sent_again_gives_its_place_and_what_became_of_it() {
    let (mut partition, sessions) = partition();
    let (first, _) = ask(&mut partition, sessions[0]);
    let again = Envelope { request: Some(request(1, 1_000, 0)), command: acquire("l", sessions[1]) };
    let (token, standing) = placed(&partition.apply(&again).outcome.unwrap());
    assert_eq!(standing, Standing::Waits);
    partition.ok(lock("l", LockOp::Release(first)));
    assert_eq!(placed(&partition.apply(&again).outcome.unwrap()), (token, Standing::Holds));
    partition.ok(lock("l", LockOp::Release(token)));
    assert_eq!(placed(&partition.apply(&again).outcome.unwrap()), (token, Standing::Gone));
}

#[test]
fn a_lock_is_asked_for_on_a_live_session() {
    let mut partition = Partition::new();
    assert_eq!(partition.refused(acquire("l", SessionId(9))).code, ErrorCode::SessionUnknown);
    assert!(partition.refused(acquire("", SessionId(9))).message.starts_with("lock: is empty"));
}

#[test]
fn the_view_of_a_lock_says_who_holds_it_and_who_waits() {
    let (mut partition, sessions) = partition();
    let tokens = sessions.map(|session| ask(&mut partition, session).0);
    let Some(View::Lock(view)) = partition.machine.view(&(&LockName::from("l")).into()) else { panic!("no lock") };
    assert_eq!(view.holder.as_ref().unwrap().sidecar, "pod-1".into());
    assert_eq!(view.waiting, [(tokens[1], sessions[1]), (tokens[2], sessions[2])]);
    assert_eq!(tokens.map(|token| view.standing(token)), [Standing::Holds, Standing::Waits, Standing::Waits]);
    assert_eq!(view.standing(Token(1)), Standing::Gone);
}
