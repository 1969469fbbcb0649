//! Of maps and locks, from the JSON form to the protobuf messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use coterie_proto::v1;
use serde_json::Value;

pub(super) use super::super::json::number;
use super::super::json::{field, flag, list, session, text};
use super::MapChange;

pub(super) fn revision(value: &Value) -> u64 {
    number(value, "revision")
}

pub(super) fn written(value: &Value) -> (u64, u64) {
    (revision(value), number(value, "previous_revision"))
}

fn entry(value: &Value) -> v1::Entry {
    let bytes = BASE64.decode(text(value, "value")).unwrap_or_else(|error| panic!("{error} in {value}"));
    v1::Entry { key: text(value, "key"), value: bytes.into(), revision: revision(value) }
}

fn part(value: &Value) -> v1::Entries {
    v1::Entries { entries: list(value, "entries", entry), last: flag(value, "last") }
}

pub(super) fn page(value: &Value) -> v1::ListEntriesResponse {
    v1::ListEntriesResponse {
        entries: list(value, "entries", entry),
        more: flag(value, "more"),
        revision: revision(value),
        stale_ms: number(value, "stale_ms"),
    }
}

pub(super) fn event(name: &str, id: &str, data: &Value) -> v1::MapEvent {
    let value = field(data, name);
    let kind = match name {
        "snapshot" => MapChange::Snapshot(part(value)),
        "resync" => MapChange::Resync(part(value)),
        "put" => MapChange::Put(entry(value)),
        "deleted" => MapChange::Deleted(value.as_str().unwrap_or_else(|| panic!("{value} is no key")).to_owned()),
        "dropped" => MapChange::Dropped(v1::Deleted {}),
        "connection" => MapChange::Connection(v1::Connection { state: session(field(value, "state")).into() }),
        other => panic!("{other:?} is no event of a map"),
    };
    assert_eq!(text(data, "id"), id, "the id of the event is in its data as well");
    v1::MapEvent { id: id.to_owned(), revision: revision(data), kind: Some(kind) }
}

pub(super) fn acquired(value: &Value) -> v1::AcquireResponse {
    v1::AcquireResponse { token: number(value, "token"), ttl_ms: number(value, "ttl_ms"), revision: revision(value) }
}

pub(super) fn lock(value: &Value) -> v1::Lock {
    let waiting = field(value, "waiting").as_u64().and_then(|count| u32::try_from(count).ok());
    v1::Lock {
        name: text(value, "name"),
        partition_group: text(value, "partition_group"),
        token: number(value, "token"),
        sidecar: text(value, "sidecar"),
        waiting: waiting.unwrap_or_else(|| panic!("waiting is no number in {value}")),
        revision: revision(value),
        stale_ms: number(value, "stale_ms"),
    }
}
