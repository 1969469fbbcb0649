//! Keep-alives: one message for all sessions that one member is thought to lead.
//!
//! A session whose last keep-alive was answered goes with the others of its leader, at the same moment. One that was not
//! goes alone, to one replica after another: a partition without a majority keeps no other waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use coterie_core::{MemberName, PartitionId, SessionId};
use coterie_proto::peer;
use coterie_proto::peer::frame::Body;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{Held, SessionState, SessionStatus, Sessions};
use crate::limits;
use crate::peers::client::to_wire;
use crate::sessions::keeper::{Holder, Touched};

/// One question of one member: are these alive?
struct Ask {
    member: MemberName,
    sessions: Vec<(PartitionId, SessionId)>,
}

/// What came of it.
struct Asked {
    ask: Ask,
    sent_ms: u64,
    /// In the order of the question.
    touched: Vec<Touched>,
}

/// Until the process stops.
pub(super) async fn run(sessions: &Sessions) {
    let mut asked = FuturesUnordered::new();
    loop {
        let due = sessions.first_due();
        let is_due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = sessions.0.stopping.cancelled() => return,
            Some(asked) = asked.next(), if !asked.is_empty() => sessions.settle(asked),
            () = sessions.0.opened.notified() => {}
            () = is_due => {}
        }
        for ask in sessions.take_due(Instant::now()) {
            asked.push(sessions.ask(ask));
        }
    }
}

impl Sessions {
    fn first_due(&self) -> Option<Instant> {
        self.lock().values().filter_map(|held| held.due).min()
    }

    /// When the next keep-alives go, three of them within the time-out. It is one moment for all sessions of this sidecar,
    /// and another one at every sidecar.
    pub(super) fn next_beat(&self) -> Instant {
        let interval = Duration::from_millis(self.0.ttl_ms / 3);
        let past = self.0.begun.elapsed().as_nanos() / interval.as_nanos();
        self.0.begun + interval * u32::try_from(past + 1).unwrap_or(u32::MAX)
    }

    /// What is to be asked now, and of whom.
    fn take_due(&self, now: Instant) -> Vec<Ask> {
        let (mut together, mut alone) = (BTreeMap::<MemberName, Vec<_>>::new(), Vec::new());
        let mut sessions = self.lock();
        let due = sessions.iter_mut().filter(|(_, held)| held.due.is_some_and(|due| due <= now));
        for (partition, Held { session, due, tries, .. }) in due {
            let member = self.0.directory.candidate(partition, &self.0.own, *tries);
            *due = None;
            let asked_for = (partition.clone(), session.id);
            if *tries == 0 && member != self.0.own {
                together.entry(member).or_default().push(asked_for);
            } else {
                alone.push(Ask { member, sessions: vec![asked_for] });
            }
            *tries += 1;
        }
        alone.extend(together.into_iter().map(|(member, sessions)| Ask { member, sessions }));
        alone
    }

    async fn ask(&self, ask: Ask) -> Asked {
        let sent_ms = self.0.env.clock.monotonic_ms();
        let timeout = Duration::from_millis(limits::TRY_MS_MAX.min(self.0.ttl_ms / 3));
        let touched = if ask.member == self.0.own {
            futures_util::future::join_all(ask.sessions.iter().map(|it| self.touch_here(it, timeout))).await
        } else {
            self.touch_there(&ask, timeout).await
        };
        Asked { ask, sent_ms, touched }
    }

    async fn touch_here(&self, (partition, id): &(PartitionId, SessionId), timeout: Duration) -> Touched {
        let inner = &self.0;
        match (inner.partitions.get(partition), inner.keepers.get(partition)) {
            (Some(local), Some(keeper)) => {
                let holder = Holder { session: *id, member: inner.own.clone(), incarnation: inner.incarnation };
                keeper.touch(&local, &holder, timeout).await
            }
            _ => Touched::Elsewhere(None),
        }
    }

    async fn touch_there(&self, Ask { member, sessions }: &Ask, timeout: Duration) -> Vec<Touched> {
        let named = |(partition, id): &(PartitionId, SessionId)| peer::SessionRef {
            partition: Some(to_wire(partition)),
            session: id.0,
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
        answers.into_iter().map(|alive| touched(alive.result)).collect()
    }

    fn settle(&self, Asked { ask: Ask { member, sessions }, sent_ms, touched }: Asked) {
        for ((partition, id), touched) in sessions.into_iter().zip(touched) {
            let inner = &self.0;
            match &touched {
                Touched::Elsewhere(_) if inner.partitions.know_leader(&partition) => {}
                Touched::Elsewhere(Some(leader)) => inner.directory.note_leader(&partition, leader),
                Touched::Elsewhere(None) => inner.directory.forget_leader(&partition, &member),
                Touched::Alive | Touched::Lost => {}
            }
            let mut held = self.lock();
            let Some(session) = held.get_mut(&partition).filter(|held| held.session.id == id) else { continue };
            match touched {
                Touched::Alive => {
                    session.status.send_replace(self.vouched(sent_ms));
                    session.tries = 0;
                    session.due = Some(self.next_beat());
                }
                Touched::Lost => {
                    tracing::warn!(%partition, session = id.0, "the session is lost");
                    let valid_until_ms = inner.env.clock.monotonic_ms();
                    session.status.send_replace(SessionStatus { state: SessionState::Lost, valid_until_ms });
                    held.remove(&partition);
                }
                Touched::Elsewhere(_) => {
                    let third_ms = inner.ttl_ms / 3;
                    session.due =
                        Some(Instant::now() + Duration::from_millis(limits::RETRY_PAUSE_MS_MAX.min(third_ms)));
                    let now_ms = inner.env.clock.monotonic_ms();
                    session.status.send_if_modified(|status| {
                        // A second keep-alive in a row is overdue: two thirds of the time-out are gone.
                        let overdue = now_ms + third_ms >= status.valid_until_ms;
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
}

fn touched(result: Option<peer::session_alive::Result>) -> Touched {
    use peer::session_alive::Result as Answer;
    match result {
        Some(Answer::TtlMs(_)) => Touched::Alive,
        Some(Answer::Lost(_)) => Touched::Lost,
        Some(Answer::NotLeader(elsewhere)) => {
            Touched::Elsewhere(Some(elsewhere.leader).filter(|leader| !leader.is_empty()).map(MemberName))
        }
        Some(Answer::Failure(_)) | None => Touched::Elsewhere(None),
    }
}
