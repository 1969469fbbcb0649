//! The memberships that the applications beside this sidecar hold (D20).
//!
//! | presence | lasts while | gives up its place |
//! |---|---|---|
//! | stream | the application's stream to this sidecar is open | at once when the stream is closed, however it is closed |
//! | lease | it is renewed | when its time to live has passed; nothing is vouched for beyond that |
//! | probe | the configured probe succeeds | when its end refuses connections: at once; when it is silent or answers badly: after what it was told has run out |
//!
//! **The rule.** A place is given up before the deadline that the application was last told only if the application
//! cannot act on it: it released or left, or its end of the connection is closed. So a membership first *withdraws*
//! (nothing is vouched for from then on), then waits out what was told, then leaves.
//!
//! **Leaving** is proposed again and again, with one request id, until it is committed, the session is lost (which
//! removes the membership as well), or the process stops.
//!
//! **Reading.** [`mirror`] follows each group once for all memberships in it; [`state`] decides from that, from the
//! session and from what was given up whether a membership leads and until when that may be said; [`held`] publishes it.
//! Nobody is told that it leads past the session's deadline, whatever the watch says.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use coterie_core::command::{Command, GroupOp, GroupView, Presence, Reply};
use coterie_core::limits::DEADLINE_MS_DEFAULT;
use coterie_core::{ErrorCode, GroupName, MemberId, PartitionId, Rejection, RequestId, Revision, Term};
use coterie_env::Env;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::deadline::Deadline;
use crate::retry::{Pauses, is_transient};
use crate::router::Router;
use crate::sessions::{Session, SessionState, Sessions};

mod drain;
mod held;
mod join;
pub(crate) mod mirror;
mod probe;
pub mod state;
#[cfg(test)]
mod tests;

pub use held::End;
use held::Held;
pub(crate) use join::bind;
use mirror::Mirror;
pub use state::SelfState;

/// The memberships of this sidecar. Cheap to clone.
#[derive(Clone)]
pub struct Presences(Arc<Inner>);

struct Inner {
    env: Env,
    router: Router,
    sessions: Sessions,
    /// Of members that name none.
    zone: String,
    stopping: CancellationToken,
    /// Ends the probe.
    probing: CancellationToken,
    draining: AtomicBool,
    registry: Mutex<Registry>,
}

type Address = (PartitionId, GroupName);

#[derive(Default)]
struct Registry {
    held: BTreeMap<Address, BTreeMap<MemberId, Arc<Held>>>,
    mirrors: BTreeMap<Address, Weak<Mirror>>,
    /// How many joins are under way whose member, if there is one already, is not held yet.
    joining: BTreeMap<Address, usize>,
}

/// What a new member brings.
#[derive(Clone, Debug)]
pub struct Join {
    /// Where the group lives.
    pub partition: PartitionId,
    /// The group.
    pub group: GroupName,
    /// Free for the application.
    pub metadata: BTreeMap<String, String>,
    /// Failure domain; empty: the sidecar's.
    pub zone: String,
    /// How its presence is known.
    pub kind: Kind,
    /// The request (D11).
    pub request: RequestId,
    /// Whether this sidecar minted its id for this one call.
    pub minted: bool,
    /// When the answer is wanted.
    pub deadline: Deadline,
}

/// How the presence of a new member is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By the [`Membership`], which a stream's task holds.
    Stream,
    /// By [`Presences::renew`], at least this often.
    Lease {
        /// The time to live, in milliseconds.
        ttl_ms: u64,
    },
    /// By the [`Membership`], which the probe holds.
    Probe,
}

impl Kind {
    fn presence(self) -> Presence {
        match self {
            Self::Stream => Presence::Stream,
            Self::Lease { ttl_ms: _ } => Presence::Lease,
            Self::Probe => Presence::Probe,
        }
    }
}

/// A membership, held. Dropping it gives up the place at once, except for leases, which end by themselves.
pub struct Membership {
    presences: Presences,
    held: Arc<Held>,
    view: GroupView,
}

impl Membership {
    /// The member's id.
    pub fn id(&self) -> MemberId {
        self.held.id
    }

    /// Where the group lives.
    pub fn partition(&self) -> &PartitionId {
        &self.held.partition
    }

    /// The group as of the join.
    pub fn view(&self) -> &GroupView {
        &self.view
    }

    /// The time to live of a lease, in milliseconds; 0 for other presences.
    pub fn ttl_ms(&self) -> u64 {
        self.held.ttl_ms
    }

    /// Changes of whether it leads. Ask [`Membership::tell`] for what to say.
    pub fn state(&self) -> watch::Receiver<SelfState> {
        self.held.state()
    }

    /// What the application may be told now; the place is kept for as long as this says.
    pub fn tell(&self) -> SelfState {
        self.held.tell()
    }

    /// Why it ended; `None` while it lasts.
    pub fn ended(&self) -> watch::Receiver<Option<End>> {
        self.held.ended()
    }

    /// The group's events, which may be ahead of what this sidecar knows elsewhere, say that it is over.
    pub fn end_as(&self, end: End) {
        self.held.end_as(end);
    }

    /// The application is silent but may still act: nothing more is vouched for, and the place is given up when what was
    /// told has run out.
    pub async fn give_up_when_told_has_run_out(self) {
        self.held.withdraw();
        self.held.wait_out().await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let gives_up = match self.held.presence {
            Presence::Stream => true,
            Presence::Lease => false,
            // A drain ends the probe, and gives up its membership in good order.
            Presence::Probe => !self.presences.0.probing.is_cancelled(),
        };
        if gives_up && self.held.ended().borrow().is_none() {
            self.presences.give_up(&self.held);
        }
    }
}

/// What may be said about one group by this sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// One per membership, by member id.
    pub members: Vec<SelfState>,
}

impl Presences {
    /// No membership yet. `zone` is that of members that name none; `stopping` ends everything.
    pub fn new(env: &Env, router: Router, sessions: Sessions, zone: &str, stopping: &CancellationToken) -> Self {
        Self(Arc::new(Inner {
            env: env.clone(),
            router,
            sessions,
            zone: zone.to_owned(),
            stopping: stopping.clone(),
            probing: stopping.child_token(),
            draining: AtomicBool::new(false),
            registry: Mutex::default(),
        }))
    }

    /// Holds a member that a join gave at this revision, or gives the one that is held already.
    fn hold(&self, join: &Join, session: Session, answered: Revision, id: MemberId, view: GroupView) -> Membership {
        let address = (join.partition.clone(), join.group.clone());
        let left = join::has_left(&view, answered);
        let mut registry = self.registry();
        let known = registry.held.get(&address).and_then(|members| members.get(&id)).cloned();
        let held = known.unwrap_or_else(|| {
            let mirror = self.mirror(&mut registry, &address, &view);
            let ttl_ms = match join.kind {
                Kind::Lease { ttl_ms } => ttl_ms,
                Kind::Stream | Kind::Probe => 0,
            };
            let (partition, group) = address.clone();
            let presence = join.kind.presence();
            let parts = held::Parts { id, partition, group, presence, ttl_ms, session, mirror };
            let held = Arc::new(Held::new(&self.0.env, parts));
            registry.held.entry(address.clone()).or_default().insert(id, Arc::clone(&held));
            self.keep(Arc::clone(&held));
            held
        });
        // A view as of a join long ago says nothing about who is in the group now. Nobody may ask before this is known.
        if left {
            held.end_as(End::Gone);
        } else {
            held.learn(&view);
        }
        drop(registry);
        Membership { presences: self.clone(), held, view }
    }

    fn mirror(&self, registry: &mut Registry, address: &Address, view: &GroupView) -> Arc<Mirror> {
        registry.mirrors.retain(|_, mirror| mirror.strong_count() > 0);
        let running = registry.mirrors.get(address).and_then(Weak::upgrade);
        if let Some(mirror) = running.filter(|mirror| mirror.with(|folded| folded.exists)) {
            return mirror;
        }
        let Inner { env, router, stopping, .. } = &*self.0;
        let mirror = Mirror::start(env, router, &address.0, &address.1, view, stopping);
        registry.mirrors.insert(address.clone(), Arc::downgrade(&mirror));
        mirror
    }

    /// Runs a membership's keeper and forgets the membership when it has ended.
    fn keep(&self, held: Arc<Held>) {
        let this = self.clone();
        self.spawn("presence-keeper", async move {
            let leaver = (this.clone(), Arc::clone(&held));
            let end = held.keep(move || leaver.0.give_up(&leaver.1)).await;
            if end == End::Lost {
                tracing::warn!(group = %held.group, member = held.id.0, "a membership ended with its session");
            }
            let address = (held.partition.clone(), held.group.clone());
            let mut registry = this.registry();
            if let Some(members) = registry.held.get_mut(&address) {
                members.remove(&held.id);
                if members.is_empty() {
                    registry.held.remove(&address);
                }
            }
        });
    }

    /// Extends a lease.
    ///
    /// # Errors
    /// `member_unknown` if this sidecar holds no such lease: it ran out, its session was lost, or the sidecar was
    /// restarted.
    pub fn renew(
        &self,
        partition: &PartitionId,
        group: &GroupName,
        member: MemberId,
    ) -> Result<(u64, SessionState), Rejection> {
        let held = self.find(partition, group, member).filter(|held| held.presence == Presence::Lease);
        let held = held.ok_or_else(|| unheld(member, group))?;
        held.renew()?;
        Ok((held.ttl_ms, held.session_state()))
    }

    /// A member leaves on the application's word. It need not be one of this sidecar's.
    ///
    /// # Errors
    /// Whatever the partition answers.
    pub async fn leave(
        &self,
        partition: &PartitionId,
        group: &GroupName,
        member: MemberId,
        request: RequestId,
        deadline: Deadline,
    ) -> Result<Revision, Rejection> {
        let held = self.find(partition, group, member);
        if let Some(held) = &held {
            held.withdraw();
        }
        let command = Command::Group { name: group.clone(), op: GroupOp::Leave(member) };
        let left = self.0.router.write(request, partition, command, deadline).await;
        match (&left, &held) {
            (Ok(_), Some(held)) => held.end(End::Left),
            // It may have left: nothing is vouched for until that is known.
            (Err(rejection), Some(held)) if rejection.code == ErrorCode::Unknown => self.give_up(held),
            (Err(_), Some(held)) => held.reinstate(),
            (_, None) => {}
        }
        left.map(|(revision, _)| revision)
    }

    /// The leader of `term` says that it no longer acts. From now on nobody here is told that it leads in that term.
    ///
    /// # Errors
    /// Whatever the partition answers; what the application said stands nevertheless.
    pub async fn release(
        &self,
        partition: &PartitionId,
        group: &GroupName,
        term: Term,
        request: RequestId,
        deadline: Deadline,
    ) -> Result<(Revision, Reply), Rejection> {
        let members = self.members(partition, group);
        for held in &members {
            held.released(term);
        }
        let command = Command::Group { name: group.clone(), op: GroupOp::Release(term) };
        let answer = self.0.router.write(request, partition, command, deadline).await;
        for held in &members {
            match &answer {
                Ok((_, Reply::Group(view))) => {
                    held.learn(view);
                    held.released_at_most(view.term);
                }
                Ok(_) | Err(_) => held.released_at_most(held.elected().1.max(term)),
            }
        }
        answer
    }

    /// What may be said now about this sidecar's memberships in a group.
    pub fn list(&self, partition: &PartitionId, group: &GroupName) -> Own {
        Own { members: self.members(partition, group).iter().map(|held| held.tell()).collect() }
    }

    /// How many memberships there are, by presence.
    pub fn counts(&self) -> [(Presence, usize); 3] {
        let registry = self.registry();
        let count = |presence| {
            let members = registry.held.values().flat_map(BTreeMap::values);
            (presence, members.filter(|held| held.presence == presence).count())
        };
        [count(Presence::Stream), count(Presence::Lease), count(Presence::Probe)]
    }

    /// Leaves in the background.
    fn give_up(&self, held: &Arc<Held>) {
        held.withdraw();
        let this = self.clone();
        let held = Arc::clone(held);
        self.spawn("presence-leave", async move { this.leave_until_done(&held).await });
    }

    /// Proposes to leave until that is committed or needless.
    async fn leave_until_done(&self, held: &Held) {
        let mut request = self.0.router.mint();
        let mut pauses = Pauses::new();
        let mut ended = held.ended();
        while ended.borrow_and_update().is_none() && !self.0.stopping.is_cancelled() {
            let command = Command::Group { name: held.group.clone(), op: GroupOp::Leave(held.id) };
            match self.0.router.write(request, &held.partition, command, self.deadline()).await {
                Ok(_) => return held.end(End::Left),
                Err(rejection) if rejection.code == ErrorCode::Expired => request = self.0.router.mint(),
                Err(rejection) if is_transient(rejection.code) => {}
                Err(rejection) => {
                    if !gone(rejection.code) {
                        tracing::warn!(group = %held.group, member = held.id.0, %rejection, "leave a group");
                    }
                    return held.end(End::Gone);
                }
            }
            tokio::select! {
                () = pauses.wait(&self.0.stopping) => {}
                _ = ended.changed() => {}
            }
        }
    }

    fn find(&self, partition: &PartitionId, group: &GroupName, member: MemberId) -> Option<Arc<Held>> {
        let address = (partition.clone(), group.clone());
        self.registry().held.get(&address).and_then(|members| members.get(&member)).cloned()
    }

    fn members(&self, partition: &PartitionId, group: &GroupName) -> Vec<Arc<Held>> {
        let address = (partition.clone(), group.clone());
        self.registry().held.get(&address).map(|members| members.values().cloned().collect()).unwrap_or_default()
    }

    fn everyone(&self) -> Vec<Arc<Held>> {
        self.registry().held.values().flat_map(|members| members.values().cloned()).collect()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().expect("no panic while the lock is held")
    }

    fn deadline(&self) -> Deadline {
        Deadline::after_ms(&self.0.env, DEADLINE_MS_DEFAULT)
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.env.spawn.spawn(name, Box::pin(task));
    }
}

/// Whether there is nothing to leave.
fn gone(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::MemberUnknown
            | ErrorCode::GroupUnknown
            | ErrorCode::SessionUnknown
            | ErrorCode::PartitionGroupUnknown
    )
}

fn shutting_down() -> Rejection {
    Rejection::new(ErrorCode::ShuttingDown, "the sidecar is shutting down and takes no new members")
}

/// `member_unknown`, for operations that only the holder of a membership can do.
pub(super) fn unheld(member: MemberId, group: &GroupName) -> Rejection {
    Rejection::new(
        ErrorCode::MemberUnknown,
        format!(
            "this sidecar holds no lease of member {member} in group `{group}`: it ran out or was lost; join again"
        ),
    )
}
