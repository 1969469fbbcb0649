//! Threads for what blocks or takes long.

use std::future::Future;
use std::io;

use coterie_env::Env;
use tokio::sync::{mpsc, oneshot};

/// Runs `work` on a thread of its own. An error means that it ended without a result.
pub(crate) async fn beside<T: Send + 'static>(
    env: &Env,
    name: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = oneshot::channel();
    let task = async move {
        // Nobody waits any longer when the partition was shut down meanwhile.
        let _ = sender.send(work.await);
    };
    env.spawn.dedicated(name, Box::pin(task));
    receiver.await.map_err(|_| ended())
}

fn ended() -> io::Error {
    io::Error::other("a thread for snapshots ended early")
}

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// Something that lives on a thread of its own, and is dropped there: once this handle is gone, and what it was asked for
/// is done.
pub(super) struct Worker<T> {
    jobs: mpsc::Sender<Job<T>>,
}

impl<T: Send + 'static> Worker<T> {
    pub(super) fn start(env: &Env, name: &'static str, mut thing: T) -> Self {
        let (jobs, mut asked) = mpsc::channel::<Job<T>>(1);
        let task = async move {
            while let Some(job) = asked.recv().await {
                job(&mut thing);
            }
        };
        env.spawn.dedicated(name, Box::pin(task));
        Self { jobs }
    }

    /// Runs `job` on the thread. Who stops waiting does not stop it.
    pub(super) async fn run<R: Send + 'static>(&self, job: impl FnOnce(&mut T) -> R + Send + 'static) -> io::Result<R> {
        let (sender, receiver) = oneshot::channel();
        let job: Job<T> = Box::new(move |thing| drop(sender.send(job(thing))));
        self.jobs.send(job).await.map_err(|_| ended())?;
        receiver.await.map_err(|_| ended())
    }

    /// Has `job` done on the thread, for which nobody waits. Nothing else may be asked for at the time.
    pub(super) fn leave(self, job: impl FnOnce(&mut T) + Send + 'static) {
        // Where the thread is gone the job is dropped here.
        let _ = self.jobs.try_send(Box::new(job));
    }
}
