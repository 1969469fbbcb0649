//! Keep-alives: one message for all sessions that one member is thought to lead.
//!
//! A session whose last keep-alive was answered goes with the others of its leader, at the same moment. One that was not
//! goes alone: a partition without a majority keeps no other waiting.

use std::time::Duration;

use coterie_core::machine::PendingRelease;
use coterie_core::{GroupName, MemberName, PartitionId, SessionId, Term};
use coterie_mutants::{Point, rarely};
use coterie_proto::peer;
use coterie_proto::peer::frame::Body;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::plan::{Ask, Opened, Plan};
use super::{Heard, SessionState, Sessions};
use crate::limits;
use crate::peers::client::to_wire;
use crate::sessions::keeper::{Holder, Touched};

/// What came of a question.
struct Asked {
    ask: Ask,
    sent_ms: u64,
    /// In the order of the question.
    touched: Vec<Touched>,
}

/// Keeps what is opened alive, until the process stops.
pub(super) async fn run(sessions: &Sessions, mut opened: mpsc::UnboundedReceiver<Opened>) {
    let inner = &sessions.0;
    let interval = Duration::from_millis(inner.ttl_ms / 3);
    // Sidecars that start together do not ask together.
    let phase = interval.mul_f64((inner.env.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64);
    let mut plan = Plan::new(Instant::now(), phase, interval);
    let mut asked = FuturesUnordered::new();
    loop {
        let due = plan.first_due();
        let is_due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = inner.stopping.cancelled() => return,
            Some(asked) = asked.next(), if !asked.is_empty() => sessions.settle(&mut plan, asked),
            Some(opened) = opened.recv() => plan.add(opened, Instant::now()),
            () = is_due => {}
        }
        let lasts = |partition: &PartitionId, id| sessions.held(partition).is_some_and(|session| session.id == id);
        let candidate = |partition: &PartitionId, round| inner.directory.candidate(partition, &inner.own, round);
        for ask in plan.take_due(Instant::now(), &inner.own, lasts, candidate) {
            asked.push(sessions.ask(ask));
        }
    }
}

impl Sessions {
    async fn ask(&self, ask: Ask) -> Asked {
        if rarely(Point::LateKeepAlive) {
            tokio::time::sleep(Duration::from_millis(self.0.ttl_ms / 3)).await;
        }
        let sent_ms = self.0.env.clock.monotonic_ms();
        let timeout = Duration::from_millis(limits::TRY_MS_MAX.min(self.0.ttl_ms / 3));
        let touched = match &*ask.sessions {
            [(partition, _)] if self.is_deleted(partition) => vec![Touched::Lost],
            [session] if ask.member == self.0.own => vec![self.touch_here(session, timeout).await],
            _ => self.touch_there(&ask, timeout).await,
        };
        Asked { ask, sent_ms, touched }
    }

    /// The releases that the sidecar knows of.
    fn heard(&self, partition: &PartitionId) -> Vec<Heard> {
        let now_ms = self.0.env.clock.monotonic_ms();
        self.held(partition).map(|session| session.releases.heard(now_ms)).unwrap_or_default()
    }

    /// Whether the partition's group was deleted, and its sessions with it.
    fn is_deleted(&self, partition: &PartitionId) -> bool {
        let directory = &self.0.directory;
        !partition.group.is_system() && directory.view().is_ok() && directory.generation(partition).is_none()
    }

    async fn touch_here(&self, (partition, id): &(PartitionId, SessionId), timeout: Duration) -> Touched {
        let inner = &self.0;
        match (inner.partitions.get(partition), inner.keepers.get(partition)) {
            (Some(local), Some(keeper)) => {
                let heard = self.heard(partition);
                let holder = Holder { session: *id, member: inner.own.clone(), incarnation: inner.incarnation, heard };
                keeper.touch(&local, &holder, timeout).await
            }
            _ => Touched::Elsewhere(None),
        }
    }

    async fn touch_there(&self, Ask { member, sessions }: &Ask, timeout: Duration) -> Vec<Touched> {
        let named = |(partition, id): &(PartitionId, SessionId)| peer::SessionRef {
            partition: Some(to_wire(partition)),
            session: id.0,
            heard: self.heard(partition).into_iter().map(heard_to_wire).collect(),
        };
        let request = peer::KeepAliveRequest {
            member: self.0.own.0.clone(),
            incarnation: self.0.incarnation,
            sessions: sessions.iter().map(named).collect(),
        };
        let answers = match self.0.peers.call(member, Body::KeepAlive(request), timeout).await {
            Ok(Body::KeptAlive(response)) if response.sessions.len() == sessions.len() => response.sessions,
            _ => return sessions.iter().map(|_| Touched::Elsewhere(None)).collect(),
        };
        answers.into_iter().zip(sessions).map(|(alive, (_, id))| touched(alive, *id)).collect()
    }

    fn settle(&self, plan: &mut Plan, Asked { ask: Ask { member, sessions }, sent_ms, touched }: Asked) {
        let inner = &self.0;
        for ((partition, id), touched) in sessions.into_iter().zip(touched) {
            match &touched {
                Touched::Elsewhere(_) if inner.partitions.know_leader(&partition) => {}
                Touched::Elsewhere(Some(leader)) => inner.directory.note_leader(&partition, leader),
                Touched::Elsewhere(None) => inner.directory.forget_leader(&partition, &member),
                Touched::Alive(_) | Touched::Lost => {}
            }
            if plan.settle(&member, &partition, id, &touched, Instant::now()) {
                self.take(&partition, id, sent_ms, &touched);
            }
        }
    }

    /// What the keep-alive that was sent at `sent_ms` means for the session.
    fn take(&self, partition: &PartitionId, id: SessionId, sent_ms: u64, touched: &Touched) {
        let now_ms = self.0.env.clock.monotonic_ms();
        let mut table = self.lock();
        let Some(held) = table.sessions.get(partition).filter(|held| held.session.id == id) else { return };
        match touched {
            Touched::Alive(releases) => {
                held.status.send_replace(self.vouched(sent_ms));
                if held.session.releases.pending(releases, sent_ms, now_ms) {
                    held.session.hurry();
                }
            }
            Touched::Lost => {
                tracing::warn!(%partition, session = id.0, "the session is lost");
                held.lose(now_ms);
                table.sessions.remove(partition);
            }
            Touched::Elsewhere(_) => {
                held.status.send_if_modified(|status| {
                    // A second keep-alive in a row is overdue: two thirds of the time-out are gone.
                    let overdue = now_ms + self.0.ttl_ms / 3 >= status.valid_until_ms;
                    let changed = overdue && status.state == SessionState::Live;
                    if changed {
                        status.state = SessionState::Suspended;
                    }
                    changed
                });
            }
        }
    }
}

fn heard_to_wire(Heard { group, term, left_ms }: Heard) -> peer::Release {
    peer::Release { group: group.to_string(), term: term.0, ms: left_ms }
}

fn touched(peer::SessionAlive { result, releases }: peer::SessionAlive, session: SessionId) -> Touched {
    use peer::session_alive::Result as Answer;
    let release = |peer::Release { group, term, ms }| PendingRelease {
        group: GroupName::from(&*group),
        term: Term(term),
        timeout_ms: ms,
        session,
    };
    match result {
        Some(Answer::Alive(_)) => Touched::Alive(releases.into_iter().map(release).collect()),
        Some(Answer::Lost(_)) => Touched::Lost,
        Some(Answer::NotLeader(elsewhere)) => {
            Touched::Elsewhere(Some(elsewhere.leader).filter(|leader| !leader.is_empty()).map(MemberName))
        }
        Some(Answer::Failure(_)) | None => Touched::Elsewhere(None),
    }
}
