//! The simulated world that one sidecar lives in: turmoil's network and time, a disk that loses what was not flushed, and
//! chance from the seed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use coterie_env::mem::SeededRandom;
use coterie_env::random::uuid_v7;
use coterie_env::spawn::BoxFuture;
use coterie_env::{Clock, Disk, Env, Listener, Network, Random as _, Spawn, Stream};

/// Unix time at the start of every simulation.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The world of one host.
pub fn env(disk: impl Disk, random: &Arc<SeededRandom>, skew: &Skew) -> Env {
    Env {
        clock: Arc::new(SimClock(skew.clone())),
        random: random.clone(),
        disk: Arc::new(disk),
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

/// Chance that a seed decides, apart from that of every machine.
pub struct Chance(SeededRandom);

impl Chance {
    /// The chance of something that this names, in the simulation of a seed.
    pub fn of(seed: u64, what: &str) -> Self {
        // FNV-1a: any function of the name will do, as long as it never changes.
        let named = what
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self(SeededRandom::new(seed ^ named))
    }

    /// Any number.
    pub fn number(&self) -> u64 {
        self.0.next_u64()
    }

    /// A version 7 UUID for a wall clock.
    pub fn uuid_v7(&self, wall_ms: u64) -> u128 {
        uuid_v7(&self.0, wall_ms)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// One of these; there is one.
    pub fn one_of<T: Copy>(&self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).expect("fewer than a slice holds")]
    }

    /// Milliseconds from `least` to below `most`.
    pub fn ms(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least))
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

struct SimSpawn;

impl Spawn for SimSpawn {
    fn spawn(&self, _name: &'static str, task: BoxFuture) {
        tokio::spawn(task);
    }

    fn dedicated(&self, name: &'static str, task: BoxFuture) {
        tokio::spawn(THREAD.scope(name, task));
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
