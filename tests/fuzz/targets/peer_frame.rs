//! Messages between sidecars and for the operator, as protobuf: `coterie_proto::peer`, and what is read out of them.
//!
//! ```text
//! which u8 | message
//! ```
#![no_main]

use std::fmt::Debug;

use coterie_core::Primitive;
use coterie_core::command;
use coterie_fuzz::Input;
use coterie_proto::peer::frame::Body;
use coterie_proto::{admin, peer, v1};
use coterie_sidecar::api::call::Call;
use coterie_sidecar::peers::admission;
use coterie_sidecar::peers::client::{from_wire, to_wire};
use coterie_sidecar::watch::Frame;
use coterie_store::Identity;
use prost::Message;

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(seeds), |bytes: &[u8]| {
    let mut input = Input(bytes);
    let which = input.byte();
    let bytes = input.0;
    match which % 8 {
        0 => drop(comes_back::<peer::Frames>(bytes).map(|frames| frames.frames.into_iter().for_each(frame))),
        1 => drop(comes_back::<peer::HelloRequest>(bytes).map(|hello| hello.from.as_ref().map(greeted))),
        2 => drop(comes_back::<peer::Formation>(bytes)),
        3 => drop(comes_back::<peer::SnapshotMessage>(bytes)),
        4 => drop(comes_back::<peer::WatchRequest>(bytes).map(|asked| Primitive::parse(&asked.key))),
        5 => drop(comes_back::<peer::WatchFrame>(bytes).map(|told| watch_frame(&told.frame))),
        6 => drop(comes_back::<v1::OperationBatch>(bytes).map(|batch| batch.operations.iter().for_each(operation))),
        _ => drop(comes_back::<admin::PartitionGroupSpec>(bytes)),
    }
});

/// What is taken is the same once it was sent on.
fn comes_back<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    assert_eq!(M::decode(&*message.encode_to_vec()).expect("it was encoded just now"), message);
    Some(message)
}

fn frame(peer::Frame { id: _, body }: peer::Frame) {
    let partition = match body {
        Some(Body::Raft(peer::Raft { partition, .. }) | Body::LaneOpened(peer::LaneOpened { partition, .. })) => {
            partition
        }
        _ => None,
    };
    if let Ok(id) = from_wire(partition) {
        assert_eq!(from_wire(Some(to_wire(&id))), Ok(id));
    }
}

/// What this member is to those who greet it.
fn own() -> Identity {
    let peer = coterie_store::KnownPeer { node_id: 2, start_counter: 2, run: 3 };
    Identity {
        version: 2,
        cluster: "default".to_owned(),
        cluster_id: Some(u128::from_be_bytes([7; 16])),
        member: "member-1".to_owned(),
        node_id: 1,
        start_counter: 1,
        formation: None,
        formed: true,
        peers: [("member-2".to_owned(), peer)].into(),
    }
}

fn greeted(from: &peer::Identity) {
    let alive = Some(admission::Alive { run: 4 });
    for (own, alive) in [(own(), alive), (own(), None), (Identity { formed: false, cluster_id: None, ..own() }, None)] {
        if let Ok(Some(known)) = admission::judge(&own, alive, &[], from) {
            assert_eq!((known.node_id, known.start_counter, known.run), (from.node_id, from.start_counter, from.run));
        }
    }
}

fn operation(operation: &v1::Operation) {
    if let Ok(call) = Call::from_fields(&operation.client_id, &operation.request_id, operation.timeout_ms) {
        assert!(call.timeout_ms > 0 && call.request.is_none_or(|request| request.client != 0));
    }
}

fn watch_frame(bytes: &[u8]) {
    let Ok(frame) = command::decode::<Frame>("watch frame", bytes) else { return };
    let _ = command::decode::<Frame>("watch frame", &command::encode(&frame)).expect("it was encoded just now");
}

fn seed(which: u8, message: &impl Message) -> Vec<u8> {
    [vec![which], message.encode_to_vec()].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let partition = || Some(peer::Partition { group: "data".to_owned(), index: 2 });
    let opening = || Some(peer::Opening { version: 4, from_node: 7, from_run: 8 });
    let payload = || bytes::Bytes::from_static(b"payload");
    let session = peer::SessionRef { partition: partition(), session: 3 };
    let propose = peer::ProposeRequest { partition: partition(), bodies: vec![payload(); 2], timeout_ms: 9 };
    let query = peer::QueryRequest { partition: partition(), queries: vec![payload()], kind: 1, timeout_ms: 9 };
    let bodies = [
        Body::Raft(peer::Raft { partition: partition(), to_node: 7, kind: 1, payload: payload() }),
        Body::Propose(propose),
        Body::Query(query),
        Body::KeepAlive(peer::KeepAliveRequest { member: "a".to_owned(), incarnation: 1, sessions: vec![session] }),
        Body::LaneOpened(peer::LaneOpened { partition: partition(), to_node: 7 }),
        Body::Lane(payload()),
        Body::LaneClosed(peer::LaneClosed { error: "why".to_owned() }),
        Body::RaftAnswer(peer::RaftAnswer { payload: payload(), error: String::new() }),
    ];
    let frames = (1..).zip(bodies).map(|(id, body)| peer::Frame { id, body: Some(body) }).collect();
    let from = peer::Identity {
        cluster: own().cluster,
        cluster_id: vec![7; 16].into(),
        member: "member-2".to_owned(),
        node_id: 2,
        start_counter: 3,
        run: 4,
        voter: true,
        formed: true,
        timing: "normal".to_owned(),
        ..peer::Identity::default()
    };
    let seats = vec![peer::Seat { member: "a".to_owned(), node_id: 1, address: "localhost:5001".to_owned() }];
    let formation =
        peer::Formation { cluster_id: vec![7; 16].into(), proposer: "a".to_owned(), seats, cluster: "c".to_owned() };
    let snapshot = peer::SnapshotMessage { opening: opening(), partition: partition(), to_node: 7, payload: payload() };
    let watch = peer::WatchRequest { partition: partition(), key: "map/m".to_owned(), ..peer::WatchRequest::default() };
    let put = v1::PutRequest { map: "m".to_owned(), key: "k".to_owned(), ..v1::PutRequest::default() };
    let operation = v1::Operation {
        id: 1,
        client_id: vec![7; 16].into(),
        request_id: vec![0x71; 16].into(),
        request: Some(v1::operation::Request::Put(put)),
        ..v1::Operation::default()
    };
    let partition_group = admin::PartitionGroupSpec { name: "data".to_owned(), ..admin::PartitionGroupSpec::default() };
    vec![
        seed(0, &peer::Frames { opening: opening(), frames }),
        seed(1, &peer::HelloRequest { wire_version: 4, from: Some(from), known: Vec::new() }),
        seed(2, &formation),
        seed(3, &snapshot),
        seed(4, &watch),
        seed(5, &peer::WatchFrame { frame: command::encode(&Frame::Silent(300)).into() }),
        seed(6, &v1::OperationBatch { operations: vec![operation] }),
        seed(7, &partition_group),
    ]
}
