//! Tasks.

use std::future::Future;
use std::pin::Pin;

/// A boxed future that can move between threads.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Starts tasks.
pub trait Spawn: Send + Sync + 'static {
    /// Runs a future beside the caller. It must not block.
    fn spawn(&self, name: &'static str, task: BoxFuture);
    /// Runs a future that may block between its awaits, such as the log's writer: on a thread of its own in the process,
    /// as an ordinary task in the simulator. It may await channels, but neither timers nor sockets.
    fn dedicated(&self, name: &'static str, task: BoxFuture);
}
