//! Changes of a group, in order, across broken connections.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};

use coterie_proto::v1;
use futures_util::{Stream, StreamExt};
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

use crate::error::{Error, Kind};
use crate::group::Group;
use crate::resume::{self, Meaning, Received, Source};
use crate::types::{Event, EventKind, GroupInfo, LeaveReason, MemberId, MemberInfo, SessionState, Term};

/// Changes of one group, in order. Also a [`Stream`].
///
/// While the sidecar cannot be reached it says [`EventKind::Connection`] with [`SessionState::Suspended`] (S18), and resumes
/// after the last event that it gave. It ends after [`EventKind::Deleted`], and after an error that waiting cannot cure.
#[derive(Debug)]
pub struct Watch {
    events: Received<Event>,
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    pub(crate) fn start(group: Group, after: String) -> Self {
        let (events, task) = resume::start(Changes(group), after);
        Self { events, _task: task }
    }

    /// The next change; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        self.events.recv().await
    }
}

impl Stream for Watch {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(context)
    }
}

/// The changes of one group.
struct Changes(Group);

impl Source for Changes {
    type Wire = v1::GroupEvent;
    type Event = Event;

    async fn open(&self, after: String) -> Result<Streaming<v1::GroupEvent>, Error> {
        let (group, partition_group) = self.0.address();
        let message = v1::WatchRequest { group, partition_group, after };
        let client = self.0.client();
        let mut wire = client.wire();
        client.open(wire.watch(client.open_request(message, None))).await
    }

    fn read(&mut self, event: v1::GroupEvent) -> Result<Event, Error> {
        event.try_into()
    }

    fn broken(&self, status: &tonic::Status) -> Error {
        self.0.client().error(status, Kind::Read)
    }

    fn meaning(event: &Event) -> Meaning<'_> {
        match event.kind {
            EventKind::Connection(state) => Meaning::Connection(state),
            EventKind::Deleted => Meaning::End,
            _ => Meaning::Change(&event.id),
        }
    }

    fn connection(state: SessionState) -> Event {
        Event { id: String::new(), revision: 0, kind: EventKind::Connection(state) }
    }
}

/// A member that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Who.
    pub member: MemberId,
    /// Why; `Other("resync")` when the leave itself was missed.
    pub reason: LeaveReason,
}

/// A leader that was elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elected {
    /// Its term.
    pub term: Term,
    /// Who.
    pub leader: MemberId,
}

/// One kind of change of a group; several may listen on one handle (S6). Also a [`Stream`].
#[derive(Debug)]
pub struct Listener<T> {
    watch: Watch,
    seen: Seen,
    pick: fn(&mut Seen, EventKind, &mut VecDeque<T>),
    ready: VecDeque<T>,
}

/// What a listener has already told, so that a resync tells only what is new.
#[derive(Debug, Default)]
struct Seen {
    members: BTreeSet<MemberId>,
    term: Term,
    elected: Term,
}

impl Seen {
    /// Terms only rise for the life of a name, and no resync goes back: a lower one is of a cluster that was made again.
    fn forget_another_life(&mut self, term: Term) {
        if term < self.term.max(self.elected) {
            *self = Self::default();
        }
    }
}

impl<T> Listener<T> {
    fn new(watch: Watch, pick: fn(&mut Seen, EventKind, &mut VecDeque<T>)) -> Self {
        Self { watch, seen: Seen::default(), pick, ready: VecDeque::new() }
    }

    /// The next one; `None` when the watch has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<T, Error>>
    where
        T: Unpin,
    {
        StreamExt::next(self).await
    }
}

impl<T: Unpin> Stream for Listener<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(item) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(item)));
            }
            match this.watch.events.poll_recv(context) {
                Poll::Ready(Some(Ok(event))) => (this.pick)(&mut this.seen, event.kind, &mut this.ready),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Listener<MemberInfo> {
    pub(crate) fn joins(watch: Watch) -> Self {
        Self::new(watch, |seen, kind, ready| match kind {
            EventKind::Snapshot(info) => seen.members = ids(&info),
            EventKind::Resync(info) => {
                let present = ids(&info);
                ready.extend(info.members.into_iter().filter(|member| !seen.members.contains(&member.id)));
                seen.members = present;
            }
            EventKind::Joined(member) if seen.members.insert(member.id) => ready.push_back(member),
            EventKind::Left { member, .. } => {
                seen.members.remove(&member);
            }
            _ => {}
        })
    }
}

impl Listener<Left> {
    pub(crate) fn leaves(watch: Watch) -> Self {
        Self::new(watch, |seen, kind, ready| match kind {
            EventKind::Snapshot(info) => seen.members = ids(&info),
            EventKind::Resync(info) => {
                let present = ids(&info);
                let missed = || LeaveReason::Other("resync".to_owned());
                ready.extend(seen.members.difference(&present).map(|&member| Left { member, reason: missed() }));
                seen.members = present;
            }
            EventKind::Joined(member) => {
                seen.members.insert(member.id);
            }
            EventKind::Left { member, reason } => {
                seen.members.remove(&member);
                ready.push_back(Left { member, reason });
            }
            _ => {}
        })
    }
}

impl Listener<Term> {
    pub(crate) fn terms(watch: Watch) -> Self {
        Self::new(watch, |seen, kind, ready| {
            let term = match kind {
                EventKind::Snapshot(info) | EventKind::Resync(info) => {
                    seen.forget_another_life(info.term);
                    info.term
                }
                EventKind::Term(term) => term,
                _ => return,
            };
            if term > seen.term {
                seen.term = term;
                ready.push_back(term);
            }
        })
    }
}

impl Listener<Elected> {
    pub(crate) fn elections(watch: Watch) -> Self {
        Self::new(watch, |seen, kind, ready| {
            let elected = match kind {
                EventKind::Snapshot(info) | EventKind::Resync(info) => {
                    seen.forget_another_life(info.term);
                    info.leader.map(|leader| Elected { term: info.term, leader })
                }
                EventKind::Elected { term, leader } => Some(Elected { term, leader }),
                _ => None,
            };
            if let Some(elected) = elected.filter(|elected| elected.term > seen.elected) {
                seen.elected = elected.term;
                ready.push_back(elected);
            }
        })
    }
}

fn ids(info: &GroupInfo) -> BTreeSet<MemberId> {
    info.members.iter().map(|member| member.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a listener tells of these changes.
    async fn told<T: Unpin>(kinds: &[EventKind], listen: impl FnOnce(Watch) -> Listener<T>) -> Vec<T> {
        let (sender, events) = tokio::sync::mpsc::channel(64);
        for kind in kinds {
            let event = Event { id: String::new(), revision: 0, kind: kind.clone() };
            sender.send(Ok(event)).await.expect("the listener has the other end");
        }
        drop(sender);
        let mut listener = listen(Watch { events, _task: AbortOnDropHandle::new(tokio::spawn(async {})) });
        let mut told = Vec::new();
        while let Some(Ok(next)) = listener.next().await {
            told.push(next);
        }
        told
    }

    #[tokio::test]
    async fn s34_d17_listeners_go_on_with_a_cluster_that_was_made_again_and_counts_its_terms_anew() {
        let group = v1::Group { term: 1, leader: 4, config: Some(v1::GroupConfig::default()), ..Default::default() };
        let kind = Some(v1::group_event::Kind::Resync(group));
        let resync = Event::try_from(v1::GroupEvent { kind, ..Default::default() }).expect("a resync").kind;
        let elected = |term, leader| Elected { term: Term(term), leader: MemberId(leader) };
        let election = |term, leader| EventKind::Elected { term: Term(term), leader: MemberId(leader) };
        let kinds = [EventKind::Term(Term(9)), election(9, 7), resync, EventKind::Term(Term(2)), election(2, 5)];
        assert_eq!(told(&kinds, Listener::elections).await, [elected(9, 7), elected(1, 4), elected(2, 5)]);
        assert_eq!(told(&kinds, Listener::terms).await, [Term(9), Term(1), Term(2)]);
    }
}
