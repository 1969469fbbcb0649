//! A membership: held as long as the object lives, and the guard of what only a leader may do.
//!
//! ```text
//!            join stream ──── self, session ───▶ ┐
//!  sidecar   watch (lease) ── changed ──────────▶├ Holder (a task) ──▶ Leadership, SessionState ──▶ Member
//!            Self call ────── valid for n ms ───▶ ┘
//! ```
//! How long a leader may say so is counted from *before* the call that asked: whatever was pushed may have waited in a
//! buffer while this process was paused (S37), so a push only causes a question.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coterie_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::Deadline;
use crate::error::{Error, Kind};
use crate::group::{Group, JoinOptions, JoinPresence};
use crate::types::{MemberId, MemberInfo, SessionState, Term};
use holder::Holder;

mod holder;

/// Whether a member leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Whether it may act as leader. Ask [`Member::guard`] at the moment of acting.
    pub leads: bool,
    /// The term that it leads in, else the last term that it was told of.
    pub term: Term,
    /// Until when `leads` holds without further word from the sidecar.
    pub valid_until: Deadline,
    /// Whether it was asked to release: stop acting, then call [`Member::release`] (D16).
    pub releasing: bool,
}

/// A membership of one group (S3, S4). Dropping it leaves.
///
/// ```no_run
/// # async fn example(group: coterie_client::Group) -> Result<(), coterie_client::Error> {
/// let member = group.join(Default::default()).await?;
/// if let Some(term) = member.guard() {
///     // Hand `term` to whatever is written to, so that it can refuse an older leader (S28, S39).
///     println!("acting as leader of term {term}");
/// }
/// member.leave().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Member {
    info: MemberInfo,
    group: Group,
    state: Arc<Shared>,
    leadership: watch::Receiver<Leadership>,
    session: watch::Receiver<SessionState>,
    _holds: DropGuard,
}

/// What the member and its holder share.
#[derive(Debug)]
struct Shared {
    /// The newest term that this member has given back; it must not act in it any more, whatever the sidecar still says.
    released: AtomicU64,
    /// Whether the cluster already knows that it left.
    left: CancellationToken,
}

impl Member {
    pub(crate) async fn join(group: Group, options: JoinOptions) -> Result<Self, Error> {
        let (joined, source) = match options.presence {
            JoinPresence::Stream => holder::join_stream(&group, options).await?,
            JoinPresence::Lease { ttl } => holder::join_lease(&group, options, ttl).await?,
        };
        let info: MemberInfo = joined.member.ok_or(Error::Protocol { missing: "member" })?.into();
        let term = Term(joined.group.map_or(0, |group| group.term));
        let nothing = Leadership { leads: false, term, valid_until: Deadline::now(), releasing: false };
        let (leadership, leadership_seen) = watch::channel(nothing);
        let (session, session_seen) = watch::channel(SessionState::Live);
        let state = Arc::new(Shared { released: AtomicU64::new(0), left: CancellationToken::new() });
        let stop = CancellationToken::new();
        let holder = Holder::new(group.clone(), info.id, source, state.clone(), leadership, session);
        tokio::spawn(holder.run(stop.clone()));
        Ok(Self { info, group, state, leadership: leadership_seen, session: session_seen, _holds: stop.drop_guard() })
    }

    /// Its id, readable as soon as the join completes (S4).
    pub fn id(&self) -> MemberId {
        self.info.id
    }

    /// The member as it joined.
    pub fn info(&self) -> &MemberInfo {
        &self.info
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Whether it leads, as a value to wait on: it changes when `leads`, `term` or `releasing` change. Closes when the
    /// membership has ended.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// How the session is, as a value to wait on. Says [`SessionState::Lost`] before the membership's stream is closed.
    pub fn session(&self) -> watch::Receiver<SessionState> {
        self.session.clone()
    }

    /// The term in which this member may act as leader right now, if it may. Ask at the moment of acting: nobody else is
    /// granted the leadership while this says yes, given that clocks run at about the same rate. A process that is paused
    /// *after* it asked is protected only by the term itself, as fencing token (S35, S37).
    pub fn guard(&self) -> Option<Term> {
        let Leadership { leads, term, valid_until, releasing: _ } = *self.leadership.borrow();
        let released = term.0 <= self.state.released.load(Ordering::Acquire);
        (leads && !released && !valid_until.is_past()).then_some(term)
    }

    /// Gives the leadership of `term` back (D16); from here on [`Member::guard`] says no for it. The member stays, at the
    /// end of the queue (D3).
    pub async fn release(&self, term: Term) -> Result<(), Error> {
        self.state.released.fetch_max(term.0, Ordering::AcqRel);
        let (group, partition_group) = self.group.address();
        let message = v1::ReleaseRequest { group, partition_group, term: term.0 };
        let client = self.group.client();
        let mut wire = client.wire();
        client.write(|request| async move { wire.release(request).await }, message, self.group.request()).await?;
        Ok(())
    }

    /// Replaces the metadata; only if `if_term` is not older than the present term (S39).
    pub async fn set_metadata(
        &self,
        metadata: BTreeMap<String, String>,
        if_term: Option<Term>,
    ) -> Result<MemberInfo, Error> {
        let (group, partition_group) = self.group.address();
        let message = v1::SetMetadataRequest {
            group,
            partition_group,
            member: self.info.id.0,
            metadata: metadata.into_iter().collect(),
            if_term: if_term.map_or(0, |term| term.0),
        };
        let client = self.group.client();
        let mut wire = client.wire();
        let call = |request| async move { wire.set_metadata(request).await };
        Ok(client.write(call, message, self.group.request()).await?.into())
    }

    /// Leaves (S9, D1). When this returns an error, the membership still ends: with the stream, or with the lease's time to
    /// live.
    pub async fn leave(self) -> Result<(), Error> {
        self.state.released.store(u64::MAX, Ordering::Release);
        self.group.remove(self.info.id).await?;
        self.state.left.cancel();
        Ok(())
    }
}

/// What the sidecar answers when asked whether a member leads, with the moment before the question.
#[derive(Debug)]
struct Asked {
    at: Deadline,
    state: Option<v1::SelfState>,
}

/// Asks. Bounded by `limit`, because a sidecar that hangs must not keep the holder from seeing its validity end.
async fn ask(group: &Group, member: MemberId, limit: Duration) -> Result<Asked, Error> {
    let (name, partition_group) = group.address();
    let client = group.client();
    let mut wire = client.wire();
    let at = Deadline::now();
    let message = v1::SelfRequest { group: name, partition_group };
    let call = client.read(|request| async move { wire.self_(request).await }, message);
    let answer = tokio::time::timeout(limit, call).await.map_err(|_| Error::not_in_time(Kind::Read))??;
    Ok(Asked { at, state: answer.members.into_iter().find(|state| state.member == member.0) })
}
