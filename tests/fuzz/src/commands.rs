//! Commands of every kind, for seeds.

use coterie_core::command::{
    Command, Condition, DirectoryOp, Envelope, GroupConfig, GroupOp, LockOp, MapOp, MemberKind, MemberRecord,
    PartitionGroupRecord, PartitionRecord, Presence, PrimitiveAddress, Protocol,
};
use coterie_core::{MemberId, NodeId, RequestId, SessionId, Term, Token};

/// A history of one partition that goes through all that a primitive can do: two sessions, and most of what they ask is
/// granted. The first command is of revision 1.
pub fn envelopes() -> Vec<Envelope> {
    let open = |number: u8| Command::OpenSession {
        member: format!("pod-{number}").as_str().into(),
        incarnation: 1,
        ttl_ms: 5_000,
    };
    let group = |op| Command::Group { name: "g".into(), op };
    let map = |op| Command::Map { name: "m".into(), op };
    let lock = |op| Command::Lock { name: "l".into(), op };
    let join = |session| {
        let metadata = [("k".to_owned(), "v".to_owned())].into();
        group(GroupOp::Join { session: SessionId(session), metadata, zone: "z".to_owned(), presence: Presence::Lease })
    };
    let put = |key: &str, only| map(MapOp::Put { key: key.into(), value: vec![7; 20].into(), only });
    let config = GroupConfig { release_timeout_ms: 7, max_members: 3 };
    let commands = [
        open(1),
        open(2),
        group(GroupOp::Create { config: None }),
        join(1),
        join(2),
        group(GroupOp::Configure { config, if_config_revision: None, if_term: None }),
        group(GroupOp::SetMetadata { member: MemberId(4), metadata: [].into(), if_term: None }),
        group(GroupOp::StepDown { if_term: None, reason: "requested".to_owned() }),
        put("key-1", Condition::Always),
        put("key-2", Condition::Absent),
        map(MapOp::Delete { key: "key-1".into(), only: Condition::Always }),
        lock(LockOp::Acquire { session: SessionId(1), wait: true }),
        lock(LockOp::Acquire { session: SessionId(2), wait: true }),
        lock(LockOp::Release(Token(12))),
        group(GroupOp::Release(Term(1))),
        group(GroupOp::Leave(MemberId(4))),
        group(GroupOp::ReleaseTimedOut(Term(2))),
        map(MapOp::Drop),
        group(GroupOp::Delete),
        put("key-1", Condition::At(coterie_core::Revision(9))),
        join(2),
        put("key-3", Condition::Always),
        Command::CloseSession(SessionId(1)),
        Command::ExpireSessions(vec![SessionId(2)]),
    ];
    requests(commands.into_iter())
}

/// The same for the management group.
pub fn directory() -> Vec<Envelope> {
    let member = |name: &str, kind, node| MemberRecord {
        name: name.into(),
        kind,
        address: format!("{name}:7301"),
        zone: String::new(),
        node: NodeId(node),
        start_counter: node,
        run: 1,
        machine_version: 1,
        version: "0.1.0".to_owned(),
    };
    let record = PartitionGroupRecord {
        name: "data".into(),
        protocol: Protocol::Raft,
        partitions: vec![PartitionRecord { replicas: vec![("a".into(), NodeId(1))] }; 2],
        generation: 0,
    };
    let used = PrimitiveAddress { partition_group: "data".into(), kind: "group".to_owned(), name: "g".to_owned() };
    let commands = [
        DirectoryOp::RegisterMember(member("a", MemberKind::Persistent, 1)),
        DirectoryOp::RegisterMember(member("e", MemberKind::Ephemeral, 0)),
        DirectoryOp::CreatePartitionGroup(record),
        DirectoryOp::RecordPrimitive(used.clone()),
        DirectoryOp::ForgetPrimitive(used),
        DirectoryOp::DeletePartitionGroup { name: "data".into(), force: false },
        DirectoryOp::ForgetMember("e".into()),
    ];
    requests(commands.into_iter().map(Command::Directory))
}

/// Every other one with the identity of a request.
fn requests(commands: impl Iterator<Item = Command>) -> Vec<Envelope> {
    let request = |number: u128| RequestId { client: 7, request: (1_000_000 << 80) | (7 << 76) | number };
    (0..)
        .zip(commands)
        .map(|(number, command)| Envelope { request: (number % 2 == 1).then(|| request(number)), command })
        .collect()
}
