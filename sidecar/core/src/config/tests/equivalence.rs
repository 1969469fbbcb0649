//! S98, S114: for every builder there is an equal file.

use proptest::prelude::*;
use proptest::{collection, option};

use super::super::builder::{Application, Builder, Group, Member, Probe, Profile, Security, Timing};
use super::super::{Config, Error, Overrides, Problem, file};
use super::{MANAGEMENT, MEMBERS, accepted};

/// Text of every sort, also such that a careless writer makes something else of it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9.-]{0,8}",
        any::<String>(),
        prop::sample::select(vec![
            "",
            " ",
            "1",
            "0x1f",
            "1e3",
            "true",
            "yes",
            "null",
            "~",
            "-",
            "- a",
            "a: b",
            "a #b",
            "[a]",
            "{a: b}",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "'",
            "\"",
            "%a",
            "@a",
            "`a`",
            "a\nb",
            "a\n",
            "\n",
            "\ta",
            "<<",
            "=",
            "---",
            "...",
            "2026-01-01",
            "0.0.0.0:7301",
            "::1",
            "12:30",
            ".inf",
            "\u{feff}",
            "\u{85}",
            "\u{2028}",
            "ä",
            "C:\\x",
            "a\\tb",
            "\r",
            "\u{0}",
        ])
        .prop_map(str::to_owned),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(vec!["a", "b", "c", "d", "raft", "system", "7"]).prop_map(str::to_owned), 1 => text()]
}

fn member() -> impl Strategy<Value = Member> {
    (name(), any::<bool>(), option::of(text()), 1u16.., option::of(text())).prop_map(
        |(name, persistent, wild, port, zone)| {
            let address = wild.unwrap_or_else(|| format!("localhost:{port}"));
            let member =
                if persistent { Member::persistent(name, address) } else { Member::ephemeral(name).address(address) };
            match zone {
                Some(zone) => member.zone(zone),
                None => member,
            }
        },
    )
}

fn group() -> impl Strategy<Value = Group> {
    let raft = collection::vec(name(), 0..4).prop_map(Group::raft);
    let group = prop_oneof![8 => raft, 1 => Just(Group::primary_backup())];
    (group, option::of(1..=128u32)).prop_map(|(group, partitions)| match partitions {
        Some(partitions) => group.partitions(partitions),
        None => group,
    })
}

fn security() -> impl Strategy<Value = Security> {
    prop_oneof![
        Just(Security::PlaintextOnLoopback),
        Just(Security::PlaintextAnywhere),
        (text(), text(), text()).prop_map(|(ca, certificate, key)| Security::Certificates { ca, certificate, key }),
    ]
}

fn application() -> impl Strategy<Value = Application> {
    let probe = prop_oneof![text().prop_map(Probe::Http), text().prop_map(Probe::Tcp), text().prop_map(Probe::Socket)];
    let metadata = collection::btree_map(text(), text(), 0..4);
    (text(), probe, metadata, option::of((text(), 50..=60_000u64, 1..=100u32))).prop_map(
        |(group, probe, metadata, more)| {
            let application = Application::new(group, probe).metadata(metadata);
            match more {
                Some((group, interval_ms, failures)) => {
                    application.partition_group(group).interval_ms(interval_ms).failures(failures)
                }
                None => application,
            }
        },
    )
}

/// Distinct by name, because a table of the file has each name once.
fn distinct<T>(items: Vec<T>, name: impl Fn(&T) -> String) -> Vec<T> {
    let mut seen = std::collections::BTreeSet::new();
    items.into_iter().filter(|item| seen.insert(name(item))).collect()
}

fn builder() -> impl Strategy<Value = Builder> {
    let cluster = (option::of(text()), option::of(name()), option::of(text()), collection::vec(member(), 0..5));
    let groups = (
        option::of(group()),
        collection::vec((name(), group()), 0..4),
        collection::vec(prop::sample::select(Profile::ALL.to_vec()), 0..3),
        option::of(name()),
    );
    let ports = (option::of(1u16..), option::of(1u16..));
    let addresses = (
        option::of(any::<std::net::IpAddr>()),
        option::of(any::<std::net::IpAddr>()),
        option::of((any::<std::net::IpAddr>(), 1u16..)),
    );
    let rest = (
        option::of(text()),
        option::of(text()),
        option::of(1_000..=3_600_000u64),
        security(),
        option::of(application()),
        option::of(prop::sample::select(Timing::ALL.to_vec())),
    );
    (cluster, groups, ports, addresses, rest).prop_map(|(cluster, groups, ports, addresses, rest)| Builder {
        cluster: cluster.0,
        local_member: cluster.1,
        local_zone: cluster.2,
        members: distinct(cluster.3, |member| member.name.clone()),
        management: groups.0,
        partition_groups: distinct(groups.1, |(name, _)| name.clone()),
        profiles: groups.2,
        default_partition_group: groups.3,
        data_directory: rest.0,
        api_port: ports.0,
        api_address: addresses.0,
        api_socket: rest.1,
        health_address: addresses.1,
        health_port: ports.1,
        peer_bind: addresses.2.map(|(ip, port)| std::net::SocketAddr::new(ip, port)),
        security: rest.3,
        timing: rest.5,
        session_timeout_ms: rest.2,
        application: rest.4,
    })
}

fn without_lines(error: Error) -> Vec<Problem> {
    let mut problems: Vec<Problem> =
        error.problems.into_iter().map(|problem| Problem { line: None, ..problem }).collect();
    problems.sort_by(|a, b| (&a.key, &a.what).cmp(&(&b.key, &b.what)));
    problems
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn s114_every_builder_has_an_equal_file(builder in builder()) {
        let yaml = builder.to_yaml();
        let read = file::read(&yaml).map_err(|error| TestCaseError::fail(format!("{error}\n{yaml}")))?;
        prop_assert_eq!(&read.problems, &[], "{}", yaml);
        prop_assert_eq!(&read.builder, &builder, "{}", yaml);
        let from_file = Config::from_yaml(&yaml, &Overrides::default()).map_err(without_lines);
        prop_assert_eq!(from_file, builder.build().map_err(without_lines), "{}", yaml);
    }
}

#[test]
fn s98_the_builder_form_equals_the_file_form() {
    let all = ["member-1", "member-2", "member-3"];
    let builder = Builder::new()
        .local_member("member-1")
        .member(Member::persistent("member-1", "localhost:5001"))
        .member(Member::persistent("member-2", "localhost:5002"))
        .member(Member::persistent("member-3", "localhost:5003"))
        .management_group(Group::raft(all).partitions(1));
    assert_eq!(builder.to_yaml(), format!("{MEMBERS}{MANAGEMENT}"));
    assert_eq!(builder.build().expect("it is right"), accepted(&format!("{MEMBERS}{MANAGEMENT}")));
}

#[test]
fn s98_the_last_management_group_counts() {
    let builder = Builder::new()
        .local_member("a")
        .member(Member::persistent("a", "localhost:1"))
        .member(Member::persistent("b", "localhost:2"))
        .management_group(Group::raft(["a"]))
        .management_group(Group::raft(["b"]));
    let management = builder.build().expect("it is right").management.expect("it is set");
    assert_eq!(management.members, ["b".into()]);
}

#[test]
fn s114_every_part_of_a_builder_is_in_its_file() {
    let builder = Builder::new()
        .cluster("shop")
        .local_member("a")
        .local_zone("z1")
        .member(Member::persistent("a", "localhost:5001").zone("z1"))
        .member(Member::ephemeral("b").address("localhost:5002"))
        .profile(Profile::Consensus)
        .partition_group("data", Group::raft(["a"]).partitions(7))
        .default_partition_group("data")
        .data_directory("/data")
        .api_port(7400)
        .api_address([127, 0, 0, 1].into())
        .api_socket("/run/coterie.sock")
        .health_address([0, 0, 0, 0].into())
        .health_port(7402)
        .peer_bind(([127, 0, 0, 1], 7401).into())
        .security(Security::Certificates { ca: "/ca".into(), certificate: "/crt".into(), key: "/key".into() })
        .timing(Timing::Fast)
        .session_timeout_ms(10_000)
        .application(
            Application::new("workers", Probe::Tcp("localhost:80".into()))
                .partition_group("data")
                .interval_ms(1_000)
                .failures(3)
                .metadata([("weight".to_owned(), "7".to_owned())].into()),
        );
    let yaml = builder.to_yaml();
    let config = Config::from_yaml(&yaml, &Overrides::default()).expect("the file of a right builder is right");
    assert_eq!(config, builder.build().expect("it is right"), "{yaml}");
    for (table, keys) in super::super::TABLES {
        for key in *keys {
            let other_probe = *table == "application.probe" && *key != "tcp";
            let other_security = *key == "plaintext";
            let by_profile = *table == "management-group" || *key == "management-group";
            let found = yaml.lines().any(|line| line.trim_start().starts_with(&format!("{key}:")));
            assert!(found || other_probe || other_security || by_profile, "{table}.{key} is not in\n{yaml}");
        }
    }
}
