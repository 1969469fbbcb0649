//! Maps.

use super::*;
use crate::command::{Entry, Page};
use crate::limits::{KEY_BYTES_MAX, PAGE_BYTES_MAX, VALUE_BYTES_MAX};

fn entry(partition: &Partition, key: &str) -> Option<Entry> {
    match partition.machine.query(&Query::Entry { map: "m".into(), key: key.into() }).unwrap() {
        Answer::Entry(entry) => entry,
        other => panic!("{other:?} is not an entry"),
    }
}

fn page(partition: &Partition, prefix: &str, after: &str, limit: u32) -> (Vec<String>, bool) {
    let query = Query::Entries { map: "m".into(), prefix: prefix.to_owned(), after: after.to_owned(), limit };
    match partition.machine.query(&query).unwrap() {
        Answer::Entries(Page { entries, more }) => {
            (entries.into_iter().map(|(key, _)| key.to_string()).collect(), more)
        }
        other => panic!("{other:?} is not a page"),
    }
}

fn written(reply: &Reply) -> (u64, u64) {
    match reply {
        Reply::Written { revision, previous } => (revision.0, previous.0),
        other => panic!("{other:?} is not a write"),
    }
}

#[test]
fn what_was_put_is_read_with_the_revision_that_put_it() {
    let mut partition = Partition::new();
    assert_eq!(entry(&partition, "k"), None, "a map that there is not has no entries");
    assert_eq!(written(&partition.ok(put("m", "k", "one"))), (1, 0));
    assert_eq!(written(&partition.ok(put("m", "k", "two"))), (2, 1));
    assert_eq!(entry(&partition, "k"), Some(Entry { value: "two".into(), revision: Revision(2) }));
}

#[test]
fn a_value_is_shared_by_the_map_and_its_event() {
    let mut partition = Partition::new();
    let value = bytes::Bytes::from(vec![7; 1_000]);
    let op = MapOp::Put { key: "k".into(), value: value.clone(), only: Condition::Always };
    let applied = partition.send(map("m", op));
    let EventKind::Map(MapEvent::Put { key: _, entry: told }) = &applied.events[0].kind else { panic!("{applied:?}") };
    for shared in [&told.value, &entry(&partition, "k").unwrap().value] {
        assert_eq!(shared.as_ptr(), value.as_ptr());
    }
}

#[test]
fn a_write_on_a_condition_that_does_not_hold_is_refused_and_says_what_is() {
    let mut partition = Partition::new();
    let refusal = |partition: &mut Partition, command| {
        let rejection = partition.refused(command);
        assert_eq!(rejection.code, ErrorCode::RevisionMismatch);
        rejection.message
    };
    let at = |revision| Condition::At(Revision(revision));
    let message = refusal(&mut partition, put_if("m", "k", "v", at(7)));
    assert_eq!(message, "if_revision: is 7, `k` is not there: read it again");
    partition.ok(put_if("m", "k", "v", Condition::Absent));
    let message = refusal(&mut partition, put_if("m", "k", "w", Condition::Absent));
    assert_eq!(message, "if_absent: `k` was last changed at 2: read it again");
    partition.ok(put_if("m", "k", "w", at(2)));
    for command in [put_if("m", "k", "x", at(2)), delete("m", "k", at(2)), delete("m", "other", at(2))] {
        refusal(&mut partition, command);
    }
    assert_eq!(written(&partition.ok(delete("m", "k", at(4)))), (8, 4));
}

#[test]
fn deleting_what_is_not_there_is_no_error_and_no_event() {
    let mut partition = Partition::new();
    for map in ["m", "another"] {
        let applied = partition.send(delete(map, "k", Condition::Always));
        assert_eq!((written(&applied.outcome.unwrap()).1, applied.events.len()), (0, 0));
        partition.ok(put("m", "other", "v"));
    }
}

#[test]
fn a_dropped_map_is_empty_and_can_be_written_again() {
    let mut partition = Partition::new();
    partition.ok(put("m", "k", "v"));
    let applied = partition.send(map("m", MapOp::Drop));
    assert_eq!(applied.events[0].kind, EventKind::Map(MapEvent::Dropped));
    assert_eq!(entry(&partition, "k"), None);
    assert_eq!(partition.send(map("m", MapOp::Drop)).events, []);
    partition.ok(put("m", "k", "w"));
    assert_eq!(entry(&partition, "k").unwrap().revision, Revision(4));
}

#[test]
fn d11_a_write_that_is_sent_again_is_answered_as_the_first_time() {
    let mut partition = Partition::new();
    let envelope = Envelope { request: Some(request(1, 1_000, 0)), command: put("m", "k", "v") };
    let first = partition.apply(&envelope).outcome;
    partition.ok(put("m", "k", "w"));
    assert_eq!(partition.apply(&envelope), Applied { outcome: first, events: vec![] });
    assert_eq!(entry(&partition, "k").unwrap().value, "w");
}

#[test]
fn a_listing_is_in_the_order_of_keys_and_goes_on_after_its_last() {
    let mut partition = Partition::new();
    for key in ["b/2", "a/1", "b/1", "c", "b/3"] {
        partition.ok(put("m", key, "v"));
    }
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    assert_eq!(page(&partition, "", "", 10), (keys(&["a/1", "b/1", "b/2", "b/3", "c"]), false));
    assert_eq!(page(&partition, "b/", "", 2), (keys(&["b/1", "b/2"]), true));
    assert_eq!(page(&partition, "b/", "b/2", 2), (keys(&["b/3"]), false));
    assert_eq!(page(&partition, "", "zzz", 2), (vec![], false));
}

#[test]
fn a_page_ends_when_it_has_enough_bytes_and_has_one_entry_at_least() {
    let mut partition = Partition::new();
    for key in ["a", "b", "c"] {
        let value = vec![0; PAGE_BYTES_MAX].into();
        partition.ok(map("m", MapOp::Put { key: key.into(), value, only: Condition::Always }));
    }
    assert_eq!(page(&partition, "", "", 100), (vec!["a".to_owned()], true));
    assert_eq!(page(&partition, "", "b", 100), (vec!["c".to_owned()], false));
}

#[test]
fn keys_values_and_pages_are_checked_by_name() {
    let mut partition = Partition::new();
    let long = "x".repeat(KEY_BYTES_MAX + 1);
    for (command, field) in [
        (put("m", "", "v"), "key: is empty"),
        (put("m", "a\nb", "v"), "key: contains a control character"),
        (put("m", &long, "v"), "key: has 1025 bytes"),
        (delete("m", "", Condition::Always), "key: is empty"),
        (put("a/b", "k", "v"), "map: contains `/`"),
    ] {
        let rejection = partition.refused(command);
        assert_eq!(rejection.code, ErrorCode::InvalidArgument);
        assert!(rejection.message.starts_with(field), "{rejection}");
    }
    let value = vec![0; VALUE_BYTES_MAX + 1].into();
    let rejection = partition.refused(map("m", MapOp::Put { key: "k".into(), value, only: Condition::Always }));
    assert_eq!(rejection.code, ErrorCode::TooLarge);
    for limit in [0, 1_001] {
        let query = Query::Entries { map: "m".into(), prefix: String::new(), after: String::new(), limit };
        assert!(partition.machine.query(&query).unwrap_err().message.starts_with("limit: is "));
    }
}

#[test]
fn d15_the_management_group_holds_no_maps() {
    let mut partition = Partition::management();
    assert!(partition.refused(put("m", "k", "v")).message.contains("reserved"));
    let query = Query::Entry { map: "m".into(), key: "k".into() };
    assert!(partition.machine.query(&query).unwrap_err().message.contains("reserved"));
}
