//! A rolling restart: one machine after the other is stopped in good order and started again.

use std::time::Duration;

use crate::cluster::{Cluster, HOSTS};

/// Between two looks whether the next one's turn has come.
const LOOK: Duration = Duration::from_millis(50);
/// How long one may take to stop and to be ready again, before the next one stops all the same.
const PATIENCE: Duration = Duration::from_secs(8);

/// How far one has come.
#[derive(Clone, Copy, Debug)]
pub struct Roll {
    /// Where in [`HOSTS`] it began.
    first: usize,
    /// How many were told to stop.
    told: usize,
    /// How often the last of them had been started by then, and how long it is waited for.
    waits: Option<(u32, Duration)>,
}

impl Roll {
    /// Begins with this machine.
    pub fn from(host: &str) -> Self {
        let first = HOSTS.iter().position(|it| *it == host).expect("it is a host");
        Self { first, told: 0, waits: None }
    }

    /// Stops the next machine, if its turn has come; when to look again. `None` once the last has had its turn.
    pub fn go_on(self, cluster: &Cluster<'_>) -> Option<(Duration, Self)> {
        let now = cluster.sim.elapsed();
        let host = |told: usize| HOSTS[(self.first + told) % HOSTS.len()];
        if let Some((lives, until)) = self.waits {
            let machine = cluster.machine(host(self.told - 1));
            if now < until && (machine.lives() == lives || !machine.is_ready()) {
                return Some((now + LOOK, self));
            }
        }
        if self.told == HOSTS.len() {
            return None;
        }
        let host = host(self.told);
        cluster.history.note(host, "ROLLS");
        cluster.stop(host);
        let waits = Some((cluster.machine(host).lives(), now + PATIENCE));
        Some((now + LOOK, Self { told: self.told + 1, waits, ..self }))
    }
}
