//! Chaos, and then peace: first anything may fail and nothing that was promised may be broken; then everything is put
//! right, and the cluster must serve, agree, and hold all that was acknowledged, which a last read of every key shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use coterie_mutants::points::{self, Point};
use coterie_workloads::chance::Chance;
use coterie_workloads::checkers::linearizability::Operation;
use coterie_workloads::side::Side;
use coterie_workloads::totals::Totals;

use crate::cluster::{self, Cluster, Flush, HOSTS, Life, Loss};
use crate::faults::{Faults, Kind};
use crate::history::{Digest, Snapshot};
use crate::{application, look, world};

/// How long things go wrong.
const CHAOS: Duration = Duration::from_secs(20);
/// How long a cluster may live.
const LIFE: Duration = Duration::from_secs(300);
/// Changes that must be acknowledged to the clients on each machine, at the beginning and once all is well.
const CHANGED: usize = 10;
/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Everything that happened, one line each.
    pub trace: String,
    /// What was done with registers.
    pub operations: Vec<Operation>,
    /// What clients were told, in numbers.
    pub totals: Totals,
    /// How often a partition got another leader, all together.
    pub changes: usize,
    /// How many snapshots came to volumes.
    pub snapshots: BTreeMap<Snapshot, u32>,
    /// How many writes disks had no room for.
    pub refused_writes: u32,
    /// How often each kind of fault was injected.
    pub faults: BTreeMap<Kind, u32>,
    /// How often each rare branch was taken.
    pub points: BTreeMap<Point, u32>,
}

/// A run that failed.
#[derive(Debug)]
pub struct Failure {
    /// Everything that happened until then, one line each.
    pub trace: String,
    /// What was done with registers until then.
    pub operations: Vec<Operation>,
    /// A broken promise, or no progress.
    pub why: anyhow::Error,
}

/// Runs the simulation of this seed.
pub fn run(seed: u64, flush: Flush) -> Result<Report, Failure> {
    let mut cluster = Cluster::start(seed, LIFE, applications);
    let ran = simulate(seed, &mut cluster, flush);
    ran.map_err(|why| {
        let seen = cluster.history.clients.seen();
        Failure { trace: seen.trace.clone(), operations: seen.known_operations(), why }
    })
}

fn simulate(seed: u64, cluster: &mut Cluster<'_>, flush: Flush) -> Result<Report> {
    let (history, clients) = (cluster.history.clone(), cluster.history.clients.clone());
    cluster.until("the first changes", || clients.have_changed(&HOSTS, CHANGED, &BTreeMap::new()))?;
    if flush == Flush::Removed {
        cluster.remove_flush();
    }
    let mut faults = Faults::of(seed);
    points::begin(Chance::of(seed, "points").number());
    faults.happen(cluster, CHAOS)?;
    points::end();
    faults.end(cluster);
    history.note("all", "PEACE");

    let hosts: Vec<_> = HOSTS.into_iter().filter(|host| faults.lost != Some(host)).collect();
    let before = clients.seen().changed.clone();
    if let Some(dead) = faults.dead(cluster) {
        // Its process lives on, and whoever asks it finds out; the others do without this replica.
        let others: Vec<_> = hosts.iter().copied().filter(|host| *host != dead).collect();
        cluster.until("changes without a dead replica", || clients.have_changed(&others, CHANGED, &before))?;
        cluster.crash(dead, Loss::Everything);
        cluster.restart(dead);
    }
    cluster.until("changes once all is well", || clients.have_changed(&hosts, CHANGED, &before))?;
    cluster.until("the former voters", || history.seen().members.is_reached())?;
    clients.seen().is_over = true;
    let keys: BTreeSet<String> = clients.seen().operations.iter().flatten().map(|it| it.key.clone()).collect();
    let count = keys.len();
    clients.seen().unread = keys;
    cluster.until("a last read of every key", || clients.seen().read_again == count)?;
    let configured: Vec<String> = cluster::partitions()?.iter().map(ToString::to_string).collect();
    cluster.until("watchers that were told all", || clients.seen().are_told(&hosts))?;
    let agree = || agreed(&configured, &hosts, &history.seen().digests);
    cluster.until("replicas that agree", || agree().is_ok()).map_err(|error| match agree() {
        Err(why) => error.context(why),
        Ok(()) => error,
    })?;

    let (seen, told) = (history.seen(), clients.seen());
    coterie_workloads::check(&told)?;
    Ok(Report {
        trace: told.trace.clone(),
        totals: Totals::of(&told),
        operations: told.known_operations(),
        changes: seen.raft_leaders.len().saturating_sub(configured.len()),
        snapshots: seen.snapshots.clone(),
        refused_writes: seen.refused_writes.values().sum(),
        faults: faults.injected,
        points: Point::ALL
            .into_iter()
            .map(|point| (point, points::taken(point)))
            .filter(|(_, count)| *count > 0)
            .collect(),
    })
}

fn applications(life: Life) {
    let side = Side {
        member: life.host.to_owned(),
        life: life.number,
        seed: life.seed,
        clock: Arc::new(world::ObserversClock(life.skew.clone())),
        connect: Arc::new(application::channel),
        history: life.history.clients.clone(),
    };
    coterie_workloads::start(&side);
    tokio::spawn(look::look(life));
}

/// Whether every configured partition has a replica on each of these machines, and all of them hold the same bytes at the
/// same revision; and there is no other replica.
fn agreed(
    configured: &[String],
    hosts: &[&'static str],
    digests: &BTreeMap<(&'static str, String), Digest>,
) -> Result<(), String> {
    for partition in configured {
        let mut held = Vec::new();
        for host in hosts {
            let digest = digests.get(&(*host, partition.clone()));
            held.push(digest.ok_or_else(|| format!("{partition} has no replica on {host}"))?);
        }
        if let Some(at) = held.windows(2).position(|two| two[0] != two[1]) {
            return Err(format!("{partition} differs on {} and {}", hosts[at], hosts[at + 1]));
        }
    }
    let is_known = |(host, partition): &(&'static str, String)| hosts.contains(host) && configured.contains(partition);
    match digests.keys().find(|of| !is_known(of)) {
        Some((host, partition)) => Err(format!("{partition} must not be on {host}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_agree_only_if_every_configured_partition_is_on_every_machine_with_the_same_bytes() {
        let configured = ["system/1", "raft/1"].map(str::to_owned);
        let digest = |revision| Digest { revision, state: vec![1, 2] };
        let mut digests = BTreeMap::new();
        for host in HOSTS {
            digests.insert((host, "system/1".to_owned()), digest(7));
        }
        let nowhere = agreed(&configured, &HOSTS, &digests);
        assert_eq!(nowhere, Err("raft/1 has no replica on member-1".to_owned()), "it is on no machine");
        for host in HOSTS {
            digests.insert((host, "raft/1".to_owned()), digest(9));
        }
        assert_eq!(agreed(&configured, &HOSTS, &digests), Ok(()));
        digests.insert(("member-3", "raft/1".to_owned()), digest(8));
        assert_eq!(agreed(&configured, &HOSTS, &digests), Err("raft/1 differs on member-2 and member-3".to_owned()));
        digests.insert(("member-3", "raft/1".to_owned()), Digest { revision: 9, state: vec![1, 3] });
        assert!(agreed(&configured, &HOSTS, &digests).is_err(), "as many, and others");
        digests.remove(&("member-3", "raft/1".to_owned()));
        assert_eq!(agreed(&configured, &HOSTS, &digests), Err("raft/1 has no replica on member-3".to_owned()));
        digests.remove(&("member-3", "system/1".to_owned()));
        assert_eq!(agreed(&configured, &HOSTS[..2], &digests), Ok(()), "whose volume is lost has none");
        assert!(agreed(&configured, &HOSTS[1..], &digests).is_err(), "none that is lost may have one");
        assert!(agreed(&configured[..1], &HOSTS, &digests).is_err(), "one that is not configured");
    }
}
