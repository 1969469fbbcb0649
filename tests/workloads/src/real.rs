//! Clients in real time: beside processes on this machine, or beside pods whose nodes are on it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use coterie_env::Clock;
use tonic::transport::Endpoint;

use crate::checkers::linearizability::Operation;
use crate::history::History;
use crate::sdk;
use crate::side::Side;
use crate::totals::Totals;

/// Changes that must be acknowledged to the clients of each member, at the beginning and once all is well.
const CHANGED: usize = 20;
/// What must come comes within this time.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// The machine's clocks, from when the run began.
struct SinceStart {
    clock: Arc<dyn Clock>,
    start_ms: u64,
}

impl Clock for SinceStart {
    fn monotonic_ms(&self) -> u64 {
        self.clock.monotonic_ms() - self.start_ms
    }

    fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }
}

/// Clients that work.
pub struct Clients {
    members: Vec<String>,
    history: History,
}

impl Clients {
    /// Starts clients beside each of these members, whose application API is at this address (`http://host:port`), as tasks
    /// of the present runtime. A seed decides what they ask for, not when they are answered.
    ///
    /// # Errors
    /// What is no address.
    pub fn start(seed: u64, members: &[(String, String)]) -> Result<Self> {
        let clock = coterie_env::real().clock;
        let clock: Arc<dyn Clock> = Arc::new(SinceStart { start_ms: clock.monotonic_ms(), clock });
        let told = clock.clone();
        let history = History::new(move || told.monotonic_ms());
        for (member, endpoint) in members {
            let api = Endpoint::from_shared(endpoint.clone())?.connect_timeout(Duration::from_secs(1));
            let connect = Arc::new(move || api.connect_lazy());
            let (clock, history) = (clock.clone(), history.clone());
            let side = Side { member: member.clone(), life: 0, seed, clock, connect, history };
            crate::start(&side);
            sdk::start(&side, endpoint)?;
        }
        Ok(Self { members: members.iter().map(|(member, _)| member.clone()).collect(), history })
    }

    /// What is seen; the one who drives the run may add lines to its trace.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Waits until the clients of every member have had changes acknowledged, from now on.
    ///
    /// # Errors
    /// When they have not in time: how many there were.
    pub async fn until_changed(&self) -> Result<()> {
        let members = self.members();
        let before = self.history.seen().changed.clone();
        self.until("changes beside every member", || self.history.have_changed(&members, CHANGED, &before)).await
    }

    /// Once all is well: waits until clients work again, ends them, reads every key once more, and checks all that they saw.
    ///
    /// # Errors
    /// The first promise that was broken, or what did not come; or that too little was seen to say anything.
    pub async fn end(&self) -> Result<Totals> {
        self.history.note("all", "PEACE");
        self.until_changed().await?;
        self.history.seen().is_over = true;
        let known = |operations: &[Option<Operation>]| operations.iter().flatten().map(|it| it.key.clone()).collect();
        let keys: BTreeSet<String> = known(&self.history.seen().operations);
        let count = keys.len();
        self.history.seen().unread = keys;
        self.until("a last read of every key", || self.history.seen().read_again == count).await?;
        let members = self.members();
        self.until("watchers that were told all", || self.history.seen().are_told(&members)).await?;
        let seen = self.history.seen();
        crate::check(&seen)?;
        let totals = Totals::of(&seen);
        if totals.grants == 0 || totals.terms < 2 || totals.events == 0 {
            bail!("this shows little: {totals}");
        }
        Ok(totals)
    }

    fn members(&self) -> Vec<&str> {
        self.members.iter().map(String::as_str).collect()
    }

    async fn until(&self, what: &str, reached: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !reached() {
            if begun.elapsed() > PATIENCE {
                let changed = self.history.seen().changed.clone();
                bail!("waited {PATIENCE:?} for {what}; acknowledged so far: {changed:?}");
            }
            tokio::time::sleep(POLL).await; // waits for a condition
        }
        Ok(())
    }
}
