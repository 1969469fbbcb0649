//! Whether there is an order of the operations on one register in which each gives what it gave, and that no client could
//! tell from the order in which they were called and answered (Herlihy and Wing, 1990).
//!
//! The search is Wing and Gong's with Lowe's memory ("Testing for linearizability", 2017): it takes one operation after the
//! other that was called before the first answer that is left, and never looks twice at the same set of operations taken
//! with the same state. An operation whose outcome is unknown may come at any time after its call, or never.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

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
    why: String,
    operations: Vec<Operation>,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    value: Option<u64>,
    revision: u64,
}

struct Register<'a> {
    operations: &'a [Operation],
    /// The revision of each value, where somebody was told.
    revisions: BTreeMap<u64, u64>,
    /// All revisions of changes that somebody was told of.
    told: BTreeSet<u64>,
}

/// A call, or an answer, of the operation of this number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Call(usize),
    Answer(usize),
}

impl<'a> Register<'a> {
    fn new(operations: &'a [Operation]) -> Result<Self, String> {
        let (mut revisions, mut told) = (BTreeMap::new(), BTreeSet::new());
        for operation in operations {
            if let Some((_, Answer::Changed { revision, .. })) = operation.answered
                && !told.insert(revision)
            {
                return Err(format!("two changes have revision {revision}"));
            }
            let (value, revision) = match (operation.call, operation.answered) {
                (Call::Write(value, _), Some((_, Answer::Changed { revision, .. }))) => (value, revision),
                (Call::Read, Some((_, Answer::Holds(Some(held))))) => held,
                _ => continue,
            };
            let first = *revisions.entry(value).or_insert(revision);
            if first != revision {
                return Err(format!("value {value} was written at revision {first} and at {revision}"));
            }
        }
        told.extend(revisions.values());
        Ok(Self { operations, revisions, told })
    }

    /// What is held after an operation that found `state`; `None` if it cannot have found that.
    fn step(&self, state: State, operation: &Operation) -> Option<State> {
        // Where the revision of a value was never told, it is none of those that were, and not less than the state's.
        let is_at = |revision: u64| match state.value.map(|value| self.revisions.get(&value)) {
            None => Some(revision == 0),
            Some(Some(at)) => Some(*at == revision),
            Some(None) if revision < state.revision || self.told.contains(&revision) => Some(false),
            Some(None) => None,
        };
        let holds = |only| match only {
            Only::Always => Some(true),
            Only::IfAbsent => Some(state.value.is_none()),
            Only::IfRevision(revision) => is_at(revision),
        };
        let finds = |only, previous| match only {
            Only::Always => true,
            Only::IfAbsent => previous == 0,
            Only::IfRevision(revision) => previous == revision,
        };
        let changed = |only, value: Option<u64>| match operation.answered.map(|(_, answer)| answer) {
            Some(Answer::Changed { revision, previous }) => {
                let was = holds(only) != Some(false) && is_at(previous) != Some(false) && finds(only, previous);
                (was && revision > state.revision && revision > previous).then_some(State { value, revision })
            }
            Some(Answer::Refused) => (holds(only) != Some(true)).then_some(state),
            Some(Answer::Holds(_)) => None,
            None => {
                let told = value.and_then(|value| self.revisions.get(&value).copied());
                let rises = told.is_none_or(|revision| revision > state.revision);
                // A deletion of nothing may have none.
                let revision = told.unwrap_or(state.revision + u64::from(value.is_some()));
                (holds(only) != Some(false) && rises).then_some(State { value, revision })
            }
        };
        match operation.call {
            Call::Read => match operation.answered {
                Some((_, Answer::Holds(held))) => (held.map(|(value, _)| value) == state.value).then_some(state),
                Some((_, Answer::Changed { .. } | Answer::Refused)) | None => None,
            },
            Call::Write(value, only) => changed(only, Some(value)),
            Call::Delete(only) => changed(only, None),
        }
    }

    fn search(&self) -> Result<(), String> {
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
                return Err("too many operations overlap to decide it".to_owned());
            }
            match at.map(|place| (place, events[place])) {
                Some((place, Event::Call(number))) => {
                    let next = self.step(state, &self.operations[number]);
                    let taken_now = next.filter(|next| {
                        set[number / 64] |= 1 << (number % 64);
                        let is_new = seen.insert((set.clone(), *next));
                        if !is_new {
                            set[number / 64] &= !(1 << (number % 64));
                        }
                        is_new
                    });
                    match taken_now {
                        Some(next) => {
                            taken.push((number, state));
                            state = next;
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
                        return Err(format!(
                            "{explained} operations in, nothing explains {}",
                            what.unwrap_or_default()
                        ));
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

/// The events of operations that are not taken, in order: a list from which any can be taken and put back in the reverse
/// order.
struct Left {
    /// Of each event the next one, and the one before; the last place stands for both ends.
    next: Vec<usize>,
    before: Vec<usize>,
    /// Where each operation's call is, and its answer.
    calls: Vec<usize>,
    answers: Vec<Option<usize>>,
}

impl Left {
    fn new(events: &[Event], operations: usize) -> Self {
        let end = events.len();
        let next = (0..=end).map(|place| if place == end { 0 } else { place + 1 }).collect();
        let before = (0..=end).map(|place| if place == 0 { end } else { place - 1 }).collect();
        let (mut calls, mut answers) = (vec![0; operations], vec![None; operations]);
        for (place, event) in events.iter().enumerate() {
            match event {
                Event::Call(number) => calls[*number] = place,
                Event::Answer(number) => answers[*number] = Some(place),
            }
        }
        Self { next, before, calls, answers }
    }

    fn end(&self) -> usize {
        self.next.len() - 1
    }

    fn first(&self) -> Option<usize> {
        self.after(self.end())
    }

    fn after(&self, place: usize) -> Option<usize> {
        Some(self.next[place]).filter(|next| *next != self.end())
    }

    fn take(&mut self, number: usize) {
        for place in [Some(self.calls[number]), self.answers[number]].into_iter().flatten() {
            let (before, next) = (self.before[place], self.next[place]);
            self.next[before] = next;
            self.before[next] = before;
        }
    }

    fn put_back(&mut self, number: usize) {
        for place in [self.answers[number], Some(self.calls[number])].into_iter().flatten() {
            let (before, next) = (self.before[place], self.next[place]);
            self.next[before] = place;
            self.before[next] = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations by their calls and answers, in the order of time: `(client, call)` begins one, `(client, answer)` ends it.
    struct Told {
        operations: Vec<Operation>,
        now: u64,
    }

    impl Told {
        fn new() -> Self {
            Self { operations: Vec::new(), now: 0 }
        }

        fn call(mut self, client: &str, call: Call) -> Self {
            self.now += 1;
            let (client, key) = (client.to_owned(), "k".to_owned());
            self.operations.push(Operation { client, key, call, called: self.now, answered: None });
            self
        }

        fn answer(mut self, client: &str, answer: Answer) -> Self {
            self.now += 1;
            let of = |operation: &&mut Operation| operation.client == client && operation.answered.is_none();
            let operation = self.operations.iter_mut().rev().find(of).expect("it was called");
            operation.answered = Some((self.now, answer));
            self
        }

        /// Called and answered at once.
        fn done(self, client: &str, call: Call, answer: Answer) -> Self {
            self.call(client, call).answer(client, answer)
        }

        fn is_linearizable(&self) -> bool {
            check(&self.operations).is_ok()
        }
    }

    const fn put(value: u64) -> Call {
        Call::Write(value, Only::Always)
    }

    const fn changed(revision: u64, previous: u64) -> Answer {
        Answer::Changed { revision, previous }
    }

    const fn holds(value: u64, revision: u64) -> Answer {
        Answer::Holds(Some((value, revision)))
    }

    #[test]
    fn one_after_the_other_each_finds_what_the_one_before_left() {
        let told = Told::new()
            .done("a", Call::Read, Answer::Holds(None))
            .done("a", put(1), changed(10, 0))
            .done("b", Call::Read, holds(1, 10))
            .done("b", Call::Write(2, Only::IfRevision(10)), changed(11, 10))
            .done("a", Call::Write(3, Only::IfRevision(10)), Answer::Refused)
            .done("a", Call::Delete(Only::Always), changed(12, 11))
            .done("a", Call::Delete(Only::IfRevision(11)), Answer::Refused)
            .done("a", Call::Delete(Only::Always), changed(13, 0))
            .done("b", Call::Write(4, Only::IfAbsent), changed(14, 0));
        assert!(told.is_linearizable());
    }

    #[test]
    fn a_read_that_is_stale_is_found() {
        let told = Told::new().done("a", put(1), changed(10, 0)).done("a", put(2), changed(11, 10)).done(
            "b",
            Call::Read,
            holds(1, 10),
        );
        assert!(!told.is_linearizable());
        let said = check(&told.operations).expect_err("as above").to_string();
        assert!(said.starts_with("k is not linearizable: 2 operations in, nothing explains Read of b at 5"), "{said}");
    }

    #[test]
    fn a_write_that_was_acknowledged_and_is_gone_is_found() {
        let told = Told::new().done("a", put(1), changed(10, 0)).done("b", Call::Read, Answer::Holds(None));
        assert!(!told.is_linearizable());
    }

    #[test]
    fn what_overlaps_may_come_in_any_order_but_in_one() {
        let begun = || Told::new().call("a", put(1)).call("b", put(2));
        let both = |told: Told| told.answer("a", changed(10, 0)).answer("b", changed(11, 10));
        assert!(both(begun()).done("c", Call::Read, holds(2, 11)).is_linearizable());
        assert!(
            !both(begun()).done("c", Call::Read, holds(1, 10)).is_linearizable(),
            "the answers say which was first"
        );
        let told = begun().call("c", Call::Read).call("d", Call::Read);
        let told = told.answer("c", holds(2, 11)).answer("d", holds(1, 10));
        assert!(both(told).is_linearizable(), "one reads what is about to be overwritten");
    }

    #[test]
    fn what_is_not_known_may_have_happened_at_any_time_or_never() {
        let lost = || Told::new().done("a", put(1), changed(10, 0)).call("b", put(2));
        assert!(lost().done("c", Call::Read, holds(1, 10)).is_linearizable());
        assert!(lost().done("c", Call::Read, holds(1, 10)).done("c", Call::Read, holds(2, 12)).is_linearizable());
        let back = lost().done("c", Call::Read, holds(2, 12)).done("c", Call::Read, holds(1, 10));
        assert!(!back.is_linearizable(), "what has happened does not go away");
        let before = Told::new().done("c", Call::Read, holds(2, 12)).call("b", put(2));
        assert!(!before.is_linearizable(), "nothing happens before it is called");
    }

    #[test]
    fn a_condition_that_did_not_hold_and_was_taken_is_found() {
        let told = Told::new().done("a", put(1), changed(10, 0)).done("a", put(2), changed(11, 10)).done(
            "b",
            Call::Write(3, Only::IfRevision(10)),
            changed(12, 11),
        );
        assert!(!told.is_linearizable());
        let told =
            Told::new().done("a", put(1), changed(10, 0)).done("b", Call::Write(3, Only::IfAbsent), changed(12, 10));
        assert!(!told.is_linearizable());
    }

    #[test]
    fn a_condition_on_a_revision_that_was_overwritten_is_found_also_where_the_answer_was_lost() {
        let lost = || Told::new().done("a", put(1), changed(10, 0)).call("b", put(2));
        let overwritten = lost().done("c", Call::Write(3, Only::IfRevision(10)), Answer::Refused);
        assert!(overwritten.is_linearizable());
        assert!(!overwritten.done("d", Call::Write(4, Only::IfRevision(10)), changed(12, 10)).is_linearizable());
        let other = lost().done("c", Call::Write(3, Only::IfRevision(10)), changed(12, 11));
        assert!(!other.is_linearizable(), "it found another revision than it asked for");
        let there = Told::new().call("b", put(2)).done("c", Call::Write(3, Only::IfAbsent), Answer::Refused);
        assert!(there.is_linearizable());
        assert!(!there.done("d", put(4), changed(12, 0)).is_linearizable(), "something was there");
    }

    #[test]
    fn what_a_later_answer_says_of_the_revision_of_a_lost_write_has_to_fit_its_place() {
        let lost = || Told::new().done("a", put(1), changed(10, 0)).call("b", put(2));
        assert!(lost().done("c", put(3), changed(12, 11)).is_linearizable());
        assert!(!lost().done("c", put(3), changed(12, 9)).is_linearizable(), "it came after 10");
        assert!(!lost().done("c", put(3), changed(12, 13)).is_linearizable(), "it came before 12");
        assert!(!lost().done("c", put(3), changed(12, 12)).is_linearizable(), "12 is another's");
        let two = || lost().call("e", put(4));
        assert!(two().done("c", put(3), changed(12, 11)).is_linearizable(), "one of the two came later, or never");
        let both = two().done("r", Call::Read, holds(2, 11)).done("c", put(3), changed(13, 12));
        assert!(both.is_linearizable());
        let none_between = two().done("r", Call::Read, holds(2, 11)).done("c", put(3), changed(12, 10));
        assert!(!none_between.is_linearizable(), "what was read was not overwritten");
    }

    #[test]
    fn a_read_that_tells_the_revision_of_a_lost_write_places_it_among_the_others() {
        let lost = || Told::new().done("a", put(1), changed(10, 0)).call("b", put(2));
        assert!(lost().done("c", Call::Read, holds(2, 11)).done("a", put(3), changed(12, 11)).is_linearizable());
        assert!(!lost().done("c", Call::Read, holds(2, 9)).is_linearizable(), "it came after 10");
        let later = lost().done("c", Call::Read, holds(2, 13)).done("a", put(3), changed(12, 13));
        assert!(!later.is_linearizable(), "it came before 12");
        let other = lost().done("c", Call::Read, holds(2, 11)).done("a", put(3), changed(13, 12));
        assert!(!other.is_linearizable(), "it was said to be at 11");
    }

    #[test]
    fn revisions_that_do_not_rise_or_are_of_two_changes_are_found() {
        let told = Told::new().done("a", put(1), changed(10, 0)).done("a", put(2), changed(9, 10));
        assert!(!told.is_linearizable());
        let told = Told::new().done("a", put(1), changed(10, 0)).done("a", put(2), changed(10, 10));
        assert!(!told.is_linearizable());
    }

    #[test]
    fn a_change_that_was_made_twice_is_found() {
        let told = Told::new().done("a", put(1), changed(10, 0)).done("b", put(2), changed(11, 10)).done(
            "c",
            Call::Read,
            holds(1, 12),
        );
        let said = check(&told.operations).expect_err("it was applied again").to_string();
        assert!(said.contains("value 1 was written at revision 10 and at 12"), "{said}");
    }

    #[test]
    fn many_that_overlap_and_are_not_known_are_searched_in_little_time() {
        let mut told = Told::new();
        for round in 0..5 {
            for client in ["a", "b", "c"] {
                told = told.call(client, put(1_000 * round + u64::from(client.as_bytes()[0])));
            }
            let value = 1_000 * round + u64::from(b'b');
            told = told.done("r", Call::Read, holds(value, round + 1));
        }
        assert!(told.is_linearizable());
        let told = told.done("r", Call::Read, holds(77, 99));
        assert!(!told.is_linearizable(), "nobody has written it");
    }
}
