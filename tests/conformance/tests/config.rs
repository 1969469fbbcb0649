//! The file form and its rules (S82 to S114, D15, D18, D22), through `coterie-sidecar check`: what an operator of a cluster
//! meets. The rules themselves are tested one by one in `coterie-core`.

use std::process::Command;

use coterie_cli::local::{LocalCluster, Plan, standard_groups};
use coterie_core::config::builder::{Builder, Group, Member, Profile};

/// What `check` says of a file: whether it accepts it, and everything that it printed.
fn check(text: &str) -> (bool, String) {
    let cluster = LocalCluster::prepare(&Plan::new(0)).unwrap_or_else(|error| panic!("{error}"));
    let file = cluster.home().join("file.yaml");
    std::fs::write(&file, text).expect("write the file");
    let output = Command::new(cluster.sidecar()).arg("check").arg("--config").arg(&file).output().expect("run check");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn accepted(text: &str) {
    let (good, said) = check(text);
    assert!(good, "refused:\n{said}\n{text}");
}

/// Refused, and the message has all of `words`.
fn refused(text: &str, words: &[&str]) {
    let (good, said) = check(text);
    assert!(!good, "accepted:\n{said}\n{text}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
}

const MEMBERS: &str = "\
cluster:
  local-member:
    name: member-1
  members:
    member-1:
      type: persistent
      address: localhost:5001
    member-2:
      type: persistent
      address: localhost:5002
    member-3:
      type: persistent
      address: localhost:5003
";
const MANAGEMENT: &str = "\
management-group:
  type: raft
  name: system
  partitions: 1
  members:
    - member-1
    - member-2
    - member-3
";
const RAFT_DATA: &str = "\
partition-groups:
  data:
    type: raft
    partitions: 3
    members: [member-1, member-2, member-3]
";

fn with(parts: &[&str]) -> String {
    parts.concat()
}

/// A builder that says what the file of these parts says.
fn builder() -> Builder {
    let names = ["member-1", "member-2", "member-3"];
    let builder = Builder::new().local_member("member-1");
    names
        .iter()
        .zip(5001..)
        .fold(builder, |builder, (name, port)| builder.member(Member::persistent(*name, format!("localhost:{port}"))))
}

#[test]
fn s82_s97_s98_s102_s111_s114_a_file_and_the_builder_say_the_same() {
    let file = with(&[MEMBERS, MANAGEMENT, RAFT_DATA]);
    accepted(&file);
    let names = ["member-1", "member-2", "member-3"];
    let built =
        builder().management_group(Group::raft(names)).partition_group("data", Group::raft(names).partitions(3));
    accepted(&built.to_yaml());
    let config = built.build().unwrap_or_else(|error| panic!("{error}"));
    let read = coterie_core::config::Config::from_yaml(&file, &Default::default());
    assert_eq!(read.unwrap_or_else(|error| panic!("{error}")), config);
}

#[test]
fn s82_s114_the_files_of_a_local_cluster_come_from_the_builder_and_are_accepted() {
    let cluster = LocalCluster::prepare(&Plan::new(3)).unwrap_or_else(|error| panic!("{error}"));
    for seat in cluster.seats() {
        accepted(&std::fs::read_to_string(seat.config_file()).expect("it was written"));
    }
    let names: Vec<String> = cluster.seats().iter().map(|seat| seat.name.clone()).collect();
    accepted(&standard_groups(&names, builder()).to_yaml());
}

#[test]
fn s83_a_duplicate_name_is_refused_with_its_line() {
    let twice = "  data:\n    type: raft\n    members: [member-1]\n";
    refused(&with(&[MEMBERS, MANAGEMENT, RAFT_DATA, twice]), &["data", "line 27"]);
}

#[test]
fn s84_a_group_without_a_type_is_refused() {
    let text = with(&[MEMBERS, MANAGEMENT, "partition-groups:\n  data:\n    partitions: 3\n    members: [member-1]\n"]);
    refused(&text, &["partition-groups.data", "type", "raft"]);
}

#[test]
fn s85_the_number_of_partitions_is_bounded() {
    let text = with(&[MEMBERS, MANAGEMENT, RAFT_DATA]).replace("partitions: 3", "partitions: 0");
    refused(&text, &["partition-groups.data.partitions", "128"]);
}

#[test]
fn s86_an_unknown_option_of_a_group_is_refused_with_those_that_are() {
    let text = with(&[MEMBERS, MANAGEMENT, RAFT_DATA, "    flavour: strong\n"]);
    refused(&text, &["flavour", "line 27"]);
}

#[test]
fn s87_a_group_without_a_name_is_refused() {
    let text = with(&[MEMBERS, MANAGEMENT, RAFT_DATA]).replace("  data:", "  \"\":");
    refused(&text, &["partition-groups"]);
}

#[test]
fn s93_d22_partition_groups_without_a_management_group_are_refused_in_a_cluster_of_one() {
    let alone = "cluster:\n  local-member:\n    name: member-1\n  members:\n    member-1:\n      type: persistent\n      address: localhost:5001\n";
    refused(&with(&[alone, "partition-groups:\n  data:\n    type: raft\n    members: [member-1]\n"]), &["management"]);
    // With other members, one of them may have it.
    accepted(&with(&[MEMBERS, RAFT_DATA]));
}

#[test]
fn s96_a_member_need_not_configure_the_management_group() {
    accepted(MEMBERS);
}

#[test]
fn s105_a_raft_group_without_members_is_refused() {
    let text = with(&[MEMBERS, MANAGEMENT, "partition-groups:\n  data:\n    type: raft\n    partitions: 3\n"]);
    refused(&text, &["partition-groups.data", "members"]);
    let text = with(&[MEMBERS, "management-group:\n  type: raft\n  name: system\n"]);
    refused(&text, &["management-group", "members"]);
}

#[test]
fn s107_an_ephemeral_member_in_a_raft_group_is_refused_by_name() {
    let members = MEMBERS.replace(
        "    member-3:\n      type: persistent\n      address: localhost:5003\n",
        "    member-3:\n      type: ephemeral\n",
    );
    refused(&with(&[&members, MANAGEMENT]), &["management-group.members", "member-3", "ephemeral"]);
}

#[test]
fn s115_primary_backup_is_refused_as_not_in_this_version_and_not_replaced_by_something_else() {
    let e1 = with(&[MEMBERS, MANAGEMENT, "partition-groups:\n  data:\n    type: primary-backup\n    partitions: 32\n"]);
    refused(&e1, &["partition-groups.data", "not in this version"]);
    let e2 = with(&[MEMBERS, "profiles:\n  - consensus\n  - data-grid\n"]);
    refused(&e2, &["data-grid", "not in this version"]);
}

#[test]
fn s123_s124_s128_s130_profiles_are_listed_and_an_unknown_one_is_refused() {
    accepted(&with(&[MEMBERS, "profiles:\n  - consensus\n"]));
    accepted(&builder().profile(Profile::Consensus).to_yaml());
    refused(&with(&[MEMBERS, "profiles:\n  - consensus\n  - grid\n"]), &["grid", "consensus", "client"]);
}

#[test]
fn d18_client_with_consensus_is_refused_with_both_names() {
    refused(&with(&[MEMBERS, "profiles: [client, consensus]\n"]), &["client", "consensus"]);
    refused(&with(&[MEMBERS, MANAGEMENT, "profiles: [client]\n"]), &["client", "member-1"]);
}

#[test]
fn d15_the_name_system_is_reserved_and_a_default_must_exist() {
    let text = with(&[MEMBERS, MANAGEMENT, RAFT_DATA]).replace("  data:", "  system:");
    refused(&text, &["system"]);
    refused(
        &with(&[MEMBERS, MANAGEMENT, RAFT_DATA, "default-partition-group: other\n"]),
        &["default-partition-group", "other"],
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_line() {
    let text = with(&[MEMBERS, "surprise: 1\n", MANAGEMENT, RAFT_DATA])
        .replace("type: raft\n    partitions: 3", "type: paft\n    partitions: x");
    refused(&text, &["surprise", "line 14", "paft", "partitions"]);
    refused("cluster: [", &["line"]);
    refused("", &["local-member"]);
}
