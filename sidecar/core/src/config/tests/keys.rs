//! Keys and types: every mistake with its line, its key and what would be right.

use super::super::{Config, Overrides};
use super::{MANAGEMENT, MEMBERS, accepted, invalid};
use crate::code::ErrorCode;

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    let yaml = format!("{MEMBERS}{MANAGEMENT}profile: [consensus]\n");
    invalid(&yaml, &["line 22: profile: is not a known key; did you mean `profiles`?"]);
    let yaml = MEMBERS.replace("local-member", "local_member");
    invalid(&yaml, &["line 2: cluster.local_member: is not a known key; did you mean `local-member`?"]);
    let yaml = MEMBERS.replacen("address:", "adress:", 1);
    invalid(&yaml, &["line 7: cluster.members.member-1.adress: is not a known key; did you mean `address`?"]);
    let yaml = format!("{MEMBERS}{}", MANAGEMENT.replace("members:", "member:"));
    invalid(&yaml, &["line 18: management-group.member: is not a known key; did you mean `members`?"]);
    let yaml = format!("{MEMBERS}peer: {{colour: red}}\nhealth: {{colour: red}}\n");
    invalid(
        &yaml,
        &[
            "line 14: peer.colour: is not a known key; use `bind`",
            "line 15: health.colour: is not a known key; use `address` or `port`",
        ],
    );
}

#[test]
fn a_duplicate_key_is_refused_with_both_lines() {
    let yaml = format!("{MEMBERS}profiles: [consensus]\nprofiles: [client]\n");
    invalid(&yaml, &["line 15: profiles: stands twice, first in line 14; keep one of the two"]);
    let yaml = MEMBERS.replacen("address: localhost:5001", "address: localhost:5001\n      address: localhost:5009", 1);
    invalid(&yaml, &["line 8: cluster.members.member-1.address: stands twice, first in line 7; keep one of the two"]);
}

#[test]
fn a_wrong_type_is_refused_with_what_stands_there() {
    let yaml = "\
cluster:
  name: 7
  local-member: member-1
  members: [member-1]
management-group: raft
partition-groups: 3
profiles: {consensus: true}
default-partition-group:
data-directory: [x]
api: {port: seven, socket: true, address: localhost}
health: {port: 70000, address: {a: b}}
peer: {bind: 'localhost:7301'}
security: {plaintext: yes}
session-timeout-ms: 5s
application: {group: 1.5, probe: http, interval-ms: 1, failures: -1, metadata: [a]}
";
    invalid(
        yaml,
        &[
            "line 2: cluster.name: has the number 7; it is a text: put it in quotes",
            "line 3: cluster.local-member: has the text `member-1`; it is a table with the keys `name` and `zone`",
            "line 4: cluster.members: has a list; it is a table of members by name",
            "line 5: management-group: has the text `raft`; it is a table with the keys `type`, `name`, `partitions` and `members`",
            "line 6: partition-groups: has the number 3; it is a table of partition groups by name",
            "line 7: profiles: has a table; it is a list of profiles",
            "line 8: default-partition-group: has nothing; it is a text",
            "line 9: data-directory: has a list; it is a text",
            "line 10: api.port: has the text `seven`; it is a whole number from 1 to 65535",
            "line 10: api.socket: has the truth value `true`; it is a text: put it in quotes",
            "line 10: api.address: `localhost` is not an IP address; use `loopback` or an IP address such as \"0.0.0.0\"",
            "line 11: health.address: has a table; it is a text",
            "line 11: health.port: has the number 70000; it is a whole number from 1 to 65535",
            "line 12: peer.bind: `localhost:7301` is not an address to listen on; \
         use an IP address and a port, such as \"0.0.0.0:7301\"",
            "line 13: security.plaintext: has the text `yes`; it is `true` or `false`",
            "line 14: session-timeout-ms: has the text `5s`; it is a whole number from 1000 to 3600000",
            "line 15: application.group: has the number 1.5; it is a text: put it in quotes",
            "line 15: application.probe: has the text `http`; it is a table with the keys `http`, `tcp` and `socket`",
            "line 15: application.interval-ms: has the number 1; it is a whole number from 50 to 60000",
            "line 15: application.failures: has the number -1; it is a whole number from 1 to 100",
            "line 15: application.metadata: has a list; it is a table of texts",
        ],
    );
}

#[test]
fn an_item_of_a_list_that_is_not_a_text_is_refused_where_it_stands() {
    let yaml = format!("{MEMBERS}{}", MANAGEMENT.replace("- member-2", "- 2"));
    invalid(&yaml, &["line 20: management-group.members[1]: has the number 2; it is a text: put it in quotes"]);
    // And the item after it is still named by its own place.
    let yaml = yaml.replace("- member-3", "- member-1");
    invalid(
        &yaml,
        &[
            "line 20: management-group.members[1]: has the number 2; it is a text: put it in quotes",
            "line 21: management-group.members[2]: the member `member-1` is listed twice; list each member once",
        ],
    );
}

#[test]
fn a_text_that_is_not_yaml_is_refused_with_its_line() {
    for (yaml, line) in [("cluster:\n  name: [a\n", 3), ("cluster:\n\tname: a\n", 2), ("a: *b\n", 1), ("a: 'b\n", 2)] {
        let error = Config::from_yaml(yaml, &Overrides::default()).expect_err("not YAML");
        let [problem] = error.problems.as_slice() else { panic!("one problem: {error}") };
        assert_eq!(problem.code, ErrorCode::InvalidArgument);
        assert!(problem.line.is_some_and(|at| at <= line), "{yaml}: {error}");
        assert_eq!(problem.right, "write it as YAML 1.2, with two spaces for each level");
        assert!(!problem.what.contains(" at line "), "{error}");
    }
}

#[test]
fn a_file_that_is_no_table_is_refused() {
    invalid(
        "- a\n",
        &["line 1: has a list; it is a table with the keys `cluster`, `management-group`, `partition-groups`, \
                        `profiles`, `default-partition-group`, `data-directory`, `api`, `health`, `peer`, `security`, \
                        `timing`, `session-timeout-ms` and `application`"],
    );
}

#[test]
fn names_with_dots_are_not_taken_for_paths() {
    let yaml = format!(
        "{MEMBERS}{MANAGEMENT}partition-groups:\n  a:\n    type: raft\n    members: [member-1]\n  a.type:\n    type: raft\n    members: [member-1]\n"
    );
    assert_eq!(accepted(&yaml).partition_groups.len(), 2);
}

#[test]
fn anchors_and_merges_work_as_in_yaml() {
    let yaml = format!(
        "{MEMBERS}management-group:\n  type: raft\n  members: &all [member-1, member-2]\n\
         partition-groups:\n  a: &a\n    type: raft\n    members: *all\n  b:\n    <<: *a\n    partitions: 5\n"
    );
    let config = accepted(&yaml);
    assert_eq!(config.partition_groups[&"b".into()].members, config.partition_groups[&"a".into()].members);
    assert_eq!(config.partition_groups[&"b".into()].partitions, 5);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z:\\- \n{}\\[\\]'\"0-9&*!<>|.]{0,200}") {
        let _ = Config::from_yaml(&text, &Overrides::default());
    }

    #[test]
    fn no_text_of_any_script_makes_the_reader_panic(text in ".{0,80}(\\n.{0,80}){0,4}") {
        let _ = Config::from_yaml(&text, &Overrides::default());
    }

    #[test]
    fn a_right_file_with_something_in_it_is_taken_or_refused_with_a_sentence(at in 0usize..430, cut in 0usize..40, more in ".{0,12}") {
        let whole = format!("{MEMBERS}{MANAGEMENT}");
        let (at, end) = (at.min(whole.len()), (at + cut).min(whole.len()));
        let text = format!("{}{more}{}", &whole[..at], &whole[end.max(at)..]);
        if let Err(error) = Config::from_yaml(&text, &Overrides::default()) {
            proptest::prop_assert!(!error.problems.is_empty());
            let says = |problem: &super::super::Problem| !problem.what.is_empty() && !problem.right.is_empty();
            proptest::prop_assert!(error.problems.iter().all(says), "{}", error);
        }
    }

    #[test]
    fn an_address_is_read_as_it_is_written(text in "[a-zA-Z0-9.:_\\[\\]+-]{0,30}", host in "[a-z]{1,9}|\\[::1?\\]", port in 1u16..) {
        use super::super::Address;
        let right = format!("{host}:{port}");
        proptest::prop_assert_eq!(right.parse::<Address>().unwrap().to_string(), right);
        if let Ok(address) = text.parse::<Address>() {
            proptest::prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn no_cut_of_a_right_file_makes_the_reader_panic(from in 0usize..300, to in 0usize..300) {
        let whole = format!("{MEMBERS}{MANAGEMENT}");
        let _ = Config::from_yaml(whole.get(from..to).unwrap_or_default(), &Overrides::default());
    }
}
