//! Which number of SPEC.md is shown by which test, read from the names of the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where tests are named by number.
const ROOTS: [&str; 6] = ["tests/conformance/tests", "client/rust", "cli", "sidecar", "operator", "tests/sim"];

/// A number: its letter (`S` or `D`) and its value.
type Number = (char, u32);

/// The numbers that this version is about, in the order of the specification.
fn expected() -> Vec<(&'static str, Vec<Number>)> {
    let range = |letter: char, numbers: std::ops::RangeInclusive<u32>| -> Vec<Number> {
        numbers.map(|number| (letter, number)).collect()
    };
    vec![
        ("Groups", range('S', 1..=20)),
        ("Leader election", range('S', 21..=40)),
        ("Partition groups", range('S', 78..=114)),
        ("Decisions", range('D', 1..=22)),
    ]
}

/// The repository, from this crate.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The whole page.
pub fn render(root: &Path) -> io::Result<String> {
    let mut shown: BTreeMap<Number, BTreeSet<String>> = BTreeMap::new();
    for part in ROOTS {
        for file in sources(&root.join(part))? {
            let place = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            for test in tests(&fs::read_to_string(&file)?) {
                for number in numbers(&test) {
                    shown.entry(number).or_default().insert(format!("`{test}` ({place})"));
                }
            }
        }
    }
    let mut page = String::from(HEAD);
    for (title, expected) in expected() {
        let _ = write!(page, "\n## {title}\n\n| number | shown by |\n|---|---|\n");
        for number in expected {
            let tests = shown
                .get(&number)
                .map_or("–".to_owned(), |tests| tests.iter().cloned().collect::<Vec<_>>().join("<br>"));
            let _ = writeln!(page, "| {}{} | {tests} |", number.0, number.1);
        }
    }
    Ok(page)
}

const HEAD: &str = "# Conformance: which number is shown by which test

Generated from the names of the tests: `UPDATE=1 cargo test -p coterie-conformance --test table`. Tests under
`tests/conformance/tests/wires` run twice, over gRPC and over HTTP; those of `partition_groups.rs`, and those of
`failures.rs` that are not about the Rust SDK, make their checks over both wires in one cluster. A dash: not shown by a test of its own in this version
(numbers of primary-backup groups, and documented limits).
";

/// All Rust files below a directory, in order; none if there is no such directory.
fn sources(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !directory.is_dir() {
        return Ok(files);
    }
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The names of functions that begin with a number.
fn tests(source: &str) -> Vec<String> {
    let names = source.lines().filter_map(|line| {
        let rest = line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?;
        rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next()
    });
    names.filter(|name| !numbers(name).is_empty()).map(str::to_owned).collect()
}

/// The numbers at the beginning of a name: `s8_s11_…` has two.
fn numbers(name: &str) -> Vec<Number> {
    let number = |word: &str| -> Option<Number> {
        let letter = word.chars().next().filter(|letter| matches!(letter, 's' | 'd'))?;
        Some((letter.to_ascii_uppercase(), word[1..].parse().ok()?))
    };
    name.split('_').map_while(number).collect()
}

#[cfg(test)]
mod table_tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_beginning_of_a_name() {
        assert_eq!(numbers("s8_d14_a_member_s9_leaves"), vec![('S', 8), ('D', 14)]);
        assert_eq!(numbers("several_things"), vec![]);
        assert_eq!(tests("    async fn s23_first<W: Wire>() {\n fn helper() {"), vec!["s23_first"]);
    }
}
