//! Bytes of log records, of marks in the log and of messages between replicas.
//!
//! Everything begins with a version byte; the rest of a head is postcard. The commands of a round follow their head as
//! they are, so it is never encoded again: the decoded commands are a slice of the record or message that they came in.
//!
//! | what | layout |
//! |---|---|
//! | log record | version, [`RecordHead`], the commands of a round |
//! | vote, log id, snapshot meta in the store | version, value |
//! | message | version, generation, value; for appends [`AppendHead`], then the records back to back |

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::raft::AppendEntriesRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::{Entry, LogId, Membership, Proposal, TypeConfig, Vote};

/// The version that is written, and read.
pub(crate) const VERSION: u8 = 2;

/// Why bytes are not what was expected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what} has version {version}; this program reads version {VERSION}")]
    Version { what: &'static str, version: u8 },
    #[error("decode {what}")]
    Decode {
        what: &'static str,
        #[source]
        source: postcard::Error,
    },
    #[error("{what} ends early")]
    Short { what: &'static str },
    #[error("{what} has more than it says")]
    Long { what: &'static str },
    #[error("the message is for generation {theirs} of the partition; this is generation {ours}")]
    Generation { theirs: u64, ours: u64 },
    #[error("message kind {0} is not known to this program")]
    Kind(u32),
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

fn put<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    let taken = std::mem::take(bytes);
    *bytes = postcard::to_extend(value, taken).expect("these types have no unencodable parts");
}

/// The value at the start of `bytes`, and how many bytes it took.
fn take<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<(T, usize), Error> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|source| Error::Decode { what, source })?;
    Ok((value, bytes.len() - rest.len()))
}

fn after_version<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((&version, _)) => Err(Error::Version { what, version }),
        None => Err(Error::Short { what }),
    }
}

/// A small value for the store: a vote, a log id, a snapshot's meta data.
pub(crate) fn encode_mark<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = vec![VERSION];
    put(&mut bytes, value);
    bytes.into()
}

/// What [`encode_mark`] made.
pub(crate) fn decode_mark<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    let rest = after_version(what, bytes)?;
    let (value, used) = take(what, rest)?;
    if used == rest.len() { Ok(value) } else { Err(Error::Short { what }) }
}

#[derive(Serialize, Deserialize)]
struct RecordHead {
    term: u64,
    node: u64,
    kind: RecordKind,
}

#[derive(Serialize, Deserialize)]
enum RecordKind {
    Blank,
    Membership(Membership),
    /// Its commands follow, to the end of the record.
    Round {
        ts_ms: u64,
    },
}

/// Of the shortest record: version, term, node and kind.
const RECORD_BYTES_MIN: usize = 4;

/// An entry without its index, which the log keeps beside it.
pub(crate) fn encode_record(entry: &Entry) -> Bytes {
    let mut bytes = Vec::with_capacity(record_len_about(entry));
    put_record(&mut bytes, entry);
    bytes.into()
}

fn record_len_about(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(Proposal { ts_ms: _, commands }) => 32 + commands.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 32,
    }
}

fn put_record(bytes: &mut Vec<u8>, entry: &Entry) {
    let (kind, commands) = match &entry.payload {
        EntryPayload::Blank => (RecordKind::Blank, None),
        EntryPayload::Membership(membership) => (RecordKind::Membership(membership.clone()), None),
        EntryPayload::Normal(Proposal { ts_ms, commands }) => (RecordKind::Round { ts_ms: *ts_ms }, Some(commands)),
    };
    let leader = entry.log_id().leader_id;
    bytes.push(VERSION);
    put(bytes, &RecordHead { term: leader.term, node: leader.node_id, kind });
    if let Some(commands) = commands {
        bytes.extend_from_slice(commands);
    }
}

/// The entry at `index` that [`encode_record`] encoded. Its commands share `record`'s memory.
pub(crate) fn decode_record(index: u64, record: &Bytes) -> Result<Entry, Error> {
    let rest = after_version("log record", record)?;
    let (head, used) = take::<RecordHead>("log record", rest)?;
    let payload = match head.kind {
        RecordKind::Blank => EntryPayload::Blank,
        RecordKind::Membership(membership) => EntryPayload::Membership(membership),
        RecordKind::Round { ts_ms } => {
            let round = Proposal { ts_ms, commands: record.slice(1 + used..) };
            if !round.is_whole() {
                return Err(Error::Short { what: "round of commands" });
            }
            EntryPayload::Normal(round)
        }
    };
    Ok(Entry { log_id: log_id(head.term, head.node, index), payload })
}

fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId::new(openraft::impls::leader_id_adv::LeaderId { term, node_id: node }, index)
}

/// What a message is about. Numbers are never used again for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Append = 1,
    Vote = 2,
    PreVote = 3,
    TransferLeader = 4,
}

impl TryFrom<u32> for Kind {
    type Error = Error;

    fn try_from(kind: u32) -> Result<Self, Error> {
        [Self::Append, Self::Vote, Self::PreVote, Self::TransferLeader]
            .into_iter()
            .find(|known| *known as u32 == kind)
            .ok_or(Error::Kind(kind))
    }
}

fn message(generation: u64) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    put(&mut bytes, &generation);
    bytes
}

/// What follows a message's version and generation, once both are as expected.
fn open(ours: u64, payload: &Bytes) -> Result<Bytes, Error> {
    let rest = after_version("message", payload)?;
    let (theirs, used) = take::<u64>("message", rest)?;
    if theirs != ours {
        return Err(Error::Generation { theirs, ours });
    }
    Ok(payload.slice(1 + used..))
}

/// A message that is one value.
pub(crate) fn encode_message<T: Serialize>(generation: u64, value: &T) -> Bytes {
    let mut bytes = message(generation);
    put(&mut bytes, value);
    bytes.into()
}

/// What [`encode_message`] made.
pub(crate) fn decode_message<T: DeserializeOwned>(generation: u64, payload: &Bytes) -> Result<T, Error> {
    let rest = open(generation, payload)?;
    let (value, used) = take("message", &rest)?;
    if used == rest.len() { Ok(value) } else { Err(Error::Short { what: "message" }) }
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    prev_log_id: Option<LogId>,
    leader_commit: Option<LogId>,
    /// How many records follow, contiguous from the entry after `prev_log_id`; each as a length and its bytes.
    records: u64,
}

/// An append request; the records are encoded as in the log.
pub(crate) fn encode_append(generation: u64, request: &AppendEntriesRequest<TypeConfig>) -> Bytes {
    let mut bytes = message(generation);
    bytes.reserve(64 + request.entries.iter().map(|entry| 4 + record_len_about(entry)).sum::<usize>());
    let head = AppendHead {
        vote: request.vote,
        prev_log_id: request.prev_log_id,
        leader_commit: request.leader_commit,
        records: request.entries.len() as u64,
    };
    put(&mut bytes, &head);
    for entry in &request.entries {
        // Entries of one request follow each other, so their indexes go without saying.
        let at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        put_record(&mut bytes, entry);
        let len = u32::try_from(bytes.len() - at - 4).expect("an entry is at most some megabytes");
        bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }
    bytes.into()
}

/// What [`encode_append`] made. The commands share `payload`'s memory.
pub(crate) fn decode_append(generation: u64, payload: &Bytes) -> Result<AppendEntriesRequest<TypeConfig>, Error> {
    const WHAT: &str = "append request";
    let mut rest = open(generation, payload)?;
    let (head, used) = take::<AppendHead>(WHAT, &rest)?;
    let _ = rest.split_to(used);
    let first = head.prev_log_id.map_or(0, |id| id.index.wrapping_add(1));
    // No more room than for what can be there: the number is the sender's word.
    let fitting = rest.len() / (4 + RECORD_BYTES_MIN);
    let mut entries = Vec::with_capacity(usize::try_from(head.records).unwrap_or(usize::MAX).min(fitting));
    for number in 0..head.records {
        let Some((len, _)) = rest.split_first_chunk::<4>() else { return Err(Error::Short { what: WHAT }) };
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| Error::Short { what: WHAT })?;
        let _ = rest.split_to(4);
        if len > rest.len() {
            return Err(Error::Short { what: WHAT });
        }
        entries.push(decode_record(first.wrapping_add(number), &rest.split_to(len))?);
    }
    if !rest.is_empty() {
        return Err(Error::Long { what: WHAT });
    }
    Ok(AppendEntriesRequest {
        vote: head.vote,
        prev_log_id: head.prev_log_id,
        leader_commit: head.leader_commit,
        entries,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::types::Seat;

    fn entries() -> Vec<Entry> {
        let seats = BTreeMap::from([(7, Seat { member: "a".into() }), (9, Seat { member: "b".into() })]);
        let membership = Membership::new(vec![BTreeSet::from([7, 9])], seats).unwrap();
        let bodies = [Bytes::from_static(b"what was encoded"), Bytes::from_static(b"at the edge")];
        vec![
            Entry { log_id: log_id(0, 0, 0), payload: EntryPayload::Membership(membership) },
            Entry { log_id: log_id(1, 7, 1), payload: EntryPayload::Blank },
            Entry { log_id: log_id(1, 7, 2), payload: EntryPayload::Normal(Proposal::new(5, bodies.iter())) },
            Entry {
                log_id: log_id(u64::MAX, u64::MAX, 3),
                payload: EntryPayload::Normal(Proposal::new(u64::MAX, [Bytes::new()].iter())),
            },
        ]
    }

    #[test]
    fn records_come_back_as_they_were_and_their_commands_are_not_copied() {
        for entry in entries() {
            let record = encode_record(&entry);
            let back = decode_record(entry.log_id.index, &record).unwrap();
            assert_eq!(back, entry);
            if let EntryPayload::Normal(round) = back.payload {
                assert!(record.as_ptr_range().contains(&round.commands.as_ptr()));
                let cut = record.slice(..record.len() - 1);
                let error = decode_record(entry.log_id.index, &cut).unwrap_err();
                assert_eq!(error.to_string(), "round of commands ends early");
            }
        }
    }

    #[test]
    fn append_requests_come_back_as_they_were() {
        let request = AppendEntriesRequest::<TypeConfig> {
            vote: Vote::new_committed(3, 7),
            prev_log_id: None,
            leader_commit: Some(log_id(1, 7, 2)),
            entries: entries(),
        };
        let payload = encode_append(4, &request);
        let back = decode_append(4, &payload).unwrap();
        assert_eq!(format!("{back:?}"), format!("{request:?}"));
        for cut in 0..payload.len() {
            assert!(decode_append(4, &payload.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_newer_version_and_another_generation_are_refused_with_a_sentence_that_says_so() {
        let newest = |bytes: &Bytes| Bytes::from([&[VERSION + 1], &bytes[1..]].concat());
        let error = decode_message::<Vote>(1, &newest(&encode_message(1, &Vote::new(3, 7)))).unwrap_err();
        assert_eq!(error.to_string(), "message has version 3; this program reads version 2");
        let error = decode_message::<Vote>(2, &encode_message(1, &Vote::new(3, 7))).unwrap_err();
        assert_eq!(error.to_string(), "the message is for generation 1 of the partition; this is generation 2");
        let entry = entries().remove(2);
        let record = newest(&encode_record(&entry));
        let error = decode_record(2, &record).unwrap_err();
        assert_eq!(error.to_string(), "log record has version 3; this program reads version 2");
        let error = decode_mark::<Vote>("vote", &newest(&encode_mark(&Vote::new(3, 7)))).unwrap_err();
        assert_eq!(error.to_string(), "vote has version 3; this program reads version 2");
        // One record of an append too.
        let request = AppendEntriesRequest::<TypeConfig> {
            vote: Vote::new_committed(3, 7),
            prev_log_id: Some(log_id(1, 7, 1)),
            leader_commit: None,
            entries: vec![entry.clone()],
        };
        let mut payload = encode_append(4, &request).to_vec();
        let at = payload.len() - encode_record(&entry).len();
        payload[at] = VERSION + 1;
        let error = decode_append(4, &payload.into()).unwrap_err();
        assert_eq!(error.to_string(), "log record has version 3; this program reads version 2");
        assert_eq!(Kind::try_from(99).unwrap_err().to_string(), "message kind 99 is not known to this program");
    }

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn any_log_id(index: u64) -> impl Strategy<Value = LogId> {
        (any::<u64>(), any::<u64>()).prop_map(move |(term, node)| log_id(term, node, index))
    }

    fn payload() -> impl Strategy<Value = EntryPayload<Proposal, u64, Seat>> {
        let body = vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let round = (any::<u64>(), vec(body, 0..4))
            .prop_map(|(ts_ms, bodies)| EntryPayload::Normal(Proposal::new(ts_ms, bodies.iter())));
        let seats = proptest::collection::btree_map(any::<u64>(), "[a-z]{0,5}", 1..4).prop_map(|names| {
            let voters = names.keys().copied().collect::<BTreeSet<_>>();
            let seats: BTreeMap<_, _> = names.into_iter().map(|(node, member)| (node, Seat { member })).collect();
            EntryPayload::Membership(Membership::new(vec![voters], seats).unwrap())
        });
        prop_oneof![1 => Just(EntryPayload::Blank), 3 => round, 1 => seats]
    }

    fn request() -> impl Strategy<Value = AppendEntriesRequest<TypeConfig>> {
        let entries = vec((any::<u64>(), any::<u64>(), payload()), 0..5);
        let of = |prev: u64| (Just(prev), any_log_id(prev), proptest::option::of(any_log_id(prev)));
        let heads = (any::<u64>(), any::<u64>(), (0..u64::MAX - 9).prop_flat_map(of));
        (heads, entries).prop_map(|((term, node, (prev, prev_log_id, leader_commit)), entries)| AppendEntriesRequest {
            vote: Vote::new_committed(term, node),
            prev_log_id: Some(prev_log_id),
            leader_commit,
            entries: (prev + 1..)
                .zip(entries)
                .map(|(index, (term, node, payload))| Entry { log_id: log_id(term, node, index), payload })
                .collect(),
        })
    }

    /// What was taken is the same once it was sent on.
    fn comes_back(payload: &Bytes) -> bool {
        let Ok(request) = decode_append(4, payload) else { return false };
        let sent = encode_append(4, &request);
        assert_eq!(encode_append(4, &decode_append(4, &sent).unwrap()), sent);
        true
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_append_comes_back_as_it_was_and_a_damaged_one_is_refused_or_another_one(
            request in request(),
            damages in vec((any::<Index>(), 1_u8.., vec(any::<u8>(), 1..8)), 1..20),
        ) {
            let whole = encode_append(4, &request);
            let back = decode_append(4, &whole).unwrap();
            prop_assert_eq!(&back.entries, &request.entries);
            prop_assert_eq!(encode_append(4, &back), whole.clone());
            for (at, change, more) in damages {
                let at = at.index(whole.len());
                let mut changed = whole.to_vec();
                changed[at] ^= change;
                // Nothing between replicas is without TLS's own check, so a changed byte may be a right message.
                comes_back(&changed.into());
                prop_assert!(!comes_back(&whole.slice(..at)), "cut at {}", at);
                prop_assert!(!comes_back(&[&whole[..], &more[..]].concat().into()), "{:?} behind it", more);
            }
            for entry in &request.entries {
                prop_assert_eq!(&decode_record(entry.log_id.index, &encode_record(entry)).unwrap(), entry);
            }
        }

        #[test]
        fn no_bytes_make_a_replica_panic(bytes in vec(any::<u8>(), 0..120), generation in any::<u64>()) {
            let headed = [&message(4), &bytes[..]].concat();
            for bytes in [bytes.clone(), [&[VERSION], &bytes[..]].concat(), headed].map(Bytes::from) {
                comes_back(&bytes);
                let _ = decode_message::<Vote>(generation, &bytes);
                let _ = decode_message::<crate::snapshots::Offer>(4, &bytes);
                let _ = decode_mark::<crate::types::SnapshotMeta>("snapshot", &bytes);
                if let Ok(entry) = decode_record(generation, &bytes) {
                    prop_assert_eq!(decode_record(generation, &encode_record(&entry)).unwrap(), entry);
                }
            }
        }
    }

    #[test]
    fn a_short_message_that_says_it_has_many_records_takes_no_memory_for_them() {
        let head = AppendHead { vote: Vote::new(1, 1), prev_log_id: None, leader_commit: None, records: u64::MAX };
        let mut bytes = message(4);
        put(&mut bytes, &head);
        bytes.resize(1 << 20, 0);
        let error = decode_append(4, &bytes.into()).unwrap_err();
        assert_eq!(error.to_string(), "log record ends early");
    }
}
