//! What every file of the repository keeps to.

use crate::{Source, sources};

/// The longest a Rust file may be without its tests. A longer one has more than one subject.
const LINES_MAX: usize = 600;

/// Files that may be longer, each with the reason.
const MAY_BE_LONGER: &[(&str, &str)] = &[];

/// What marks something unfinished. Written apart, so that this file has none of them.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("#[ig", "nore"),
];

/// Calls that only let time pass.
const SLEEPS: &[&str] = &[concat!("thread::", "sleep("), concat!("time::", "sleep(")];

/// Marks the pauses that a test may make, on their line or the one before: of a loop that waits for a condition, and of a
/// stand-in that plays something slow (a lost message, the pace of a load).
const PAUSES: &[&str] = &["// waits for a condition", "// plays "];

/// Where time itself is simulated, so that sleeping costs nothing and races with nothing.
const SIMULATED: &str = "tests/sim/";

/// Homes and workspaces of single machines.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// How many lines of a file are product code: all before its inline tests.
fn product_lines(source: &Source) -> usize {
    let lines: Vec<&str> = source.text.lines().collect();
    let inline_tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with("{"));
    inline_tests.unwrap_or(lines.len())
}

fn refuse(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_stay_short() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust() && !source.is_test()) {
        let lines = product_lines(source);
        let excused = MAY_BE_LONGER.iter().any(|(path, _)| *path == source.path);
        match (lines > LINES_MAX, excused) {
            (true, false) => wrong.push(format!(
                "{} has {lines} lines, more than {LINES_MAX}: give its subjects files of their own",
                source.path
            )),
            (false, true) => wrong.push(format!("{} is short enough now: take it off the list", source.path)),
            (true, true) | (false, false) => {}
        }
    }
    refuse(&wrong);
}

#[test]
fn nothing_unfinished_lands() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust()) {
        for (number, line) in source.lines() {
            for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
                wrong.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    refuse(&wrong);
}

/// Whether `line` has `word` and not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let after = line[at + word.len()..].chars().next();
        let open_ended = word.ends_with(|c| !is_letter(c)) || word.starts_with('#');
        !line[..at].ends_with(is_letter) && (open_ended || !after.is_some_and(is_letter))
    })
}

#[test]
fn no_test_sleeps() {
    let mut wrong = Vec::new();
    let real = |source: &&Source| source.is_rust() && source.is_test() && !source.path.starts_with(SIMULATED);
    for source in sources().iter().filter(real) {
        let mut before = "";
        for (number, line) in source.lines() {
            let sleeps = SLEEPS.iter().any(|call| line.contains(call));
            if sleeps && !PAUSES.iter().any(|mark| line.contains(mark) || before.contains(mark)) {
                wrong.push(format!(
                    "{}:{number}: a test waits for what it needs, and marks the pause: {PAUSES:?}",
                    source.path
                ));
            }
            before = line;
        }
    }
    refuse(&wrong);
}

#[test]
fn no_file_knows_somebodys_machine() {
    let mut wrong = Vec::new();
    for source in &sources() {
        for (number, line) in source.lines() {
            for path in MACHINE_PATHS.iter().filter(|path| has_absolute(line, path)) {
                wrong.push(format!("{}:{number}: {path}", source.path));
            }
        }
    }
    refuse(&wrong);
}

/// Whether `line` has `path` as the beginning of an absolute path.
fn has_absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/}>".contains(c)))
}

#[test]
fn the_checks_find_what_they_look_for() {
    let unfinished = concat!("    // TO", "DO: later");
    assert!(has_word(unfinished, UNFINISHED[0]));
    assert!(!has_word("MASTODON", UNFINISHED[0]));
    assert!(has_word(concat!("    to", "do!(\"later\")"), UNFINISHED[3]));
    assert!(has_word(concat!("#[ig", "nore = \"slow\"]"), UNFINISHED[5]));
    assert!(has_absolute(concat!("\"/wo", "rk/x\""), MACHINE_PATHS[0]));
    assert!(!has_absolute(concat!("examples/wo", "rk/x"), MACHINE_PATHS[0]));
    let source = Source { path: "a/src/b.rs".to_owned(), text: "fn a() {}\n#[cfg(test)]\nmod tests {\n}\n".to_owned() };
    assert_eq!(product_lines(&source), 1);
    assert!(!source.is_test());
    assert!(Source { path: "tests/a.rs".to_owned(), text: String::new() }.is_test());
}
