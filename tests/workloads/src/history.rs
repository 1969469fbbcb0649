//! What clients saw and were told, over the whole life of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::checkers::exactly_once::Repeated;
use crate::checkers::leaders::Claim;
use crate::checkers::linearizability::{Answer, Call, Operation};
use crate::checkers::locks::Hold;
use crate::checkers::sessions::Sessions;
use crate::checkers::watches::{ToldAll, place};
use crate::registers::MAP;
use crate::watches;

/// Shared by all clients and the one who drives the run. It survives whatever they do not.
#[derive(Clone)]
pub struct History {
    seen: Arc<Mutex<Seen>>,
    now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// One line for each thing that happened, in order.
    pub trace: String,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// What was done with registers; `None` where the sidecar said that nothing was applied.
    pub operations: Vec<Option<Operation>>,
    /// How many of them were changes that were acknowledged, by the member whose clients asked.
    pub changed: BTreeMap<String, usize>,
    /// Changes that were answered, and sent again.
    pub repeated: Vec<Repeated>,
    /// Who was granted which lock.
    pub holds: Vec<Hold>,
    /// What members of groups were told of their leading.
    pub claims: Vec<Claim>,
    /// What members were told of their sessions, and when others heard that they ended.
    pub sessions: Sessions,
    /// What watchers were told, by primitive.
    pub told: BTreeMap<String, ToldAll>,
    /// The event that each of them was told last.
    pub places: BTreeMap<String, String>,
    /// Keys that are to be read once more.
    pub unread: BTreeSet<String>,
    /// How many were.
    pub read_again: usize,
    /// Whether clients are to stop.
    pub is_over: bool,
    /// The last number that was given.
    number: u64,
}

impl Seen {
    /// Whether the watchers of the registers beside these members were told of the last change that was acknowledged, and so
    /// of all.
    pub fn are_told(&self, members: &[&str]) -> bool {
        let acknowledged = crate::acknowledged(self.operations.iter().flatten());
        let last = acknowledged.last_key_value().map_or(0, |(revision, _)| *revision);
        members.iter().all(|member| {
            let told = self.places.get(&watches::name(member, MAP)).and_then(|id| place(id));
            told.is_some_and(|(revision, _)| revision >= last)
        })
    }

    /// The operations of which something may have been applied.
    pub fn known_operations(&self) -> Vec<Operation> {
        self.operations.iter().flatten().cloned().collect()
    }
}

impl History {
    /// An empty one, whose trace tells this time, in milliseconds since the run began.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { seen: Arc::default(), now_ms: Arc::new(now_ms) }
    }

    /// Adds a line to the trace.
    pub fn note(&self, who: &str, what: &str) {
        let now_ms = (self.now_ms)();
        writeln!(self.seen().trace, "{now_ms:>7} {who:<11} {what}").expect("writing to a string cannot fail");
    }

    /// Takes note of a broken promise.
    pub fn violated(&self, who: &str, violation: String) {
        self.note(who, &format!("VIOLATION {violation}"));
        self.seen().violations.push(violation);
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
            let member = client.split('.').next().unwrap_or_default().to_owned();
            *seen.changed.entry(member).or_default() += 1;
        }
        drop(seen);
        self.note(&client, &line);
    }

    /// Whether clients of each of these members had so many changes acknowledged, beside those of before.
    pub fn have_changed(&self, members: &[&str], count: usize, before: &BTreeMap<String, usize>) -> bool {
        let seen = self.seen();
        let of = |changed: &BTreeMap<String, usize>, member: &str| changed.get(member).copied().unwrap_or_default();
        members.iter().all(|member| of(&seen.changed, member) >= of(before, member) + count)
    }

    /// Nothing was applied of it.
    pub fn not_applied(&self, number: usize) {
        self.seen().operations[number] = None;
    }

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic while the lock is held")
    }
}
