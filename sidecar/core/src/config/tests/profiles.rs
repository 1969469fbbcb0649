//! Profiles: S123 to S131, D18.

use super::super::builder::{Builder, Group, Member, Profile};
use super::super::{Overrides, PARTITIONS_DEFAULT};
use super::{MANAGEMENT, MEMBERS, accepted, accepted_with, as_member, invalid, refused, refused_with};
use crate::code::ErrorCode;
use crate::command::{MemberKind, Protocol};

const GRID: &str =
    "the profile `data-grid` is not in this version; use the profile `consensus`, whose groups are Raft groups";

#[test]
fn e2_is_refused_only_for_its_data_grid() {
    let e2 = format!("{MEMBERS}profiles:\n  - consensus\n  - data-grid\n");
    refused(ErrorCode::NotInThisVersion, &e2, &[&format!("line 16: profiles[1]: {GRID}")]);
}

#[test]
fn e3_is_refused_only_for_its_data_grid_and_its_primary_backup_group() {
    let e3 = format!(
        "{MEMBERS}profiles:\n  - consensus\n  - data-grid\npartition-groups:\n  more-data:\n    type: primary-backup\n    partitions: 7\n"
    );
    refused(
        ErrorCode::NotInThisVersion,
        &e3,
        &[
            &format!("line 16: profiles[1]: {GRID}"),
            "line 19: partition-groups.more-data.type: the type `primary-backup` is not in this version; \
         use `raft`, with a list of `members`",
        ],
    );
}

#[test]
fn s125_data_grid_alone_is_not_in_this_version() {
    let yaml = format!("{MEMBERS}profiles: [data-grid]\ndefault-partition-group: data\n");
    refused(ErrorCode::NotInThisVersion, &yaml, &[&format!("line 14: profiles[0]: {GRID}")]);
}

#[test]
fn s124_consensus_makes_system_and_raft_on_all_declared_persistent_members() {
    let members = format!("{MEMBERS}    client-1:\n      type: ephemeral\n");
    let config = accepted(&format!("{members}profiles: [consensus]\n"));
    let all = ["member-1", "member-2", "member-3"].map(Into::into);
    assert_eq!(config.management.expect("the profile makes it").members, all);
    assert_eq!(config.partition_groups.len(), 1);
    let raft = &config.partition_groups[&"raft".into()];
    assert_eq!((raft.protocol, raft.partitions), (Protocol::Raft, PARTITIONS_DEFAULT));
    assert_eq!(raft.members, all);
}

#[test]
fn s124_consensus_gives_every_member_the_same_groups_whatever_the_order_of_the_file() {
    let turned = MEMBERS.replace("member-2", "x").replace("member-1", "member-2").replace('x', "member-1");
    let groups = |yaml: &str| {
        let config = accepted(&format!("{yaml}profiles: [consensus]\n"));
        (config.management, config.partition_groups)
    };
    assert_eq!(groups(MEMBERS), groups(&turned));
}

#[test]
fn s124_consensus_without_a_persistent_member_is_refused() {
    let yaml = "cluster:\n  local-member: {name: a}\n  members:\n    a: {type: ephemeral}\nprofiles:\n  - consensus\n";
    let problem = "line 6: profiles[0]: the profile `consensus` finds no persistent member to replicate on; \
                   declare members of type `persistent` under `cluster.members`";
    invalid(yaml, &[problem]);
}

#[test]
fn s131_further_groups_may_stand_beside_a_profile() {
    let yaml = format!(
        "{MEMBERS}profiles: [consensus]\npartition-groups:\n  more-data:\n    type: raft\n    partitions: 7\n    members: [member-2]\n"
    );
    let config = accepted(&yaml);
    let names: Vec<&str> = config.partition_groups.keys().map(crate::ids::PartitionGroupName::as_str).collect();
    assert_eq!(names, ["more-data", "raft"]);
}

#[test]
fn s127_client_makes_the_local_member_ephemeral_and_no_groups() {
    let config = accepted(&format!("{MEMBERS}profiles: [client]\n"));
    assert_eq!(config.local.kind, MemberKind::Ephemeral);
    assert_eq!(config.members[&"member-1".into()].kind, MemberKind::Ephemeral);
    assert_eq!(config.members[&"member-2".into()].kind, MemberKind::Persistent);
    assert!(config.management.is_none() && config.partition_groups.is_empty());
}

#[test]
fn s127_a_client_needs_no_declaration() {
    let config = accepted_with(&format!("{MEMBERS}profiles: [client]\n"), &as_member("client-7"));
    assert_eq!(config.local.kind, MemberKind::Ephemeral);
    assert_eq!((config.local.address, config.peer), (None, None));
}

#[test]
fn s128_profiles_apply_in_the_order_given() {
    // What contradicts is the one that comes later.
    let problem = |line, i| {
        format!(
            "line {line}: profiles[{i}]: the profiles `client` and `consensus` contradict each other; \
             a client replicates nothing: give one of the two"
        )
    };
    invalid(&format!("{MEMBERS}profiles:\n  - consensus\n  - client\n"), &[&problem(16, 1)]);
    invalid(&format!("{MEMBERS}profiles:\n  - client\n  - consensus\n"), &[&problem(16, 1)]);
    // And what is not in this version is found where it stands.
    let yaml = format!("{MEMBERS}profiles:\n  - data-grid\n  - consensus\n");
    refused(ErrorCode::NotInThisVersion, &yaml, &[&format!("line 15: profiles[0]: {GRID}")]);
}

#[test]
fn d18_a_local_client_in_a_raft_list_is_refused_with_both_names() {
    let yaml = format!("{MEMBERS}{MANAGEMENT}profiles: [client]\n");
    let problem = "line 19: management-group.members[0]: the Raft group `system` lists the local member `member-1`, which the profile \
                   `client` makes ephemeral; leave out the profile `client`, or this member of the list";
    invalid(&yaml, &[problem]);
    // Another member may be a client of the same groups.
    let config = accepted_with(&yaml, &as_member("client-1"));
    assert!(config.management.is_some());
    // And in a partition group, through the builder.
    let builder = Builder::new()
        .local_member("b")
        .member(Member::persistent("a", "localhost:1"))
        .member(Member::persistent("b", "localhost:2"))
        .management_group(Group::raft(["a"]))
        .partition_group("data", Group::raft(["a", "b"]))
        .profile(Profile::Client);
    let error = builder.build().expect_err("a client in a Raft list").to_string();
    let sentence = "partition-groups.data.members[1]: the Raft group `data` lists the local member `b`, which the profile \
                    `client` makes ephemeral; leave out the profile `client`, or this member of the list";
    assert_eq!(error, sentence);
}

#[test]
fn d18_a_local_member_by_option_is_refused_all_the_same() {
    let yaml = format!("{MEMBERS}{MANAGEMENT}profiles: [client]\n");
    let problem = "line 20: management-group.members[1]: the Raft group `system` lists the local member `member-2`, which the profile \
                   `client` makes ephemeral; leave out the profile `client`, or this member of the list";
    refused_with(ErrorCode::InvalidArgument, &yaml, &as_member("member-2"), &[problem]);
}

#[test]
fn s123_an_unknown_profile_is_refused_with_the_nearest() {
    let yaml = format!("{MEMBERS}profiles:\n  - consensuss\n");
    invalid(&yaml, &["line 15: profiles[0]: `consensuss` is not known; did you mean `consensus`?"]);
    let yaml = format!("{MEMBERS}profiles:\n  - gossip\n");
    invalid(&yaml, &["line 15: profiles[0]: `gossip` is not known; use `consensus`, `data-grid` or `client`"]);
}

#[test]
fn s130_profiles_are_a_list_without_repetition() {
    let yaml = format!("{MEMBERS}profiles: consensus\n");
    invalid(&yaml, &["line 14: profiles: has the text `consensus`; it is a list of profiles"]);
    let yaml = format!("{MEMBERS}profiles: [consensus, consensus]\n");
    invalid(&yaml, &["line 14: profiles[1]: the profile `consensus` is given twice; give each profile once"]);
    let none = format!("{MEMBERS}profiles:\n");
    assert_eq!(accepted(&none), accepted_with(MEMBERS, &Overrides::default()));
}
