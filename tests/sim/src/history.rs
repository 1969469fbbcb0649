//! What applications saw and were told, over the whole life of a simulated cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::world;

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
}

impl History {
    /// Adds a line to the trace.
    pub fn note(&self, host: &str, what: &str) {
        let mut seen = self.seen();
        writeln!(seen.trace, "{:>7} {host:<9} {what}", world::now_ms()).expect("writing to a string cannot fail");
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

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("no panic while the lock is held")
    }
}
