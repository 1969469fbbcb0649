//! Management group and partition groups: S83 to S107, D15, D22, and the examples of section 14.

use super::super::builder::{Builder, Group, Member};
use super::super::{ManagementGroup, PARTITIONS_DEFAULT};
use super::{MANAGEMENT, MEMBERS, accepted, accepted_with, as_member, invalid, refused};
use crate::code::ErrorCode;
use crate::command::{MemberKind, Protocol};
use crate::ids::{MemberName, PartitionGroupName};

fn names(names: &[&str]) -> Vec<MemberName> {
    names.iter().copied().map(MemberName::from).collect()
}

#[test]
fn e1_is_refused_only_for_its_primary_backup_group() {
    let e1 = format!("{MEMBERS}{MANAGEMENT}partition-groups:\n  data:\n    type: primary-backup\n    partitions: 32\n");
    let problem = "line 24: partition-groups.data.type: the type `primary-backup` is not in this version; \
                   use `raft`, with a list of `members`";
    refused(ErrorCode::NotInThisVersion, &e1, &[problem]);
}

#[test]
fn e1_with_data_as_a_raft_group_boots_on_every_member() {
    let e1 = format!(
        "{MEMBERS}{MANAGEMENT}partition-groups:\n  data:\n    type: raft\n    partitions: 32\n    members: [member-1, member-2, member-3]\n"
    );
    let mut ports = Vec::new();
    for member in ["member-1", "member-2", "member-3"] {
        let config = accepted_with(&e1, &as_member(member));
        assert_eq!(config.local.name.as_str(), member);
        assert_eq!(config.local.kind, MemberKind::Persistent);
        assert_eq!(config.management, Some(ManagementGroup { members: names(&["member-1", "member-2", "member-3"]) }));
        let data = &config.partition_groups[&PartitionGroupName::from("data")];
        assert_eq!((data.protocol, data.partitions), (Protocol::Raft, 32));
        assert_eq!(data.members, names(&["member-1", "member-2", "member-3"]));
        ports.push((config.api.port(), config.health.port(), config.peer.map(|peer| peer.port())));
    }
    assert_eq!(ports, [(7300, 7302, Some(5001)), (7310, 7312, Some(5002)), (7320, 7322, Some(5003))]);
}

#[test]
fn s83_a_group_name_that_stands_twice_is_refused() {
    let yaml = format!(
        "{MEMBERS}{MANAGEMENT}partition-groups:\n  data: {{type: raft, members: [member-1]}}\n  data: {{type: raft, members: [member-2]}}\n"
    );
    invalid(&yaml, &["line 24: partition-groups.data: stands twice, first in line 23; keep one of the two"]);
    let builder = Builder::new()
        .local_member("a")
        .member(Member::persistent("a", "localhost:1"))
        .management_group(Group::raft(["a"]))
        .partition_group("data", Group::raft(["a"]))
        .partition_group("data", Group::raft(["a"]).partitions(7));
    let error = builder.build().expect_err("a group that is declared twice");
    let sentence =
        "partition-groups.data: the partition group `data` is declared twice; give each group a name of its own";
    assert_eq!(error.to_string(), sentence);
}

#[test]
fn s83_a_group_raft_beside_the_profile_consensus_is_refused() {
    let yaml = format!(
        "{MEMBERS}profiles:\n  - consensus\npartition-groups:\n  raft:\n    type: raft\n    members: [member-1]\n"
    );
    let problem = "line 17: partition-groups.raft: there is a partition group `raft` already, and the profile `consensus` makes one; \
                   give each group a name of its own";
    invalid(&yaml, &[problem]);
}

#[test]
fn s83_a_management_group_beside_the_profile_consensus_is_refused() {
    let yaml = format!("{MEMBERS}{MANAGEMENT}profiles: [consensus]\n");
    let problem = "line 14: management-group: there is a group `system` already, and the profile `consensus` makes one; \
                   leave out one of the two";
    invalid(&yaml, &[problem]);
}

#[test]
fn d15_the_name_system_is_reserved() {
    let yaml = format!("{MEMBERS}{MANAGEMENT}partition-groups:\n  system:\n    type: raft\n    members: [member-1]\n");
    let problem = "line 23: partition-groups.system: the name `system` is reserved for the management group; \
                   give this partition group another name";
    invalid(&yaml, &[problem]);

    let yaml = format!("{MEMBERS}{}", MANAGEMENT.replace("name: system", "name: main"));
    let problem = "line 16: management-group.name: `main` is not the management group's name; \
                   the management group is always named `system`, which is reserved for it";
    invalid(&yaml, &[problem]);
}

#[test]
fn d15_the_default_partition_group_exists() {
    let groups = "partition-groups:\n  data:\n    type: raft\n    members: [member-1]\n";
    let config = accepted(&format!("{MEMBERS}{MANAGEMENT}{groups}default-partition-group: data\n"));
    assert_eq!(config.default_partition_group, Some("data".into()));

    let yaml = format!("{MEMBERS}{MANAGEMENT}{groups}default-partition-group: date\n");
    invalid(&yaml, &["line 26: default-partition-group: there is no partition group `date`; did you mean `data`?"]);

    let yaml = format!("{MEMBERS}{MANAGEMENT}{groups}default-partition-group: system\n");
    let problem = "line 26: default-partition-group: the name `system` is reserved for the management group, which holds no \
                   primitives; name a partition group";
    invalid(&yaml, &[problem]);
}

#[test]
fn d15_one_partition_group_is_the_default_and_two_are_not() {
    let one = format!("{MEMBERS}{MANAGEMENT}partition-groups:\n  a: {{type: raft, members: [member-1]}}\n");
    assert_eq!(accepted(&one).sole_or_default_partition_group(), Some(&"a".into()));
    let two = format!("{one}  b: {{type: raft, members: [member-1]}}\n");
    assert_eq!(accepted(&two).sole_or_default_partition_group(), None);
    let named = format!("{two}default-partition-group: b\n");
    assert_eq!(accepted(&named).sole_or_default_partition_group(), Some(&"b".into()));
}

#[test]
fn s84_the_type_is_mandatory() {
    let yaml =
        format!("{MEMBERS}{}partition-groups:\n  data:\n    partitions: 3\n", MANAGEMENT.replace("  type: raft\n", ""));
    invalid(
        &yaml,
        &[
            "line 14: management-group.type: is missing; the type fixes the replication protocol: use `raft`",
            "line 22: partition-groups.data.type: is missing; the type fixes the replication protocol: use `raft`",
            "line 22: partition-groups.data.members: is missing: the Raft group `data` lists no members; list the persistent members \
         that replicate it; a member never forms a group from what it merely discovers",
        ],
    );
}

#[test]
fn s84_an_unknown_type_is_refused_with_the_nearest() {
    let yaml = format!("{MEMBERS}{}", MANAGEMENT.replace("type: raft", "type: Raft"));
    invalid(&yaml, &["line 15: management-group.type: `Raft` is not known; did you mean `raft`?"]);
    let yaml = format!("{MEMBERS}{}", MANAGEMENT.replace("type: raft", "type: zab"));
    invalid(&yaml, &["line 15: management-group.type: `zab` is not known; use `raft` or `primary-backup`"]);
}

#[test]
fn a_primary_backup_management_group_is_not_in_this_version() {
    let yaml = format!("{MEMBERS}management-group:\n  type: primary-backup\n  name: system\n  partitions: 1\n");
    let problem = "line 15: management-group.type: the type `primary-backup` is not in this version; \
                   use `raft`, with a list of `members`";
    refused(ErrorCode::NotInThisVersion, &yaml, &[problem]);
}

#[test]
fn s85_partitions_are_a_number_within_bounds() {
    let group = |partitions| {
        format!(
            "{MEMBERS}{MANAGEMENT}partition-groups:\n  data:\n    type: raft\n    partitions: {partitions}\n    members: [member-1]\n"
        )
    };
    let count = |yaml: &str| accepted(yaml).partition_groups[&"data".into()].partitions;
    assert_eq!(count(&group("1")), 1);
    assert_eq!(count(&group("128")), 128);
    let without = group("1").replace("    partitions: 1\n", "");
    assert_eq!(count(&without), PARTITIONS_DEFAULT);
    for (text, found) in [
        ("0", "the number 0"),
        ("129", "the number 129"),
        ("-1", "the number -1"),
        ("1.5", "the number 1.5"),
        ("99999999999", "the number 99999999999"),
        ("three", "the text `three`"),
        ("'3'", "the text `3`"),
    ] {
        let problem =
            format!("line 25: partition-groups.data.partitions: has {found}; it is a whole number from 1 to 128");
        invalid(&group(text), &[&problem]);
    }
}

#[test]
fn s85_the_builder_bounds_partitions_as_the_file_does() {
    let builder = |partitions| {
        Builder::new()
            .local_member("a")
            .member(Member::persistent("a", "localhost:1"))
            .management_group(Group::raft(["a"]))
            .partition_group("data", Group::raft(["a"]).partitions(partitions))
    };
    assert!(builder(128).build().is_ok());
    for partitions in [0, 129] {
        let error = builder(partitions).build().expect_err("out of bounds").to_string();
        let sentence = "partitions are asked for; a partition group has 1 to 128 partitions";
        assert_eq!(error, format!("partition-groups.data.partitions: {partitions} {sentence}"));
    }
}

#[test]
fn s97_the_management_group_has_one_partition() {
    let yaml = format!("{MEMBERS}{}", MANAGEMENT.replace("partitions: 1", "partitions: 3"));
    let problem = "line 17: management-group.partitions: the management group has 3 partitions; \
                   the management group has 1 partition";
    invalid(&yaml, &[problem]);
}

#[test]
fn s97_name_and_partitions_of_the_management_group_may_be_left_out() {
    let short = MANAGEMENT.replace("  name: system\n  partitions: 1\n", "");
    assert_eq!(accepted(&format!("{MEMBERS}{short}")), accepted(&format!("{MEMBERS}{MANAGEMENT}")));
}

#[test]
fn s97_any_number_of_members_may_manage() {
    for members in [vec!["member-1"], vec!["member-2", "member-1"], vec!["member-1", "member-2", "member-3"]] {
        let yaml = format!("{MEMBERS}management-group:\n  type: raft\n  members: [{}]\n", members.join(", "));
        let management = accepted(&yaml).management.expect("it is declared");
        assert_eq!(management.members, names(&members), "the order of the list is kept: the first one forms it");
    }
}

#[test]
fn s99_a_management_group_alone_boots() {
    let config = accepted(&format!("{MEMBERS}{MANAGEMENT}"));
    assert!(config.management.is_some() && config.partition_groups.is_empty());
}

const ALONE: &str = "\
cluster:
  local-member: {name: member-1}
  members:
    member-1: {type: persistent, address: 'localhost:5001'}
";

#[test]
fn s93_d22_partition_groups_without_a_management_group_are_refused_in_a_cluster_of_one() {
    let yaml = format!("{ALONE}partition-groups:\n  data:\n    type: raft\n    members: [member-1]\n");
    let problem = "line 1: management-group: is missing: partition groups need one, and this cluster of one has no other member to \
                   find it on; add a `management-group`, or the profile `consensus`";
    invalid(&yaml, &[problem]);
}

#[test]
fn s96_d22_partition_groups_without_a_management_group_wait_for_one_in_a_larger_cluster() {
    let groups = "partition-groups:\n  data:\n    type: raft\n    members: [member-1]\n";
    let config = accepted(&format!("{MEMBERS}{groups}"));
    assert_eq!(config.management, None);
    assert_eq!(config.partition_groups.len(), 1);
    // A client beside one member: the member may have it.
    assert_eq!(accepted_with(&format!("{ALONE}{groups}"), &as_member("client-1")).management, None);
}

#[test]
fn s88_s91_a_member_need_not_declare_a_group() {
    let config = accepted(MEMBERS);
    assert!(config.management.is_none() && config.partition_groups.is_empty());
}

#[test]
fn s102_partition_groups_are_a_table_by_name() {
    let yaml = format!("{MEMBERS}{MANAGEMENT}partition-groups:\n  - name: data\n    type: raft\n");
    invalid(&yaml, &["line 23: partition-groups: has a list; it is a table of partition groups by name"]);
}

#[test]
fn s105_a_raft_group_without_a_list_of_members_is_refused() {
    let right =
        "list the persistent members that replicate it; a member never forms a group from what it merely discovers";
    for list in ["", "    members:\n", "    members: []\n"] {
        let yaml = format!("{MEMBERS}{MANAGEMENT}partition-groups:\n  data:\n    type: raft\n{list}");
        let line = if list.is_empty() { 23 } else { 25 };
        let what = "is missing: the Raft group `data` lists no members";
        invalid(&yaml, &[&format!("line {line}: partition-groups.data.members: {what}; {right}")]);
    }
    let yaml = format!("{MEMBERS}management-group:\n  type: raft\n");
    let what = "is missing: the Raft group `system` lists no members";
    invalid(&yaml, &[&format!("line 14: management-group.members: {what}; {right}")]);
}

#[test]
fn s107_an_ephemeral_member_in_a_raft_group_is_refused_with_both_names() {
    let members = MEMBERS.replacen("persistent", "ephemeral", 1);
    let yaml =
        format!("{members}{MANAGEMENT}partition-groups:\n  data:\n    type: raft\n    members: [member-2, member-1]\n");
    let right = "only members of type `persistent` replicate Raft groups";
    invalid(
        &yaml,
        &[
            &format!(
                "line 19: management-group.members[0]: the Raft group `system` lists the ephemeral member `member-1`; {right}"
            ),
            &format!(
                "line 25: partition-groups.data.members[1]: the Raft group `data` lists the ephemeral member `member-1`; {right}"
            ),
        ],
    );
}

#[test]
fn s107_a_member_that_is_not_declared_is_refused_with_the_nearest() {
    let yaml = format!("{MEMBERS}{}", MANAGEMENT.replace("- member-3", "- member-33"));
    let what = "the Raft group `system` lists `member-33`, which is not a declared member";
    invalid(&yaml, &[&format!("line 21: management-group.members[2]: {what}; did you mean `member-3`?")]);
    let yaml = format!("{MEMBERS}{}", MANAGEMENT.replace("- member-3", "- other"));
    let what = "the Raft group `system` lists `other`, which is not a declared member";
    invalid(&yaml, &[&format!("line 21: management-group.members[2]: {what}; declare it under `cluster.members`")]);
}

#[test]
fn a_member_that_is_listed_twice_is_refused() {
    let yaml = format!("{MEMBERS}{}", MANAGEMENT.replace("- member-3", "- member-1"));
    invalid(
        &yaml,
        &["line 21: management-group.members[2]: the member `member-1` is listed twice; list each member once"],
    );
}
