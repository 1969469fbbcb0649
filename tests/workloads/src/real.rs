//! Clients in real time: beside processes on this machine, or beside pods whose nodes are on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use coterie_env::Clock;
use tonic::transport::Endpoint;

use crate::checkers::leaders;
use crate::checkers::linearizability::Operation;
use crate::history::{History, Seen};
use crate::sdk;
use crate::side::Side;

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

/// What a run came to, when nothing that was promised was broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Changes of registers that were acknowledged.
    pub acknowledged: usize,
    /// Operations on registers whose outcome nobody knows.
    pub unknown: usize,
    /// Locks that were granted.
    pub grants: usize,
    /// How often a member was told that it leads, with another term.
    pub terms: usize,
    /// Events that watchers were told.
    pub events: usize,
    /// The least time between the end of what one leader of a group was told and the next one's knowing that it leads.
    pub closest_ms: u64,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, unknown, grants, terms, events, closest_ms } = self;
        write!(
            f,
            "{acknowledged} changes acknowledged, {unknown} unknown, {grants} locks granted, {terms} terms led, {events} events told; \
             from the end of one leader's last word to the next one's first {closest_ms} ms at least"
        )
    }
}

impl Told {
    fn of(seen: &Seen) -> Self {
        let operations = seen.known_operations();
        let terms: BTreeSet<_> = seen.claims.iter().map(|claim| (&claim.group, claim.term)).collect();
        Self {
            acknowledged: seen.changed.values().sum(),
            unknown: operations.iter().filter(|operation| operation.answered.is_none()).count(),
            grants: seen.holds.len(),
            terms: terms.len(),
            closest_ms: leaders::closest_ms(&seen.claims).unwrap_or_default(),
            events: seen.told.values().flat_map(BTreeMap::values).map(Vec::len).sum(),
        }
    }
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
    pub async fn end(&self) -> Result<Told> {
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
        let told = Told::of(&seen);
        if told.grants == 0 || told.terms < 2 || told.events == 0 {
            bail!("this shows little: {told}");
        }
        Ok(told)
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
