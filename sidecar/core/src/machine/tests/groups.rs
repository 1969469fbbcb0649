//! Membership and configuration.

use super::*;
use crate::limits::{GROUP_MEMBERS_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX, RELEASE_TIMEOUT_MS_MAX};

#[test]
fn s1_s4_join_makes_the_group_and_answers_with_the_member_and_the_group() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let reply = partition.ok(join_with("workers", session, metadata(&[("port", "80")]), "zone-a"));
    let (id, view) = joined(&reply);
    assert_eq!(id, MemberId(partition.revision), "the id is the revision of the join");
    assert_eq!(view, &partition.view("workers"));
    let member = &view.members[0];
    assert_eq!((member.id, member.session, member.sidecar.as_str()), (id, session, "pod-1"));
    assert_eq!((member.zone.as_str(), member.joined_ms), ("zone-a", 1_000));
    assert_eq!(member.metadata, metadata(&[("port", "80")]));
}

#[test]
fn s2_d1_one_session_carries_several_members() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let (a, b) = (partition.join("workers", session), partition.join("workers", session));
    assert_ne!(a, b);
    assert_eq!(partition.view("workers").members.len(), 2);
}

#[test]
fn s5_s10_joining_and_leaving_are_announced_with_the_member() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    partition.join("workers", session);
    let events = partition.events(join("workers", session));
    let [GroupEvent::Joined(member)] = events.as_slice() else { panic!("{events:?}") };
    let events = partition.events(leave("workers", member.id));
    assert_eq!(events, [GroupEvent::Left { member: member.id, reason: LeaveReason::Left }]);
}

#[test]
fn s9_a_member_that_left_is_unknown() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let id = partition.join("workers", session);
    partition.ok(leave("workers", id));
    assert_eq!(partition.view("workers").members, []);
    assert_eq!(partition.refused(leave("workers", id)).code, ErrorCode::MemberUnknown);
}

#[test]
fn joining_without_a_session_is_refused_and_makes_no_group() {
    let mut partition = Partition::new();
    let rejection = partition.refused(join("workers", SessionId(7)));
    assert_eq!(rejection.code, ErrorCode::SessionUnknown);
    assert_eq!(partition.machine.group(&"workers".into()), None);
}

#[test]
fn s13_groups_are_listed_by_name_with_their_members() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    partition.join("b", session);
    partition.ok(create("a"));
    let Answer::Groups(groups) = partition.machine.query(&Query::Groups).unwrap() else { panic!() };
    let found: Vec<_> = groups.iter().map(|view| (view.name.as_str(), view.members.len())).collect();
    assert_eq!(found, [("a", 0), ("b", 1)]);
}

#[test]
fn a_group_that_is_not_is_group_unknown() {
    let mut partition = Partition::new();
    let unknown = |rejection: Rejection| assert_eq!(rejection.code, ErrorCode::GroupUnknown);
    unknown(partition.machine.query(&Query::Group("workers".into())).unwrap_err());
    for change in [
        GroupOp::Delete,
        GroupOp::Leave(MemberId(1)),
        GroupOp::Release(Term(1)),
        GroupOp::StepDown { if_term: None, reason: String::new() },
    ] {
        unknown(partition.refused(op("workers", change)));
    }
}

#[test]
fn s20_create_is_idempotent_and_refuses_another_config() {
    let mut partition = Partition::new();
    let config = GroupConfig { release_timeout_ms: 100, max_members: 2 };
    let with = |config| op("workers", GroupOp::Create { config });
    let reply = partition.ok(with(Some(config)));
    assert_eq!(group_of(&reply).config, config);
    for same in [None, Some(config)] {
        assert_eq!(group_of(&partition.ok(with(same))).config_revision, Revision(1));
    }
    let rejection = partition.refused(with(Some(GroupConfig::default())));
    assert_eq!(rejection.code, ErrorCode::ExistsDifferently);
    assert!(rejection.message.contains("max_members 2"), "{rejection}");
}

#[test]
fn a_group_without_events_has_the_revision_that_made_it_as_its_last_event() {
    let mut partition = Partition::new();
    partition.ok(create("workers"));
    assert_eq!(partition.view("workers").last_event, EventId { revision: Revision(1), ordinal: 0 });
}

#[test]
fn last_event_is_the_id_of_the_groups_last_event() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let applied = partition.send(join("workers", session));
    assert_eq!(applied.events.last().unwrap().id, EventId { revision: Revision(2), ordinal: 2 });
    assert_eq!(partition.view("workers").last_event, EventId { revision: Revision(2), ordinal: 2 });
    partition.join("others", session);
    assert_eq!(partition.view("workers").last_event.revision, Revision(2), "events of other groups do not count");
}

#[test]
fn s20_a_configuration_changes_at_its_revision_only() {
    let mut partition = Partition::new();
    partition.ok(create("workers"));
    let config = GroupConfig { release_timeout_ms: 1, max_members: 7 };
    let at = |revision| {
        op("workers", GroupOp::Configure { config, if_config_revision: Some(Revision(revision)), if_term: None })
    };
    assert_eq!(partition.refused(at(9)).code, ErrorCode::RevisionMismatch);
    let events = partition.events(at(1));
    let config_revision = Revision(partition.revision);
    assert_eq!(events, [GroupEvent::Config { config, config_revision }]);
    assert_eq!(
        (partition.view("workers").config, partition.view("workers").config_revision),
        (config, config_revision)
    );
}

#[test]
fn s39_a_write_that_carries_an_older_term_is_rejected() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let first = partition.join("workers", session);
    let second = partition.join("workers", session);
    partition.ok(leave("workers", first));
    let (old, new) = (Some(Term(1)), Some(Term(2)));
    let config = GroupConfig::default();
    let configure = |if_term| op("workers", GroupOp::Configure { config, if_config_revision: None, if_term });
    let set =
        |if_term| op("workers", GroupOp::SetMetadata { member: second, metadata: metadata(&[("a", "b")]), if_term });
    for write in [configure(old), set(old)] {
        let rejection = partition.refused(write);
        assert_eq!(rejection.code, ErrorCode::StaleTerm);
        assert!(rejection.message.contains("is 1") && rejection.message.contains("term 2"), "{rejection}");
    }
    for write in [configure(new), set(new)] {
        partition.ok(write);
    }
}

#[test]
fn metadata_is_replaced_and_announced() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let member = partition.join("workers", session);
    let new = metadata(&[("a", "b")]);
    let events = partition.events(op("workers", GroupOp::SetMetadata { member, metadata: new.clone(), if_term: None }));
    let [GroupEvent::Updated(view)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((view.id, &view.metadata), (member, &new));
    assert_eq!(partition.view("workers").members[0].metadata, new);
}

#[test]
fn s20_a_full_group_takes_nobody_more_and_keeps_whom_it_has() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    partition.join("workers", session);
    let id = partition.join("workers", session);
    partition.ok(configure("workers", GroupConfig { max_members: 1, ..GroupConfig::default() }));
    assert_eq!(partition.view("workers").members.len(), 2);
    let rejection = partition.refused(join("workers", session));
    assert_eq!(rejection.code, ErrorCode::LimitReached);
    assert!(rejection.message.contains("max_members"), "{rejection}");
    partition.ok(leave("workers", id));
    assert_eq!(partition.refused(join("workers", session)).code, ErrorCode::LimitReached);
}

#[test]
fn deleting_a_group_makes_its_members_leave_and_ends_its_term() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let (a, b) = (partition.join("workers", session), partition.join("workers", session));
    let gone = |member| GroupEvent::Left { member, reason: LeaveReason::GroupDeleted };
    let events = partition.events(op("workers", GroupOp::Delete));
    assert_eq!(events, [gone(a), gone(b), GroupEvent::Vacated { term: Term(1), leader: a }, GroupEvent::Deleted]);
    assert_eq!(partition.machine.group(&"workers".into()), None);
    assert_eq!(partition.events(Command::CloseSession(session)), [], "nothing is left to leave");
}

#[test]
fn d15_the_management_group_holds_no_groups() {
    let mut partition = Partition::management();
    let rejection = partition.refused(create("workers"));
    assert_eq!(rejection.code, ErrorCode::InvalidArgument);
    assert!(rejection.message.contains("`system` is reserved"), "{rejection}");
    for query in [Query::Groups, Query::Group("workers".into())] {
        assert_eq!(partition.machine.query(&query).unwrap_err().code, ErrorCode::InvalidArgument);
    }
}

#[test]
fn what_is_out_of_bounds_is_refused_with_the_field_and_the_bound() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let member = partition.join("workers", session);
    let large = metadata(&[("key", &"x".repeat(METADATA_BYTES_MAX))]);
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let config =
        |release_timeout_ms, max_members| configure("workers", GroupConfig { release_timeout_ms, max_members });
    let cases = [
        (create(""), "group: is empty"),
        (create("a/b"), "group: contains `/`"),
        (create("a\nb"), "group: contains a control character"),
        (create(&long), "group: has 254 bytes; shorten it to 253"),
        (join_with("workers", session, large.clone(), ""), "metadata: has 16387 bytes"),
        (join_with("workers", session, BTreeMap::new(), &long), "zone: has 254 bytes"),
        (op("workers", GroupOp::SetMetadata { member, metadata: large, if_term: None }), "metadata: has 16387 bytes"),
        (op("workers", GroupOp::StepDown { if_term: None, reason: "\0".to_owned() }), "reason: contains a control"),
        (config(RELEASE_TIMEOUT_MS_MAX + 1, 1), "config.release_timeout_ms: is 3600001; choose 0 to 3600000"),
        (config(0, 0), "config.max_members: is 0; choose 1 to 10000"),
        (config(0, GROUP_MEMBERS_MAX + 1), "config.max_members: is 10001"),
    ];
    for (command, expected) in cases {
        let rejection = partition.refused(command);
        assert!(matches!(rejection.code, ErrorCode::InvalidArgument | ErrorCode::TooLarge), "{rejection:?}");
        assert!(rejection.message.starts_with(expected), "{rejection} is not {expected}");
    }
    partition.ok(create(&"x".repeat(NAME_BYTES_MAX)));
}
