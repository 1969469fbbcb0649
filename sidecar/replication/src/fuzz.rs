//! What other replicas send and what the log holds, taken as it is taken in service, for `tests/fuzz`. In no other build.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::room::{Answered, Room};
use crate::snapshots::{Answer, Offer, decode_piece};
use crate::types::{Entry, LogId, Membership, Proposal, Seat, SnapshotMeta, TypeConfig, Vote};

const GENERATION: u64 = 4;
const INDEX: u64 = 9;

/// Takes bytes as one of what there is.
///
/// # Panics
/// If what was taken does not come back once it was sent on.
pub fn take(which: u8, bytes: &Bytes) {
    match which % 13 {
        0 => again(bytes, |bytes| codec::decode_append(GENERATION, bytes), |it| codec::encode_append(GENERATION, it)),
        1 => again(bytes, |bytes| codec::decode_record(INDEX, bytes), codec::encode_record),
        2 => message::<VoteRequest<TypeConfig>>(bytes),
        3 => message::<TransferLeaderRequest<TypeConfig>>(bytes),
        4 => message::<VoteResponse<TypeConfig>>(bytes),
        5 => message::<Answered<AppendEntriesResponse<TypeConfig>>>(bytes),
        6 => message::<Offer>(bytes),
        7 => message::<Answer>(bytes),
        8 => mark::<Vote>(bytes),
        9 => mark::<LogId>(bytes),
        10 => mark::<SnapshotMeta>(bytes),
        11 => {
            let Ok(piece) = decode_piece(bytes.clone()) else { return };
            // As it is when it is written.
            let _ = piece.is_whole(0);
        }
        _ => drop(bytes.first().map(|kind| codec::Kind::try_from(u32::from(*kind)))),
    }
}

fn message<T: Serialize + DeserializeOwned>(bytes: &Bytes) {
    again(bytes, |bytes| codec::decode_message::<T>(GENERATION, bytes), |it| codec::encode_message(GENERATION, it));
}

fn mark<T: Serialize + DeserializeOwned>(bytes: &Bytes) {
    again(bytes, |bytes| codec::decode_mark::<T>("mark", bytes), codec::encode_mark);
}

fn again<T>(bytes: &Bytes, decode: impl Fn(&Bytes) -> Result<T, codec::Error>, encode: impl Fn(&T) -> Bytes) {
    let Ok(value) = decode(bytes) else { return };
    let sent = encode(&value);
    let back = decode(&sent).expect("it was encoded just now");
    assert_eq!(encode(&back), sent, "it comes back as it was");
}

/// Something of each, as [`take`] takes it, with its number in front.
pub fn seeds() -> Vec<Vec<u8>> {
    let vote = Vote::new_committed(3, 7);
    let log_id = |index| LogId::new(openraft::impls::leader_id_adv::LeaderId { term: 3, node_id: 7 }, index);
    let seats = BTreeMap::from([(7, Seat { member: "a".into() }), (9, Seat { member: "b".into() })]);
    let membership = Membership::new(vec![BTreeSet::from([7, 9])], seats).expect("two voters");
    let bodies = [Bytes::from_static(b"one command"), Bytes::from_static(b"another")];
    let payloads = [
        EntryPayload::Membership(membership.clone()),
        EntryPayload::Blank,
        EntryPayload::Normal(Proposal::new(5, bodies.iter())),
    ];
    let entries: Vec<Entry> =
        (1..).zip(payloads).map(|(index, payload)| Entry { log_id: log_id(index), payload }).collect();
    let records: Vec<Bytes> = entries.iter().map(codec::encode_record).collect();
    let append = AppendEntriesRequest::<TypeConfig> {
        vote,
        prev_log_id: Some(log_id(0)),
        leader_commit: Some(log_id(2)),
        entries,
    };
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(8)),
        last_membership: crate::types::StoredMembership::new(Some(log_id(1)), membership),
    };
    let answered = Answered { answer: AppendEntriesResponse::<TypeConfig>::Success, room: Room::Short("x".to_owned()) };
    let request = VoteRequest::<TypeConfig>::new(vote, Some(log_id(8)));
    let mut seeds = vec![
        (0, codec::encode_append(GENERATION, &append)),
        (2, codec::encode_message(GENERATION, &request)),
        (5, codec::encode_message(GENERATION, &answered)),
        (6, codec::encode_message(GENERATION, &(vote, &meta, 2_u64, 40_u64, 7_u32))),
        (7, codec::encode_message(GENERATION, &Answer::Taken(3))),
        (8, codec::encode_mark(&vote)),
        (9, codec::encode_mark(&log_id(8))),
        (10, codec::encode_mark(&meta)),
        (11, Bytes::from_static(b"\x01\x02\x03\x04piece")),
    ];
    seeds.extend(records.into_iter().map(|record| (1, record)));
    seeds.into_iter().map(|(which, bytes)| [&[which], &bytes[..]].concat()).collect()
}
