//! What was done with each register of a run, as a file that another checker reads: `tests/sim/porcupine` says of each
//! whether it is linearizable, and has to say what [`linearizability`] said.
//!
//! | history | is | why |
//! |---|---|---|
//! | seen | what clients of a run saw of one key | what the checker is for; nearly all of them are right |
//! | altered | one of those, and something in it is not what was seen | what two checkers of right histories never show |
//! | made up | a few operations that overlap much, half of them without an answer; most are altered too | what is rare in a run |
//!
//! A folder for each seed: one line of JSON for each operation, in files of one history, and `manifest.jsonl` with a line
//! for each file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use altered::Alteration;

use coterie_workloads::chance::Chance;
use coterie_workloads::checkers::linearizability::{self, Answer, Call, Only, Operation};

mod altered;
mod made_up;

/// How many histories are written besides those that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Amounts {
    /// Altered ones, of each that was seen.
    altered: u64,
    /// Made up ones, of each seed.
    made_up: u64,
}

const AMOUNTS: Amounts = Amounts { altered: 20, made_up: 300 };

/// The file that names all others of this seed.
pub fn manifest(folder: &Path, seed: u64) -> PathBuf {
    of_seed(folder, seed).join("manifest.jsonl")
}

fn of_seed(folder: &Path, seed: u64) -> PathBuf {
    folder.join(format!("seed-{seed}"))
}

/// Writes the history of every register, and those that are made of them, to a folder of this seed.
///
/// # Errors
/// Of the file system.
pub fn write(folder: &Path, seed: u64, operations: &[Operation]) -> io::Result<()> {
    let (manifest, folder) = (manifest(folder, seed), of_seed(folder, seed));
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => fs::create_dir_all(&folder)?,
    }
    let mut lines = String::new();
    for (name, History { kind, alterations, operations }) in histories(seed, operations, AMOUNTS) {
        let file = format!("{name}.jsonl");
        fs::write(folder.join(&file), operations.iter().map(line).collect::<String>())?;
        let alterations: Vec<String> = alterations.iter().map(|it| format!("\"{it:?}\"")).collect();
        let (verdict, why) = verdict(&operations);
        writeln!(
            lines,
            r#"{{"file":"{file}","history":"{kind}","alterations":[{}],"verdict":"{verdict}","why":{why:?}}}"#,
            alterations.join(",")
        )
        .expect("writing to a string cannot fail");
    }
    fs::write(manifest, lines)
}

struct History {
    kind: &'static str,
    alterations: Vec<Alteration>,
    operations: Vec<Operation>,
}

/// All histories of a seed, by the names of their files.
fn histories(seed: u64, operations: &[Operation], amounts: Amounts) -> Vec<(String, History)> {
    let mut histories = Vec::new();
    let keys: BTreeSet<&str> = operations.iter().map(|operation| operation.key.as_str()).collect();
    for key in keys {
        let seen: Vec<Operation> = operations.iter().filter(|operation| operation.key == key).cloned().collect();
        for number in 0..amounts.altered {
            let name = format!("{key}-altered-{number}");
            let (alterations, operations) = altered::some(&seen, number, &Chance::of(seed, &name));
            if !alterations.is_empty() {
                histories.push((name, History { kind: "altered", alterations, operations }));
            }
        }
        histories.push((key.to_owned(), History { kind: "seen", alterations: Vec::new(), operations: seen }));
    }
    for number in 0..amounts.made_up {
        let name = format!("made-up-{number}");
        let chance = Chance::of(seed, &name);
        let made_up = made_up::history(&chance);
        let (alterations, operations) = match number % 4 {
            0 => (Vec::new(), made_up),
            _ => altered::some(&made_up, chance.number(), &chance),
        };
        histories.push((name, History { kind: "made up", alterations, operations }));
    }
    histories
}

/// What this checker says of a history of one register, and why.
fn verdict(operations: &[Operation]) -> (&'static str, String) {
    match linearizability::check(operations) {
        Ok(()) => ("linearizable", String::new()),
        Err(violation) if violation.is_undecided() => ("undecided", violation.why()),
        Err(violation) => ("not linearizable", violation.why()),
    }
}

/// An operation, as a line of JSON. No name or key has a character that JSON would have escaped.
fn line(operation: &Operation) -> String {
    let Operation { client, key, call, called, answered } = operation;
    let condition = |only: &Only| match only {
        Only::Always => String::new(),
        Only::IfAbsent => r#","if_absent":true"#.to_owned(),
        Only::IfRevision(revision) => format!(r#","if_revision":{revision}"#),
    };
    let call = match call {
        Call::Read => r#""call":"read""#.to_owned(),
        Call::Write(value, only) => format!(r#""call":"write","value":{value}{}"#, condition(only)),
        Call::Delete(only) => format!(r#""call":"delete"{}"#, condition(only)),
    };
    let answered = answered.map_or_else(String::new, |(at, answer)| {
        let answer = match answer {
            Answer::Holds(None) => r#""answer":"nothing""#.to_owned(),
            Answer::Holds(Some((value, revision))) => {
                format!(r#""answer":"holds","held":{value},"revision":{revision}"#)
            }
            Answer::Changed { revision, previous } => {
                format!(r#""answer":"changed","revision":{revision},"previous":{previous}"#)
            }
            Answer::Refused => r#""answer":"refused""#.to_owned(),
        };
        format!(r#","answered":{at},{answer}"#)
    });
    format!("{{\"client\":\"{client}\",\"key\":\"{key}\",\"called\":{called},{call}{answered}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(call: Call, answered: Option<(u64, Answer)>) -> Operation {
        Operation { client: "a.1".to_owned(), key: "0-1".to_owned(), call, called: 3, answered }
    }

    #[test]
    fn a_line_says_all_of_an_operation() {
        let check = |call, answered, expected: &str| {
            let line = line(&operation(call, answered));
            assert_eq!(line, format!("{{\"client\":\"a.1\",\"key\":\"0-1\",\"called\":3,{expected}}}\n"));
        };
        check(Call::Read, None, r#""call":"read""#);
        check(Call::Read, Some((4, Answer::Holds(None))), r#""call":"read","answered":4,"answer":"nothing""#);
        let held = Answer::Holds(Some((5, 6)));
        check(Call::Read, Some((4, held)), r#""call":"read","answered":4,"answer":"holds","held":5,"revision":6"#);
        let changed = Answer::Changed { revision: 9, previous: 0 };
        check(
            Call::Write(7, Only::IfAbsent),
            Some((4, changed)),
            r#""call":"write","value":7,"if_absent":true,"answered":4,"answer":"changed","revision":9,"previous":0"#,
        );
        check(
            Call::Delete(Only::IfRevision(8)),
            Some((4, Answer::Refused)),
            r#""call":"delete","if_revision":8,"answered":4,"answer":"refused""#,
        );
    }

    #[test]
    fn histories_of_a_seed_are_always_the_same_and_of_each_verdict() {
        let made = (0..20).map(|number| made_up::history(&Chance::of(number, "made")));
        let operations: Vec<Operation> = made
            .enumerate()
            .flat_map(|(number, made)| made.into_iter().map(move |it| Operation { key: format!("0-{number}"), ..it }))
            .collect();
        let of = |seed| {
            let made = histories(seed, &operations, Amounts { altered: 20, made_up: 40 });
            made.into_iter().map(|(name, it)| (name, it.operations)).collect::<Vec<_>>()
        };
        let of_7 = of(7);
        assert!(of_7 == of(7) && of_7 != of(8));
        for (name, operations) in &of_7 {
            if !name.contains("altered") && !name.contains("made-up") {
                assert_eq!(verdict(operations), ("linearizable", String::new()), "{name}");
            }
        }
        for expected in ["linearizable", "not linearizable"] {
            let count = of_7.iter().filter(|(_, operations)| verdict(operations).0 == expected).count();
            assert!(count > 100, "{count} of {} are {expected}", of_7.len());
        }
    }
}
