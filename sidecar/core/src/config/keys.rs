//! Every key that a file may have, and which one was meant by one that it may not.

/// The tables of the file form: the path of each (`<name>` stands for any) and its keys. The reader refuses every other
/// key, and `docs/configuration.md` documents each of these.
pub const TABLES: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "cluster",
            "management-group",
            "partition-groups",
            "profiles",
            "default-partition-group",
            "data-directory",
            "api",
            "health",
            "peer",
            "security",
            "timing",
            "session-timeout-ms",
            "application",
        ],
    ),
    ("cluster", &["name", "local-member", "members"]),
    ("cluster.local-member", &["name", "zone"]),
    ("cluster.members.<name>", &["type", "address", "zone"]),
    ("management-group", &["type", "name", "partitions", "members"]),
    ("partition-groups.<name>", &["type", "partitions", "members"]),
    ("api", &["port", "socket", "address"]),
    ("health", &["address", "port"]),
    ("peer", &["bind"]),
    ("security", &["ca", "certificate", "key", "plaintext"]),
    ("application", &["group", "partition-group", "probe", "interval-ms", "failures", "metadata"]),
    ("application.probe", &["http", "tcp", "socket"]),
];

/// The keys of the table with this path in [`TABLES`].
pub(super) fn of(pattern: &str) -> &'static [&'static str] {
    TABLES.iter().find(|(path, _)| *path == pattern).expect("the reader asks for tables of this list only").1
}

/// The one of `known` that was probably meant by `word`, if one is near.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace(['_', ' '], "-");
    let limit = (word.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What would be right instead of `word`: the nearest of `known`, or all of them.
pub(super) fn instead_of(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("use {}", choice(known)),
    }
}

/// "`a`", "`a` or `b`", "`a`, `b` or `c`".
pub(super) fn choice(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// How many insertions, deletions and replacements of one character lie between two words (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
