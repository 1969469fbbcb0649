//! One watch per group for all memberships that this sidecar holds in it.

use std::sync::Arc;
use std::time::Duration;

use coterie_core::command::{Answer, GroupView, Query};
use coterie_core::limits::DEADLINE_MS_DEFAULT;
use coterie_core::{ErrorCode, GroupName, PartitionId, Rejection};
use coterie_env::Env;
use coterie_replication::ReadKind;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::state::Folded;
use crate::deadline::Deadline;
use crate::limits::{RETRY_PAUSE_MS, RETRY_PAUSE_MS_MAX};
use crate::router::Router;
use crate::watch::Item;

/// A group as its watch knows it. The watch runs as long as somebody holds the mirror.
pub(super) struct Mirror {
    folded: watch::Sender<Folded>,
    _stop: DropGuard,
}

impl Mirror {
    /// Starts a watch from what a join or a read showed.
    pub(super) fn start(
        env: &Env,
        router: &Router,
        partition: &PartitionId,
        group: &GroupName,
        view: &GroupView,
        stopping: &CancellationToken,
    ) -> Arc<Self> {
        let (folded, _) = watch::channel(Folded::of(view, env.clock.monotonic_ms()));
        let stop = stopping.child_token();
        let follower = Follower {
            env: env.clone(),
            router: router.clone(),
            partition: partition.clone(),
            group: group.clone(),
            folded: folded.clone(),
        };
        let stopped = stop.clone();
        env.spawn.spawn(
            "presence-mirror",
            Box::pin(async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = follower.run() => {}
                }
            }),
        );
        Arc::new(Self { folded, _stop: stop.drop_guard() })
    }

    /// What is known, and when it changes.
    pub(super) fn folded(&self) -> watch::Receiver<Folded> {
        self.folded.subscribe()
    }

    /// Runs `read` on what is known.
    pub(super) fn with<R>(&self, read: impl FnOnce(&Folded) -> R) -> R {
        read(&self.folded.borrow())
    }

    /// Takes in what an answer showed; the watch may come later.
    pub(super) fn learn(&self, view: &GroupView, now_ms: u64) {
        self.folded.send_if_modified(|folded| folded.view(view, now_ms));
    }
}

struct Follower {
    env: Env,
    router: Router,
    partition: PartitionId,
    group: GroupName,
    folded: watch::Sender<Folded>,
}

impl Follower {
    /// Until the group is gone. A watch that cannot be had is asked for again: what the memberships may vouch for is
    /// bounded by their session meanwhile.
    async fn run(self) {
        let mut pause_ms = RETRY_PAUSE_MS;
        while self.folded.borrow().exists {
            let after = self.folded.borrow().at;
            match self.router.watch(&self.partition, &(&self.group).into(), Some(after)).await {
                Ok(mut watch) => {
                    while let Some(item) = watch.next().await.and_then(Item::group) {
                        if !self.take(item).await {
                            break;
                        }
                        pause_ms = RETRY_PAUSE_MS;
                    }
                }
                Err(rejection) => {
                    tracing::debug!(group = %self.group, code = rejection.code.label(), "watch a group: {rejection}");
                }
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(RETRY_PAUSE_MS_MAX);
        }
    }

    /// Whether the watch goes on.
    async fn take(&self, item: Item<GroupView>) -> bool {
        let now_ms = self.env.clock.monotonic_ms();
        match item {
            Item::Snapshot(view) | Item::Resync(Some(view)) => {
                self.folded.send_if_modified(|folded| folded.view(&view, now_ms));
            }
            Item::Event(event) => {
                self.folded.send_if_modified(|folded| folded.event(&event, now_ms));
            }
            Item::Resync(None) => return self.confirm().await,
            Item::Remade(_) => {
                self.folded.send_modify(Folded::remade);
            }
            Item::Connection(_) => {}
        }
        self.folded.borrow().exists
    }

    /// A replica that lags may not know the group yet; only the leader's word counts.
    async fn confirm(&self) -> bool {
        match current(&self.env, &self.router, &self.partition, &self.group).await {
            Ok(Some(view)) => {
                let now_ms = self.env.clock.monotonic_ms();
                self.folded.send_if_modified(|folded| folded.view(&view, now_ms));
                true
            }
            Ok(None) => {
                self.folded.send_modify(Folded::missing);
                false
            }
            Err(rejection) => {
                tracing::debug!(group = %self.group, code = rejection.code.label(), "read a group: {rejection}");
                false
            }
        }
    }
}

/// The group by a linearizable read; `None` if there is none.
pub(crate) async fn current(
    env: &Env,
    router: &Router,
    partition: &PartitionId,
    group: &GroupName,
) -> Result<Option<GroupView>, Rejection> {
    let deadline = Deadline::after_ms(env, DEADLINE_MS_DEFAULT);
    match router.read(partition, Query::Group(group.clone()), ReadKind::Linearizable, deadline).await {
        Ok(read) => match read.answer {
            Answer::Group(view) => Ok(Some(*view)),
            _ => Err(Rejection::new(ErrorCode::Internal, "a question about a group was answered with something else")),
        },
        Err(rejection) if rejection.code == ErrorCode::GroupUnknown => Ok(None),
        Err(rejection) => Err(rejection),
    }
}
