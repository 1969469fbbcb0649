//! Whether there is an order of the operations on one register in which each gives what it gave, and that no client could
//! tell from the order in which they were called and answered (Herlihy and Wing, 1990).
//!
//! The search is Wing and Gong's with Lowe's memory ("Testing for linearizability", 2017): it takes one operation after the
//! other that was called before the first answer that is left, and never looks twice at the same set of operations taken
//! with the same state. An operation whose outcome is unknown may come at any time after its call, or never.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use left::{Event, Left};

mod left;

/// One operation on one register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who called it.
    pub client: String,
    /// The register.
    pub key: String,
    /// What was asked.
    pub call: Call,
    /// Where the call comes in the order of all calls and answers.
    pub called: u64,
    /// The same of the answer, and what it says; `None` while the outcome is not known.
    pub answered: Option<(u64, Answer)>,
}

/// What is asked of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Its value.
    Read,
    /// To hold this value, which nobody else writes.
    Write(u64, Only),
    /// To hold nothing.
    Delete(Only),
}

/// Under which condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// None.
    Always,
    /// If it holds nothing.
    IfAbsent,
    /// If what it holds was written at this revision.
    IfRevision(u64),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A read: the value and the revision at which it was written.
    Holds(Option<(u64, u64)>),
    /// A change: its revision, and that of what was there, 0 for nothing.
    Changed {
        /// Its own.
        revision: u64,
        /// The one before.
        previous: u64,
    },
    /// The condition does not hold: nothing was changed.
    Refused,
}

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    key: String,
    why: Why,
    operations: Vec<Operation>,
}

impl Violation {
    /// Why, without the operations.
    pub fn why(&self) -> String {
        self.why.to_string()
    }

    /// Whether the search was given up: then the history may be linearizable.
    pub fn is_undecided(&self) -> bool {
        self.why == Why::Undecided
    }
}

/// What a history lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// An order of its operations, for this reason.
    Order(String),
    /// Knowledge: the search was given up.
    Undecided,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order(why) => f.write_str(why),
            Self::Undecided => f.write_str("too many operations overlap to decide it"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is not linearizable: {}", self.key, self.why)?;
        for Operation { client, call, called, answered, .. } in &self.operations {
            match answered {
                Some((at, answer)) => writeln!(f, "{called:>7} {at:>7} {client:<12} {call:?} {answer:?}")?,
                None => writeln!(f, "{called:>7}       ? {client:<12} {call:?}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

/// How many sets of operations are looked at for one register, before the search is given up: some hundred megabytes.
const SEARCHED_MAX: usize = 1_000_000;

/// Checks the history of every register. One that cannot be decided in [`SEARCHED_MAX`] steps, because too much of it is
/// not known, is a violation too: nothing was shown of it.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let keys: BTreeSet<&str> = history.iter().map(|operation| operation.key.as_str()).collect();
    keys.into_iter().try_for_each(|key| {
        let of_key = history.iter().filter(|operation| operation.key == key);
        // A read that was not answered says nothing.
        let told = of_key.filter(|operation| operation.call != Call::Read || operation.answered.is_some());
        let mut operations: Vec<Operation> = told.cloned().collect();
        operations.sort_by_key(|operation| operation.called);
        Register::new(&operations).and_then(|register| register.search()).map_err(|why| Violation {
            key: key.to_owned(),
            why,
            operations: operations.clone(),
        })
    })
}

/// What a register holds: a value that names its write; and the least revision that it can have by what was told: of the
/// last change, or, where nobody was told of that, one more than before it. They rise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    value: Option<u64>,
    revision: u64,
    /// Revisions that the value does not have, where nobody was told which it has: conditions on them were refused.
    denied: BTreeSet<u64>,
}

struct Register<'a> {
    operations: &'a [Operation],
    /// The revision of each value, where somebody was told.
    revisions: BTreeMap<u64, u64>,
    /// All revisions of changes that somebody was told of.
    told: BTreeSet<u64>,
}

impl<'a> Register<'a> {
    fn new(operations: &'a [Operation]) -> Result<Self, Why> {
        let (mut revisions, mut told) = (BTreeMap::new(), BTreeSet::new());
        for operation in operations {
            if let Some((_, Answer::Changed { revision, .. })) = operation.answered
                && !told.insert(revision)
            {
                return Err(Why::Order(format!("two changes have revision {revision}")));
            }
            let (value, revision) = match (operation.call, operation.answered) {
                (Call::Write(value, _), Some((_, Answer::Changed { revision, .. }))) => (value, revision),
                (Call::Read, Some((_, Answer::Holds(Some(held))))) => held,
                _ => continue,
            };
            let first = *revisions.entry(value).or_insert(revision);
            if first != revision {
                let why = format!("value {value} was written at revision {first} and at {revision}");
                return Err(Why::Order(why));
            }
        }
        told.extend(revisions.values());
        Ok(Self { operations, revisions, told })
    }

    /// Whether what is held was written at this revision; `None` if that is not known.
    fn is_at(&self, state: &State, revision: u64) -> Option<bool> {
        match state.value.map(|value| self.revisions.get(&value)) {
            None => Some(revision == 0),
            Some(Some(at)) => Some(*at == revision),
            // It is none of those that were told, and not less than the state's.
            Some(None) if revision < state.revision || self.is_another(state, revision) => Some(false),
            Some(None) => None,
        }
    }

    /// Whether this is not the revision of a value whose own was never told.
    fn is_another(&self, state: &State, revision: u64) -> bool {
        self.told.contains(&revision) || state.denied.contains(&revision)
    }

    /// The least revision that the last change can have.
    fn least(&self, state: &State) -> u64 {
        let is_told = state.value.is_none_or(|value| self.revisions.contains_key(&value));
        let mut revision = state.revision;
        while !is_told && self.is_another(state, revision) {
            revision += 1;
        }
        revision
    }

    /// What is held after an operation that found `state`; `None` if it cannot have found that.
    fn step(&self, state: &State, operation: &Operation) -> Option<State> {
        let answer = operation.answered.map(|(_, answer)| answer);
        match (operation.call, answer) {
            (Call::Read, Some(Answer::Holds(held))) => {
                (held.map(|(value, _)| value) == state.value).then(|| state.clone())
            }
            (Call::Read, Some(Answer::Changed { .. } | Answer::Refused) | None) => None,
            (Call::Write(value, only), answer) => self.change(state, only, Some(value), answer),
            (Call::Delete(only), answer) => self.change(state, only, None, answer),
        }
    }

    /// The same of a change to this value.
    fn change(&self, state: &State, only: Only, value: Option<u64>, answer: Option<Answer>) -> Option<State> {
        let holds = match only {
            Only::Always => Some(true),
            Only::IfAbsent => Some(state.value.is_none()),
            Only::IfRevision(revision) => self.is_at(state, revision),
        };
        let changed = |revision| State { value, revision, denied: BTreeSet::new() };
        match answer {
            Some(Answer::Holds(_)) => None,
            Some(Answer::Changed { revision, previous }) => {
                let asked = match only {
                    Only::Always => previous,
                    Only::IfAbsent => 0,
                    Only::IfRevision(revision) => revision,
                };
                let was = holds != Some(false) && self.is_at(state, previous) != Some(false) && previous == asked;
                (was && revision > self.least(state) && revision > previous).then(|| changed(revision))
            }
            Some(Answer::Refused) => match (holds, only) {
                (Some(true), _) => None,
                (None, Only::IfRevision(revision)) => {
                    let mut state = state.clone();
                    state.denied.insert(revision);
                    Some(state)
                }
                _ => Some(state.clone()),
            },
            // A deletion of nothing is as good as none.
            None if value.is_none() && state.value.is_none() => None,
            None => {
                let least = self.least(state);
                let before = if let Only::IfRevision(revision) = only { least.max(revision) } else { least };
                let told = value.and_then(|value| self.revisions.get(&value).copied());
                let is_possible = holds != Some(false) && told.is_none_or(|revision| revision > before);
                is_possible.then(|| changed(told.unwrap_or(before + 1)))
            }
        }
    }

    fn search(&self) -> Result<(), Why> {
        let mut events: Vec<(u64, Event)> = Vec::new();
        for (number, operation) in self.operations.iter().enumerate() {
            events.push((operation.called, Event::Call(number)));
            events.extend(operation.answered.map(|(at, _)| (at, Event::Answer(number))));
        }
        events.sort_by_key(|(at, _)| *at);
        let events: Vec<Event> = events.into_iter().map(|(_, event)| event).collect();
        let mut left = Left::new(&events, self.operations.len());
        let mut awaited = self.operations.iter().filter(|operation| operation.answered.is_some()).count();
        let (mut state, mut taken): (State, Vec<(usize, State)>) = (State::default(), Vec::new());
        let mut seen: HashSet<(Vec<u64>, State)> = HashSet::new();
        let (mut set, mut at) = (vec![0_u64; self.operations.len().div_ceil(64)], left.first());
        let mut stuck: (usize, Option<usize>) = (0, None);
        while awaited > 0 {
            if seen.len() > SEARCHED_MAX {
                return Err(Why::Undecided);
            }
            match at.map(|place| (place, events[place])) {
                Some((place, Event::Call(number))) => {
                    let next = self.step(&state, &self.operations[number]);
                    let taken_now = next.filter(|next| {
                        set[number / 64] |= 1 << (number % 64);
                        let is_new = seen.insert((set.clone(), next.clone()));
                        if !is_new {
                            set[number / 64] &= !(1 << (number % 64));
                        }
                        is_new
                    });
                    match taken_now {
                        Some(next) => {
                            taken.push((number, std::mem::replace(&mut state, next)));
                            left.take(number);
                            awaited -= usize::from(self.operations[number].answered.is_some());
                            at = left.first();
                        }
                        None => at = left.after(place),
                    }
                }
                // Whatever is left was called after this answer, which nothing explains: the last one taken was wrong.
                last @ (Some((_, Event::Answer(_))) | None) => {
                    if let Some((_, Event::Answer(number))) = last
                        && taken.len() >= stuck.0
                    {
                        stuck = (taken.len(), Some(number));
                    }
                    let Some((number, before)) = taken.pop() else {
                        let (explained, number) = stuck;
                        let operation = number.map(|number| &self.operations[number]);
                        let what = operation.map(|it| format!("{:?} of {} at {}", it.call, it.client, it.called));
                        return Err(Why::Order(format!(
                            "{explained} operations in, nothing explains {}",
                            what.unwrap_or_default()
                        )));
                    };
                    set[number / 64] &= !(1 << (number % 64));
                    left.put_back(number);
                    awaited += usize::from(self.operations[number].answered.is_some());
                    state = before;
                    at = left.after(left.calls[number]);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
