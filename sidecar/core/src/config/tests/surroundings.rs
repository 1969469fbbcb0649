//! Listeners, security, time-outs and the application.

use std::path::PathBuf;

use super::super::builder::{self, Builder, Group, Member};
use super::super::{Application, Listen, Overrides, Probe, Security, Timing};
use super::{MANAGEMENT, MEMBERS, accepted, accepted_with, invalid, refused_with};
use crate::code::ErrorCode;

const PLAIN: &str =
    "give `ca`, `certificate` and `key`, or `plaintext: true` if everybody on that network may be trusted";

#[test]
fn without_certificates_an_address_beyond_loopback_is_refused() {
    let yaml = MEMBERS.replace("localhost:5002", "10.0.0.2:5002");
    let what = "there are no certificates, and the address 10.0.0.2:5002 of `member-2` is not loopback";
    invalid(&yaml, &[&format!("line 1: security: {what}; {PLAIN}")]);
    let said = format!("{yaml}security:\n  plaintext: false\n");
    invalid(&said, &[&format!("line 14: security: {what}; {PLAIN}")]);
    let config = accepted(&said.replace("false", "true"));
    assert_eq!(config.security, Security::PlaintextAnywhere);
}

#[test]
fn without_certificates_a_peer_port_beyond_loopback_is_refused() {
    let yaml = format!("{MEMBERS}peer: {{bind: '0.0.0.0:5001'}}\n");
    let what = "there are no certificates, and the address 0.0.0.0:5001 of `peer.bind` is not loopback";
    invalid(&yaml, &[&format!("line 1: security: {what}; {PLAIN}")]);
}

#[test]
fn with_certificates_any_address_is_right() {
    let files = "security: {ca: /tls/ca.crt, certificate: /tls/tls.crt, key: /tls/tls.key}\n";
    let config = accepted(&format!("{}{files}", MEMBERS.replace("localhost", "shop.example")));
    let path = |name: &str| PathBuf::from("/tls").join(name);
    let certificates =
        Security::Certificates { ca: path("ca.crt"), certificate: path("tls.crt"), key: path("tls.key") };
    assert_eq!(config.security, certificates);
    assert_eq!(config.peer, Some(Listen::Wildcard(5001)));
}

#[test]
fn certificates_are_whole_and_do_not_contradict_plaintext() {
    let right = "certificates need `ca`, `certificate` and `key`, all three";
    invalid(
        &format!("{MEMBERS}security:\n  certificate: /tls.crt\n"),
        &[
            &format!("line 14: security.ca: is missing; {right}"),
            &format!("line 14: security.key: is missing; {right}"),
        ],
    );
    let yaml = format!("{MEMBERS}security:\n  ca: a\n  certificate: b\n  key: c\n  plaintext: true\n");
    let problem =
        "line 18: security.plaintext: contradicts the certificates; leave out `plaintext`, or the certificates";
    invalid(&yaml, &[problem]);
    let yaml = format!("{MEMBERS}security: {{ca: '', certificate: b, key: c}}\n");
    let problem = "line 14: security.ca: is an empty path; give a path, or leave the key out for the default";
    invalid(&yaml, &[problem]);
}

#[test]
fn the_api_listens_on_loopback_only() {
    let yaml = format!("{MEMBERS}api:\n  address: 0.0.0.0\n");
    let what = "the application's API would listen beyond this machine, where nobody proves who they are";
    invalid(&yaml, &[&format!("line 15: api.address: {what}; use `loopback`, or one loopback address")]);
    assert_eq!(accepted(&format!("{MEMBERS}api: {{address: loopback}}\n")).api, Listen::Loopback(7300));
    let config = accepted(&format!("{MEMBERS}api: {{address: '::1', port: 9}}\n"));
    assert_eq!(config.api.sockets(), ["[::1]:9".parse().expect("an address")]);
}

#[test]
fn ports_that_collide_are_refused_with_both_keys() {
    let yaml = format!("{MEMBERS}api: {{port: 5001}}\nhealth: {{port: 5001}}\n");
    invalid(
        &yaml,
        &[
            "line 1: peer.bind: port 5001 is taken by `api.port` already; use another port",
            "line 15: health.port: port 5001 is taken by `api.port` already; use another port",
        ],
    );
    let overrides = Overrides { health_port: Some(7300), ..Overrides::default() };
    let problem = "--health-port: port 7300 is taken by `api.port` already; use another port";
    refused_with(ErrorCode::InvalidArgument, MEMBERS, &overrides, &[problem]);
    let overrides = Overrides { api_port: Some(0), ..Overrides::default() };
    let problem = "--api-port: the port is 0; use a port from 1 to 65535";
    refused_with(ErrorCode::InvalidArgument, MEMBERS, &overrides, &[problem]);
    assert_eq!(
        accepted_with(MEMBERS, &Overrides { api_port: Some(65_000), ..Overrides::default() }).health.port(),
        65_002
    );
}

#[test]
fn a_port_of_a_neighbour_on_this_machine_is_refused() {
    let yaml = MEMBERS.replace("localhost:5002", "localhost:7302");
    let problem = "line 1: health.port: port 7302 is taken by the address of `member-2` already; use another port";
    invalid(&yaml, &[problem]);
    // On another machine it is free.
    accepted(&format!("{}security: {{plaintext: true}}\n", yaml.replace("localhost:7302", "10.0.0.2:7302")));
}

#[test]
fn a_timing_is_one_of_three_words() {
    for timing in Timing::ALL {
        let yaml = format!("{MEMBERS}timing: {}\n", timing.label());
        assert_eq!(accepted(&yaml).timing, timing);
    }
    invalid(&format!("{MEMBERS}timing: Fast\n"), &["line 14: timing: `Fast` is not known; did you mean `fast`?"]);
    let problem = "line 14: timing: `quick` is not known; use `normal`, `fast` or `slow`";
    invalid(&format!("{MEMBERS}timing: quick\n"), &[problem]);
    let problem = "line 14: timing: has the number 100; it is a text: put it in quotes";
    invalid(&format!("{MEMBERS}timing: 100\n"), &[problem]);
}

#[test]
fn a_session_time_out_is_a_second_to_an_hour() {
    for ms in [1_000, 3_600_000] {
        assert_eq!(accepted(&format!("{MEMBERS}session-timeout-ms: {ms}\n")).session_timeout_ms, ms);
    }
    for ms in [999, 3_600_001] {
        let wrong = format!("session-timeout-ms: has the number {ms}; it is a whole number from 1000 to 3600000");
        invalid(&format!("{MEMBERS}session-timeout-ms: {ms}\n"), &[&format!("line 14: {wrong}")]);
        let builder = Builder::new().local_member("a").session_timeout_ms(ms);
        assert_eq!(builder.build().expect_err("out of bounds").to_string(), wrong);
    }
}

#[test]
fn d20_the_zero_code_way_needs_a_group_and_a_probe() {
    let config = accepted(&format!(
        "{MEMBERS}application:\n  group: workers\n  probe: {{http: 'http://127.0.0.1:8080/healthz'}}\n"
    ));
    let address = "127.0.0.1:8080".parse().expect("an address");
    assert_eq!(
        config.application,
        Some(Application {
            group: "workers".into(),
            partition_group: None,
            probe: Probe::Http { address, path: "/healthz".to_owned() },
            interval_ms: 500,
            failures: 2,
            metadata: std::collections::BTreeMap::new(),
        })
    );
    invalid(
        &format!("{MEMBERS}application: {{}}\n"),
        &[
            "line 14: application.group: is missing; name the group that the application joins",
            "line 14: application.probe: is missing; say how to know that the application is there: `http`, `tcp` or `socket`",
        ],
    );
}

#[test]
fn d20_an_application_can_say_more() {
    let config = accepted(&format!(
        "{MEMBERS}{MANAGEMENT}partition-groups:\n  data: {{type: raft, members: [member-1]}}\napplication:\n  group: w\n  partition-group: data\n  \
         probe: {{tcp: 'localhost:8080'}}\n  interval-ms: 1000\n  failures: 5\n  metadata: {{weight: '7'}}\n"
    ));
    let application = config.application.expect("it is configured");
    assert_eq!(application.partition_group, Some("data".into()));
    assert_eq!(application.probe, Probe::Tcp("localhost:8080".parse().expect("an address")));
    assert_eq!((application.interval_ms, application.failures), (1_000, 5));
    assert_eq!(application.metadata["weight"], "7");
    let socket = accepted(&format!("{MEMBERS}application: {{group: w, probe: {{socket: /run/app.sock}}}}\n"));
    assert_eq!(socket.application.expect("it is configured").probe, Probe::Socket(PathBuf::from("/run/app.sock")));
}

#[test]
fn d20_what_an_application_says_is_checked() {
    let yaml = format!(
        "{MEMBERS}{MANAGEMENT}partition-groups:\n  data: {{type: raft, members: [member-1]}}\napplication:\n  group: a/b\n  \
         partition-group: daat\n  probe: {{tcp: x}}\n  metadata: {{a: 1}}\n"
    );
    invalid(
        &yaml,
        &[
            "line 25: application.group: the group's name `a/b` has a character that a name must not have; \
         a name has 1 to 253 letters, digits, `-`, `_` and `.`, and begins and ends with a letter or digit",
            "line 26: application.partition-group: there is no partition group `daat`; use `data`",
            "line 27: application.probe.tcp: `x` has no port; use `host:port`, such as `127.0.0.1:8080`",
            "line 28: application.metadata.a: has the number 1; it is a text: put it in quotes",
        ],
    );
    let long = "x".repeat(16 * 1024);
    let yaml = format!("{MEMBERS}application:\n  group: w\n  probe: {{socket: s}}\n  metadata: {{a: {long}}}\n");
    let problem = "line 17: application.metadata: has 16385 bytes; keys and values together have at most 16384 bytes";
    invalid(&yaml, &[problem]);
}

#[test]
fn d20_a_probe_is_one_of_three() {
    let yaml = |probe: &str| format!("{MEMBERS}application:\n  group: w\n  probe: {probe}\n");
    let only = "use `http`, `tcp` or `socket`";
    invalid(&yaml("{}"), &[&format!("line 16: application.probe: is empty; {only}")]);
    invalid(&yaml(""), &[&format!("line 16: application.probe: is empty; {only}")]);
    invalid(&yaml("{udp: x}"), &["line 16: application.probe.udp: is not a known key; use `http`, `tcp` or `socket`"]);
    let both = yaml("{tcp: 'a:1', socket: /s}");
    invalid(&both, &["line 16: application.probe: has `tcp` and `socket`; use one of them"]);
    invalid(
        &yaml("{socket: ''}"),
        &["line 16: application.probe.socket: is an empty path; give the path of the application's Unix socket"],
    );
}

#[test]
fn d20_an_http_probe_is_a_plain_url() {
    let http = |url: &str| {
        let probe = builder::Probe::Http(url.to_owned());
        Builder::new()
            .local_member("a")
            .member(Member::persistent("a", "localhost:1"))
            .management_group(Group::raft(["a"]))
            .application(builder::Application::new("w", probe))
            .build()
            .map(|config| match config.application.expect("it is configured").probe {
                Probe::Http { address, path } => (address.to_string(), path),
                Probe::Tcp(_) | Probe::Socket(_) => panic!("another probe"),
            })
            .map_err(|error| error.to_string())
    };
    let is = |address: &str, path: &str| Ok((address.to_owned(), path.to_owned()));
    assert_eq!(http("http://127.0.0.1:8080/healthz"), is("127.0.0.1:8080", "/healthz"));
    assert_eq!(http("http://localhost"), is("localhost:80", "/"));
    assert_eq!(http("http://[::1]/a"), is("[::1]:80", "/a"));
    assert_eq!(http("http://[::1]:8080?a=b"), is("[::1]:8080", "/?a=b"));
    let right = "use an address such as `http://127.0.0.1:8080/healthz`";
    for (url, wrong) in [
        ("https://localhost/", "`https://localhost/` is not a plain HTTP address"),
        ("http:///a", "`` is not a host"),
        ("http://localhost:x/", "`x` is not a port"),
        ("http://localhost/a b", "`http://localhost/a b` has a character that a path must not have"),
    ] {
        assert_eq!(http(url), Err(format!("application.probe.http: {wrong}; {right}")));
    }
}

#[test]
fn an_empty_path_is_refused() {
    let yaml = format!("{MEMBERS}data-directory: ''\napi: {{socket: ''}}\n");
    let right = "give a path, or leave the key out for the default";
    invalid(
        &yaml,
        &[
            &format!("line 14: data-directory: is an empty path; {right}"),
            &format!("line 15: api.socket: is an empty path; {right}"),
        ],
    );
}

#[test]
fn a_zone_has_no_control_characters() {
    let yaml = MEMBERS.replacen("address: localhost:5001", "address: localhost:5001\n      zone: \"a\\tb\"", 1);
    let problem =
        "line 8: cluster.members.member-1.zone: is not a zone; a zone has at most 253 bytes and no control characters";
    invalid(&yaml, &[problem]);
}
