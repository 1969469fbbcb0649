//! The simulated world that one sidecar lives in: turmoil's network and time, a disk that loses what was not flushed, and
//! chance from the seed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use coterie_env::mem::{MemDisk, SeededRandom};
use coterie_env::spawn::BoxFuture;
use coterie_env::{Clock, Env, Listener, Network, Spawn, Stream};

/// Unix time at the start of every simulation.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The world of one host.
pub fn env(disk: &MemDisk, random: &Arc<SeededRandom>, skew: &Skew) -> Env {
    Env {
        clock: Arc::new(SimClock(skew.clone())),
        random: random.clone(),
        disk: Arc::new(disk.clone()),
        network: Arc::new(SimNetwork),
        spawn: Arc::new(SimSpawn),
    }
}

/// Milliseconds since the simulation began.
pub fn now_ms() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// How far a machine's wall clock is off. Clones are the same clock's.
#[derive(Clone, Default)]
pub struct Skew(Arc<AtomicI64>);

impl Skew {
    /// Steps the clock to so many milliseconds before or after the time.
    pub fn step(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

/// What the wall clock of a machine says.
pub fn wall_ms(skew: &Skew) -> u64 {
    (EPOCH_MS + now_ms()).saturating_add_signed(skew.0.load(Ordering::Relaxed))
}

struct SimClock(Skew);

impl Clock for SimClock {
    fn monotonic_ms(&self) -> u64 {
        now_ms()
    }

    fn wall_ms(&self) -> u64 {
        wall_ms(&self.0)
    }
}

struct SimSpawn;

impl Spawn for SimSpawn {
    fn spawn(&self, _name: &'static str, task: BoxFuture) {
        tokio::spawn(task);
    }

    fn dedicated(&self, _name: &'static str, task: BoxFuture) {
        tokio::spawn(task);
    }
}

struct SimNetwork;

#[async_trait::async_trait]
impl Network for SimNetwork {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(turmoil::net::TcpStream::connect(address).await?))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let address: SocketAddr = address.parse().map_err(io::Error::other)?;
        if address.is_ipv6() {
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "the simulated network is IPv4"));
        }
        Ok(Box::new(SimListener(turmoil::net::TcpListener::bind(address).await?)))
    }
}

struct SimListener(turmoil::net::TcpListener);

#[async_trait::async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        Ok((Box::new(stream), from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
