//! The streams: a group's events, and a membership held by a stream.
//!
//! Both wires read the same two feeds; gRPC sends their messages, HTTP frames them as server-sent events.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use coterie_core::command::{EventKind, GroupEvent, GroupView, LeaveReason};
use coterie_core::{EventId, GroupName, MemberId, PartitionId};
use coterie_proto::v1;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::convert::{self, Freshness, Wire};
use crate::limits::{RETRY_PAUSE_MS_MAX, STALE_MS};
use crate::lineage::Lineage;
use crate::node::Node;
use crate::presence::mirror::current;
use crate::presence::state::place_of;
use crate::presence::{End, Membership, SelfState};
use crate::sessions::SessionState;
use crate::watch::{Item, Watch};

/// How long a stream whose membership has ended waits for the event that says so.
const LAST_EVENT_MS_MAX: u64 = 1_000;

/// The place and the leader that a watcher has seen, and what that admits.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Everything up to here was sent, or is in the snapshot that was sent.
    at: Option<EventId>,
    leader: Option<MemberId>,
}

/// What to do with an item of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Send it.
    Send,
    /// It was seen already.
    Skip,
    /// It contradicts what was seen: either the replica lags, or the place that the watcher named is not of this group's
    /// life. The partition's leader knows.
    Ask,
}

impl Order {
    /// After this place.
    pub fn after(at: Option<EventId>, leader: Option<MemberId>) -> Self {
        Self { at, leader }
    }

    /// Whether to send an item.
    pub fn admit(&self, item: &Item<GroupView>) -> Admission {
        let Some(at) = self.at else {
            return if matches!(item, Item::Resync(None)) { Admission::Ask } else { Admission::Send };
        };
        match item {
            Item::Event(event) if event.id > at => Admission::Send,
            Item::Event(_) => Admission::Skip,
            Item::Snapshot(view) | Item::Resync(Some(view)) if place_of(view) > at => Admission::Send,
            Item::Snapshot(view) | Item::Resync(Some(view)) if place_of(view) == at => Admission::Skip,
            Item::Snapshot(_) | Item::Resync(_) => Admission::Ask,
            Item::Connection(_) | Item::Remade(_) => Admission::Send,
        }
    }

    fn view(&mut self, view: &GroupView) {
        self.at = Some(place_of(view));
        self.leader = view.leader;
    }

    fn event(&mut self, id: EventId, kind: &EventKind) {
        self.at = Some(id);
        let EventKind::Group(kind) = kind else { return };
        match kind {
            GroupEvent::Elected { term: _, leader } => self.leader = Some(*leader),
            GroupEvent::Vacated { term: _, leader: _ } | GroupEvent::Term(_) | GroupEvent::Deleted => {
                self.leader = None
            }
            GroupEvent::Joined(_)
            | GroupEvent::Left { member: _, reason: _ }
            | GroupEvent::Updated(_)
            | GroupEvent::Releasing { term: _, leader: _, timeout_ms: _, reason: _ }
            | GroupEvent::Config { config: _, config_revision: _ } => {}
        }
    }
}

/// The events of a group, on the wire.
pub struct Events {
    node: Node,
    partition: PartitionId,
    group: GroupName,
    /// A stream, not a future per item: what it waits for survives a poll that is given up.
    items: BoxStream<'static, Item<GroupView>>,
    lineage: Lineage,
    order: Order,
    /// Whether the replica that is watched has not heard of its leader for long.
    suspended: bool,
    stopping: CancellationToken,
    over: bool,
}

/// A message of [`Events`] and the place up to which its reader has seen everything.
pub struct Placed {
    /// The message.
    pub event: v1::GroupEvent,
    /// The place.
    pub at: EventId,
}

impl Events {
    /// Reads a watch that was opened after `order`'s place.
    pub fn new(node: Node, partition: PartitionId, group: GroupName, watch: Watch, order: Order) -> Self {
        let lineage = watch.lineage();
        let items = stream::unfold(watch, |mut watch| async move { Some((watch.next().await?.group()?, watch)) });
        let stopping = node.stopping();
        Self { node, partition, group, items: items.boxed(), lineage, order, suspended: false, stopping, over: false }
    }

    /// The first message of a watch: what the group was when it was read.
    pub fn first(&self, view: &GroupView, freshness: Freshness, kind: Shown) -> v1::GroupEvent {
        let group = convert::group(view, self.partition.group.as_str(), freshness);
        v1::GroupEvent { id: self.lineage.id(place_of(view)), revision: view.revision.0, kind: Some(kind(group)) }
    }

    /// As a stream of messages. `permit` is held as long as it is read.
    pub fn into_stream(self, permit: OwnedSemaphorePermit) -> BoxStream<'static, v1::GroupEvent> {
        stream::unfold((self, permit), |(mut events, permit)| async move {
            events.next().await.map(|placed| (placed.event, (events, permit)))
        })
        .boxed()
    }

    /// The next message; `None` after the group was deleted, or when the process stops.
    async fn next(&mut self) -> Option<Placed> {
        while !self.over {
            let item = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return None,
                item = self.items.next() => item?,
            };
            if let Item::Remade(lineage) = item {
                (self.lineage, self.order) = (lineage, Order::default());
                continue;
            }
            let event = match self.order.admit(&item) {
                Admission::Send => self.send(item),
                Admission::Skip => None,
                Admission::Ask => self.ask().await,
            };
            if let Some(event) = event {
                return Some(Placed { event, at: self.order.at.unwrap_or_default() });
            }
        }
        None
    }

    fn send(&mut self, item: Item<GroupView>) -> Option<v1::GroupEvent> {
        use v1::group_event::Kind;
        Some(match item {
            Item::Snapshot(view) => self.send_view(&view, watched(self.suspended), Kind::Snapshot),
            Item::Resync(Some(view)) => self.send_view(&view, watched(self.suspended), Kind::Resync),
            Item::Resync(None) => self.send_gone(),
            Item::Event(event) => {
                self.order.event(event.id, &event.kind);
                self.over = event.kind == EventKind::Group(GroupEvent::Deleted);
                convert::event(&event, self.lineage, self.order.leader)
            }
            Item::Connection(state) => {
                self.suspended = state != SessionState::Live;
                let state = v1::SessionState::from(Wire(state)).into();
                unplaced(Kind::Connection(v1::Connection { state }))
            }
            Item::Remade(_) => return None,
        })
    }

    fn send_view(
        &mut self,
        view: &GroupView,
        freshness: Freshness,
        kind: impl FnOnce(v1::Group) -> v1::group_event::Kind,
    ) -> v1::GroupEvent {
        self.order.view(view);
        let group = convert::group(view, self.partition.group.as_str(), freshness);
        v1::GroupEvent { id: self.lineage.id(place_of(view)), revision: view.revision.0, kind: Some(kind(group)) }
    }

    fn send_gone(&mut self) -> v1::GroupEvent {
        self.over = true;
        gone()
    }

    /// Asks the partition's leader what is true. Nothing is sent before that is known.
    async fn ask(&mut self) -> Option<v1::GroupEvent> {
        loop {
            match current(self.node.env(), self.node.router(), &self.partition, &self.group).await {
                // The replica lags; what it has not seen yet comes.
                Ok(Some(view)) if self.order.at.is_some_and(|at| place_of(&view) >= at) => return None,
                Ok(Some(view)) => {
                    return Some(self.send_view(&view, Freshness::Linearizable, v1::group_event::Kind::Resync));
                }
                Ok(None) => return Some(self.send_gone()),
                Err(rejection) => tracing::debug!(group = %self.group, %rejection, "read a watched group"),
            }
            tokio::select! {
                () = self.stopping.cancelled() => return None,
                () = tokio::time::sleep(Duration::from_millis(RETRY_PAUSE_MS_MAX)) => {}
            }
        }
    }
}

/// How fresh a view is that came from a watched replica: it may lag, at least for as long as its leader was not heard.
fn watched(suspended: bool) -> Freshness {
    Freshness::Stale { stale_ms: if suspended { STALE_MS } else { 0 } }
}

/// The group as a watch begins with it.
pub type Shown = fn(v1::Group) -> v1::group_event::Kind;

/// The last message of a watch: there is no such group.
pub fn gone() -> v1::GroupEvent {
    unplaced(v1::group_event::Kind::Deleted(v1::Deleted {}))
}

fn unplaced(kind: v1::group_event::Kind) -> v1::GroupEvent {
    v1::GroupEvent { id: String::new(), revision: 0, kind: Some(kind) }
}

/// A membership and the stream that holds it: dropping the feed gives up the place.
pub struct JoinFeed {
    node: Node,
    membership: Membership,
    events: BoxStream<'static, Placed>,
    states: watch::Receiver<SelfState>,
    ended: watch::Receiver<Option<End>>,
    stopping: CancellationToken,
    queue: VecDeque<v1::JoinStreamResponse>,
    /// Everything up to here was put into the queue.
    at: EventId,
    said: Option<SelfState>,
    /// Set when the membership has ended: the last event may take until then.
    until: Option<Pin<Box<Sleep>>>,
    over: bool,
}

impl JoinFeed {
    /// `events` begin after the join.
    pub fn new(node: Node, membership: Membership, events: Events) -> Self {
        let events = stream::unfold(events, |mut events| async move { events.next().await.map(|item| (item, events)) });
        let mut feed = Self {
            events: events.boxed(),
            states: membership.state(),
            ended: membership.ended(),
            stopping: node.stopping(),
            queue: VecDeque::new(),
            at: place_of(membership.view()),
            said: None,
            until: None,
            over: false,
            node,
            membership,
        };
        let joined = joined(&feed.node, &feed.membership);
        feed.push(v1::join_stream_response::Kind::Joined(joined));
        feed.say();
        // It may have ended before anybody listened.
        feed.end();
        feed
    }

    /// As a stream of messages. `permit` is held as long as it is read.
    pub fn into_stream(self, permit: OwnedSemaphorePermit) -> impl Stream<Item = v1::JoinStreamResponse> + Send {
        stream::unfold((self, permit), |(mut feed, permit)| async move {
            feed.next().await.map(|message| (message, (feed, permit)))
        })
    }

    /// The next message; `None` when the membership has ended or the process stops.
    async fn next(&mut self) -> Option<v1::JoinStreamResponse> {
        loop {
            if let Some(message) = self.queue.pop_front() {
                return Some(message);
            }
            if self.over {
                return None;
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => self.finish(None),
                Ok(()) = self.states.changed() => self.say(),
                Ok(()) = self.ended.changed() => self.end(),
                placed = self.events.next() => match placed {
                    Some(placed) => self.event(placed),
                    None => self.finish(None),
                },
                () = async { self.until.as_mut().expect("guarded by the condition").await }, if self.until.is_some() => {
                    self.finish(None);
                }
            }
        }
    }

    fn event(&mut self, placed: Placed) {
        self.at = placed.at;
        let ended = placed.event.kind.as_ref().and_then(|kind| ends(kind, self.membership.id()));
        self.push(v1::join_stream_response::Kind::Event(placed.event));
        match ended {
            Some(end) => self.finish(Some(end)),
            // What waited for this event may be said now.
            None => self.say(),
        }
    }

    /// The last words: nobody is left believing that it leads. `end` is what the group's events say, which may be ahead
    /// of what the membership knows.
    fn finish(&mut self, end: Option<End>) {
        if let Some(end) = end {
            self.membership.end_as(end);
        }
        self.over = true;
        let lost = end == Some(End::Lost) || self.membership.tell().session == SessionState::Lost;
        if let Some(last) = last_words(self.said.as_ref(), lost) {
            self.push_state(last);
        }
    }

    /// Says what changed about the membership. That it leads is said after the event that elected it (S31); that it
    /// leads no more, at once.
    fn say(&mut self) {
        self.states.mark_unchanged();
        let now = self.membership.tell();
        let next = sayable(self.said.as_ref(), now, self.at);
        if self.said.as_ref() != Some(&next) {
            self.push_state(next);
        }
    }

    fn push_state(&mut self, next: SelfState) {
        if self.said.as_ref().is_none_or(|said| said.session != next.session) {
            self.push(v1::join_stream_response::Kind::Session(v1::SessionState::from(Wire(next.session)).into()));
        }
        let now_ms = self.node.env().clock.monotonic_ms();
        self.push(v1::join_stream_response::Kind::Self_(convert::self_state(&next, now_ms)));
        self.said = Some(next);
    }

    fn end(&mut self) {
        let end = *self.ended.borrow_and_update();
        match end {
            Some(End::Lost | End::Stopped) => {
                self.say();
                self.finish(None);
            }
            Some(End::Left | End::Gone) => {
                self.say();
                let until = Instant::now() + Duration::from_millis(LAST_EVENT_MS_MAX);
                self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            }
            None => {}
        }
    }

    fn push(&mut self, kind: v1::join_stream_response::Kind) {
        self.queue.push_back(v1::JoinStreamResponse { kind: Some(kind) });
    }
}

/// How an event, or a view in its place, ends a membership; `None` if it does not.
fn ends(kind: &v1::group_event::Kind, own: MemberId) -> Option<End> {
    use v1::group_event::Kind;
    match kind {
        Kind::Left(left) if left.member == own.0 => {
            let of_session = [LeaveReason::SessionExpired, LeaveReason::SessionClosed];
            let lost = of_session.into_iter().any(|reason| convert::leave_reason(reason) == left.reason);
            Some(if lost { End::Lost } else { End::Gone })
        }
        Kind::Resync(group) if group.members.iter().all(|member| member.id != own.0) => Some(End::Gone),
        Kind::Deleted(_) => Some(End::Gone),
        _ => None,
    }
}

/// What is still to be said when a membership has ended: that it leads no more, and that its session is lost.
fn last_words(said: Option<&SelfState>, lost: bool) -> Option<SelfState> {
    let said = said?;
    let session = if lost { SessionState::Lost } else { said.session };
    let news = said.leads || said.session != session;
    let elected_at = EventId::default();
    news.then(|| SelfState { leads: false, valid_until_ms: 0, releasing: false, session, elected_at, ..said.clone() })
}

/// What may be said to a reader who has seen everything up to `at`.
fn sayable(said: Option<&SelfState>, now: SelfState, at: EventId) -> SelfState {
    if !now.leads || now.elected_at <= at {
        return now;
    }
    let term = said.map_or(coterie_core::Term(0), |said| said.term);
    SelfState { leads: false, valid_until_ms: 0, releasing: false, term, elected_at: EventId::default(), ..now }
}

/// The answer to a join.
pub fn joined(node: &Node, membership: &Membership) -> v1::JoinResponse {
    let view = membership.view();
    let own = view.members.iter().find(|member| member.id == membership.id());
    let partition_group = membership.partition().group.as_str();
    let ttl_ms = match membership.ttl_ms() {
        0 => node.config().session_timeout_ms,
        ttl_ms => ttl_ms,
    };
    v1::JoinResponse {
        member: own.map(|member| convert::member(member, view.leader)),
        group: Some(convert::group(view, partition_group, Freshness::Linearizable)),
        ttl_ms,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coterie_core::command::{Event, GroupConfig};
    use coterie_core::{Revision, Term};
    use coterie_replication::Told;

    use super::*;

    fn id(revision: u64, ordinal: u32) -> EventId {
        EventId { revision: Revision(revision), ordinal }
    }

    fn event(at: EventId, kind: GroupEvent) -> Item<GroupView> {
        Item::Event(Arc::new(Told::new(Event {
            id: at,
            of: (&GroupName::from("g")).into(),
            kind: EventKind::Group(kind),
        })))
    }

    fn view(revision: u64) -> GroupView {
        GroupView {
            name: "g".into(),
            term: Term(1),
            leader: None,
            releasing: false,
            members: Vec::new(),
            config: GroupConfig::default(),
            config_revision: Revision(1),
            revision: Revision(revision),
            last_event: id(revision, 0),
        }
    }

    fn state(leads: bool, elected_at: EventId) -> SelfState {
        SelfState {
            member: MemberId(4),
            leads,
            term: Term(2),
            valid_until_ms: if leads { 50 } else { 0 },
            session: SessionState::Live,
            releasing: false,
            elected_at,
        }
    }

    #[test]
    fn s34_events_that_were_seen_are_not_sent_again() {
        let order = Order::after(Some(id(5, 2)), None);
        assert_eq!(order.admit(&event(id(5, 2), GroupEvent::Deleted)), Admission::Skip);
        assert_eq!(order.admit(&event(id(4, 9), GroupEvent::Deleted)), Admission::Skip);
        assert_eq!(order.admit(&event(id(5, 3), GroupEvent::Deleted)), Admission::Send);
        assert_eq!(order.admit(&event(id(6, 0), GroupEvent::Deleted)), Admission::Send);
    }

    #[test]
    fn d17_a_resync_is_sent_only_if_it_shows_something_new() {
        let order = Order::after(Some(id(5, u32::MAX)), None);
        assert_eq!(order.admit(&Item::Resync(Some(view(6)))), Admission::Send);
        assert_eq!(order.admit(&Item::Resync(Some(view(5)))), Admission::Skip);
        assert_eq!(order.admit(&Item::Resync(Some(view(4)))), Admission::Ask);
        assert_eq!(order.admit(&Item::Resync(None)), Admission::Ask);
        assert_eq!(Order::default().admit(&Item::Snapshot(view(1))), Admission::Send);
        assert_eq!(Order::default().admit(&Item::Resync(Some(view(1)))), Admission::Send);
        assert_eq!(Order::default().admit(&Item::Resync(None)), Admission::Ask, "the replica may lag");
    }

    #[test]
    fn s31_a_member_is_told_that_it_leads_after_the_event_that_elected_it() {
        let early = sayable(None, state(true, id(9, 2)), id(9, 1));
        assert!(!early.leads && early.valid_until_ms == 0 && early.term == Term(0));
        let due = sayable(None, state(true, id(9, 2)), id(9, 2));
        assert!(due.leads && due.term == Term(2));
    }

    #[test]
    fn s38_the_last_word_to_a_leader_is_that_it_leads_no_more() {
        let leading = state(true, id(3, 0));
        let removed = last_words(Some(&leading), false).unwrap();
        assert!(!removed.leads && removed.valid_until_ms == 0 && removed.session == SessionState::Live);
        let lost = last_words(Some(&leading), true).unwrap();
        assert!(!lost.leads && lost.session == SessionState::Lost);
        assert_eq!(last_words(Some(&lost), true), None);
        let follower = state(false, EventId::default());
        assert_eq!(last_words(Some(&follower), false), None);
        assert_eq!(last_words(Some(&follower), true).unwrap().session, SessionState::Lost);
    }

    #[test]
    fn s11_a_membership_ends_with_its_own_leaving_or_its_group_and_says_why() {
        use v1::group_event::Kind;
        let left = |member, reason: &str| Kind::Left(v1::MemberLeft { member, reason: reason.to_owned() });
        assert_eq!(ends(&left(4, "session_expired"), MemberId(4)), Some(End::Lost));
        assert_eq!(ends(&left(4, "session_closed"), MemberId(4)), Some(End::Lost));
        assert_eq!(ends(&left(4, "left"), MemberId(4)), Some(End::Gone));
        assert_eq!(ends(&left(5, "session_expired"), MemberId(4)), None);
        assert_eq!(ends(&Kind::Deleted(v1::Deleted {}), MemberId(4)), Some(End::Gone));
        assert_eq!(ends(&Kind::Resync(v1::Group::default()), MemberId(4)), Some(End::Gone));
        assert_eq!(ends(&Kind::Term(3), MemberId(4)), None);
    }

    #[test]
    fn d12_a_view_of_a_watched_replica_is_not_called_linearizable() {
        assert_eq!(watched(false), Freshness::Stale { stale_ms: 0 });
        assert_eq!(watched(true), Freshness::Stale { stale_ms: STALE_MS });
    }

    #[test]
    fn s38_a_member_is_told_at_once_that_it_leads_no_more() {
        let gone = sayable(Some(&state(true, id(3, 0))), state(false, id(9, 2)), id(3, 0));
        assert!(!gone.leads);
    }
}
