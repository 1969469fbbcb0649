//! The outside world, as traits: clock, randomness, disk, network and spawning.
//!
//! Everything above takes an [`Env`] and asks it; nothing above reads a clock, rolls a die, opens a file or a socket by
//! itself. The process gets [`real()`]; the simulator gets its own, made from one seed. Timers are tokio's in both: the
//! simulator runs tokio on simulated time.

use std::sync::Arc;

pub mod clock;
pub mod disk;
pub mod mem;
pub mod network;
#[cfg(feature = "sim")]
pub mod pause;
pub mod random;
pub mod real;
pub mod spawn;

pub use clock::Clock;
pub use disk::{Disk, File, Lock};
pub use network::{Listener, Network, Stream};
pub use random::Random;
pub use real::real;
pub use spawn::Spawn;

/// Everything that a process may ask of the world. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Time that only moves forward, and the wall clock.
    pub clock: Arc<dyn Clock>,
    /// Seeds, identities and jitter.
    pub random: Arc<dyn Random>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Connections between processes.
    pub network: Arc<dyn Network>,
    /// Tasks and threads.
    pub spawn: Arc<dyn Spawn>,
}
