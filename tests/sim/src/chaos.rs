//! Chaos, and then peace: first anything may fail and nothing that was promised may be broken; then everything is put
//! right, and the cluster must serve, agree, and hold all that was acknowledged, which a last read of every key shows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::checkers::linearizability::Operation;
use crate::cluster::{self, Cluster, Flush, HOSTS, Life};
use crate::faults::{Faults, Kind};
use crate::history::{Digest, Snapshot};
use crate::workloads;

/// How long things go wrong.
const CHAOS: Duration = Duration::from_secs(20);
/// How long a cluster may live.
const LIFE: Duration = Duration::from_secs(300);
/// Changes that must be acknowledged to the clients on each machine, at the beginning and once all is well.
const CHANGED: usize = 10;
/// Between two looks at a machine's state.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Everything that happened, one line each.
    pub trace: String,
    /// What was done with registers.
    pub operations: Vec<Operation>,
    /// Changes that were acknowledged.
    pub answered: usize,
    /// Operations whose outcome nobody knows.
    pub unknown: usize,
    /// How often a partition got another leader, all together.
    pub changes: usize,
    /// How many snapshots came to volumes.
    pub snapshots: BTreeMap<Snapshot, u32>,
    /// How many writes disks had no room for.
    pub refused_writes: u32,
    /// How often each kind of fault was injected.
    pub faults: BTreeMap<Kind, u32>,
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
        let seen = cluster.history.seen();
        Failure { trace: seen.trace.clone(), operations: seen.operations.iter().flatten().cloned().collect(), why }
    })
}

fn simulate(seed: u64, cluster: &mut Cluster<'_>, flush: Flush) -> Result<Report> {
    let history = cluster.history.clone();
    cluster.until("the first changes", || history.have_changed(&HOSTS, CHANGED, &BTreeMap::new()))?;
    if flush == Flush::Removed {
        cluster.remove_flush();
    }
    let mut faults = Faults::of(seed);
    faults.happen(cluster, CHAOS)?;
    faults.end(cluster);
    history.note("all", "PEACE");

    let hosts: Vec<_> = HOSTS.into_iter().filter(|host| faults.lost != Some(host)).collect();
    let before = history.seen().changed.clone();
    cluster.until("changes once all is well", || history.have_changed(&hosts, CHANGED, &before))?;
    history.seen().is_over = true;
    let keys: BTreeSet<String> = history.seen().operations.iter().flatten().map(|it| it.key.clone()).collect();
    let count = keys.len();
    history.seen().unread = keys;
    cluster.until("a last read of every key", || history.seen().read_again == count)?;
    let configured: Vec<String> = cluster::partitions()?.iter().map(ToString::to_string).collect();
    let agree = || agreed(&configured, &hosts, &history.seen().digests);
    cluster.until("replicas that agree", || agree().is_ok()).map_err(|error| match agree() {
        Err(why) => error.context(why),
        Ok(()) => error,
    })?;

    let seen = history.seen();
    if let Some(violation) = seen.violations.first() {
        bail!("{violation}");
    }
    workloads::check(&seen)?;
    let operations: Vec<Operation> = seen.operations.iter().flatten().cloned().collect();
    Ok(Report {
        trace: seen.trace.clone(),
        answered: seen.changed.values().sum(),
        unknown: operations.iter().filter(|operation| operation.answered.is_none()).count(),
        operations,
        changes: seen.raft_leaders.len().saturating_sub(configured.len()),
        snapshots: seen.snapshots.clone(),
        refused_writes: seen.refused_writes.values().sum(),
        faults: faults.injected,
    })
}

fn applications(life: Life) {
    workloads::start(&life);
    tokio::spawn(look(life));
}

/// Tells the history who leads on this machine and, once clients have ended, what its replicas hold; hands over what it leads
/// when that is wanted.
async fn look(life: Life) {
    loop {
        tokio::time::sleep(LOOK).await;
        let (is_over, hands_over) = {
            let mut seen = life.history.seen();
            (seen.is_over, seen.hand_over.remove(life.host))
        };
        for (id, partition) in life.node.partitions().all() {
            let now = partition.leadership().borrow().clone();
            // It has committed in its term; two may be elected in one, and the first of them never does.
            if now.leading {
                life.history.leads(life.host, &id.to_string(), now.term);
            }
            if hands_over && now.leading {
                let partition = partition.clone();
                tokio::spawn(async move { partition.transfer_away().await });
            }
            if is_over {
                let digest = partition.with_machine(|machine| Digest {
                    revision: machine.revision().0,
                    state: machine.image().pieces().flatten().collect(),
                });
                life.history.seen().digests.insert((life.host, id.to_string()), digest);
            }
        }
    }
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
