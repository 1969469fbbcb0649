//! `docs/errors.md` against `sidecar/core/src/code.rs`.

use crate::root;

/// A code as the table in `code.rs` has it.
#[derive(Debug, PartialEq, Eq)]
struct Code {
    label: String,
    grpc: String,
    http: String,
    retry: String,
}

/// The names of gRPC's codes (google.rpc.Code), by number.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// The lines `Name = "label", grpc, http, Retry;`.
fn codes() -> Vec<Code> {
    let text = read("sidecar/core/src/code.rs");
    let (_, table) = text.split_once("\ncodes! {").expect("code.rs has the table `codes!`");
    let mut codes = Vec::new();
    for line in table.lines().map(str::trim).filter(|line| line.contains(" = \"")) {
        let (_, values) = line.trim_end_matches(';').split_once(" = ").expect("a name and its values");
        let values: Vec<&str> = values.split(", ").collect();
        let [label, grpc, http, retry] = values.as_slice() else { panic!("label, gRPC, HTTP and retry: {line}") };
        let number: usize = grpc.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        codes.push(Code {
            label: label.trim_matches('"').to_owned(),
            grpc: format!("{} ({number})", GRPC[number]),
            http: (*http).to_owned(),
            retry: retry.to_ascii_lowercase(),
        });
    }
    codes
}

/// The sections of the page: the label of each and its text.
fn sections(page: &str) -> Vec<(&str, &str)> {
    page.split("\n## `").skip(1).map(|section| section.split_once("`\n").expect("a heading is one label")).collect()
}

#[test]
fn every_code_has_its_section_in_the_same_order() {
    let page = read("docs/errors.md");
    let documented: Vec<&str> = sections(&page).iter().map(|(label, _)| *label).collect();
    let codes = codes();
    let defined: Vec<&str> = codes.iter().map(|code| code.label.as_str()).collect();
    assert!(defined.len() > 20, "the table of codes is not read: {defined:?}");
    assert_eq!(documented, defined);
}

#[test]
fn every_section_says_the_codes_status_and_advice() {
    let page = read("docs/errors.md");
    for (code, (label, section)) in codes().iter().zip(sections(&page)) {
        let row = format!("| {} | {} | {} |", code.grpc, code.http, code.retry);
        assert!(section.contains(&row), "{label}: the section has no row `{row}`");
        let (meaning, advice) = section.split_once("**What to do:**").unwrap_or_else(|| panic!("{label}: what to do?"));
        let meaning = meaning.lines().filter(|line| !line.is_empty() && !line.starts_with('|')).count();
        assert!(meaning > 0 && advice.trim().len() > 20, "{label}: say what it means and what to do");
    }
}
