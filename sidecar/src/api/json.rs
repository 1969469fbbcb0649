//! JSON: the shape of the protobuf messages in snake_case, `u64` as decimal strings, enums as lower-case words.
//!
//! What is written has every field, so that a reader need not know defaults; of what is read any field may be missing,
//! and one that is not known is refused by name.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use coterie_core::Rejection;
use coterie_proto::v1;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, json};

use super::call::invalid;

/// Reads a request's body. An empty one is an empty object.
///
/// # Errors
/// `invalid_argument`, naming the field or the place in the text.
pub fn parse<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Rejection> {
    let body = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
    // Without this an array would be taken too, its elements as the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid("body", "is not a JSON object, such as `{}`"));
    }
    serde_json::from_slice(body).map_err(|error| invalid("body", error))
}

/// An object of texts, in which no name comes twice.
fn texts<'a, D: Deserializer<'a>>(from: D) -> Result<HashMap<String, String>, D::Error> {
    struct Visitor;
    impl<'a> de::Visitor<'a> for Visitor {
        type Value = HashMap<String, String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of texts")
        }
        fn visit_map<A: de::MapAccess<'a>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            let mut texts = HashMap::new();
            while let Some((name, text)) = from.next_entry::<String, String>()? {
                if texts.contains_key(&name) {
                    return Err(de::Error::custom(format_args!("`{name}` is given twice")));
                }
                texts.insert(name, text);
            }
            Ok(texts)
        }
    }
    from.deserialize_map(Visitor)
}

/// A `u64` as a decimal string; a JSON number is taken as well.
fn u64_text<'a, D: Deserializer<'a>>(from: D) -> Result<u64, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = u64;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a decimal string such as \"17\"")
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    from.deserialize_any(Visitor)
}

fn u64_text_option<'a, D: Deserializer<'a>>(from: D) -> Result<Option<u64>, D::Error> {
    u64_text(from).map(Some)
}

/// `config` of a group.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default, deserialize_with = "u64_text_option")]
    release_timeout_ms: Option<u64>,
    #[serde(default)]
    max_members: Option<u32>,
}

impl From<Config> for v1::GroupConfig {
    fn from(Config { release_timeout_ms, max_members }: Config) -> Self {
        Self { release_timeout_ms, max_members }
    }
}

/// The body of a creation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// `None`: the defaults, or whatever it has.
    #[serde(default)]
    pub config: Option<Config>,
}

/// The body of a change of configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configure {
    /// What changes.
    #[serde(default)]
    pub config: Option<Config>,
    /// See [`v1::ConfigureGroupRequest`].
    #[serde(default, deserialize_with = "u64_text")]
    pub if_config_revision: u64,
    /// See [`v1::ConfigureGroupRequest`].
    #[serde(default, deserialize_with = "u64_text")]
    pub if_term: u64,
}

/// The body of a join.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// Free for the application.
    #[serde(default, deserialize_with = "texts")]
    pub metadata: HashMap<String, String>,
    /// Failure domain; empty: the sidecar's.
    #[serde(default)]
    pub zone: String,
    /// Of a lease; 0: the default.
    #[serde(default, deserialize_with = "u64_text")]
    pub ttl_ms: u64,
}

/// The body of a change of metadata.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetMetadata {
    /// The new ones.
    #[serde(deserialize_with = "texts")]
    pub metadata: HashMap<String, String>,
    /// See [`v1::SetMetadataRequest`].
    #[serde(default, deserialize_with = "u64_text")]
    pub if_term: u64,
}

/// The body of a request to step down.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDown {
    /// See [`v1::StepDownRequest`].
    #[serde(default, deserialize_with = "u64_text")]
    pub if_term: u64,
}

/// The body of a release.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The term that ends.
    #[serde(default, deserialize_with = "u64_text")]
    pub term: u64,
}

/// The body of asking for a lock.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acquire {
    /// How long to wait; 0: only if it is free.
    #[serde(default, deserialize_with = "u64_text")]
    pub wait_ms: u64,
    /// Of the lease; 0: the default.
    #[serde(default, deserialize_with = "u64_text")]
    pub ttl_ms: u64,
}

/// The body of what only a place in a lock's queue may ask.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithToken {
    /// See [`v1::AcquireResponse`].
    #[serde(default, deserialize_with = "u64_text")]
    pub token: u64,
}

/// A body that must be empty.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

fn text(number: u64) -> Value {
    Value::String(number.to_string())
}

/// The word of an enum's value, from its name in the protobuf file.
fn word(name: &str, prefix: &str) -> Value {
    Value::String(name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase())
}

fn presence(presence: v1::Presence) -> Value {
    word(presence.as_str_name(), "PRESENCE_")
}

fn session_state(state: v1::SessionState) -> Value {
    word(state.as_str_name(), "SESSION_STATE_")
}

fn consistency(consistency: v1::Consistency) -> Value {
    word(consistency.as_str_name(), "CONSISTENCY_")
}

/// A group.
pub fn group(group: &v1::Group) -> Value {
    json!({
        "name": group.name,
        "partition_group": group.partition_group,
        "term": text(group.term),
        "leader": text(group.leader),
        "releasing": group.releasing,
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
        "config": group.config.as_ref().map(config),
        "config_revision": text(group.config_revision),
        "revision": text(group.revision),
        "consistency": consistency(group.consistency()),
        "stale_ms": text(group.stale_ms),
    })
}

/// A list of groups.
pub fn groups(list: &v1::ListGroupsResponse) -> Value {
    json!({ "groups": list.groups.iter().map(group).collect::<Vec<_>>() })
}

fn config(config: &v1::GroupConfig) -> Value {
    json!({ "release_timeout_ms": config.release_timeout_ms.map(text), "max_members": config.max_members })
}

/// A member.
pub fn member(member: &v1::Member) -> Value {
    json!({
        "id": text(member.id),
        "metadata": member.metadata.iter().collect::<BTreeMap<_, _>>(),
        "zone": member.zone,
        "presence": presence(member.presence()),
        "sidecar": member.sidecar,
        "joined_revision": text(member.joined_revision),
        "joined_ms": text(member.joined_ms),
        "leader": member.leader,
    })
}

/// The answer to a join.
pub fn joined(response: &v1::JoinResponse) -> Value {
    json!({
        "member": response.member.as_ref().map(member),
        "group": response.group.as_ref().map(group),
        "ttl_ms": text(response.ttl_ms),
    })
}

/// The answer to a renewal.
pub fn renewed(response: &v1::RenewResponse) -> Value {
    json!({ "ttl_ms": text(response.ttl_ms), "session": session_state(response.session()) })
}

/// The revision of a change.
pub fn revision(revision: u64) -> Value {
    json!({ "revision": text(revision) })
}

/// What this sidecar may say about its memberships.
pub fn own(response: &v1::SelfResponse) -> Value {
    json!({
        "members": response.members.iter().map(self_state).collect::<Vec<_>>(),
        "leads": response.leads,
        "term": text(response.term),
    })
}

/// What may be said about one membership.
pub fn self_state(state: &v1::SelfState) -> Value {
    json!({
        "member": text(state.member),
        "leads": state.leads,
        "term": text(state.term),
        "valid_ms": text(state.valid_ms),
        "session": session_state(state.session()),
        "releasing": state.releasing,
    })
}

/// The state of a session, as an object.
pub fn session(state: v1::SessionState) -> Value {
    json!({ "state": session_state(state) })
}

/// The answer to a write of an entry.
pub fn written(revision: u64, previous_revision: u64) -> Value {
    json!({ "revision": text(revision), "previous_revision": text(previous_revision) })
}

/// An entry of a map.
pub fn entry(entry: &v1::Entry) -> Value {
    json!({ "key": entry.key, "value": BASE64.encode(&entry.value), "revision": text(entry.revision) })
}

/// A page of a map.
pub fn entries(page: &v1::ListEntriesResponse) -> Value {
    json!({
        "entries": page.entries.iter().map(entry).collect::<Vec<_>>(),
        "more": page.more,
        "revision": text(page.revision),
        "stale_ms": text(page.stale_ms),
    })
}

fn part(part: &v1::Entries) -> Value {
    json!({ "entries": part.entries.iter().map(entry).collect::<Vec<_>>(), "last": part.last })
}

/// An event of a map: its kind as a word, and the whole of it.
pub fn map_event(event: &v1::MapEvent) -> (&'static str, Value) {
    use v1::map_event::Kind;
    let (name, kind) = match &event.kind {
        Some(Kind::Snapshot(view)) => ("snapshot", part(view)),
        Some(Kind::Resync(view)) => ("resync", part(view)),
        Some(Kind::Put(put)) => ("put", entry(put)),
        Some(Kind::Deleted(key)) => ("deleted", Value::String(key.clone())),
        Some(Kind::Dropped(v1::Deleted {})) => ("dropped", json!({})),
        Some(Kind::Connection(connection)) => ("connection", session(connection.state())),
        None => ("unknown", json!({})),
    };
    (name, json!({ "id": event.id, "revision": text(event.revision), name: kind }))
}

/// The answer to acquiring a lock.
pub fn acquired(response: &v1::AcquireResponse) -> Value {
    json!({ "token": text(response.token), "ttl_ms": text(response.ttl_ms), "revision": text(response.revision) })
}

/// The answer to extending a lease of a lock.
pub fn renewed_lock(response: &v1::RenewLockResponse) -> Value {
    json!({ "ttl_ms": text(response.ttl_ms) })
}

/// A lock.
pub fn lock(lock: &v1::Lock) -> Value {
    json!({
        "name": lock.name,
        "partition_group": lock.partition_group,
        "token": text(lock.token),
        "sidecar": lock.sidecar,
        "waiting": lock.waiting,
        "revision": text(lock.revision),
        "stale_ms": text(lock.stale_ms),
    })
}

/// An event: its kind as a word, and the whole of it.
pub fn event(event: &v1::GroupEvent) -> (&'static str, Value) {
    use v1::group_event::Kind;
    let (name, kind) = match &event.kind {
        Some(Kind::Snapshot(view)) => ("snapshot", group(view)),
        Some(Kind::Resync(view)) => ("resync", group(view)),
        Some(Kind::Joined(view)) => ("joined", member(view)),
        Some(Kind::Left(left)) => ("left", json!({ "member": text(left.member), "reason": left.reason })),
        Some(Kind::Term(term)) => ("term", text(*term)),
        Some(Kind::Elected(elected)) => {
            ("elected", json!({ "term": text(elected.term), "leader": text(elected.leader) }))
        }
        Some(Kind::Vacated(vacated)) => {
            ("vacated", json!({ "term": text(vacated.term), "leader": text(vacated.leader) }))
        }
        Some(Kind::Releasing(releasing)) => (
            "releasing",
            json!({
                "term": text(releasing.term),
                "leader": text(releasing.leader),
                "timeout_ms": text(releasing.timeout_ms),
                "reason": releasing.reason,
            }),
        ),
        Some(Kind::Config(changed)) => (
            "config",
            json!({
                "config": changed.config.as_ref().map(config),
                "config_revision": text(changed.config_revision),
            }),
        ),
        Some(Kind::Updated(view)) => ("updated", member(view)),
        Some(Kind::Deleted(v1::Deleted {})) => ("deleted", json!({})),
        Some(Kind::Connection(connection)) => ("connection", session(connection.state())),
        None => ("unknown", json!({})),
    };
    (name, json!({ "id": event.id, "revision": text(event.revision), name: kind }))
}

/// The cluster.
pub fn status(status: &v1::StatusResponse) -> Value {
    json!({
        "member": status.member,
        "cluster": status.cluster,
        "cluster_id": status.cluster_id,
        "state": status.state,
        "reason": status.reason,
        "version": status.version,
        "members": status.members.iter().map(cluster_member).collect::<Vec<_>>(),
        "partition_groups": status.partition_groups.iter().map(partition_group).collect::<Vec<_>>(),
        "start_counter": text(status.start_counter),
    })
}

fn cluster_member(member: &v1::ClusterMember) -> Value {
    json!({
        "name": member.name,
        "type": member.r#type,
        "address": member.address,
        "zone": member.zone,
        "voter": member.voter,
        "reachable": member.reachable,
        "version": member.version,
        "refused": member.refused,
    })
}

fn partition_group(group: &v1::PartitionGroupStatus) -> Value {
    json!({
        "name": group.name,
        "type": group.r#type,
        "partitions": group.partitions.iter().map(partition).collect::<Vec<_>>(),
        "state": group.state,
    })
}

fn partition(partition: &v1::PartitionStatus) -> Value {
    json!({
        "partition": partition.partition,
        "leader": partition.leader,
        "term": text(partition.term),
        "replicas": partition.replicas,
        "applied": text(partition.applied),
        "local": partition.local,
        "has_quorum": partition.has_quorum,
        "read_only": partition.read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: for<'a> Deserialize<'a> + std::fmt::Debug>(body: &str) -> String {
        parse::<T>(body.as_bytes()).unwrap_err().message
    }

    #[test]
    fn a_body_that_is_no_object_and_a_name_that_comes_twice_are_refused() {
        assert_eq!(refusal::<Join>(r#"[{"z":"1"},"zone","6000"]"#), "body: is not a JSON object, such as `{}`");
        let twice = refusal::<Join>(r#"{"metadata":{"a":"1","a":"2"}}"#);
        assert!(twice.starts_with("body: `a` is given twice"), "{twice}");
        assert!(refusal::<SetMetadata>(r#"{"metadata":{"a":"1","a":"2"}}"#).contains("given twice"));
    }

    #[test]
    fn numbers_are_decimal_strings_and_plain_numbers_are_taken_too() {
        for body in [r#"{"ttl_ms":"9000"}"#, r#"{"ttl_ms":9000}"#] {
            assert_eq!(parse::<Join>(body.as_bytes()).unwrap().ttl_ms, 9_000);
        }
        let message = refusal::<Join>(r#"{"ttl_ms":"soon"}"#);
        assert!(message.contains("a decimal string"), "{message}");
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let message = refusal::<Join>(r#"{"metadta":{}}"#);
        assert!(message.starts_with("body: unknown field `metadta`"), "{message}");
        let message = refusal::<Create>(r#"{"config":{"max":1}}"#);
        assert!(message.contains("unknown field `max`"), "{message}");
        assert!(refusal::<Nothing>(r#"{"x":1}"#).contains("unknown field `x`"));
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert!(parse::<Create>(b" \n").unwrap().config.is_none());
        assert!(refusal::<Create>("{").starts_with("body: "));
    }

    #[test]
    fn s20_a_configuration_says_what_was_given_and_no_more() {
        let body = br#"{"config":{"release_timeout_ms":"0"},"if_config_revision":"7"}"#;
        let configure: Configure = parse(body).unwrap();
        assert_eq!((configure.if_config_revision, configure.if_term), (7, 0));
        let config = v1::GroupConfig::from(configure.config.unwrap());
        assert_eq!(config, v1::GroupConfig { release_timeout_ms: Some(0), max_members: None });
    }

    #[test]
    fn a_group_has_the_documented_shape() {
        let message = v1::Group {
            name: "g".to_owned(),
            partition_group: "data".to_owned(),
            term: u64::MAX,
            leader: 4,
            members: vec![v1::Member {
                id: 4,
                metadata: HashMap::from([("k".to_owned(), "v".to_owned())]),
                zone: "a".to_owned(),
                presence: v1::Presence::Stream.into(),
                sidecar: "member-1".to_owned(),
                joined_revision: 4,
                joined_ms: 1,
                leader: true,
            }],
            config: Some(v1::GroupConfig { release_timeout_ms: Some(5_000), max_members: Some(10) }),
            config_revision: 3,
            revision: 9,
            releasing: false,
            consistency: v1::Consistency::Linearizable.into(),
            stale_ms: 0,
        };
        let expected = json!({
            "name": "g", "partition_group": "data", "term": "18446744073709551615", "leader": "4", "releasing": false,
            "members": [{
                "id": "4", "metadata": {"k": "v"}, "zone": "a", "presence": "stream", "sidecar": "member-1",
                "joined_revision": "4", "joined_ms": "1", "leader": true,
            }],
            "config": {"release_timeout_ms": "5000", "max_members": 10},
            "config_revision": "3", "revision": "9", "consistency": "linearizable", "stale_ms": "0",
        });
        assert_eq!(group(&message), expected);
    }

    #[test]
    fn s31_events_are_named_by_their_kind() {
        use v1::group_event::Kind;
        let of = |kind| event(&v1::GroupEvent { id: "7.1".to_owned(), revision: 7, kind: Some(kind) });
        let (name, data) = of(Kind::Elected(v1::Elected { term: 2, leader: 5 }));
        assert_eq!(name, "elected");
        assert_eq!(data, json!({"id": "7.1", "revision": "7", "elected": {"term": "2", "leader": "5"}}));
        let (name, data) = of(Kind::Term(3));
        assert_eq!((name, &data["term"]), ("term", &json!("3")));
        let suspended = v1::Connection { state: v1::SessionState::Suspended.into() };
        let (name, data) = of(Kind::Connection(suspended));
        assert_eq!((name, &data["connection"]), ("connection", &json!({"state": "suspended"})));
    }

    use proptest::prelude::*;

    /// Every body that there is.
    fn parse_all(body: &[u8]) {
        let refused = [
            parse::<Create>(body).err(),
            parse::<Configure>(body).err(),
            parse::<Join>(body).err(),
            parse::<SetMetadata>(body).err(),
            parse::<StepDown>(body).err(),
            parse::<Release>(body).err(),
            parse::<Acquire>(body).err(),
            parse::<WithToken>(body).err(),
            parse::<Nothing>(body).err(),
        ];
        for rejection in refused.into_iter().flatten() {
            assert!(rejection.message.starts_with("body: "), "{rejection}");
        }
    }

    proptest! {
        #[test]
        fn a_body_of_any_bytes_is_taken_or_refused_by_name(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            name in prop::sample::select(vec!["config", "metadata", "zone", "ttl_ms", "if_term", "term", "token", "wait_ms"]),
            value in "[0-9]{1,25}|\"[0-9+-]{0,25}\"|\\{\"[a-z_]{0,9}\": *\"?[0-9a]{0,9}\"?\\}|null|\\[*",
            cut in 0_usize..60,
        ) {
            parse_all(&bytes);
            let body = format!("{{\"{name}\": {value}}}");
            parse_all(body.as_bytes());
            parse_all(&body.as_bytes()[..cut.min(body.len())]);
            parse_all(&[body.as_bytes(), &bytes].concat());
        }

        #[test]
        fn a_number_is_itself_as_text_and_as_a_number(number in any::<u64>()) {
            for body in [format!(r#"{{"token": {number}}}"#), format!(r#"{{"token": "{number}"}}"#)] {
                prop_assert_eq!(parse::<WithToken>(body.as_bytes()).unwrap().token, number);
            }
        }
    }

    #[test]
    fn a_body_that_is_nested_without_end_is_refused() {
        for open in ["{\"metadata\":", "{\"config\":", "{\"a\":["] {
            parse_all(open.repeat(100_000).as_bytes());
        }
    }
}
