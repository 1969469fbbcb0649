//! A copy of a group that keeps itself up to date.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, Kind};
use crate::group::Group;
use crate::types::{Event, EventKind, GroupInfo, MemberId, MemberInfo, SessionState, Term};
use crate::watch::Watch;

/// A group's members, leader and term, updated with every change (S14, S15, S17). Cheap to clone.
///
/// ```no_run
/// # async fn example(group: coterie_client::Group) -> Result<(), coterie_client::Error> {
/// let mut view = group.view().await?;
/// let info = view.wait_for(|group| group.members.len() == 3).await?;
/// println!("three are here; {:?} leads", info.leader);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct View {
    state: watch::Receiver<State>,
    _task: Arc<AbortOnDropHandle<()>>,
}

#[derive(Clone, Debug)]
struct State {
    info: Arc<GroupInfo>,
    session: SessionState,
    ended: Option<Error>,
}

impl View {
    pub(crate) async fn open(group: &Group) -> Result<Self, Error> {
        let mut watch = group.watch();
        let first = tokio::time::timeout(group.client().options().timeout, first(&mut watch));
        let info = first.await.map_err(|_| Error::not_in_time(Kind::Read))??;
        let (sender, state) = watch::channel(State { info: Arc::new(info), session: SessionState::Live, ended: None });
        let task = tokio::spawn(follow(watch, sender));
        Ok(Self { state, _task: Arc::new(AbortOnDropHandle::new(task)) })
    }

    /// The group as of the last change that was heard of.
    pub fn get(&self) -> Arc<GroupInfo> {
        self.state.borrow().info.clone()
    }

    /// The members, in the order of joining.
    pub fn members(&self) -> Vec<MemberInfo> {
        self.get().members.clone()
    }

    /// Who leads.
    pub fn leader(&self) -> Option<MemberId> {
        self.get().leader
    }

    /// The term.
    pub fn term(&self) -> Term {
        self.get().term
    }

    /// Whether this view is up to date: anything but [`SessionState::Live`] may be stale (S18); [`SessionState::Lost`] means
    /// that it changes no more, because the group was deleted or the watch ended with an error.
    pub fn session(&self) -> SessionState {
        self.state.borrow().session
    }

    /// Waits for the next change of the group or of [`View::session`]. Fails when the view has ended.
    pub async fn changed(&mut self) -> Result<Arc<GroupInfo>, Error> {
        if self.state.changed().await.is_err() {
            return Err(self.end());
        }
        Ok(self.state.borrow_and_update().info.clone())
    }

    /// Waits until the group is as wanted; at once if it is. Fails when the view has ended.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&GroupInfo) -> bool) -> Result<Arc<GroupInfo>, Error> {
        let found = self.state.wait_for(|state| wanted(&state.info)).await.map(|state| state.info.clone());
        found.map_err(|_| self.end())
    }

    fn end(&self) -> Error {
        self.state.borrow().ended.clone().unwrap_or(Error::Disconnected { message: "the group was deleted".to_owned() })
    }
}

async fn first(watch: &mut Watch) -> Result<GroupInfo, Error> {
    loop {
        match watch.next().await {
            Some(Ok(Event { kind: EventKind::Snapshot(info) | EventKind::Resync(info), .. })) => return Ok(*info),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Err(Error::Protocol { missing: "snapshot" }),
        }
    }
}

async fn follow(mut watch: Watch, state: watch::Sender<State>) {
    while let Some(event) = watch.next().await {
        state.send_modify(|state| match event {
            Ok(event) => apply(state, event),
            Err(error) => state.ended = Some(error),
        });
    }
    state.send_modify(|state| state.session = SessionState::Lost);
}

fn apply(state: &mut State, event: Event) {
    if let EventKind::Connection(session) = event.kind {
        state.session = session;
        return;
    }
    let info = Arc::make_mut(&mut state.info);
    info.revision = event.revision.max(info.revision);
    match event.kind {
        EventKind::Snapshot(now) | EventKind::Resync(now) => *info = *now,
        EventKind::Joined(member) | EventKind::Updated(member) => {
            match info.members.iter_mut().find(|known| known.id == member.id) {
                Some(known) => *known = member,
                None => info.members.push(member),
            }
        }
        EventKind::Left { member, .. } => info.members.retain(|known| known.id != member),
        EventKind::Term(term) => {
            info.term = term;
            info.leader = None;
        }
        EventKind::Elected { term, leader } => {
            info.term = term;
            info.leader = Some(leader);
            info.releasing = false;
        }
        EventKind::Vacated { .. } => {
            info.leader = None;
            info.releasing = false;
        }
        EventKind::Releasing { .. } => info.releasing = true,
        EventKind::Config { config, revision } => {
            info.config = config;
            info.config_revision = revision;
        }
        EventKind::Deleted => {
            info.members.clear();
            info.leader = None;
        }
        EventKind::Connection(_) => {}
    }
}
