//! Where clients are.

use std::sync::Arc;

use coterie_env::Clock;
use tonic::transport::Channel;

use crate::chance::Chance;
use crate::history::History;

/// Beside which sidecar clients run, and what they have there.
#[derive(Clone)]
pub struct Side {
    /// The sidecar's member. The names of clients begin with it.
    pub member: String,
    /// Which life of the clients: in each they have another chance.
    pub life: u32,
    /// Decides the run.
    pub seed: u64,
    /// The clocks of their machine.
    pub clock: Arc<dyn Clock>,
    /// Gives a connection to the sidecar, which is made when it is used, and again when it was lost.
    pub connect: Arc<dyn Fn() -> Channel + Send + Sync>,
    /// What is told of what they see.
    pub history: History,
}

impl Side {
    /// The name of one of its clients, and its chance.
    pub(crate) fn client(&self, what: &str) -> (String, Chance) {
        let name = format!("{}.{what}", self.member);
        let chance = Chance::of(self.seed, &format!("{name}-{}", self.life));
        (name, chance)
    }

    /// A connection to the sidecar.
    pub(crate) fn channel(&self) -> Channel {
        (self.connect)()
    }
}
