//! What was seen of a simulated cluster over its whole life, besides what clients saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use coterie_workloads::history::History as Clients;

use crate::invariants::logs::Logs;
use crate::invariants::states::States;
use crate::members::Wanted;

/// Shared by all hosts and the one who drives the simulation. It is no part of the simulated world and survives crashes.
#[derive(Clone)]
pub struct History {
    /// What clients saw.
    pub clients: Clients,
    seen: Arc<Mutex<Seen>>,
    now_ms: Arc<AtomicU64>,
}

/// A linearizable list of all groups, made when it is wanted.
#[derive(Default)]
pub enum Listed {
    /// Nobody asked.
    #[default]
    Unwanted,
    /// To be made from now on.
    Wanted,
    /// Made.
    Found(BTreeSet<String>),
}

/// What a replica holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The revision of its state.
    pub revision: u64,
    /// All of it, as a snapshot has it.
    pub state: Vec<u8>,
}

/// How a snapshot came to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Snapshot {
    /// The replica made it.
    Made,
    /// Another replica sent it.
    Installed,
}

/// A replica that is shut while its process lives on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shut {
    /// None is to be.
    #[default]
    Unwanted,
    /// One that leads is to be, on any machine.
    Wanted,
    /// One was, on this machine.
    Done(&'static str),
}

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// The groups whose creation was acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// Who led in each term of the group that all join.
    pub leaders: BTreeMap<u64, u64>,
    /// On which host each member of that group lives.
    pub hosts: BTreeMap<u64, String>,
    /// The list of all groups.
    pub listed: Listed,
    /// What replicas hold, by machine and partition, once clients have ended.
    pub digests: BTreeMap<(&'static str, String), Digest>,
    /// Who led each partition in each of its terms.
    pub raft_leaders: BTreeMap<(String, u64), &'static str>,
    /// What was seen in their logs.
    pub logs: Logs,
    /// What was seen of their states.
    pub states: States,
    /// Hosts that are to hand over what they lead.
    pub hand_over: BTreeSet<&'static str>,
    /// Who is to vote.
    pub members: Wanted,
    /// A replica that is shut.
    pub shut: Shut,
    /// How many snapshots came to volumes.
    pub snapshots: BTreeMap<Snapshot, u32>,
    /// How many writes the disk of a machine had no room for.
    pub refused_writes: BTreeMap<&'static str, u32>,
}

impl Default for History {
    fn default() -> Self {
        let now_ms = Arc::new(AtomicU64::default());
        let told = now_ms.clone();
        Self { clients: Clients::new(move || told.load(Ordering::Relaxed)), seen: Arc::default(), now_ms }
    }
}

impl History {
    /// Adds a line to the trace.
    pub fn note(&self, host: &str, what: &str) {
        self.clients.note(host, what);
    }

    /// What the trace says from now on, in milliseconds since the simulation began.
    pub fn at(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Takes note of a leader; two in one term are a violation (S22, S32).
    pub fn elected(&self, host: &str, term: u64, leader: u64) {
        self.note(host, &format!("elected term={term} leader={leader}"));
        let first = *self.seen().leaders.entry(term).or_insert(leader);
        if first != leader {
            self.clients.violated(host, format!("term {term} has two leaders: {first} and {leader}"));
        }
    }

    /// Takes note that a host leads a partition; two in one term are a violation (Ongaro and Ousterhout, 2014, section 5.2).
    pub fn leads(&self, host: &'static str, partition: &str, term: u64) {
        let first = self.seen().raft_leaders.insert((partition.to_owned(), term), host);
        match first {
            Some(first) if first != host => {
                self.clients.violated(host, format!("{partition} has two leaders in term {term}: {first} and {host}"));
            }
            Some(_) => {}
            None => self.note(host, &format!("{partition} term={term} leads")),
        }
    }

    /// Takes note of a snapshot.
    pub fn snapshot(&self, host: &str, kind: Snapshot, path: &str) {
        *self.seen().snapshots.entry(kind).or_default() += 1;
        self.note(host, &format!("SNAPSHOT {kind:?} {path}"));
    }

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic while the lock is held")
    }
}
