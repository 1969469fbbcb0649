//! The real world: the operating system.

use std::sync::{Arc, Mutex};

use crate::{Clock, Env, Random};

mod disk;
mod network;
mod spawn;

/// The operating system's clock, randomness, file system, network and threads.
///
/// [`crate::Spawn::spawn`] and the network of it must be called inside a tokio runtime; everything else works anywhere.
pub fn real() -> Env {
    Env {
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom::default()),
        disk: Arc::new(disk::SystemDisk),
        network: Arc::new(network::SystemNetwork),
        spawn: Arc::new(spawn::SystemSpawn),
    }
}

/// The machine's clocks.
struct SystemClock;

impl Clock for SystemClock {
    fn monotonic_ms(&self) -> u64 {
        // CLOCK_BOOTTIME: a session that was suspended with its machine has run out when the machine wakes.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
        seconds * 1000 + nanoseconds / 1_000_000
    }

    fn wall_ms(&self) -> u64 {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            Err(_) => 0,
        }
    }
}

/// The kernel's random numbers: identities must not collide with those of any other machine. Fetched many at a time,
/// because every request that comes without an id is given one.
#[derive(Default)]
struct SystemRandom(Mutex<Vec<u64>>);

/// Numbers that are fetched at once: what one call of getrandom(2) gives without being interrupted.
const FETCHED: usize = 256 / size_of::<u64>();

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        let mut ready = self.0.lock().expect("a fetch that fails ends the process");
        if ready.is_empty() {
            ready.extend(
                fetch()
                    .chunks_exact(size_of::<u64>())
                    .map(|chunk| u64::from_ne_bytes(chunk.try_into().expect("chunks of this size"))),
            );
        }
        ready.pop().expect("fetched just now")
    }
}

fn fetch() -> [u8; FETCHED * size_of::<u64>()] {
    let mut bytes = [0; FETCHED * size_of::<u64>()];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the kernel gives no random numbers: {error}"),
        }
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_and_chance_differs() {
        let env = real();
        let before = env.clock.monotonic_ms();
        assert!(before > 0);
        assert!(env.clock.monotonic_ms() >= before);
        assert!(env.clock.wall_ms() > 1_600_000_000_000);
        let drawn: std::collections::BTreeSet<u64> = (0..3 * FETCHED).map(|_| env.random.next_u64()).collect();
        assert_eq!(drawn.len(), 3 * FETCHED);
    }
}
