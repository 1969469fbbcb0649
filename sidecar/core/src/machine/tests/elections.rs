//! Terms and leaders.

use super::*;

/// A group `g` of three, each with a session of its own.
fn three() -> (Partition, [SessionId; 3], [MemberId; 3]) {
    let mut partition = Partition::new();
    let sessions = ["pod-1", "pod-2", "pod-3"].map(|pod| partition.session(pod));
    let members = sessions.map(|session| partition.join("g", session));
    (partition, sessions, members)
}

fn release(term: u64) -> Command {
    op("g", GroupOp::Release(Term(term)))
}

fn timed_out(term: u64) -> Command {
    op("g", GroupOp::ReleaseTimedOut(Term(term)))
}

fn elected(term: u64, leader: MemberId) -> [GroupEvent; 2] {
    [GroupEvent::Term(Term(term)), GroupEvent::Elected { term: Term(term), leader }]
}

fn pending(partition: &Partition) -> Vec<PendingRelease> {
    partition.machine.pending_releases().cloned().collect()
}

#[test]
fn s21_s23_s31_the_first_member_leads_at_once_and_its_term_is_told_first() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let events = partition.events(join("g", session));
    let [GroupEvent::Joined(member), rest @ ..] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(rest, elected(1, member.id));
}

#[test]
fn s23_later_members_do_not_lead() {
    let (partition, _, [first, ..]) = three();
    assert_eq!(partition.leader("g"), (Term(1), Some(first)));
}

#[test]
fn s25_leader_that_leaves_gives_the_next_joiner_a_higher_term() {
    let (mut partition, _, [first, second, _]) = three();
    let events = partition.events(leave("g", first));
    let gone = [
        GroupEvent::Left { member: first, reason: LeaveReason::Left },
        GroupEvent::Vacated { term: Term(1), leader: first },
    ];
    assert_eq!(events, [&gone[..], &elected(2, second)].concat());
}

#[test]
fn a_follower_that_leaves_changes_no_term() {
    let (mut partition, _, [first, second, _]) = three();
    partition.ok(leave("g", second));
    assert_eq!(partition.leader("g"), (Term(1), Some(first)));
}

#[test]
fn s32_without_a_candidate_nobody_leads_and_no_term_begins() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let only = partition.join("g", session);
    partition.ok(leave("g", only));
    assert_eq!(partition.leader("g"), (Term(1), None));
    let next = partition.join("g", session);
    assert_eq!(partition.leader("g"), (Term(2), Some(next)));
}

#[test]
fn s24_d3_a_member_that_joins_again_goes_to_the_end_of_the_queue() {
    let (mut partition, sessions, [first, second, third]) = three();
    partition.ok(leave("g", first));
    let again = partition.join("g", sessions[0]);
    for (leader, next) in [(second, third), (third, again)] {
        partition.ok(leave("g", leader));
        assert_eq!(partition.leader("g").1, Some(next));
    }
}

#[test]
fn d16_step_down_tells_the_leader_and_elects_nobody() {
    let (mut partition, sessions, [first, ..]) = three();
    let events = partition.events(step_down("g"));
    let reason = "requested".to_owned();
    assert_eq!(events, [GroupEvent::Releasing { term: Term(1), leader: first, timeout_ms: 5_000, reason }]);
    assert!(partition.view("g").releasing);
    let pending = PendingRelease { group: "g".into(), term: Term(1), timeout_ms: 5_000, session: sessions[0] };
    let of = |session| partition.machine.releases_of(session).cloned().collect::<Vec<_>>();
    assert_eq!((of(sessions[0]), of(sessions[1])), (self::pending(&partition), Vec::new()));
    assert_eq!(of(sessions[0]), [pending]);
}

#[test]
fn d16_a_leader_is_asked_to_release_once() {
    let (mut partition, _, _) = three();
    partition.ok(step_down("g"));
    assert_eq!(partition.events(step_down("g")), []);
}

#[test]
fn d3_d16_release_elects_the_next_and_the_released_goes_to_the_end() {
    let (mut partition, _, [first, second, third]) = three();
    partition.ok(step_down("g"));
    let events = partition.events(release(1));
    assert_eq!(events, [&[GroupEvent::Vacated { term: Term(1), leader: first }][..], &elected(2, second)].concat());
    assert_eq!(pending(&partition), []);
    assert_eq!(partition.view("g").members.len(), 3, "it stays a member");
    for (term, next) in [(2, third), (3, first)] {
        partition.ok(release(term));
        assert_eq!(partition.leader("g").1, Some(next));
    }
}

#[test]
fn d3_a_leader_alone_that_releases_is_elected_again_in_a_new_term() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let only = partition.join("g", session);
    partition.ok(step_down("g"));
    let events = partition.events(release(1));
    assert_eq!(events, [&[GroupEvent::Vacated { term: Term(1), leader: only }][..], &elected(2, only)].concat());
    assert!(!partition.view("g").releasing);
}

#[test]
fn d16_a_release_that_times_out_elects_the_next() {
    let (mut partition, _, [_, second, _]) = three();
    partition.ok(step_down("g"));
    partition.ok(timed_out(1));
    assert_eq!(partition.leader("g"), (Term(2), Some(second)));
}

#[test]
fn d16_a_leader_that_was_not_asked_is_not_timed_out() {
    let (mut partition, _, _) = three();
    assert_eq!(partition.events(timed_out(1)), []);
}

#[test]
fn s32_a_release_of_another_term_does_nothing() {
    let (mut partition, _, [first, second, _]) = three();
    for term in [0, 2] {
        assert_eq!(partition.events(release(term)), []);
    }
    partition.ok(step_down("g"));
    partition.ok(release(1));
    partition.ok(step_down("g"));
    assert_eq!(partition.events(release(1)), []);
    assert_eq!(partition.events(timed_out(1)), [], "the time-out of an earlier term");
    assert_ne!(first, second);
    assert_eq!(partition.leader("g"), (Term(2), Some(second)));
}

#[test]
fn d16_a_leader_that_leaves_while_releasing_is_followed_at_once() {
    let (mut partition, _, [first, second, _]) = three();
    partition.ok(step_down("g"));
    partition.ok(leave("g", first));
    assert_eq!(partition.leader("g"), (Term(2), Some(second)));
    assert_eq!(pending(&partition), [], "the successor was not asked");
}

#[test]
fn d16_the_time_that_the_leader_was_told_counts_when_the_configuration_changes() {
    let (mut partition, _, _) = three();
    partition.ok(step_down("g"));
    partition.ok(configure("g", GroupConfig { release_timeout_ms: 1, ..GroupConfig::default() }));
    assert_eq!(pending(&partition)[0].timeout_ms, 5_000);
}

#[test]
fn s39_step_down_of_another_term_is_stale() {
    let (mut partition, _, _) = three();
    for term in [0, 2] {
        let asked = op("g", GroupOp::StepDown { if_term: Some(Term(term)), reason: String::new() });
        assert_eq!(partition.refused(asked).code, ErrorCode::StaleTerm);
    }
    partition.ok(op("g", GroupOp::StepDown { if_term: Some(Term(1)), reason: String::new() }));
}

#[test]
fn step_down_of_a_group_without_a_leader_does_nothing() {
    let mut partition = Partition::new();
    partition.ok(create("g"));
    assert_eq!(partition.events(step_down("g")), []);
}

#[test]
fn s26_d4_a_group_made_again_under_its_name_starts_above_its_last_term() {
    let (mut partition, sessions, [first, ..]) = three();
    partition.ok(leave("g", first));
    partition.ok(op("g", GroupOp::Delete));
    partition.ok(create("g"));
    assert_eq!(partition.leader("g"), (Term(0), None), "0 before the first leader");
    let id = partition.join("g", sessions[0]);
    assert_eq!(partition.leader("g"), (Term(3), Some(id)));
}

#[test]
fn d4_a_name_whose_group_never_led_since_keeps_the_terms_before() {
    let (mut partition, sessions, _) = three();
    for _ in 0..2 {
        partition.ok(op("g", GroupOp::Delete));
        partition.ok(create("g"));
    }
    partition.join("g", sessions[0]);
    assert_eq!(partition.leader("g").0, Term(2));
}

#[test]
fn d4_a_partition_of_a_later_generation_starts_above_all_terms_of_the_earlier() {
    let mut partition = Partition::with(Machine::new(3));
    let session = partition.session("pod-1");
    partition.join("g", session);
    assert_eq!(partition.leader("g").0, Term((3 << 40) + 1));
}

#[test]
fn s40_term_and_leader_are_readable_on_demand() {
    let (partition, _, [first, ..]) = three();
    let Answer::Group(view) = partition.machine.query(&Query::Group("g".into())).unwrap() else { panic!() };
    assert_eq!((view.term, view.leader), (Term(1), Some(first)));
}
