//! Joining, so that a join that is sent again makes no second member, and none is left that nobody holds.
//!
//! | the partition answers | then |
//! |---|---|
//! | a member on the present session | it is held; the one that is held already if it is sent again |
//! | a member on another session | that one leaves, and the join is sent again under an id that is [bound](bind) to the present session |
//! | `unknown` | the same is asked again in the background until the answer is known |
//! | `expired` | the group is read, and whoever is on the present session without being held here leaves |
//!
//! The last is needed because the fate of a request whose result was dropped is not known any more: it may have made a
//! member, which would last, and even lead, as long as this sidecar's session.

use std::sync::atomic::Ordering;

use coterie_core::command::{Command, GroupOp, GroupView, Reply};
use coterie_core::{ErrorCode, GroupName, MemberId, PartitionId, Rejection, RequestId, Revision, SessionId};
use tokio::sync::oneshot;

use super::mirror::current;
use super::{Address, Join, Membership, Presences, gone, shutting_down};
use crate::deadline::Deadline;
use crate::retry::{Pauses, is_transient};
use crate::sessions::{Session, SessionState};

/// Of a version 7 UUID (RFC 9562, section 5.7), the bits that are random: all but time, version and variant.
const RANDOM_BITS: u128 = 0x0000_0000_0000_0FFF_3FFF_FFFF_FFFF_FFFF;
/// FNV-1a with 128 bits.
const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;

/// Counted among the joins under way until it is dropped. Do not drop it while the registry is locked.
struct UnderWay {
    presences: Presences,
    address: Address,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut registry = self.presences.registry();
        if let Some(count) = registry.joining.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                registry.joining.remove(&self.address);
            }
        }
    }
}

impl Presences {
    /// Joins a group; makes it if there is none. The join goes on when the caller goes away, and is then undone, so that
    /// no membership is left that nobody holds.
    ///
    /// A join that is sent again gives the member of the first time. If that one is on a session of another sidecar, or
    /// on a lost one, it leaves, and another joins in its place: one per session, however often the join is sent.
    ///
    /// # Errors
    /// `shutting_down` while draining; whatever the partition answers.
    pub async fn join(&self, join: Join) -> Result<Membership, Rejection> {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        self.spawn("presence-join", async move {
            // An answer that nobody waits for is dropped, and the membership in it with it.
            let _ = answer.send(this.join_now(join).await);
        });
        answered.await.unwrap_or_else(|_| Err(shutting_down()))
    }

    async fn join_now(&self, join: Join) -> Result<Membership, Rejection> {
        let inner = &self.0;
        if inner.draining.load(Ordering::SeqCst) {
            return Err(shutting_down());
        }
        inner.router.record(&join.partition, &(&join.group).into(), join.deadline).await?;
        let under_way = self.under_way(&join);
        let mut bound = false;
        loop {
            let session = inner.sessions.hold(&join.partition, join.deadline).await?;
            let request = if bound { bind(join.request, session.id()) } else { join.request };
            let command = self.join_command(&join, &session);
            match inner.router.write(request, &join.partition, command, join.deadline).await {
                Ok((revision, reply)) => match joined(reply, &session)? {
                    Ok((id, view)) => return Ok(self.hold(&join, session, revision, id, view)),
                    Err(_) if bound => {
                        let message = "a request that is bound to one session was answered with a member of another";
                        return Err(Rejection::new(ErrorCode::Internal, message));
                    }
                    // It was sent before, with a session that is lost, or at another sidecar.
                    Err(foreign) => self.leave_later(&join, foreign),
                },
                Err(rejection) if rejection.code == ErrorCode::SessionUnknown => {
                    // The answer to an id that is not bound may be an old one, about another session.
                    if bound {
                        self.wait_lost(&session, join.deadline).await.map_err(|()| rejection)?;
                    }
                }
                Err(rejection) => {
                    let told = told(&rejection, join.minted);
                    match rejection.code {
                        ErrorCode::Unknown => self.resolve(join, session, request, under_way),
                        ErrorCode::Expired => self.sweep((join.partition, join.group), session),
                        _ => {}
                    }
                    return Err(told);
                }
            }
            bound = true;
        }
    }

    fn under_way(&self, join: &Join) -> UnderWay {
        let address = (join.partition.clone(), join.group.clone());
        *self.registry().joining.entry(address.clone()).or_default() += 1;
        UnderWay { presences: self.clone(), address }
    }

    fn join_command(&self, join: &Join, session: &Session) -> Command {
        let zone = if join.zone.is_empty() { &self.0.zone } else { &join.zone };
        let op = GroupOp::Join {
            session: session.id(),
            metadata: join.metadata.clone(),
            zone: zone.clone(),
            presence: join.kind.presence(),
        };
        Command::Group { name: join.group.clone(), op }
    }

    /// The partition knows already that the session is gone; waits until this sidecar does.
    async fn wait_lost(&self, session: &Session, deadline: Deadline) -> Result<(), ()> {
        let mut status = session.status();
        let lost = status.wait_for(|status| status.state == SessionState::Lost);
        match tokio::time::timeout(deadline.remaining(&self.0.env), lost).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }

    /// Finds out in the background whether a join took place. If so, a lease is held until it runs out, for the
    /// application may send the request again; any other membership is given up.
    fn resolve(&self, join: Join, session: Session, request: RequestId, under_way: UnderWay) {
        let this = self.clone();
        self.spawn("presence-resolve", async move {
            let mut pauses = Pauses::new();
            while this.lasts(&session) {
                let deadline = this.deadline();
                let command = this.join_command(&join, &session);
                match this.0.router.write(request, &join.partition, command, deadline).await {
                    Ok((revision, reply)) => {
                        if let Ok(Ok((id, view))) = joined(reply, &session) {
                            drop(this.hold(&join, session, revision, id, view));
                        }
                        return;
                    }
                    Err(rejection) if is_transient(rejection.code) => {}
                    Err(rejection) => {
                        // The sweep waits for the joins that are under way: for this one no longer.
                        drop(under_way);
                        if rejection.code == ErrorCode::Expired {
                            this.sweep((join.partition, join.group), session);
                        }
                        return;
                    }
                }
                pauses.wait(&this.0.stopping).await;
            }
        });
    }

    /// Makes every member of a group leave that is on this session and not held here. Waits for the joins in this group
    /// that are under way, for what they make is not held yet. Needless once the session is lost.
    fn sweep(&self, address: Address, session: Session) {
        let this = self.clone();
        self.spawn("presence-sweep", async move {
            let mut pauses = Pauses::new();
            while this.lasts(&session) {
                match this.find_orphans(&address, session.id()).await {
                    Ok(Some(orphans)) if orphans.is_empty() => return,
                    Ok(Some(orphans)) => {
                        for member in orphans {
                            tracing::warn!(group = %address.1, member = member.0, "a member that nobody holds leaves");
                            this.leave_once(&address.0, &address.1, member).await;
                        }
                    }
                    Ok(None) => {}
                    Err(rejection) if gone(rejection.code) => return,
                    Err(rejection) => tracing::debug!(group = %address.1, %rejection, "look for members of nobody"),
                }
                pauses.wait(&this.0.stopping).await;
            }
        });
    }

    /// `None` while a join is under way.
    async fn find_orphans(&self, address: &Address, session: SessionId) -> Result<Option<Vec<MemberId>>, Rejection> {
        let Some(view) = current(&self.0.env, &self.0.router, &address.0, &address.1).await? else {
            return Ok(Some(Vec::new()));
        };
        let registry = self.registry();
        if registry.joining.contains_key(address) {
            return Ok(None);
        }
        let held = registry.held.get(address);
        Ok(Some(orphans(&view, session, |member| held.is_some_and(|held| held.contains_key(&member)))))
    }

    fn lasts(&self, session: &Session) -> bool {
        session.status().borrow().state != SessionState::Lost && !self.0.stopping.is_cancelled()
    }

    /// Gives up a member that another session of this or another sidecar joined for the same request.
    fn leave_later(&self, join: &Join, member: MemberId) {
        let this = self.clone();
        let (partition, group) = (join.partition.clone(), join.group.clone());
        self.spawn("presence-leave", async move { this.leave_once(&partition, &group, member).await });
    }

    async fn leave_once(&self, partition: &PartitionId, group: &GroupName, member: MemberId) {
        let command = Command::Group { name: group.clone(), op: GroupOp::Leave(member) };
        let request = self.0.router.mint();
        if let Err(rejection) = self.0.router.write(request, partition, command, self.deadline()).await {
            tracing::debug!(%group, member = member.0, %rejection, "leave for a join that was sent again");
        }
    }
}

/// The id under which a request that was answered for another session is sent again with this one: always the same, so
/// it is applied once per session (D11). It has the same client and the same time.
pub(crate) fn bind(request: RequestId, session: SessionId) -> RequestId {
    let bytes = request.request.to_be_bytes().into_iter().chain(session.0.to_be_bytes());
    let hash = bytes.fold(FNV_OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(FNV_PRIME));
    RequestId { client: request.client, request: (request.request & !RANDOM_BITS) | (hash & RANDOM_BITS) }
}

/// The members of a group that hang on this session though nobody holds them.
pub(super) fn orphans(view: &GroupView, session: SessionId, held: impl Fn(MemberId) -> bool) -> Vec<MemberId> {
    let here = view.members.iter().filter(|member| member.session == session).map(|member| member.id);
    here.filter(|member| !held(*member)).collect()
}

/// What the caller is told of a join that failed. An id that was minted for this call was sent by nobody before: when it
/// is too old for its result to be kept, this very call may have been applied.
pub(super) fn told(rejection: &Rejection, minted: bool) -> Rejection {
    if rejection.code != ErrorCode::Expired || !minted {
        return rejection.clone();
    }
    let message = "whether this join was applied is no longer known; if it was, its member leaves: join again";
    Rejection::new(ErrorCode::Unknown, message)
}

/// The member that a join gave, if the present session carries it; else its id alone.
fn joined(reply: Reply, session: &Session) -> Result<Result<(MemberId, GroupView), MemberId>, Rejection> {
    let Reply::Joined(joined) = reply else {
        return Err(Rejection::new(ErrorCode::Internal, "a join was answered with something else than a member"));
    };
    let (id, view) = *joined;
    let carried = view.members.iter().any(|member| member.id == id && member.session == session.id());
    Ok(if carried { Ok((id, view)) } else { Err(id) })
}

/// Whether a join was sent again after its member had left: the view is then as of the join, older than the answer.
pub(super) fn has_left(view: &GroupView, answered: Revision) -> bool {
    view.revision < answered
}
