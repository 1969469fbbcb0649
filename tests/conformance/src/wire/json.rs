//! From the JSON form to the protobuf messages. Panics where the JSON is not what the contract says, so that every test
//! over HTTP also tests the form: 64-bit numbers are decimal strings, enums are lower-case words.

use std::collections::HashMap;

use coterie_proto::v1;
use serde_json::{Value, json};

use super::{Change, Said};

pub(super) fn field<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or_else(|| panic!("no {key:?} in {value}"))
}

pub(super) fn number(value: &Value, key: &str) -> u64 {
    let field = field(value, key);
    let text = field.as_str().unwrap_or_else(|| panic!("{key:?} is no decimal string in {value}"));
    text.parse().unwrap_or_else(|_| panic!("{key:?} is no decimal string in {value}"))
}

pub(super) fn text(value: &Value, key: &str) -> String {
    field(value, key).as_str().unwrap_or_else(|| panic!("{key:?} is no string in {value}")).to_owned()
}

pub(super) fn flag(value: &Value, key: &str) -> bool {
    field(value, key).as_bool().unwrap_or_else(|| panic!("{key:?} is no boolean in {value}"))
}

pub(super) fn list<T>(value: &Value, key: &str, take: impl FnMut(&Value) -> T) -> Vec<T> {
    field(value, key).as_array().unwrap_or_else(|| panic!("{key:?} is no list in {value}")).iter().map(take).collect()
}

pub(super) fn group(value: &Value) -> v1::Group {
    v1::Group {
        name: text(value, "name"),
        partition_group: text(value, "partition_group"),
        term: number(value, "term"),
        leader: number(value, "leader"),
        members: list(value, "members", member),
        config: Some(config(field(value, "config"))),
        config_revision: number(value, "config_revision"),
        revision: number(value, "revision"),
        releasing: flag(value, "releasing"),
        consistency: match text(value, "consistency").as_str() {
            "linearizable" => v1::Consistency::Linearizable.into(),
            "leased" => v1::Consistency::Leased.into(),
            "stale" => v1::Consistency::Stale.into(),
            other => panic!("{other:?} is no consistency"),
        },
        stale_ms: number(value, "stale_ms"),
    }
}

pub(super) fn groups(value: &Value) -> Vec<v1::Group> {
    list(value, "groups", group)
}

pub(super) fn member(value: &Value) -> v1::Member {
    let metadata = field(value, "metadata").as_object().unwrap_or_else(|| panic!("metadata is no object in {value}"));
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
    v1::Member {
        id: number(value, "id"),
        metadata,
        zone: text(value, "zone"),
        presence: match text(value, "presence").as_str() {
            "stream" => v1::Presence::Stream.into(),
            "lease" => v1::Presence::Lease.into(),
            "probe" => v1::Presence::Probe.into(),
            other => panic!("{other:?} is no presence"),
        },
        sidecar: text(value, "sidecar"),
        joined_revision: number(value, "joined_revision"),
        joined_ms: number(value, "joined_ms"),
        leader: flag(value, "leader"),
    }
}

fn config(value: &Value) -> v1::GroupConfig {
    let max_members = field(value, "max_members").as_u64().and_then(|count| u32::try_from(count).ok());
    v1::GroupConfig { release_timeout_ms: Some(number(value, "release_timeout_ms")), max_members }
}

/// The configuration as a request has it; what is absent is left out.
pub(super) fn from_config(config: &v1::GroupConfig) -> Value {
    let mut value = json!({});
    if let Some(time) = config.release_timeout_ms {
        value["release_timeout_ms"] = json!(time.to_string());
    }
    if let Some(count) = config.max_members {
        value["max_members"] = json!(count);
    }
    value
}

pub(super) fn joined(value: &Value) -> v1::JoinResponse {
    v1::JoinResponse {
        member: Some(member(field(value, "member"))),
        group: Some(group(field(value, "group"))),
        ttl_ms: number(value, "ttl_ms"),
    }
}

pub(super) fn renewed(value: &Value) -> v1::RenewResponse {
    v1::RenewResponse { ttl_ms: number(value, "ttl_ms"), session: session(field(value, "session")).into() }
}

pub(super) fn session(value: &Value) -> v1::SessionState {
    match value.as_str() {
        Some("live") => v1::SessionState::Live,
        Some("suspended") => v1::SessionState::Suspended,
        Some("lost") => v1::SessionState::Lost,
        _ => panic!("{value} is no state of a session"),
    }
}

pub(super) fn itself(value: &Value) -> v1::SelfResponse {
    v1::SelfResponse {
        members: list(value, "members", self_state),
        leads: flag(value, "leads"),
        term: number(value, "term"),
    }
}

fn self_state(value: &Value) -> v1::SelfState {
    v1::SelfState {
        member: number(value, "member"),
        leads: flag(value, "leads"),
        term: number(value, "term"),
        valid_ms: number(value, "valid_ms"),
        session: session(field(value, "session")).into(),
        releasing: flag(value, "releasing"),
    }
}

/// An event of a watch: named by its kind, its data the whole event.
pub(super) fn event(name: &str, id: &str, whole: &Value) -> v1::GroupEvent {
    assert_eq!(text(whole, "id"), id, "the id is also in the data: {whole}");
    let data = field(whole, name);
    let kind = match name {
        "snapshot" => Change::Snapshot(group(data)),
        "resync" => Change::Resync(group(data)),
        "joined" => Change::Joined(member(data)),
        "updated" => Change::Updated(member(data)),
        "left" => Change::Left(v1::MemberLeft { member: number(data, "member"), reason: text(data, "reason") }),
        "term" => Change::Term(number(whole, "term")),
        "elected" => Change::Elected(v1::Elected { term: number(data, "term"), leader: number(data, "leader") }),
        "vacated" => Change::Vacated(v1::Vacated { term: number(data, "term"), leader: number(data, "leader") }),
        "releasing" => Change::Releasing(v1::Releasing {
            term: number(data, "term"),
            leader: number(data, "leader"),
            timeout_ms: number(data, "timeout_ms"),
            reason: text(data, "reason"),
        }),
        "config" => Change::Config(v1::ConfigChanged {
            config: Some(config(field(data, "config"))),
            config_revision: number(data, "config_revision"),
        }),
        "deleted" => Change::Deleted(v1::Deleted {}),
        "connection" => Change::Connection(v1::Connection { state: session(field(data, "state")).into() }),
        other => panic!("{other:?} is no kind of event"),
    };
    v1::GroupEvent { id: id.to_owned(), revision: number(whole, "revision"), kind: Some(kind) }
}

/// What a stream of presence says after its first event.
pub(super) fn said(name: &str, id: &str, data: &Value) -> Said {
    match name {
        "session" => Said::Session(session(field(data, "state")).into()),
        "self" => Said::Self_(self_state(data)),
        _ => Said::Event(event(name, id, data)),
    }
}

pub(super) fn status(value: &Value) -> v1::StatusResponse {
    v1::StatusResponse {
        member: text(value, "member"),
        cluster: text(value, "cluster"),
        cluster_id: text(value, "cluster_id"),
        state: text(value, "state"),
        reason: text(value, "reason"),
        version: text(value, "version"),
        members: list(value, "members", |value| v1::ClusterMember {
            name: text(value, "name"),
            r#type: text(value, "type"),
            address: text(value, "address"),
            zone: text(value, "zone"),
            voter: flag(value, "voter"),
            reachable: flag(value, "reachable"),
            version: text(value, "version"),
            refused: text(value, "refused"),
        }),
        partition_groups: list(value, "partition_groups", |value| v1::PartitionGroupStatus {
            name: text(value, "name"),
            r#type: text(value, "type"),
            partitions: list(value, "partitions", partition),
            state: text(value, "state"),
        }),
        start_counter: number(value, "start_counter"),
    }
}

fn partition(value: &Value) -> v1::PartitionStatus {
    let index = field(value, "partition").as_u64().and_then(|index| u32::try_from(index).ok());
    v1::PartitionStatus {
        partition: index.unwrap_or_else(|| panic!("partition is no number in {value}")),
        leader: text(value, "leader"),
        term: number(value, "term"),
        replicas: list(value, "replicas", |name| name.as_str().unwrap_or_default().to_owned()),
        applied: number(value, "applied"),
        local: flag(value, "local"),
        has_quorum: flag(value, "has_quorum"),
        read_only: text(value, "read_only"),
    }
}

/// What is asked for, as a word of a query.
pub(super) fn consistency_word(consistency: v1::Consistency) -> &'static str {
    match consistency {
        v1::Consistency::Unspecified | v1::Consistency::Linearizable => "linearizable",
        v1::Consistency::Leased => "leased",
        v1::Consistency::Stale => "stale",
    }
}
