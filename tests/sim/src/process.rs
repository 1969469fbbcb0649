//! What a machine does to the process of its sidecar while that runs: it stands still, its disk is slow, its connections
//! break.
//!
//! | what | how |
//! |---|---|
//! | the process stands still | its tasks are not polled ([`Gate`]), and its connections neither read nor write; time goes on, and so do applications |
//! | a slow disk | what has a thread of its own for the disk waits before each step, as a flush would make it wait |
//! | connections break | each to another machine, or none, as chance has it: both sides find it closed |
//!
//! What gRPC's server and client start by themselves for a connection is not stopped. It waits for the connection, which is,
//! but its timers run: a connection that says nothing for long may be closed during a pause instead of after it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use coterie_env::pause::Gate;
use coterie_env::spawn::BoxFuture;
use coterie_workloads::chance::Chance;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use turmoil::net::TcpStream;

/// The processes of one machine, one after the other. Clones are the same machine's.
#[derive(Clone)]
pub struct Process(Arc<Inner>);

struct Inner {
    gate: Gate,
    chance: Chance,
    /// The longest that a step with the disk takes; 0: it takes no time.
    disk_ms: AtomicU64,
    connections: Mutex<Connections>,
}

/// Connections to other machines.
#[derive(Default)]
struct Connections {
    /// The last that was given a number.
    last: u64,
    /// By number, whether each is broken, and who waits for it.
    open: BTreeMap<u64, (bool, Vec<Waker>)>,
}

impl Process {
    /// Of this machine, in the simulation of a seed.
    pub fn new(seed: u64, host: &str) -> Self {
        let chance = Chance::of(seed, &format!("process of {host}"));
        Self(Arc::new(Inner {
            gate: Gate::default(),
            chance,
            disk_ms: AtomicU64::new(0),
            connections: Mutex::default(),
        }))
    }

    /// Whether it stands still, until told otherwise.
    pub fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// From now on each step with the disk takes up to so many milliseconds.
    pub fn slow_disk(&self, most_ms: u64) {
        self.0.disk_ms.store(most_ms, Ordering::Relaxed);
    }

    /// Breaks about half of the connections to other machines; how many.
    pub fn reset(&self) -> usize {
        let mut woken = Vec::new();
        let mut broken = 0;
        for (is_broken, waiting) in self.connections().open.values_mut().filter(|(is_broken, _)| !is_broken) {
            if self.0.chance.below(2) == 0 {
                *is_broken = true;
                broken += 1;
                woken.append(waiting);
            }
        }
        // A task that has ended goes with its last waker, and with it connections: so the lock is not held here.
        woken.into_iter().for_each(Waker::wake);
        broken
    }

    /// A task of the process.
    pub fn task<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.gate.task(task)
    }

    /// A task of the process that has a thread of its own for what it does with the disk.
    pub fn with_disk(&self, task: BoxFuture) -> impl Future<Output = ()> + use<> {
        self.task(WithDisk { process: self.clone(), task, step: None })
    }

    /// A connection of the process to another machine.
    pub fn connection(&self, stream: TcpStream) -> Connection {
        let mut connections = self.connections();
        connections.last += 1;
        let number = connections.last;
        connections.open.insert(number, (false, Vec::new()));
        Connection { process: self.clone(), number: Some(number), stream }
    }

    /// A connection of the process to an application of its machine, which never breaks.
    pub fn local_connection(&self, stream: TcpStream) -> Connection {
        Connection { process: self.clone(), number: None, stream }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.0.connections.lock().expect("no panic while the lock is held")
    }
}

/// A task whose steps take as long as the disk does.
struct WithDisk {
    process: Process,
    task: BoxFuture,
    /// What the next step waits for.
    step: Option<Pin<Box<Sleep>>>,
}

impl Future for WithDisk {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Inner { chance, disk_ms, .. } = &*self.process.0;
        let most_ms = disk_ms.load(Ordering::Relaxed);
        if most_ms > 0 && self.step.is_none() {
            let takes = Duration::from_millis(chance.below(most_ms) + 1);
            self.step = Some(Box::pin(tokio::time::sleep(takes)));
        }
        if let Some(step) = &mut self.step {
            ready!(step.as_mut().poll(context));
            self.step = None;
        }
        self.task.as_mut().poll(context)
    }
}

/// A connection, as long as its machine lets it be one.
pub struct Connection {
    process: Process,
    /// `None` of those that never break.
    number: Option<u64>,
    stream: TcpStream,
}

impl Connection {
    /// Ready while it may be used; an error once it is broken.
    fn poll_usable(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.process.0.gate.poll_open(context));
        let Some(number) = self.number else { return Poll::Ready(Ok(())) };
        let mut connections = self.process.connections();
        let (is_broken, waiting) = connections.open.get_mut(&number).expect("it is there while the connection is");
        if *is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        // Whoever cannot go on now is woken if it breaks.
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        // Dropped once the lock is released: other connections may go with it.
        let _last = self.process.connections().open.remove(&number);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_usable(context))?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_usable(context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_usable(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_usable(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
