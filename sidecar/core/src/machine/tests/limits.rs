//! Limits of a partition. Reached without the witness, which would look at every group after every entry.

use super::*;
use crate::command::{MemberKind, PartitionRecord, Protocol};
use crate::ids::NodeId;
use crate::limits::{
    CLUSTER_MEMBERS_MAX, ENTRIES_BYTES_MAX, GROUPS_MAX, LOCK_WAITERS_MAX, LOCKS_MAX, MAPS_MAX, PRIMITIVES_MAX,
    SESSIONS_MAX, VALUE_BYTES_MAX,
};

/// Applies `commands`, all of which succeed; then `beyond` must be refused and `known` must still succeed.
fn check(mut machine: Machine, commands: impl Iterator<Item = Command>, beyond: Command, known: Command) {
    let mut apply = |command| {
        let revision = Revision(machine.revision().0 + 1);
        machine.apply(revision, 0, &Envelope { request: None, command }).outcome
    };
    for command in commands {
        apply(command).unwrap();
    }
    let rejection = apply(beyond).unwrap_err();
    assert_eq!(rejection.code, ErrorCode::LimitReached);
    assert!(rejection.message.contains("which is the limit"), "{rejection}");
    apply(known).expect("what there is already stays usable");
}

#[test]
fn groups_of_a_partition_are_bounded() {
    let group = |number: usize| create(&format!("group-{number}"));
    check(Machine::new(0), (0..GROUPS_MAX).map(group), group(GROUPS_MAX), group(0));
}

#[test]
fn joining_makes_no_group_beyond_the_limit() {
    let groups = (0..GROUPS_MAX).map(|number| create(&format!("group-{number}")));
    let full = std::iter::once(open("pod-1", 1)).chain(groups);
    check(Machine::new(0), full, join("one-more", SessionId(1)), join("group-0", SessionId(1)));
}

#[test]
fn sessions_of_a_partition_are_bounded() {
    let session = |number: usize| open(&format!("pod-{number}"), 1);
    check(Machine::new(0), (0..SESSIONS_MAX).map(session), session(SESSIONS_MAX), open("pod-0", 2));
}

#[test]
fn maps_of_a_partition_are_bounded() {
    let write = |number: usize| put(&format!("map-{number}"), "k", "v");
    check(Machine::new(0), (0..MAPS_MAX).map(write), write(MAPS_MAX), write(0));
}

#[test]
fn bytes_of_a_partitions_maps_are_bounded() {
    let value = bytes::Bytes::from(vec![0; VALUE_BYTES_MAX]);
    let write = |number: usize| {
        map("m", MapOp::Put { key: format!("{number:03}").into(), value: value.clone(), only: Condition::Always })
    };
    let most = ENTRIES_BYTES_MAX / (VALUE_BYTES_MAX + 3);
    check(Machine::new(0), (0..most).map(write), write(most), write(0));
}

#[test]
fn locks_that_are_held_and_those_who_wait_are_bounded() {
    let first = || std::iter::once(open("pod-1", 1));
    let ask = |number: usize| acquire(&format!("lock-{number}"), SessionId(1));
    check(Machine::new(0), first().chain((0..LOCKS_MAX).map(ask)), ask(LOCKS_MAX), ask(0));
    let wait = || acquire("l", SessionId(1));
    let full = first().chain((0..=LOCK_WAITERS_MAX).map(|_| wait()));
    check(Machine::new(0), full, wait(), acquire("another", SessionId(1)));
}

#[test]
fn members_of_a_cluster_are_bounded() {
    let register = |number: usize| {
        directory(DirectoryOp::RegisterMember(MemberRecord {
            name: MemberName(format!("member-{number}")),
            kind: MemberKind::Ephemeral,
            address: String::new(),
            zone: String::new(),
            node: NodeId(0),
            start_counter: 0,
            run: 1,
            machine_version: MACHINE_VERSION,
            version: String::new(),
        }))
    };
    let machine = Machine::management();
    check(machine, (0..CLUSTER_MEMBERS_MAX).map(register), register(CLUSTER_MEMBERS_MAX), register(0));
}

#[test]
fn primitives_of_a_cluster_are_bounded() {
    let mut machine = Machine::management();
    let replicas = vec![(MemberName::from("a"), NodeId(1))];
    let data = PartitionGroupRecord {
        name: "data".into(),
        protocol: Protocol::Raft,
        partitions: vec![PartitionRecord { replicas }],
        generation: 0,
    };
    machine.directory.partition_groups.insert(data.name.clone(), data);
    let primitive = |number: usize| {
        directory(DirectoryOp::RecordPrimitive(PrimitiveAddress {
            partition_group: "data".into(),
            kind: "group".to_owned(),
            name: format!("group-{number}"),
        }))
    };
    check(machine, (0..PRIMITIVES_MAX).map(primitive), primitive(PRIMITIVES_MAX), primitive(0));
}

#[test]
fn s8_s25_what_is_there_can_be_given_back_once_and_nothing_that_grows_counts_as_giving_back() {
    let mut partition = Partition::new();
    let session = partition.session("pod-1");
    let member = partition.join("g", session);
    partition.ok(put("m", "k", "v"));
    let (token, _) = placed(&partition.ok(acquire("l", session)));
    let release = |term| op("g", GroupOp::Release(Term(term)));
    let unlock = |token| Command::Lock { name: "l".into(), op: LockOp::Release(token) };
    for grows in [
        join("g", session),
        create("h"),
        step_down("g"),
        put("m", "k", "w"),
        acquire("l", session),
        leave("h", member),
        release(2),
        delete("m", "other", Condition::Always),
        unlock(Token(0)),
    ] {
        assert!(!partition.machine.gives_back(&grows), "{grows:?}");
    }
    for given in [release(1), leave("g", member), delete("m", "k", Condition::Always), unlock(token)] {
        assert!(partition.machine.gives_back(&given), "{given:?}");
        partition.ok(given.clone());
        assert!(!partition.machine.gives_back(&given), "{given:?} a second time");
    }
}
