//! Who leads, and giving the lead away.

use std::cmp::Reverse;
use std::sync::Arc;

use coterie_core::MemberName;
use coterie_env::Env;
use coterie_mutants::{Mutant, Point, is_on, rarely};
use openraft::ServerState;
use openraft::async_runtime::Instant as _;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use super::Partition;
use crate::lease::Restarted;
use crate::replica::Replica;
use crate::room::Rooms;
use crate::ticker::Ticker;
use crate::timing::{HAND_OVER_PAUSE, SILENT_HEARTBEATS, Timing};
use crate::types::Raft;

/// Who leads the partition, as this replica knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The last leader that this replica heard of; it may be gone. `None` before the first, and during elections.
    pub leader: Option<MemberName>,
    /// Raft's term. Terms only rise, and two terms of one number never both commit.
    pub term: u64,
    /// This replica leads and has applied everything that was committed before its term: timers of sessions may run
    /// here. Another replica may already lead without this one knowing; only a commit or a confirmation proves it.
    pub leading: bool,
    /// On the leader: a majority has answered within the lease. Elsewhere: the leader was heard of lately.
    pub has_quorum: bool,
}

/// What is observed at one moment.
struct Observed {
    leadership: Leadership,
    /// Leads, with or without having applied its barrier.
    raft_leader: bool,
    /// The only voter.
    alone: bool,
    silent_ms: u64,
}

fn observe(raft: &Raft, replica: &Replica, timing: &Timing) -> Observed {
    let server = raft.server_metrics().borrow_watched().clone();
    let raft_leader = server.state == ServerState::Leader;
    let membership = server.membership_config.membership();
    let leader = server.current_leader.and_then(|leader| membership.get_node(&leader));
    let leader = leader.map(|seat| MemberName(seat.member.clone()));
    let alone = server.membership_config.voter_ids().count() == 1;
    let acked = raft.data_metrics().borrow_watched().last_quorum_acked.map(|at| at.elapsed());
    let silent_ms = match acked.filter(|_| raft_leader) {
        _ if raft_leader && alone => 0,
        Some(ago) if ago < timing.lease() => 0,
        Some(ago) => u64::try_from(ago.as_millis()).unwrap_or(u64::MAX),
        None => replica.unheard_ms(),
    };
    let lease_ms = u64::try_from(timing.lease().as_millis()).unwrap_or(u64::MAX);
    let has_quorum = leader.is_some() && silent_ms < lease_ms;
    let applied = replica.state().last;
    // The first entry of a term is its leader's: applied, everything before it is too.
    let own_term = server.vote.committed && applied.is_some_and(|id| id.leader_id == server.vote.leader_id);
    Observed {
        leadership: Leadership {
            leader,
            term: server.vote.leader_id.term,
            leading: raft_leader && own_term,
            has_quorum,
        },
        raft_leader,
        alone,
        silent_ms,
    }
}

/// What says when a replica beats, and when it campaigns.
pub(super) struct Times {
    pub(super) timing: Timing,
    pub(super) ticker: Ticker,
    pub(super) restarted: Restarted,
}

/// Keeps what [`Partition::leadership`] shows up to date, and the timers where they are needed.
pub(super) fn spawn(
    env: &Env,
    raft: Raft,
    replica: Arc<Replica>,
    times: Times,
    room: HandsOver,
    mut closed: watch::Receiver<bool>,
) -> watch::Receiver<Leadership> {
    let Times { timing, mut ticker, restarted } = times;
    let (sender, receiver) = watch::channel(Leadership::default());
    let task = async move {
        let mut server = raft.server_metrics();
        let mut applied = replica.applied();
        let mut handed_over = None;
        loop {
            applied.mark_unchanged();
            let now = observe(&raft, &replica, &timing);
            if now.raft_leader && now.silent_ms == 0 {
                replica.heard();
            }
            let waits_for_barrier = now.raft_leader && !now.leadership.leading;
            let leads = now.raft_leader;
            // A leader that is heard of needs no election, and one that leads none of its own timer: the ticker sends its
            // heartbeats. After two that are missing openraft's timer still comes in time for the lease.
            let silent = now.silent_ms > SILENT_HEARTBEATS * timing.heartbeat_ms && !is_on(Mutant::TrustSilentLeader)
                || rarely(Point::EarlyTimer);
            let keeps_still = restarted.keeps_still() && !now.alone;
            raft.runtime_config().tick(!leads && !keeps_still && (silent || now.leadership.leader.is_none()));
            publish(&sender, now.leadership);
            tokio::select! {
                biased;
                _ = closed.changed() => break,
                changed = server.changed() => if changed.is_err() { break },
                _ = applied.changed(), if waits_for_barrier => {}
                () = ticker.tick() => {
                    if leads && raft.trigger().heartbeat().await.is_err() {
                        break;
                    }
                    if leads && let Some(target) = room.target(&raft, &replica, &timing, &mut handed_over) {
                        tracing::info!(target, "the volume is full: the lead goes to a replica that has room");
                        if raft.trigger().transfer_leader(target).await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
        let term = sender.borrow().term;
        publish(&sender, Leadership { term, ..Leadership::default() });
        replica.with_state_and_hub(|_, hub| hub.close());
    };
    env.spawn.spawn("leadership", Box::pin(task));
    receiver
}

/// What a leader without room does: one that has refused growth lately gives the lead away.
pub(super) struct HandsOver {
    pub(super) own: u64,
    pub(super) rooms: Arc<Rooms>,
}

impl HandsOver {
    /// To whom the lead is to go, if it is time. `last` is when it went the last time.
    fn target(&self, raft: &Raft, replica: &Replica, timing: &Timing, last: &mut Option<u64>) -> Option<u64> {
        let now_ms = replica.env.clock.monotonic_ms();
        let pause_ms = u64::try_from(HAND_OVER_PAUSE.as_millis()).unwrap_or(u64::MAX);
        if last.is_some_and(|last| now_ms < last + pause_ms) || !self.rooms.take_refused() {
            return None;
        }
        let target = successor(raft, self.own, timing, |node| self.rooms.is_ample(node, now_ms))?;
        *last = Some(now_ms);
        Some(target)
    }
}

fn publish(sender: &watch::Sender<Leadership>, now: Leadership) {
    sender.send_if_modified(|shown| {
        let changed = *shown != now;
        *shown = now;
        changed
    });
}

impl Partition {
    /// Who leads, as it changes; looked at once per heartbeat and whenever Raft's state changes. Once the replica has
    /// failed or was stopped it shows that nobody leads, and the channel is closed.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// How long the leader has given no sign of life, in milliseconds; 0 on a leader that a majority follows. What is
    /// applied here may be that old, and the time that a message takes.
    pub fn silent_ms(&self) -> u64 {
        observe(&self.inner.raft, &self.inner.replica, &self.inner.timing).silent_ms
    }

    /// Gives the lead to the follower that has the most of the log and was heard of lately, and waits until another
    /// replica leads: a few milliseconds, at most four leases. `true` if, in the end, another one is known to lead; also
    /// when this one never did.
    pub async fn transfer_away(&self) -> bool {
        self.transfer_to(|_| true).await
    }

    /// As [`Partition::transfer_away`], to one of the voters that are fit for it.
    pub(super) async fn transfer_to(&self, is_fit: impl Fn(u64) -> bool) -> bool {
        let raft = &self.inner.raft;
        if raft.is_leader() {
            let Some(target) = successor(raft, self.inner.node.0, &self.inner.timing, is_fit) else {
                return false;
            };
            if raft.trigger().transfer_leader(target).await.is_err() {
                return false;
            }
        }
        let own = self.inner.node.0;
        let mut server = raft.server_metrics();
        let other_leads = async {
            loop {
                if server.borrow_watched().current_leader.is_some_and(|leader| leader != own) {
                    return true;
                }
                if server.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(self.inner.timing.failover_max(), other_leads).await.unwrap_or(false)
    }
}

/// Who should lead after `own`, of those that are fit for it.
fn successor(raft: &Raft, own: u64, timing: &Timing, is_fit: impl Fn(u64) -> bool) -> Option<u64> {
    let metrics = raft.metrics().borrow_watched().clone();
    let lately = |node: &u64| {
        let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(node).copied().flatten());
        heard.is_some_and(|at| at.elapsed() < timing.lease())
    };
    let replication = metrics.replication.as_ref()?;
    metrics
        .membership_config
        .voter_ids()
        .filter(|node| *node != own && lately(node) && is_fit(*node))
        .map(|node| (replication.get(&node).copied().flatten(), Reverse(node)))
        .max()
        .map(|(_, Reverse(node))| node)
}
