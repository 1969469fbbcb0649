//! Histories that no sidecar gave: of a register that does what it has to, whose clients overlap much and are told little.

use coterie_workloads::chance::Chance;
use coterie_workloads::checkers::linearizability::{Answer, Call, Only, Operation};

/// Operations at most.
const OPERATIONS: usize = 12;
/// Under way at one time.
const CLIENTS: usize = 4;
/// How often something happens.
const STEPS: u64 = 60;

/// How far an operation is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Called,
    /// With the answer that its client has not been given.
    Applied(Answer),
    /// The client waits no more; the operation may be applied yet.
    Lost,
    Over,
}

/// A register, of which revisions rise as in a partition that has others too.
#[derive(Default)]
struct Register {
    held: Option<(u64, u64)>,
    revision: u64,
}

impl Register {
    fn apply(&mut self, call: Call, chance: &Chance) -> Answer {
        let (value, only) = match call {
            Call::Read => return Answer::Holds(self.held),
            Call::Write(value, only) => (Some(value), only),
            Call::Delete(only) => (None, only),
        };
        // Somebody else's change, at times.
        self.revision += 1 + chance.below(4) / 3;
        let previous = self.held.map_or(0, |(_, revision)| revision);
        let holds = match only {
            Only::Always => true,
            Only::IfAbsent => self.held.is_none(),
            Only::IfRevision(revision) => previous == revision,
        };
        if !holds {
            return Answer::Refused;
        }
        self.held = value.map(|value| (value, self.revision));
        Answer::Changed { revision: self.revision, previous }
    }
}

/// One of them, which is linearizable.
pub(super) fn history(chance: &Chance) -> Vec<Operation> {
    let (mut operations, mut progress) = (Vec::<Operation>::new(), Vec::<Progress>::new());
    let mut register = Register::default();
    for now in 1..=STEPS {
        let of = |wanted: fn(&Progress) -> bool| {
            let places = progress.iter().enumerate().filter(|(_, it)| wanted(it)).map(|(place, _)| place);
            let places: Vec<usize> = places.collect();
            (!places.is_empty()).then(|| chance.one_of(&places))
        };
        let under_way = progress.iter().filter(|it| matches!(it, Progress::Called | Progress::Applied(_))).count();
        match chance.below(8) {
            0..3 if under_way < CLIENTS && operations.len() < OPERATIONS => {
                let call = call(&register, now, chance);
                let (client, key) = (format!("c{}", operations.len()), "0-0".to_owned());
                operations.push(Operation { client, key, call, called: now, answered: None });
                progress.push(Progress::Called);
            }
            3..5 => {
                let Some(place) = of(|it| matches!(it, Progress::Called | Progress::Lost)) else { continue };
                let answer = register.apply(operations[place].call, chance);
                let is_lost = progress[place] == Progress::Lost;
                progress[place] = if is_lost { Progress::Over } else { Progress::Applied(answer) };
            }
            5 => {
                let Some(place) = of(|it| matches!(it, Progress::Called | Progress::Applied(_))) else { continue };
                let is_called = progress[place] == Progress::Called;
                progress[place] = if is_called { Progress::Lost } else { Progress::Over };
            }
            _ => {
                let Some(place) = of(|it| matches!(it, Progress::Applied(_))) else { continue };
                let Progress::Applied(answer) = progress[place] else { continue };
                operations[place].answered = Some((now, answer));
                progress[place] = Progress::Over;
            }
        }
    }
    operations
}

/// Anything that a client could ask now. The value is one that nobody else writes.
fn call(register: &Register, value: u64, chance: &Chance) -> Call {
    let only = match chance.below(4) {
        0 => Only::IfAbsent,
        1 => Only::IfRevision(1 + chance.below(register.revision + 2)),
        2 => Only::IfRevision(register.held.map_or(1, |(_, revision)| revision)),
        _ => Only::Always,
    };
    match chance.below(8) {
        0..2 => Call::Read,
        2..6 => Call::Write(value, only),
        _ => Call::Delete(if only == Only::IfAbsent { Only::Always } else { only }),
    }
}
