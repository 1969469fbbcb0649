//! Histories in which something is not what was seen. Most are not linearizable; all could have been told by clients.

use std::collections::BTreeSet;

use coterie_workloads::chance::Chance;
use coterie_workloads::checkers::linearizability::{Answer, Call, Only, Operation};

/// What is not what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alteration {
    /// Two operations of one kind have each other's answer.
    AnswersSwapped,
    /// A read has another value, which was written too.
    ValueChanged,
    /// An answer has another revision.
    RevisionChanged,
    /// A change has another revision before it.
    PreviousChanged,
    /// A change was refused.
    ChangeRefused,
    /// What was refused was done.
    RefusalChanged,
    /// A read has the answer of another, later or earlier.
    ReadRepeated,
    /// An answer came sooner.
    AnswerEarlier,
    /// A call was made later.
    CallLater,
    /// A call was made under another condition.
    ConditionChanged,
    /// An acknowledged change was not made.
    ChangeDropped,
    /// What is not known was answered.
    AnswerInvented,
    /// An answer is not known. What was linearizable is so without it.
    AnswerLost,
}

impl Alteration {
    const ALL: [Self; 13] = [
        Self::AnswersSwapped,
        Self::ValueChanged,
        Self::RevisionChanged,
        Self::PreviousChanged,
        Self::ChangeRefused,
        Self::RefusalChanged,
        Self::ReadRepeated,
        Self::AnswerEarlier,
        Self::CallLater,
        Self::ConditionChanged,
        Self::ChangeDropped,
        Self::AnswerInvented,
        Self::AnswerLost,
    ];
}

/// How many answers of a history are lost at most before it is altered.
const LOST_MAX: u64 = 3;

/// A history with some alterations, one of which this number decides, and which they are: none if there is nothing to alter.
pub(super) fn some(history: &[Operation], number: u64, chance: &Chance) -> (Vec<Alteration>, Vec<Operation>) {
    let all = Alteration::ALL;
    let mut altered = history.to_vec();
    let mut alterations = Vec::new();
    let mut wanted = vec![Alteration::AnswerLost; usize::try_from(chance.below(LOST_MAX + 1)).expect("few")];
    let first = usize::try_from(number % all.len() as u64).expect("there are few");
    // The first that can be made.
    wanted.extend(all.iter().cycle().skip(first).take(all.len()).find(|it| one(history, **it, chance).is_some()));
    if chance.below(4) == 0 {
        wanted.push(chance.one_of(&all));
    }
    for alteration in wanted {
        if let Some(next) = one(&altered, alteration, chance) {
            altered = next;
            alterations.push(alteration);
        }
    }
    (alterations, altered)
}

/// A history with one alteration; `None` if nothing in it can be altered so.
fn one(history: &[Operation], alteration: Alteration, chance: &Chance) -> Option<Vec<Operation>> {
    let mut spread = history.to_vec();
    // Between any two places there is a free one, for what is moved.
    for operation in &mut spread {
        operation.called *= 2;
        operation.answered.iter_mut().for_each(|(at, _)| *at *= 2);
    }
    let mut altered = spread.clone();
    let place = any(&spread, chance, |it| may_have(alteration, it))?;
    let operation = &mut altered[place];
    match alteration {
        Alteration::AnswersSwapped => {
            let kind = |it: &Operation| (it.call == Call::Read, matches!(answer(it), Some(Answer::Changed { .. })));
            let (first, of_first) = (kind(operation), answer(operation));
            let is_like = |it: &Operation| answer(it).is_some() && answer(it) != of_first && kind(it) == first;
            let other = any(&spread, chance, is_like)?;
            set(&mut altered[place], answer(&spread[other]));
            set(&mut altered[other], of_first);
        }
        Alteration::ReadRepeated => set(operation, answer(&spread[any(&spread, chance, is_read)?])),
        Alteration::ChangeRefused => set(operation, Some(Answer::Refused)),
        Alteration::ValueChanged
        | Alteration::RevisionChanged
        | Alteration::PreviousChanged
        | Alteration::RefusalChanged => set(operation, Some(other_answer(operation, alteration, &spread, chance)?)),
        Alteration::AnswerEarlier => {
            let at = between(operation.called, operation.answered?.0, chance);
            operation.answered.iter_mut().for_each(|(answered, _)| *answered = at);
        }
        Alteration::CallLater => operation.called = between(operation.called, operation.answered?.0, chance),
        Alteration::ConditionChanged => operation.call = other_condition(operation.call, &spread, chance)?,
        Alteration::ChangeDropped => drop(altered.remove(place)),
        Alteration::AnswerInvented => {
            let last = spread.iter().map(|it| it.answered.map_or(it.called, |(at, _)| at)).max()?.max(operation.called);
            let at = between(operation.called, last + 2, chance);
            operation.answered = Some((at, invented(operation.call, &spread, chance)));
        }
        Alteration::AnswerLost => operation.answered = None,
    }
    (altered != spread).then_some(altered)
}

/// Whether this operation can be altered so.
fn may_have(alteration: Alteration, it: &Operation) -> bool {
    let is_changed = matches!(answer(it), Some(Answer::Changed { .. }));
    let is_held = matches!(answer(it), Some(Answer::Holds(Some(_))));
    match alteration {
        Alteration::AnswersSwapped | Alteration::AnswerEarlier | Alteration::CallLater => it.answered.is_some(),
        Alteration::ValueChanged => is_held,
        Alteration::RevisionChanged => is_held || is_changed,
        Alteration::PreviousChanged | Alteration::ChangeRefused | Alteration::ChangeDropped => is_changed,
        Alteration::RefusalChanged => answer(it) == Some(Answer::Refused),
        Alteration::ReadRepeated => is_read(it),
        Alteration::ConditionChanged => it.call != Call::Read,
        Alteration::AnswerInvented => it.answered.is_none(),
        Alteration::AnswerLost => it.call != Call::Read && it.answered.is_some(),
    }
}

/// What this operation was not answered.
fn other_answer(of: &Operation, alteration: Alteration, history: &[Operation], chance: &Chance) -> Option<Answer> {
    let revisions = Revisions::of(history, chance);
    match (alteration, answer(of)?) {
        (Alteration::ValueChanged, Answer::Holds(Some((_, revision)))) => {
            let written = any(history, chance, |it| matches!(it.call, Call::Write(..)))?;
            let Call::Write(value, _) = history[written].call else { return None };
            Some(Answer::Holds(Some((value, revision))))
        }
        (_, Answer::Holds(held)) => Some(Answer::Holds(held.map(|(value, at)| (value, revisions.near(at))))),
        (Alteration::PreviousChanged, Answer::Changed { revision, .. }) if chance.below(4) == 0 => {
            Some(Answer::Changed { revision, previous: 0 })
        }
        (Alteration::PreviousChanged, Answer::Changed { revision, previous }) => {
            Some(Answer::Changed { revision, previous: revisions.near(previous) })
        }
        (_, Answer::Changed { revision, previous }) => {
            Some(Answer::Changed { revision: revisions.near(revision), previous })
        }
        (_, Answer::Refused) => Some(revisions.changed(of.call)),
    }
}

/// The same call under any condition.
fn other_condition(call: Call, history: &[Operation], chance: &Chance) -> Option<Call> {
    let is_write = matches!(call, Call::Write(..));
    let only = match chance.below(3) {
        0 => Only::Always,
        1 if is_write => Only::IfAbsent,
        _ => Only::IfRevision(Revisions::of(history, chance).any()?),
    };
    match call {
        Call::Write(value, _) => Some(Call::Write(value, only)),
        Call::Delete(_) => Some(Call::Delete(only)),
        Call::Read => None,
    }
}

/// What this call could have been answered.
fn invented(call: Call, history: &[Operation], chance: &Chance) -> Answer {
    let is_unconditional = matches!(call, Call::Write(_, Only::Always) | Call::Delete(Only::Always));
    match call {
        Call::Read => Answer::Holds(None),
        Call::Write(..) | Call::Delete(_) if is_unconditional || chance.below(3) > 0 => {
            Revisions::of(history, chance).changed(call)
        }
        Call::Write(..) | Call::Delete(_) => Answer::Refused,
    }
}

/// The place of one of these operations.
fn any(history: &[Operation], chance: &Chance, wanted: impl Fn(&Operation) -> bool) -> Option<usize> {
    let places = history.iter().enumerate().filter(|(_, it)| wanted(it)).map(|(place, _)| place);
    let places: Vec<usize> = places.collect();
    (!places.is_empty()).then(|| chance.one_of(&places))
}

fn answer(operation: &Operation) -> Option<Answer> {
    operation.answered.map(|(_, answer)| answer)
}

fn is_read(operation: &Operation) -> bool {
    matches!(answer(operation), Some(Answer::Holds(_)))
}

fn set(operation: &mut Operation, answer: Option<Answer>) {
    if let (Some((_, old)), Some(new)) = (operation.answered.as_mut(), answer) {
        *old = new;
    }
}

/// A free place between two that are not.
fn between(before: u64, after: u64, chance: &Chance) -> u64 {
    before + 1 + 2 * chance.below((after - before) / 2)
}

/// The revisions that a history speaks of.
struct Revisions<'a> {
    told: Vec<u64>,
    chance: &'a Chance,
}

impl<'a> Revisions<'a> {
    fn of(history: &[Operation], chance: &'a Chance) -> Self {
        let told: BTreeSet<u64> = history
            .iter()
            .flat_map(|operation| match (operation.call, operation.answered.map(|(_, answer)| answer)) {
                (_, Some(Answer::Changed { revision, previous })) => [revision, previous],
                (_, Some(Answer::Holds(Some((_, revision))))) => [revision, 0],
                (Call::Write(_, Only::IfRevision(revision)) | Call::Delete(Only::IfRevision(revision)), _) => {
                    [revision, 0]
                }
                (_, Some(Answer::Holds(None) | Answer::Refused) | None) => [0, 0],
            })
            .filter(|revision| *revision > 0)
            .collect();
        Self { told: told.into_iter().collect(), chance }
    }

    fn any(&self) -> Option<u64> {
        (!self.told.is_empty()).then(|| self.chance.one_of(&self.told))
    }

    /// Another one, mostly near.
    fn near(&self, revision: u64) -> u64 {
        match self.chance.below(3) {
            0 => self.any().unwrap_or(1),
            1 => revision + 1 + self.chance.below(2),
            _ => revision.saturating_sub(1 + self.chance.below(2)).max(1),
        }
    }

    /// That a call was done, at some revision, in place of what it asked for.
    fn changed(&self, call: Call) -> Answer {
        let previous = match call {
            Call::Write(_, Only::IfRevision(revision)) | Call::Delete(Only::IfRevision(revision)) => revision,
            Call::Write(_, Only::IfAbsent) | Call::Delete(Only::IfAbsent) => 0,
            Call::Write(_, Only::Always) | Call::Delete(Only::Always) | Call::Read => self.any().unwrap_or_default(),
        };
        Answer::Changed { revision: self.near(self.any().unwrap_or(1).max(previous)), previous }
    }
}
