//! The simulated world that one sidecar lives in: turmoil's network and time, a disk that loses what was not flushed, and
//! chance from the seed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use coterie_env::mem::SeededRandom;
use coterie_env::spawn::BoxFuture;
use coterie_env::{Clock, Disk, Env, Listener, Network, Spawn, Stream};

use crate::process::Process;

/// Unix time at the start of every simulation.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The world of one host.
pub fn env(disk: impl Disk, random: &Arc<SeededRandom>, skew: &Skew, process: &Process) -> Env {
    Env {
        clock: Arc::new(SimClock(skew.clone())),
        random: random.clone(),
        disk: Arc::new(disk),
        network: Arc::new(SimNetwork(process.clone())),
        spawn: Arc::new(SimSpawn(process.clone())),
    }
}

/// Milliseconds since the simulation began.
pub fn now_ms() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// How a machine's clocks differ from the time. Clones are the same machine's.
#[derive(Clone, Default)]
pub struct Skew {
    pace: Pace,
    stepped_ms: Arc<AtomicI64>,
}

/// How the clocks of a machine run, all the time. The default is as the time does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// By how many millionths the clock that never steps is slower than the time. Those of two machines differ by less than
    /// what sessions leave for that (`sessions::RATE_MARGIN`), and none is faster than those of applications.
    pub slow_ppm: u64,
    /// By how many millionths the wall clock is faster.
    pub wall_ppm: i64,
    /// How far the wall clock is off from the beginning.
    pub wall_off_ms: i64,
}

impl Skew {
    /// Clocks that run so.
    pub fn new(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    /// How they run.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Steps the wall clock to so many milliseconds before or after where it would be.
    pub fn step(&self, ms: i64) {
        self.stepped_ms.store(ms, Ordering::Relaxed);
    }
}

/// What the wall clock of a machine says.
pub fn wall_ms(skew: &Skew) -> u64 {
    let now_ms = now_ms();
    let Pace { wall_ppm, wall_off_ms, .. } = skew.pace;
    let ahead_ms = i64::try_from(now_ms).expect("a short simulation") * wall_ppm / 1_000_000;
    (EPOCH_MS + now_ms).saturating_add_signed(ahead_ms + wall_off_ms + skew.stepped_ms.load(Ordering::Relaxed))
}

/// The clocks of a machine.
struct SimClock(Skew);

impl Clock for SimClock {
    fn monotonic_ms(&self) -> u64 {
        let now_ms = now_ms();
        now_ms - now_ms * self.0.pace.slow_ppm / 1_000_000
    }

    fn wall_ms(&self) -> u64 {
        wall_ms(&self.0)
    }
}

/// The clocks of those who judge what a machine does: its wall clock, and the time of the simulation.
pub struct ObserversClock(pub Skew);

impl Clock for ObserversClock {
    fn monotonic_ms(&self) -> u64 {
        now_ms()
    }

    fn wall_ms(&self) -> u64 {
        wall_ms(&self.0)
    }
}

tokio::task_local! {
    /// What would be the name of the thread.
    static THREAD: &'static str;
}

/// The name of the thread that the present task would be alone on in a process, if it is one of those.
pub fn thread() -> Option<&'static str> {
    THREAD.try_with(|name| *name).ok()
}

struct SimSpawn(Process);

impl Spawn for SimSpawn {
    fn spawn(&self, _name: &'static str, task: BoxFuture) {
        tokio::spawn(self.0.task(task));
    }

    fn dedicated(&self, name: &'static str, task: BoxFuture) {
        tokio::spawn(THREAD.scope(name, self.0.with_disk(task)));
    }
}

struct SimNetwork(Process);

#[async_trait::async_trait]
impl Network for SimNetwork {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.0.connection(turmoil::net::TcpStream::connect(address).await?)))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let address: SocketAddr = address.parse().map_err(io::Error::other)?;
        if address.is_ipv6() {
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "the simulated network is IPv4"));
        }
        Ok(Box::new(SimListener(turmoil::net::TcpListener::bind(address).await?, self.0.clone())))
    }
}

struct SimListener(turmoil::net::TcpListener, Process);

#[async_trait::async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        let is_local = from.ip().is_loopback();
        let connection = if is_local { self.1.local_connection(stream) } else { self.1.connection(stream) };
        Ok((Box::new(connection), from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
