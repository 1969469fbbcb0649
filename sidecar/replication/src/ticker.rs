//! One timer for all partitions of a process.
//!
//! Every partition would otherwise wake some fifty times a second to look at its own clock. Here all that lead send their
//! heartbeats at one moment, so that what goes to one peer shares a message; openraft's own timer runs only where no
//! leader is heard of (see `partition::leadership`), since only there something has to be timed finely.

use coterie_env::Env;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::timing::Timing;

/// Ticks once per heartbeat, for as long as anybody listens. Clones are the same timer.
#[derive(Clone, Debug)]
pub struct Ticker {
    timing: Timing,
    ticks: watch::Receiver<u64>,
}

impl Ticker {
    /// Starts the timer.
    pub fn start(env: &Env, timing: Timing) -> Self {
        let (sender, ticks) = watch::channel(0);
        let period = timing.heartbeat();
        let task = async move {
            let mut at = Instant::now();
            while !sender.is_closed() {
                // After a pause of the process the ticks that were missed are not made up for.
                at = Instant::now().max(at + period);
                sleep_until(at).await;
                sender.send_modify(|ticks| *ticks += 1);
            }
        };
        env.spawn.spawn("ticker", Box::pin(task));
        Self { timing, ticks }
    }

    /// Raft's timers; the same on all replicas.
    pub(crate) fn timing(&self) -> Timing {
        self.timing
    }

    /// Waits for the next tick.
    pub(crate) async fn tick(&mut self) {
        if self.ticks.changed().await.is_err() {
            // The timer ends with the process only.
            std::future::pending::<()>().await;
        }
    }
}
