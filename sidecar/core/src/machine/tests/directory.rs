//! Members, partition groups and primitives of the management group.

use super::*;
use crate::command::{MemberKind, PartitionRecord, Protocol};
use crate::ids::NodeId;
use crate::limits::{PARTITION_GROUPS_MAX, PARTITIONS_MAX};

fn member(name: &str, kind: MemberKind, node: u64, start_counter: u64, run: u64) -> MemberRecord {
    MemberRecord {
        name: name.into(),
        kind,
        address: format!("{name}:7301"),
        zone: String::new(),
        node: NodeId(node),
        start_counter,
        run,
        machine_version: MACHINE_VERSION,
        version: "0.1.0".to_owned(),
    }
}

fn register(record: MemberRecord) -> Command {
    directory(DirectoryOp::RegisterMember(record))
}

fn persistent(node: u64, start_counter: u64, run: u64) -> Command {
    register(member("m", MemberKind::Persistent, node, start_counter, run))
}

pub(super) fn record(name: &str, partitions: usize, replicas: &[(&str, u64)]) -> PartitionGroupRecord {
    let replicas = replicas.iter().map(|(name, node)| (MemberName::from(*name), NodeId(*node))).collect();
    PartitionGroupRecord {
        name: name.into(),
        protocol: Protocol::Raft,
        partitions: vec![PartitionRecord { replicas }; partitions],
        generation: 0,
    }
}

pub(super) fn make(record: PartitionGroupRecord) -> Command {
    directory(DirectoryOp::CreatePartitionGroup(record))
}

pub(super) fn delete(name: &str, force: bool) -> Command {
    directory(DirectoryOp::DeletePartitionGroup { name: name.into(), force })
}

fn address(partition_group: &str, name: &str) -> PrimitiveAddress {
    PrimitiveAddress { partition_group: partition_group.into(), kind: "group".to_owned(), name: name.to_owned() }
}

pub(super) fn first_use(partition_group: &str, name: &str) -> Command {
    directory(DirectoryOp::RecordPrimitive(address(partition_group, name)))
}

/// A management group with persistent members `a` and `b` of identities 1 and 2, and the ephemeral `e`.
pub(super) fn cluster() -> Partition {
    let mut partition = Partition::management();
    for (name, node) in [("a", 1), ("b", 2)] {
        partition.ok(register(member(name, MemberKind::Persistent, node, 1, 1)));
    }
    partition.ok(register(member("e", MemberKind::Ephemeral, 0, 0, 1)));
    partition
}

#[test]
fn d14_an_identity_is_recorded_at_first_sight_and_read_back() {
    let mut partition = Partition::management();
    partition.ok(persistent(7, 1, 100));
    let Answer::Directory(found) = partition.machine.query(&Query::Directory).unwrap() else { panic!() };
    assert_eq!(found.members[&MemberName::from("m")], member("m", MemberKind::Persistent, 7, 1, 100));
    assert_eq!(found.as_ref(), partition.machine.directory());
}

#[test]
fn d14_the_same_run_may_change_its_record_and_a_restart_raises_the_counter() {
    let mut partition = Partition::management();
    partition.ok(persistent(7, 5, 100));
    let mut moved = member("m", MemberKind::Persistent, 7, 5, 100);
    moved.address = "elsewhere:7301".to_owned();
    partition.ok(register(moved.clone()));
    assert_eq!(partition.machine.directory().members[&MemberName::from("m")], moved);
    partition.ok(persistent(7, 6, 101));
    assert_eq!(partition.machine.directory().members[&MemberName::from("m")].start_counter, 6);
}

#[test]
fn d14_a_directory_that_was_rolled_back_copied_or_replaced_is_refused_and_says_so() {
    let mut partition = Partition::management();
    partition.ok(persistent(7, 5, 100));
    let cases = [
        (persistent(7, 4, 101), ErrorCode::DirectoryRolledBack, "rolled back or copied"),
        (persistent(7, 5, 101), ErrorCode::DirectoryCopied, "rolled back or copied"),
        (persistent(8, 9, 101), ErrorCode::DirectoryReplaced, "identity 7, its data directory presents 8"),
        (persistent(8, 5, 100), ErrorCode::DirectoryReplaced, "replace the member as a new member"),
    ];
    for (command, code, expected) in cases {
        let rejection = partition.refused(command);
        assert_eq!(rejection.code, code);
        assert!(rejection.message.contains("member `m`") && rejection.message.contains(expected), "{rejection}");
    }
    let recorded = &partition.machine.directory().members[&MemberName::from("m")];
    assert_eq!((recorded.node, recorded.start_counter, recorded.run), (NodeId(7), 5, 100), "what was recorded stays");
}

#[test]
fn d14_within_one_run_the_counter_that_was_seen_stays() {
    let mut partition = Partition::management();
    partition.ok(persistent(7, 5, 100));
    partition.ok(persistent(7, 4, 100));
    assert_eq!(partition.machine.directory().members[&MemberName::from("m")].start_counter, 5);
}

#[test]
fn d6_ephemeral_members_come_and_go() {
    let mut partition = Partition::management();
    for run in [1, 2, 1] {
        partition.ok(register(member("e", MemberKind::Ephemeral, 0, 0, run)));
    }
    for _ in 0..2 {
        partition.ok(directory(DirectoryOp::ForgetMember("e".into())));
    }
    assert!(partition.machine.directory().members.is_empty());
}

#[test]
fn d14_the_identity_of_a_persistent_member_is_not_forgotten() {
    let mut partition = Partition::management();
    partition.ok(persistent(7, 5, 100));
    let forget = partition.refused(directory(DirectoryOp::ForgetMember("m".into())));
    assert_eq!(forget.code, ErrorCode::InvalidArgument);
    let takeover = partition.refused(register(member("m", MemberKind::Ephemeral, 0, 0, 1)));
    assert_eq!(takeover.code, ErrorCode::ExistsDifferently);
}

#[test]
fn d14_a_persistent_member_has_an_identity() {
    let rejection = Partition::management().refused(persistent(0, 1, 1));
    assert!(rejection.message.starts_with("node: is 0"), "{rejection}");
}

#[test]
fn the_directory_is_in_the_management_group_only() {
    let mut partition = Partition::new();
    assert_eq!(partition.refused(persistent(1, 1, 1)).code, ErrorCode::InvalidArgument);
    assert_eq!(partition.machine.query(&Query::Directory).unwrap_err().code, ErrorCode::InvalidArgument);
}

#[test]
fn s83_a_partition_group_is_made_once_and_keeps_its_placement() {
    let mut partition = cluster();
    let Reply::PartitionGroup(made) = partition.ok(make(record("data", 2, &[("a", 1)]))) else { panic!() };
    assert_eq!(*made, record("data", 2, &[("a", 1)]));
    let Reply::PartitionGroup(again) = partition.ok(make(record("data", 2, &[("b", 2)]))) else { panic!() };
    assert_eq!(again, made, "another placement of the same shape: the recorded one counts");
    for other in [record("data", 3, &[("a", 1)]), record("data", 2, &[("a", 1), ("b", 2)])] {
        let rejection = partition.refused(make(other));
        assert_eq!(rejection.code, ErrorCode::ExistsDifferently);
        assert!(rejection.message.contains("2 partitions and 1 replicas"), "{rejection}");
    }
}

#[test]
fn d4_a_partition_group_made_after_others_were_deleted_is_of_a_later_generation() {
    let mut partition = cluster();
    for generation in 0..3 {
        let asked = PartitionGroupRecord { generation: 77, ..record("data", 1, &[("a", 1)]) };
        let Reply::PartitionGroup(made) = partition.ok(make(asked)) else { panic!() };
        assert_eq!(made.generation, generation, "the machine sets it");
        for _ in 0..2 {
            partition.ok(delete("data", false));
        }
    }
    assert_eq!(partition.machine.directory().deleted_partition_groups, 3, "deleting what is not counts nothing");
}

#[test]
fn s105_s107_partition_groups_that_cannot_be_are_refused_with_the_field() {
    let mut partition = cluster();
    let mut uneven = record("data", 2, &[("a", 1), ("b", 2)]);
    uneven.partitions[1].replicas.pop();
    let primary_backup = PartitionGroupRecord { protocol: Protocol::PrimaryBackup, ..record("data", 1, &[("a", 1)]) };
    let cases = [
        (record("system", 1, &[("a", 1)]), ErrorCode::InvalidArgument, "name: the name `system` is reserved"),
        (record("", 1, &[("a", 1)]), ErrorCode::InvalidArgument, "name: is empty"),
        (primary_backup, ErrorCode::NotInThisVersion, "type: partition group `data` is primary-backup"),
        (record("data", 0, &[]), ErrorCode::InvalidArgument, "partitions: is 0; choose 1 to 128"),
        (record("data", PARTITIONS_MAX as usize + 1, &[("a", 1)]), ErrorCode::InvalidArgument, "partitions: is 129"),
        (record("data", 1, &[]), ErrorCode::InvalidArgument, "partitions[1].replicas: is empty"),
        (uneven, ErrorCode::InvalidArgument, "partitions[2].replicas: has 1 members"),
        (
            record("data", 1, &[("a", 1), ("a", 1)]),
            ErrorCode::InvalidArgument,
            "partitions[1].replicas: lists `a` twice",
        ),
        (record("data", 1, &[("x", 1)]), ErrorCode::InvalidArgument, "partitions[1].replicas: `x` is not a member"),
        (
            record("data", 1, &[("e", 0)]),
            ErrorCode::InvalidArgument,
            "partitions[1].replicas: `e` is an ephemeral member",
        ),
        (record("data", 1, &[("a", 9)]), ErrorCode::InvalidArgument, "partitions[1].replicas: `a` has identity 1"),
    ];
    for (asked, code, expected) in cases {
        let rejection = partition.refused(make(asked));
        assert_eq!(rejection.code, code, "{rejection}");
        assert!(rejection.message.starts_with(expected), "{rejection} is not {expected}");
    }
    assert!(partition.machine.directory().partition_groups.is_empty());
}

#[test]
fn s80_partition_groups_are_bounded() {
    let mut partition = cluster();
    for number in 0..PARTITION_GROUPS_MAX {
        partition.ok(make(record(&format!("data-{number}"), 1, &[("a", 1)])));
    }
    assert_eq!(partition.refused(make(record("more", 1, &[("a", 1)]))).code, ErrorCode::LimitReached);
    partition.ok(make(record("data-0", 1, &[("a", 1)])));
}

#[test]
fn s94_d15_a_primitive_is_recorded_with_its_first_use() {
    let mut partition = cluster();
    partition.ok(make(record("data", 1, &[("a", 1)])));
    partition.ok(first_use("data", "workers"));
    let revision = Revision(partition.revision);
    partition.ok(first_use("data", "workers"));
    assert!(partition.machine.directory().primitives.iter().eq([(&address("data", "workers"), &revision)]));
    for _ in 0..2 {
        partition.ok(directory(DirectoryOp::ForgetPrimitive(address("data", "workers"))));
    }
    assert!(partition.machine.directory().primitives.is_empty());
}

#[test]
fn s99_d15_a_primitive_needs_a_partition_group_that_is() {
    let mut partition = cluster();
    let none = partition.refused(first_use("data", "workers"));
    assert_eq!(none.code, ErrorCode::PartitionGroupUnknown);
    assert!(none.message.contains("a management group alone holds no primitives"), "{none}");
    partition.ok(make(record("data", 1, &[("a", 1)])));
    let unknown = partition.refused(first_use("other", "workers"));
    assert_eq!(unknown.code, ErrorCode::PartitionGroupUnknown);
    assert!(unknown.message.contains("`data`"), "{unknown}");
    assert_eq!(partition.refused(first_use("system", "workers")).code, ErrorCode::InvalidArgument);
    assert_eq!(partition.refused(first_use("data", "a/b")).code, ErrorCode::InvalidArgument);
}

#[test]
fn a_partition_group_that_holds_primitives_is_deleted_by_force_only() {
    let mut partition = cluster();
    for name in ["data", "more"] {
        partition.ok(make(record(name, 1, &[("a", 1)])));
        partition.ok(first_use(name, "workers"));
    }
    let rejection = partition.refused(delete("data", false));
    assert_eq!(rejection.code, ErrorCode::NotEmpty);
    assert!(rejection.message.contains("1 primitives"), "{rejection}");
    partition.ok(delete("data", true));
    let left: Vec<_> = partition.machine.directory().primitives.keys().cloned().collect();
    assert_eq!(left, [address("more", "workers")]);
    assert_eq!(partition.refused(delete("system", true)).code, ErrorCode::InvalidArgument);
}
