//! What applications saw and were told, over the whole life of a simulated cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::checkers::leadership::Claim;
use crate::checkers::linearizability::{Answer, Call, Operation};
use crate::checkers::locks::Hold;
use crate::checkers::watches::ToldAll;

/// Shared by all hosts and the one who drives the simulation. It is no part of the simulated world and survives crashes.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Seen>>);

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

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// One line for each thing that happened, in order.
    pub trace: String,
    /// The groups whose creation was acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// Who led in each term of the group that all join.
    pub leaders: BTreeMap<u64, u64>,
    /// On which host each member of that group lives.
    pub hosts: BTreeMap<u64, String>,
    /// The list of all groups.
    pub listed: Listed,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// What was done with registers; `None` where the sidecar said that nothing was applied.
    pub operations: Vec<Option<Operation>>,
    /// How many of them were changes that were acknowledged, by the machine whose clients asked.
    pub changed: BTreeMap<String, usize>,
    /// Who was granted which lock.
    pub holds: Vec<Hold>,
    /// What members of groups were told of their leading.
    pub claims: Vec<Claim>,
    /// What watchers were told, by primitive.
    pub told: BTreeMap<String, ToldAll>,
    /// The event that each of them was told last.
    pub places: BTreeMap<String, String>,
    /// What replicas hold, by machine and partition, once clients have ended.
    pub digests: BTreeMap<(&'static str, String), Digest>,
    /// Keys that are to be read once more.
    pub unread: BTreeSet<String>,
    /// How many were.
    pub read_again: usize,
    /// Who led each partition in each of its terms.
    pub raft_leaders: BTreeMap<(String, u64), &'static str>,
    /// Hosts that are to hand over what they lead.
    pub hand_over: BTreeSet<&'static str>,
    /// How many snapshots came to volumes.
    pub snapshots: BTreeMap<Snapshot, u32>,
    /// How many writes the disk of a machine had no room for.
    pub refused_writes: BTreeMap<&'static str, u32>,
    /// Whether applications are to stop.
    pub is_over: bool,
    /// Milliseconds since the simulation began.
    pub now_ms: u64,
    /// The last number that was given.
    number: u64,
}

impl History {
    /// Adds a line to the trace.
    pub fn note(&self, host: &str, what: &str) {
        let mut seen = self.seen();
        let now_ms = seen.now_ms;
        writeln!(seen.trace, "{now_ms:>7} {host:<11} {what}").expect("writing to a string cannot fail");
    }

    /// Takes note of a leader; two in one term are a violation (S22, S32).
    pub fn elected(&self, host: &str, term: u64, leader: u64) {
        self.note(host, &format!("elected term={term} leader={leader}"));
        let mut seen = self.seen();
        let first = *seen.leaders.entry(term).or_insert(leader);
        if first != leader {
            seen.violations.push(format!("term {term} has two leaders: {first} and {leader}"));
        }
    }

    /// Takes note that a host leads a partition; two in one term are a violation (Ongaro and Ousterhout, 2014, section 5.2).
    pub fn leads(&self, host: &'static str, partition: &str, term: u64) {
        let first = self.seen().raft_leaders.insert((partition.to_owned(), term), host);
        match first {
            Some(first) if first != host => {
                let violation = format!("{partition} has two leaders in term {term}: {first} and {host}");
                self.note(host, &format!("VIOLATION {violation}"));
                self.seen().violations.push(violation);
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

    /// A number that is larger than every one before.
    pub fn next(&self) -> u64 {
        let mut seen = self.seen();
        seen.number += 1;
        seen.number
    }

    /// An operation on a register begins; its number.
    pub fn called(&self, client: &str, key: &str, call: Call) -> usize {
        let called = self.next();
        self.note(client, &format!("{key} {call:?}"));
        let mut seen = self.seen();
        let (client, key) = (client.to_owned(), key.to_owned());
        seen.operations.push(Some(Operation { client, key, call, called, answered: None }));
        seen.operations.len() - 1
    }

    /// It ends.
    pub fn answered(&self, number: usize, answer: Answer) {
        let at = self.next();
        let mut seen = self.seen();
        let operation = seen.operations[number].as_mut().expect("it was called");
        operation.answered = Some((at, answer));
        let line = format!("{} {:?} {answer:?}", operation.key, operation.call);
        let client = operation.client.clone();
        if matches!(answer, Answer::Changed { .. }) {
            let host = client.split('.').next().unwrap_or_default().to_owned();
            *seen.changed.entry(host).or_default() += 1;
        }
        drop(seen);
        self.note(&client, &line);
    }

    /// Whether clients on each of these machines had so many changes acknowledged, beside those of before.
    pub fn have_changed(&self, hosts: &[&'static str], count: usize, before: &BTreeMap<String, usize>) -> bool {
        let seen = self.seen();
        let of = |changed: &BTreeMap<String, usize>, host: &str| changed.get(host).copied().unwrap_or_default();
        hosts.iter().all(|host| of(&seen.changed, host) >= of(before, host) + count)
    }

    /// Nothing was applied of it.
    pub fn not_applied(&self, number: usize) {
        self.seen().operations[number] = None;
    }

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("no panic while the lock is held")
    }
}
