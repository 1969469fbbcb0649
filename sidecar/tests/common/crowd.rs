//! Many sessions on one partition, as if each were of a sidecar of its own.

use std::time::Duration;

use coterie_core::command::{Command, Reply};
use coterie_core::{MemberName, PartitionId, PrimitiveKind, SessionId};
use coterie_proto::peer::frame::Body;
use coterie_proto::peer::{self, session_alive};
use coterie_replication::Partition;
use coterie_sidecar::Deadline;
use coterie_sidecar::node::Node;
use coterie_sidecar::peers::client::to_wire;
use coterie_sidecar::sessions::keeper::{Holder, Touched};
use futures_util::future::join_all;

/// How many are opened at once.
const AT_ONCE: usize = 500;

/// What a member answers to one message with these keep-alives of a holder; nothing for each that was not answered.
pub async fn kept_alive(
    from: &Node,
    to: &MemberName,
    holder: &Holder,
    sessions: &[(&PartitionId, SessionId)],
) -> Vec<session_alive::Result> {
    let named = |(id, session): &(&PartitionId, SessionId)| peer::SessionRef {
        partition: Some(to_wire(id)),
        session: session.0,
        heard: Vec::new(),
    };
    let Holder { member, incarnation, .. } = holder;
    let sessions = sessions.iter().map(named).collect();
    let request = peer::KeepAliveRequest { member: member.0.clone(), incarnation: *incarnation, sessions };
    let answer = from.peers().call(to, Body::KeepAlive(request), Duration::from_secs(5)).await;
    let Ok(Body::KeptAlive(answer)) = answer else { panic!("{answer:?} is not the answer of a keep-alive") };
    answer.sessions.into_iter().map(|alive| alive.result.unwrap()).collect()
}

pub struct Crowd {
    pub node: Node,
    pub id: PartitionId,
    pub partition: Partition,
    pub holders: Vec<Holder>,
}

impl Crowd {
    /// Opens so many sessions on a partition that holds primitives, through the log as sidecars do, at the one of these
    /// members that leads it.
    pub async fn open(nodes: &[Node], count: usize, ttl_ms: u64) -> Self {
        let of = coterie_core::Primitive { kind: PrimitiveKind::Map, name: "crowd".into() };
        let leads = |node: &&Node| {
            let partition = node.router().locate(None, &of).ok().and_then(|id| node.partitions().get(&id));
            partition.is_some_and(|partition| partition.leadership().borrow().leading)
        };
        let node = loop {
            match nodes.iter().find(leads) {
                Some(node) => break node.clone(),
                None => tokio::time::sleep(Duration::from_millis(20)).await, // waits for a condition
            }
        };
        let id = node.router().locate(None, &of).unwrap();
        let open = |number: usize| {
            let (node, id) = (node.clone(), id.clone());
            async move {
                let member = MemberName(format!("sidecar-{number}"));
                let command = Command::OpenSession { member: member.clone(), incarnation: 1, ttl_ms };
                let (router, deadline) = (node.router(), Deadline::after_ms(node.env(), 60_000));
                let (_, reply) = router.write(router.mint(), &id, command, deadline).await.unwrap();
                let Reply::Session(session) = reply else { panic!("{reply:?} is not a session") };
                Holder { session, member, incarnation: 1, heard: Vec::new() }
            }
        };
        let partition = node.partitions().get(&id).unwrap();
        let mut crowd = Self { node: node.clone(), id: id.clone(), partition, holders: Vec::new() };
        for first in (0..count).step_by(AT_ONCE) {
            let opened = join_all((first..count.min(first + AT_ONCE)).map(open)).await;
            crowd.holders.extend(opened);
            // On a slow machine the first ones would run out before the last ones are open.
            crowd.keep_alive().await;
        }
        crowd
    }

    /// One keep-alive of each session, as its partition's leader takes it.
    pub async fn keep_alive(&self) {
        let keeper = self.node.keepers().get(&self.id).unwrap();
        let timeout = Duration::from_secs(5);
        let touched = join_all(self.holders.iter().map(|holder| keeper.touch(&self.partition, holder, timeout))).await;
        assert!(touched.iter().all(|touched| matches!(touched, Touched::Alive(_))), "all of them live");
    }

    pub fn live(&self) -> usize {
        self.partition.with_machine(coterie_core::machine::Machine::session_count)
    }
}
