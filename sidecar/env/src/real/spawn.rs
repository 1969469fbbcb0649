//! tokio's tasks and the system's threads.

use crate::spawn::{BoxFuture, Spawn};

/// The current tokio runtime, and threads beside it.
pub(super) struct SystemSpawn;

impl Spawn for SystemSpawn {
    fn spawn(&self, _name: &'static str, task: BoxFuture) {
        tokio::spawn(task);
    }

    fn dedicated(&self, name: &'static str, task: BoxFuture) {
        // A runtime without drivers is a parked thread: no timers, no sockets, as the trait says.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime without drivers asks the system for nothing");
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(task))
            .expect("the process may start a thread at its start");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dedicated_runs_beside_a_blocked_caller_and_bears_the_name() {
        let (sender, receiver) = std::sync::mpsc::channel();
        SystemSpawn.dedicated(
            "by-itself",
            Box::pin(async move {
                sender.send(std::thread::current().name().map(str::to_owned)).unwrap();
            }),
        );
        assert_eq!(receiver.recv().unwrap().as_deref(), Some("by-itself"));
    }

    #[tokio::test]
    async fn spawned_tasks_run_on_the_runtime() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        SystemSpawn.spawn("task", Box::pin(async move { sender.send(7).unwrap() }));
        assert_eq!(receiver.await.unwrap(), 7);
    }
}
