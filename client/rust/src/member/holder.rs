//! The task that holds one membership.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coterie_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{Asked, Leadership, Shared, ask};
use crate::clock::Deadline;
use crate::error::{Error, Kind};
use crate::group::{Group, JoinOptions};
use crate::types::{EventKind, MemberId, SessionState, Term};
use crate::watch::Watch;

/// How often a member that does not lead asks how its session is.
const IDLE: Duration = Duration::from_secs(2);
/// A leader asks three times within what it was granted, and at least this often.
const LEADING: Duration = Duration::from_secs(1);
/// How soon to ask again after a question without an answer.
const AGAIN: Duration = Duration::from_millis(250);
/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What holds the membership.
pub(super) enum Source {
    /// The membership ends with this stream.
    Stream(Box<Streaming<v1::JoinStreamResponse>>),
    /// The membership ends when it is not renewed.
    Lease {
        /// Tells when to ask.
        watch: Watch,
        /// What the sidecar granted.
        ttl: Duration,
        /// When to renew.
        renew: Instant,
    },
}

pub(super) async fn join_stream(group: &Group, options: JoinOptions) -> Result<(v1::JoinResponse, Source), Error> {
    let client = group.client();
    let request = client.open_request(message(group, options, 0), Some(group.request()));
    let mut wire = client.wire();
    let opening = async {
        let mut stream = wire.join_stream(request).await?.into_inner();
        let first = stream.message().await?;
        Ok::<_, tonic::Status>((stream, first))
    };
    // Whatever became of a join whose stream is dropped here: it ends with the stream, so it is not "unknown".
    let (stream, first) = tokio::time::timeout(client.options().timeout, opening)
        .await
        .map_err(|_| Error::not_in_time(Kind::Read))?
        .map_err(|status| client.error(&status, Kind::Read))?;
    match first.and_then(|first| first.kind) {
        Some(v1::join_stream_response::Kind::Joined(joined)) => Ok((joined, Source::Stream(Box::new(stream)))),
        _ => Err(Error::Protocol { missing: "joined" }),
    }
}

pub(super) async fn join_lease(
    group: &Group,
    options: JoinOptions,
    ttl: Duration,
) -> Result<(v1::JoinResponse, Source), Error> {
    let client = group.client();
    let message = message(group, options, u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let mut wire = client.wire();
    let joined = client.write(|request| async move { wire.join(request).await }, message, group.request()).await?;
    let ttl = Duration::from_millis(joined.ttl_ms);
    let source = Source::Lease { watch: group.watch(), ttl, renew: Instant::now() + ttl / 3 };
    Ok((joined, source))
}

fn message(group: &Group, options: JoinOptions, ttl_ms: u64) -> v1::JoinRequest {
    let (group, partition_group) = group.address();
    let JoinOptions { metadata, zone, presence: _ } = options;
    let metadata = metadata.into_iter().collect();
    v1::JoinRequest { group, partition_group, metadata, zone: zone.unwrap_or_default(), ttl_ms }
}

/// What the source says.
enum Said {
    /// The sidecar pushed how this member is.
    Itself(v1::SelfState),
    /// The sidecar pushed how the session is.
    Session(SessionState),
    /// Something changed that may concern this member.
    Changed,
    /// Nothing of interest.
    Nothing,
    /// The membership is over.
    Over,
}

pub(super) struct Holder {
    group: Group,
    member: MemberId,
    source: Source,
    shared: Arc<Shared>,
    leadership: watch::Sender<Leadership>,
    session: watch::Sender<SessionState>,
    ask_at: Instant,
}

impl Holder {
    pub(super) fn new(
        group: Group,
        member: MemberId,
        source: Source,
        shared: Arc<Shared>,
        leadership: watch::Sender<Leadership>,
        session: watch::Sender<SessionState>,
    ) -> Self {
        Self { group, member, source, shared, leadership, session, ask_at: Instant::now() }
    }

    /// Holds the membership until `stop`, or until it is lost.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let lost = tokio::select! {
            () = stop.cancelled() => false,
            () = self.hold() => true,
        };
        if lost {
            self.stop_leading();
            self.session.send_replace(SessionState::Lost);
        } else if matches!(self.source, Source::Lease { .. }) && !self.shared.left.is_cancelled() {
            // A lease that is only dropped would keep its place for its whole time to live. If this fails, it does.
            let _ = self.group.remove(self.member).await;
        }
    }

    /// Returns when the membership is lost.
    async fn hold(&mut self) {
        let mut asking = None;
        loop {
            if asking.is_none() && self.ask_at <= Instant::now() {
                asking = Some(Box::pin(question(self.group.clone(), self.member)));
            }
            let expiry = self.expiry();
            tokio::select! {
                answer = async { asking.as_mut().expect("guarded by the condition").await }, if asking.is_some() => {
                    asking = None;
                    if self.answered(answer) {
                        return;
                    }
                }
                () = tokio::time::sleep_until(self.ask_at), if asking.is_none() => {}
                () = tokio::time::sleep(expiry.unwrap_or_default()), if expiry.is_some() => self.stop_leading(),
                said = self.source.next(&self.group, self.member) => match said {
                    Said::Over => return,
                    Said::Itself(state) => {
                        self.pushed(&state);
                        // An answer that is under way may be older than this push.
                        asking = None;
                    }
                    Said::Session(SessionState::Lost) => return,
                    Said::Session(state) => self.said_session(state),
                    Said::Changed => self.ask_at = Instant::now(),
                    Said::Nothing => {}
                },
            }
        }
    }

    /// How long until the present leadership is no longer vouched for; `None` when it does not lead.
    fn expiry(&self) -> Option<Duration> {
        let now = self.leadership.borrow();
        now.leads.then(|| now.valid_until.remaining())
    }

    /// Takes an answer; true if it says that the membership is gone.
    fn answered(&mut self, answer: Result<Asked, Error>) -> bool {
        let (at, state) = match answer {
            Ok(Asked { at, state: Some(state) }) => (at, state),
            // The stream says for itself when it is over; a lease has nobody else to say so.
            Ok(Asked { state: None, .. }) => {
                self.ask_at = Instant::now() + AGAIN;
                return matches!(self.source, Source::Lease { .. });
            }
            Err(_) => {
                self.ask_at = Instant::now() + AGAIN;
                self.said_session(SessionState::Suspended);
                return false;
            }
        };
        match state.session().into() {
            SessionState::Lost => return true,
            session => self.said_session(session),
        }
        let granted = Duration::from_millis(state.valid_ms);
        let valid_until = at.after(granted);
        let leads = state.leads && !valid_until.is_past();
        self.set(Leadership { leads, term: Term(state.term), valid_until, releasing: state.releasing });
        let again = if leads { (granted / 3).clamp(AGAIN, LEADING) } else { IDLE };
        self.ask_at = Instant::now() + again;
        false
    }

    /// Takes a push: what ends a leadership counts at once, what begins or prolongs one has to be asked for.
    fn pushed(&mut self, state: &v1::SelfState) {
        let now = *self.leadership.borrow();
        let same = now.leads && state.leads && now.term.0 == state.term;
        self.set(Leadership {
            leads: same,
            term: if same || !state.leads { Term(state.term) } else { now.term },
            valid_until: now.valid_until,
            releasing: state.releasing && state.leads,
        });
        if state.leads {
            self.ask_at = Instant::now();
        }
    }

    fn said_session(&self, state: SessionState) {
        self.session.send_if_modified(|now| {
            let news = *now != state;
            *now = state;
            news
        });
    }

    fn stop_leading(&self) {
        let now = *self.leadership.borrow();
        self.set(Leadership { leads: false, valid_until: Deadline::now(), releasing: false, ..now });
    }

    /// Wakes watchers only for what they can act on; a longer validity is not news.
    fn set(&self, mut next: Leadership) {
        next.leads &= next.term.0 > self.shared.released.load(Ordering::Acquire);
        self.leadership.send_if_modified(|now| {
            let news = (now.leads, now.term, now.releasing) != (next.leads, next.term, next.releasing);
            *now = next;
            news
        });
    }
}

async fn question(group: Group, member: MemberId) -> Result<Asked, Error> {
    ask(&group, member, PATIENCE).await
}

impl Source {
    /// What comes next. Cancel safe: a renewal that is cancelled is made again.
    async fn next(&mut self, group: &Group, member: MemberId) -> Said {
        match self {
            Self::Stream(stream) => match stream.message().await {
                Ok(Some(v1::JoinStreamResponse { kind: Some(kind) })) => from_stream(kind),
                Ok(Some(v1::JoinStreamResponse { kind: None })) => Said::Nothing,
                Ok(None) | Err(_) => Said::Over,
            },
            Self::Lease { watch, ttl, renew } => tokio::select! {
                event = watch.next() => match event {
                    Some(Ok(event)) => from_event(&event.kind, member),
                    Some(Err(_)) | None => Said::Over,
                },
                () = tokio::time::sleep_until(*renew) => {
                    let answer = renewal(group, member, *ttl / 3).await;
                    *renew = Instant::now() + answer.as_ref().map_or(AGAIN.min(*ttl / 6), |_| *ttl / 3);
                    match answer {
                        Ok(answer) => Said::Session(answer.session().into()),
                        Err(error) if matches!(error.code(), "member_unknown" | "group_unknown") => Said::Over,
                        Err(_) => Said::Session(SessionState::Suspended),
                    }
                }
            },
        }
    }
}

fn from_stream(kind: v1::join_stream_response::Kind) -> Said {
    use v1::join_stream_response::Kind;
    match kind {
        Kind::Self_(state) => Said::Itself(state),
        Kind::Session(state) => {
            Said::Session(v1::SessionState::try_from(state).unwrap_or(v1::SessionState::Unspecified).into())
        }
        Kind::Joined(_) | Kind::Event(_) => Said::Nothing,
    }
}

fn from_event(kind: &EventKind, me: MemberId) -> Said {
    match kind {
        EventKind::Left { member, .. } if *member == me => Said::Over,
        EventKind::Deleted => Said::Over,
        EventKind::Elected { leader, .. } | EventKind::Vacated { leader, .. } | EventKind::Releasing { leader, .. }
            if *leader == me =>
        {
            Said::Changed
        }
        EventKind::Snapshot(_) | EventKind::Resync(_) | EventKind::Connection(_) => Said::Changed,
        EventKind::Joined(_)
        | EventKind::Updated(_)
        | EventKind::Left { .. }
        | EventKind::Term(_)
        | EventKind::Elected { .. }
        | EventKind::Vacated { .. }
        | EventKind::Releasing { .. }
        | EventKind::Config { .. } => Said::Nothing,
    }
}

async fn renewal(group: &Group, member: MemberId, limit: Duration) -> Result<v1::RenewResponse, Error> {
    let (name, partition_group) = group.address();
    let client = group.client();
    let mut wire = client.wire();
    let message = v1::RenewRequest { group: name, partition_group, member: member.0 };
    let call = client.read(|request| async move { wire.renew(request).await }, message);
    tokio::time::timeout(limit, call).await.map_err(|_| Error::not_in_time(Kind::Read))?
}
