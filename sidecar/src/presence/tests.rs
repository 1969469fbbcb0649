//! What is decided without a cluster: scripted inputs, one decision each.

use std::collections::BTreeMap;

use coterie_core::command::{Event, EventKind, GroupConfig, GroupEvent, GroupView, LeaveReason, MemberView, Presence};
use coterie_core::{ErrorCode, EventId, GroupName, MemberId, Rejection, RequestId, Revision, SessionId, Term};

use super::held::is_unvouched;
use super::join::{bind, has_left, orphans, told};
use super::probe::{Found, Tracker, Verdict, judge};
use super::state::{Control, Folded, SessionSays, decide, place_of};
use crate::sessions::{SessionState, SessionStatus};

const OWN: MemberId = MemberId(5);
const OTHER: MemberId = MemberId(7);

fn id(revision: u64, ordinal: u32) -> EventId {
    EventId { revision: Revision(revision), ordinal }
}

fn member(id: MemberId) -> MemberView {
    MemberView {
        id,
        session: SessionId(1),
        sidecar: "member-1".into(),
        metadata: BTreeMap::new(),
        zone: String::new(),
        presence: Presence::Stream,
        joined_ms: 0,
    }
}

/// A group at `revision` that `leader` leads in term 1.
fn view(revision: u64, leader: Option<MemberId>, members: &[MemberId]) -> GroupView {
    GroupView {
        name: "g".into(),
        term: Term(1),
        leader,
        releasing: false,
        members: members.iter().copied().map(member).collect(),
        config: GroupConfig { release_timeout_ms: 300, ..GroupConfig::default() },
        config_revision: Revision(1),
        revision: Revision(revision),
        last_event: id(revision, 2),
    }
}

fn led_by_own() -> Folded {
    Folded::of(&view(5, Some(OWN), &[OWN]), 0)
}

fn event(at: EventId, kind: GroupEvent) -> Event {
    Event { id: at, of: (&GroupName::from("g")).into(), kind: EventKind::Group(kind) }
}

fn live_until(valid_until_ms: u64) -> SessionStatus {
    SessionStatus { state: SessionState::Live, valid_until_ms }
}

fn said(status: SessionStatus) -> SessionSays {
    SessionSays { status, release_until_ms: None }
}

fn leads(folded: &Folded, session: SessionStatus, control: &Control, now_ms: u64) -> Option<u64> {
    let state = decide(OWN, folded, said(session), control, now_ms);
    assert_eq!(state.leads, state.valid_until_ms > now_ms, "{state:?}");
    state.leads.then_some(state.valid_until_ms)
}

#[test]
fn s22_a_leader_is_vouched_for_until_its_sessions_deadline_and_no_longer() {
    let (folded, none) = (led_by_own(), Control::default());
    assert_eq!(leads(&folded, live_until(100), &none, 99), Some(100));
    assert_eq!(leads(&folded, live_until(100), &none, 100), None);
    let suspended = SessionStatus { state: SessionState::Suspended, valid_until_ms: 100 };
    assert_eq!(leads(&folded, suspended, &none, 50), Some(100));
    assert_eq!(leads(&folded, suspended, &none, 101), None);
}

#[test]
fn s38_a_session_that_was_not_kept_alive_in_time_is_suspended_whatever_was_noticed() {
    let at = |now_ms| decide(OWN, &led_by_own(), said(live_until(100)), &Control::default(), now_ms).session;
    assert_eq!((at(99), at(100)), (SessionState::Live, SessionState::Suspended));
}

#[test]
fn s37_a_lost_session_leads_nothing_whatever_the_watch_says() {
    let lost = SessionStatus { state: SessionState::Lost, valid_until_ms: 1_000 };
    assert_eq!(leads(&led_by_own(), lost, &Control::default(), 1), None);
}

#[test]
fn s22_a_member_that_does_not_lead_is_never_vouched_for() {
    let folded = Folded::of(&view(8, Some(OTHER), &[OWN, OTHER]), 0);
    assert_eq!(leads(&folded, live_until(100), &Control::default(), 1), None);
}

#[test]
fn d20_nothing_is_vouched_for_beyond_a_lease() {
    let control = Control { lease_until_ms: Some(40), ..Control::default() };
    assert_eq!(leads(&led_by_own(), live_until(100), &control, 39), Some(40));
    assert_eq!(leads(&led_by_own(), live_until(100), &control, 40), None);
}

#[test]
fn d16_nothing_is_vouched_for_beyond_a_release_timeout() {
    let mut folded = led_by_own();
    let asked = GroupEvent::Releasing { term: Term(1), leader: OWN, timeout_ms: 30, reason: "drain".to_owned() };
    folded.event(&event(id(6, 0), asked), 10);
    let state = decide(OWN, &folded, said(live_until(100)), &Control::default(), 20);
    assert!(state.leads && state.releasing);
    assert_eq!(state.valid_until_ms, 40);
    assert_eq!(leads(&folded, live_until(100), &Control::default(), 40), None);
}

#[test]
fn d16_a_release_counts_too_of_which_the_watch_does_not_know_yet() {
    let asked = SessionSays { status: live_until(100), release_until_ms: Some(40) };
    let state = decide(OWN, &led_by_own(), asked, &Control::default(), 20);
    assert_eq!((state.leads, state.valid_until_ms), (true, 40));
    assert!(!decide(OWN, &led_by_own(), asked, &Control::default(), 40).leads);
}

#[test]
fn d16_what_was_released_is_not_vouched_for_but_the_next_term_is() {
    let mut folded = led_by_own();
    let control = Control { released: Some(Term(1)), ..Control::default() };
    assert_eq!(leads(&folded, live_until(100), &control, 1), None);
    folded.event(&event(id(6, 0), GroupEvent::Vacated { term: Term(1), leader: OWN }), 1);
    folded.event(&event(id(6, 1), GroupEvent::Term(Term(2))), 1);
    assert_eq!(leads(&folded, live_until(100), &control, 1), None);
    folded.event(&event(id(6, 2), GroupEvent::Elected { term: Term(2), leader: OWN }), 1);
    assert_eq!(leads(&folded, live_until(100), &control, 1), Some(100));
}

#[test]
fn d16_a_draining_sidecar_does_not_vouch_for_a_later_term() {
    let mut folded = led_by_own();
    let control = Control { last_term: Some(Term(1)), ..Control::default() };
    assert_eq!(leads(&folded, live_until(100), &control, 1), Some(100));
    folded.event(&event(id(6, 0), GroupEvent::Elected { term: Term(2), leader: OWN }), 1);
    assert_eq!(leads(&folded, live_until(100), &control, 1), None);
}

#[test]
fn d20_a_silent_application_keeps_its_place_until_what_it_was_told_has_run_out() {
    let folded = led_by_own();
    let told = Control { withdrawn: true, told: Some((Term(1), 90)), ..Control::default() };
    assert_eq!(leads(&folded, live_until(100), &told, 10), None);
    assert_eq!(told.must_keep_ms(OWN, &folded, 10), 80);
    assert_eq!(told.must_keep_ms(OWN, &folded, 90), 0);
}

#[test]
fn d20_a_place_need_not_be_kept_for_one_that_released_or_was_not_told_or_leads_no_more() {
    let folded = led_by_own();
    let released = Control { told: Some((Term(1), 90)), released: Some(Term(1)), ..Control::default() };
    assert_eq!(released.must_keep_ms(OWN, &folded, 10), 0);
    assert_eq!(Control::default().must_keep_ms(OWN, &folded, 10), 0);
    let told = Control { told: Some((Term(1), 90)), ..Control::default() };
    let other = Folded::of(&view(8, Some(OTHER), &[OWN, OTHER]), 0);
    assert_eq!(told.must_keep_ms(OWN, &other, 10), 0);
}

#[test]
fn s33_older_events_and_views_change_nothing() {
    let mut folded = Folded::of(&view(9, Some(OTHER), &[OWN, OTHER]), 0);
    let before = folded.clone();
    assert!(!folded.event(&event(id(8, 0), GroupEvent::Elected { term: Term(1), leader: OWN }), 0));
    assert!(!folded.view(&view(7, Some(OWN), &[OWN]), 0));
    assert!(!folded.view(&view(9, Some(OTHER), &[OWN, OTHER]), 0));
    assert_eq!(folded, before);
}

#[test]
fn d17_a_newer_view_replaces_what_is_known() {
    let mut folded = led_by_own();
    assert!(folded.view(&view(9, Some(OTHER), &[OTHER]), 0));
    assert_eq!(folded.leader, Some(OTHER));
    assert!(folded.is_gone(OWN));
    assert_eq!(folded.at, place_of(&view(9, None, &[])));
}

#[test]
fn a_view_does_not_restart_the_time_of_a_release() {
    let mut folded = led_by_own();
    let releasing = |revision| GroupView { releasing: true, ..view(revision, Some(OWN), &[OWN]) };
    folded.view(&releasing(6), 10);
    folded.view(&releasing(7), 200);
    assert_eq!(folded.release_until_ms, Some(310));
}

#[test]
fn s11_a_member_that_left_is_gone_and_leads_no_more() {
    let mut folded = led_by_own();
    assert!(!folded.is_gone(OWN));
    folded.event(&event(id(6, 0), GroupEvent::Left { member: OWN, reason: LeaveReason::SessionExpired }), 0);
    assert!(folded.is_gone(OWN));
    assert_eq!(folded.leader, None);
}

#[test]
fn a_member_that_the_watch_has_not_reached_yet_is_not_gone() {
    let folded = Folded::of(&view(5, None, &[]), 0);
    assert!(!folded.is_gone(MemberId(6)));
}

#[test]
fn a_deleted_group_has_no_member_and_no_leader() {
    let mut folded = led_by_own();
    folded.event(&event(id(6, 0), GroupEvent::Deleted), 0);
    assert!(!folded.exists && folded.is_gone(OWN));
    assert_eq!(leads(&folded, live_until(100), &Control::default(), 1), None);
}

#[test]
fn d11_a_join_that_is_sent_again_is_bound_to_each_session_once() {
    let first = RequestId { client: 7, request: 0x0193_0000_1234_7abc_8def_0000_0000_0001 };
    let bound = bind(first, SessionId(3));
    assert_eq!(bound, bind(first, SessionId(3)));
    assert_ne!(bound, bind(first, SessionId(4)));
    assert_ne!(bound, bind(RequestId { request: first.request + 1, ..first }, SessionId(3)));
    assert_ne!(bound, first);
    assert_eq!((bound.client, bound.issued_ms()), (first.client, first.issued_ms()));
    let uuid = uuid::Uuid::from_u128(bound.request);
    assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
}

#[test]
fn d11_after_a_join_of_unknown_fate_whoever_is_on_the_session_and_not_held_leaves() {
    let mut group = view(9, Some(OTHER), &[OWN, OTHER, MemberId(8)]);
    group.members[0].session = SessionId(2);
    assert_eq!(orphans(&group, SessionId(1), |member| member == OTHER), [MemberId(8)]);
    assert!(orphans(&group, SessionId(1), |_| true).is_empty());
}

#[test]
fn d11_a_join_whose_id_nobody_sent_before_is_unknown_rather_than_expired() {
    let expired = Rejection::new(ErrorCode::Expired, "too old");
    assert_eq!(told(&expired, true).code, ErrorCode::Unknown);
    assert_eq!(told(&expired, false), expired);
    let other = Rejection::new(ErrorCode::NoQuorum, "no majority");
    assert_eq!(told(&other, true), other);
}

#[test]
fn d11_a_view_that_is_older_than_its_answer_is_of_a_member_that_has_left() {
    assert!(!has_left(&view(5, Some(OWN), &[OWN]), Revision(5)));
    assert!(has_left(&view(5, Some(OWN), &[OWN]), Revision(9)));
}

#[test]
fn d16_a_drain_waits_for_nothing_that_a_session_does_not_vouch_for() {
    assert!(!is_unvouched(live_until(100), 99));
    assert!(is_unvouched(live_until(100), 100));
    assert!(is_unvouched(SessionStatus { state: SessionState::Lost, valid_until_ms: 100 }, 1));
}

fn verdicts(found: &[Found]) -> Vec<Verdict> {
    let mut tracker = Tracker::new(2);
    found.iter().map(|found| tracker.observe(found)).collect()
}

#[test]
fn d20_a_probed_application_leaves_after_two_failures_and_joins_again() {
    let (well, shut) = (Found::Healthy, Found::Closed("refused".to_owned()));
    let found = [well.clone(), shut.clone(), shut.clone(), shut, well];
    let expected = [Verdict::Join, Verdict::Keep, Verdict::LeaveNow, Verdict::LeaveNow, Verdict::Join];
    assert_eq!(verdicts(&found), expected);
}

#[test]
fn d20_one_failure_between_successes_is_forgotten() {
    let (well, unwell) = (Found::Healthy, Found::Unwell("500".to_owned()));
    let found = [unwell.clone(), well, unwell.clone(), unwell];
    assert_eq!(verdicts(&found), [Verdict::Keep, Verdict::Join, Verdict::Keep, Verdict::LeaveLater]);
}

#[test]
fn d20_a_probe_judges_the_status_line() {
    for healthy in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 204 No Content\r\n", "HTTP/1.1 302 Found\r\n"] {
        assert_eq!(judge(healthy.as_bytes()), Found::Healthy, "{healthy}");
    }
    for unwell in ["HTTP/1.1 503 Service Unavailable\r\n", "HTTP/1.1 100 Continue\r\n", "SSH-2.0-x\r\n", "", "200"] {
        assert!(matches!(judge(unwell.as_bytes()), Found::Unwell(_)), "{unwell}");
    }
}

proptest::proptest! {
    #[test]
    fn d20_an_answer_of_any_bytes_is_judged(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60), status in 0_u16..) {
        judge(&bytes);
        judge(&[b"HTTP/1.1 ", &bytes[..]].concat());
        let healthy = judge(format!("HTTP/1.1 {status} x\r\n").as_bytes()) == Found::Healthy;
        proptest::prop_assert_eq!(healthy, (200..400).contains(&status));
    }
}
