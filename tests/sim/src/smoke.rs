//! The smoke simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::application;
use crate::cluster::{Cluster, Flush, HOSTS, Loss};
use crate::history::{History, Listed};

/// Simulated time that all of it may take.
const LIFE: Duration = Duration::from_secs(480);
/// Acknowledged creations that each phase waits for.
const ACKNOWLEDGED: usize = 30;

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Everything that happened, one line each.
    pub trace: String,
    /// Acknowledged creations.
    pub acknowledged: usize,
    /// Leaders of the group that all join, by term.
    pub leaders: BTreeMap<u64, u64>,
}

/// Runs the simulation of this seed. An error is a broken promise, or no progress.
pub fn run(seed: u64, flush: Flush) -> Result<Report> {
    let mut cluster = Cluster::start(seed, LIFE, application::start);
    let history = cluster.history.clone();
    let enough = |more: usize| {
        let target = history.seen().acknowledged.len() + more;
        let history = history.clone();
        move || history.seen().acknowledged.len() >= target && !history.seen().leaders.is_empty()
    };
    cluster.until("a leader, and acknowledged writes", enough(ACKNOWLEDGED))?;

    let (term, leader) = last_leader(&history)?;
    let host = history.seen().hosts.get(&leader).cloned().context("the leader's host")?;
    cluster.crash(&host, Loss::Everything);
    cluster.until("a leader with a higher term", || last_leader(&history).is_ok_and(|(next, _)| next > term))?;
    cluster.until("writes without the crashed host", enough(ACKNOWLEDGED))?;
    cluster.restart(&host);
    cluster.until("writes with all hosts", enough(ACKNOWLEDGED))?;

    if flush == Flush::Removed {
        cluster.remove_flush();
        cluster.until("writes that are not flushed", enough(ACKNOWLEDGED))?;
    }
    let (term, _) = last_leader(&history)?;
    HOSTS.iter().for_each(|host| cluster.crash(host, Loss::Everything));
    let before = history.seen().acknowledged.clone();
    HOSTS.iter().for_each(|host| cluster.restart(host));
    cluster.until("a leader after all were down", || last_leader(&history).is_ok_and(|(next, _)| next > term))?;
    cluster.until("writes after all were down", enough(ACKNOWLEDGED))?;
    let present = groups(&mut cluster)?;
    let lost: Vec<&String> = before.difference(&present).collect();
    if !lost.is_empty() {
        bail!("{} acknowledged groups are gone, the first is {}", lost.len(), lost[0]);
    }
    let (seen, clients) = (history.seen(), history.clients.seen());
    if let Some(violation) = clients.violations.first() {
        bail!("{violation}");
    }
    Ok(Report { trace: clients.trace.clone(), acknowledged: seen.acknowledged.len(), leaders: seen.leaders.clone() })
}

fn last_leader(history: &History) -> Result<(u64, u64)> {
    let seen = history.seen();
    seen.leaders.last_key_value().map(|(term, leader)| (*term, *leader)).context("no leader yet")
}

/// The groups that there are, by a linearizable read that began after this was called.
fn groups(cluster: &mut Cluster<'_>) -> Result<BTreeSet<String>> {
    let history = cluster.history.clone();
    history.seen().listed = Listed::Wanted;
    cluster.until("the list of groups", || matches!(history.seen().listed, Listed::Found(_)))?;
    match std::mem::take(&mut history.seen().listed) {
        Listed::Found(groups) => Ok(groups),
        Listed::Unwanted | Listed::Wanted => bail!("the list of groups was taken by somebody else"),
    }
}
