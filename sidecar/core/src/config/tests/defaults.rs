//! What a file means that does not say, and what the command line changes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::super::{Listen, Overrides, Security, Timing};
use super::{MEMBERS, accepted, accepted_with, as_member};
use crate::limits::SESSION_TTL_MS_DEFAULT;

#[test]
fn a_short_file_has_the_documented_defaults() {
    let config = accepted(MEMBERS);
    assert_eq!(config.cluster, "default");
    assert_eq!(config.local.zone, "");
    assert_eq!(config.default_partition_group, None);
    assert_eq!(config.data_directory, None);
    assert_eq!(config.api, Listen::Loopback(7300));
    assert_eq!(config.api_socket, None);
    assert_eq!(config.health, Listen::Loopback(7302));
    assert_eq!(config.peer, Some(Listen::Loopback(5001)));
    assert_eq!(config.security, Security::PlaintextOnLoopback);
    assert_eq!(config.timing, Timing::Normal);
    assert_eq!(config.session_timeout_ms, SESSION_TTL_MS_DEFAULT);
    assert_eq!(config.application, None);
}

#[test]
fn ports_follow_the_position_of_the_name_so_that_all_start_on_one_machine() {
    let port = |name| accepted_with(MEMBERS, &as_member(name)).api.port();
    assert_eq!([port("member-1"), port("member-2"), port("member-3")], [7300, 7310, 7320]);
    // A client that is not declared comes after all that are.
    assert_eq!(port("a-client"), 7330);
}

#[test]
fn data_directory_and_socket_follow_cluster_and_member() {
    let config = accepted(&MEMBERS.replacen("cluster:\n", "cluster:\n  name: shop\n", 1));
    let directory = config.default_data_directory(Path::new("/home/x"));
    assert_eq!(directory, PathBuf::from("/home/x/shop/member-1"));
    assert_eq!(config.api_socket_in(&directory), PathBuf::from("/home/x/shop/member-1/coterie.sock"));
    let config = accepted(&format!("{MEMBERS}data-directory: /data\napi: {{socket: /run/coterie/coterie.sock}}\n"));
    assert_eq!(config.data_directory, Some(PathBuf::from("/data")));
    assert_eq!(config.api_socket_in(Path::new("/data")), PathBuf::from("/run/coterie/coterie.sock"));
}

#[test]
fn peers_are_heard_everywhere_if_the_address_is_not_loopback() {
    let yaml = MEMBERS.replace("localhost", "shop.example");
    let config = accepted(&format!("{yaml}security: {{plaintext: true}}\n"));
    assert_eq!(config.peer, Some(Listen::Wildcard(5001)));
    let bind = "peer: {bind: '10.0.0.1:7301'}\n";
    let config = accepted(&format!("{yaml}{bind}security: {{plaintext: true}}\n"));
    assert_eq!(config.peer, Some(Listen::At(SocketAddr::from(([10, 0, 0, 1], 7301)))));
}

#[test]
fn peers_are_heard_on_the_loopback_address_that_they_dial() {
    let yaml = MEMBERS.replace("localhost:5001", "127.0.0.2:7301").replace("localhost:5002", "127.0.0.3:7301");
    assert_eq!(accepted(&yaml).peer, Some(Listen::At(SocketAddr::from(([127, 0, 0, 2], 7301)))));
    assert_eq!(accepted_with(&yaml, &as_member("member-3")).peer, Some(Listen::Loopback(5003)));
}

#[test]
fn listeners_overlap_if_not_both_can_be_bound() {
    let at = |ip: [u8; 4], port| Listen::At(SocketAddr::from((ip, port)));
    for (a, b, overlap) in [
        (Listen::Loopback(1), Listen::Loopback(1), true),
        (Listen::Loopback(1), Listen::Loopback(2), false),
        (Listen::Loopback(1), Listen::Wildcard(1), true),
        (Listen::Loopback(1), at([127, 0, 0, 1], 1), true),
        (Listen::Loopback(1), at([127, 0, 0, 2], 1), false),
        (Listen::Loopback(1), at([0, 0, 0, 0], 1), true),
        (at([10, 0, 0, 1], 1), at([10, 0, 0, 2], 1), false),
    ] {
        assert_eq!((a.overlaps(b), b.overlaps(a)), (overlap, overlap), "{a:?} {b:?}");
    }
}

#[test]
fn a_listener_says_what_to_bind() {
    let texts = |listen: Listen| listen.sockets().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(Listen::Loopback(1)), ["127.0.0.1:1", "[::1]:1"]);
    assert_eq!(texts(Listen::Wildcard(1)), ["[::]:1", "0.0.0.0:1"]);
    assert_eq!(texts(Listen::At(SocketAddr::from(([10, 0, 0, 1], 1)))), ["10.0.0.1:1"]);
}

#[test]
fn the_zone_is_the_option_or_the_local_members_or_the_declared_one() {
    let declared = MEMBERS.replacen("address: localhost:5001", "address: localhost:5001\n      zone: declared", 1);
    assert_eq!(accepted(&declared).local.zone, "declared");
    let local = declared.replacen("name: member-1", "name: member-1\n    zone: local", 1);
    assert_eq!(accepted(&local).local.zone, "local");
    let option = Overrides { zone: Some("option".to_owned()), ..Overrides::default() };
    assert_eq!(accepted_with(&local, &option).local.zone, "option");
    // The file's zone is that of the member that it names.
    assert_eq!(accepted_with(&local, &as_member("member-2")).local.zone, "");
    assert_eq!(accepted_with(&local, &as_member("member-1")).local.zone, "local");
}

#[test]
fn the_command_line_stands_over_the_file() {
    let yaml = format!(
        "{MEMBERS}data-directory: /file\napi: {{port: 1, socket: /file}}\nhealth: {{port: 2, address: 127.0.0.1}}\npeer: {{bind: '127.0.0.1:3'}}\n"
    );
    let bind = SocketAddr::from(([127, 0, 0, 1], 13));
    let overrides = Overrides {
        local_member: Some("member-3".to_owned()),
        zone: Some("z".to_owned()),
        data_directory: Some("/option".to_owned()),
        api_port: Some(11),
        api_socket: Some("/option.sock".to_owned()),
        health_address: Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        health_port: Some(12),
        peer_bind: Some(bind),
    };
    let config = accepted_with(&yaml, &overrides);
    assert_eq!(config.local.name.as_str(), "member-3");
    assert_eq!(config.local.zone, "z");
    assert_eq!(config.data_directory, Some(PathBuf::from("/option")));
    assert_eq!(config.api, Listen::Loopback(11));
    assert_eq!(config.api_socket, Some(PathBuf::from("/option.sock")));
    assert_eq!(config.health, Listen::At(SocketAddr::from(([0, 0, 0, 0], 12))));
    assert_eq!(config.peer, Some(Listen::At(bind)));
}
