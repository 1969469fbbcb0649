//! Members, addresses and names: S111 and what follows from it.

use super::super::builder::{Builder, Member};
use super::super::{Address, check_name};
use super::{MEMBERS, accepted, accepted_with, as_member, invalid, refused_with};
use crate::code::ErrorCode;
use crate::command::MemberKind;

#[test]
fn s111_members_have_id_type_and_address_and_the_local_one_is_named_by_id() {
    let config = accepted(&format!("{MEMBERS}    client-1:\n      type: ephemeral\n      zone: b\n"));
    assert_eq!(config.local.name.as_str(), "member-1");
    assert_eq!(config.local.address, Some(Address { host: "localhost".to_owned(), port: 5001 }));
    let client = &config.members[&"client-1".into()];
    assert_eq!((client.kind, &client.address, client.zone.as_str()), (MemberKind::Ephemeral, &None, "b"));
    assert_eq!(config.members.len(), 4);
}

#[test]
fn s111_a_cluster_without_a_local_member_is_refused() {
    let yaml = MEMBERS.replace("  local-member:\n    name: member-1\n", "");
    let right = "name the member that this sidecar is, in the file or with `--local-member`";
    invalid(&yaml, &[&format!("line 1: cluster.local-member.name: is missing; {right}")]);
    assert_eq!(accepted_with(&yaml, &as_member("member-2")).local.name.as_str(), "member-2");
    invalid("", &[&format!("line 1: cluster.local-member.name: is missing; {right}")]);
    invalid("# nothing\n\n", &[&format!("line 1: cluster.local-member.name: is missing; {right}")]);
}

#[test]
fn s111_a_member_without_a_type_is_refused() {
    let yaml = MEMBERS.replacen("      type: persistent\n", "", 1);
    invalid(&yaml, &["line 5: cluster.members.member-1.type: is missing; use `persistent` or `ephemeral`"]);
    let yaml = MEMBERS.replacen("type: persistent", "type: persistant", 1);
    let problem = "line 6: cluster.members.member-1.type: `persistant` is not known; did you mean `persistent`?";
    invalid(&yaml, &[problem]);
}

#[test]
fn a_persistent_member_without_an_address_is_refused() {
    let yaml = MEMBERS.replacen("      address: localhost:5001\n", "", 1);
    let problem =
        "line 5: cluster.members.member-1.address: is missing; a persistent member has an address, `host:port`";
    invalid(&yaml, &[problem]);
}

#[test]
fn an_address_is_host_and_port() {
    let right = "an address is `host:port`, such as `localhost:5001` or `[::1]:5001`";
    for (address, wrong) in [
        ("localhost", "`localhost` has no port"),
        ("localhost:", "`` is not a port"),
        ("localhost:0", "`0` is not a port"),
        ("localhost:65536", "`65536` is not a port"),
        ("localhost:+1", "`+1` is not a port"),
        ("localhost:http", "`http` is not a port"),
        (":5001", "`` is not a host"),
        ("a b:5001", "`a b` is not a host"),
        ("http://a:5001", "the IPv6 address `http://a` has no brackets"),
        ("::1:5001", "the IPv6 address `::1` has no brackets"),
        ("[::g]:5001", "`::g` is not an IPv6 address"),
        ("[::1]", "`1]` is not a port"),
    ] {
        let yaml = MEMBERS.replacen("localhost:5001", &format!("'{address}'"), 1);
        invalid(&yaml, &[&format!("line 7: cluster.members.member-1.address: {wrong}; {right}")]);
    }
    for address in ["localhost:1", "127.0.0.1:65535", "[::1]:5001"] {
        let parsed: Address = address.parse().expect("an address");
        assert_eq!(parsed.to_string(), address);
        assert!(parsed.is_loopback(), "{address}");
    }
    for address in ["10.0.0.1:1", "[fe80::1]:7301", "a.b_c-d.svc:7301"] {
        let parsed: Address = address.parse().expect("an address");
        assert_eq!(parsed.to_string(), address);
        assert!(!parsed.is_loopback(), "{address}");
    }
}

#[test]
fn two_members_at_one_address_are_refused_with_both_names() {
    let yaml = MEMBERS.replace("localhost:5003", "LOCALHOST:5001");
    let problem = "line 13: cluster.members.member-3.address: the members `member-1` and `member-3` have the same address; \
                   give each member an address of its own";
    invalid(&yaml, &[problem]);
}

#[test]
fn a_member_that_stands_twice_is_refused() {
    let yaml = MEMBERS.replace("member-3:", "member-2:");
    invalid(&yaml, &["line 11: cluster.members.member-2: stands twice, first in line 8; keep one of the two"]);
    let builder = Builder::new()
        .local_member("a")
        .member(Member::persistent("a", "localhost:1"))
        .member(Member::persistent("a", "localhost:2"));
    let sentence = "cluster.members.a: the member `a` is declared twice; give each member a name of its own";
    assert_eq!(builder.build().expect_err("declared twice").to_string(), sentence);
}

#[test]
fn a_name_fits_paths_labels_and_log_lines() {
    for name in ["a", "A-1", "member-1.zone_b", "7", &"x".repeat(253)] {
        assert_eq!(check_name(name), Ok(()), "{name}");
    }
    for (name, wrong) in [
        ("", "is empty"),
        (&*"x".repeat(254), "is too long"),
        ("a/b", "has a character that a name must not have"),
        ("a b", "has a character that a name must not have"),
        ("ä", "has a character that a name must not have"),
        ("..", "does not begin and end with a letter or digit"),
        ("-a", "does not begin and end with a letter or digit"),
        ("a.", "does not begin and end with a letter or digit"),
    ] {
        assert_eq!(check_name(name), Err(wrong), "{name}");
    }
}

#[test]
fn every_name_of_a_file_is_checked() {
    let right = "a name has 1 to 253 letters, digits, `-`, `_` and `.`, and begins and ends with a letter or digit";
    let wrong = "has a character that a name must not have";
    let yaml = "\
cluster:
  name: a/b
  local-member: {name: a b}
  members:
    a c: {type: ephemeral}
management-group:
  type: raft
  members: [m]
partition-groups:
  a d: {type: raft, members: [m]}
";
    invalid(
        yaml,
        &[
            &format!("line 2: cluster.name: the cluster's name `a/b` {wrong}; {right}"),
            &format!("line 3: cluster.local-member.name: the local member's name `a b` {wrong}; {right}"),
            &format!("line 5: cluster.members.a c: the member's name `a c` {wrong}; {right}"),
            "line 8: management-group.members[0]: the Raft group `system` lists `m`, which is not a declared member; \
         declare it under `cluster.members`",
            &format!("line 10: partition-groups.a d: the partition group's name `a d` {wrong}; {right}"),
            "line 10: partition-groups.a d.members[0]: the Raft group `a d` lists `m`, which is not a declared member; \
         declare it under `cluster.members`",
        ],
    );
}

#[test]
fn a_wrong_value_of_the_command_line_names_its_option() {
    let problem = "--local-member: the local member's name `a b` has a character that a name must not have; \
                   a name has 1 to 253 letters, digits, `-`, `_` and `.`, and begins and ends with a letter or digit";
    refused_with(ErrorCode::InvalidArgument, MEMBERS, &as_member("a b"), &[problem]);
}

#[test]
fn a_cluster_has_bounded_numbers_of_members_and_groups() {
    use super::super::builder::Group;
    let cluster = |members: usize, groups: usize| {
        let mut builder = Builder::new().local_member("m-0").api_port(1).management_group(Group::raft(["m-0"]));
        for i in 0..members {
            builder = builder.member(Member::persistent(format!("m-{i}"), format!("localhost:{}", 20_000 + i)));
        }
        for i in 0..groups {
            builder = builder.partition_group(format!("g-{i}"), Group::raft(["m-0"]));
        }
        builder.build().map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(cluster(1_000, 64), Ok(()));
    let sentence = "cluster.members: lists 1001 members; a cluster has at most 1000 members";
    assert_eq!(cluster(1_001, 1), Err(sentence.to_owned()));
    let sentence = "partition-groups: 65 partition groups are declared; a cluster has at most 64 partition groups";
    assert_eq!(cluster(1, 65), Err(sentence.to_owned()));
}
