//! The file of a sidecar: `coterie_core::config`.
#![no_main]

use coterie_core::config::{Config, Overrides};

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(seeds), |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = Config::from_yaml(text, &Overrides::default());
    match &read {
        // Whoever is to mend it is told what, and what would be right.
        Err(error) => {
            assert!(!error.problems.is_empty());
            assert!(error.problems.iter().all(|problem| !problem.what.is_empty() && !problem.right.is_empty()), "{error}");
        }
        // What is taken can be written down.
        Ok(config) => assert!(config.members.values().flat_map(|member| &member.address).all(|address| {
            address.to_string().parse() == Ok(address.clone())
        })),
    }
    assert_eq!(read.is_ok(), Config::from_yaml(text, &Overrides::default()).is_ok());
    let other = Overrides { local_member: Some("member-2".to_owned()), zone: Some("b".to_owned()), ..Overrides::default() };
    let _ = Config::from_yaml(text, &other);
});

fn seeds() -> Vec<Vec<u8>> {
    let members = "cluster:\n  local-member: {name: member-1, zone: a}\n  members:\n    member-1: {type: persistent, \
                   address: 'localhost:5001'}\n    member-2:\n      type: ephemeral\n      address: \"[::1]:5002\"\n";
    let group = "management-group:\n  type: raft\n  members: &all\n    - member-1\npartition-groups:\n  data:\n    \
                 type: raft\n    partitions: 3\n    members: *all\n  more:\n    type: raft\n    members: [member-1]\n";
    let rest = "default-partition-group: data\ndata-directory: /x\napi: {port: 7300, address: loopback}\nhealth: {address: \
                0.0.0.0}\npeer: {bind: '0.0.0.0:7301'}\nsecurity: {plaintext: true}\ntiming: fast\nsession-timeout-ms: \
                5000\napplication:\n  group: workers\n  probe: {http: 'localhost:80/healthz'}\n  metadata: {a: b}\n";
    let texts =
        [format!("{members}profiles: [consensus]\n"), format!("{members}{group}"), format!("{members}{group}{rest}")];
    texts.into_iter().map(String::into_bytes).collect()
}
