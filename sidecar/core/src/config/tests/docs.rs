//! The page about the configuration says everything that the parser knows.

use super::super::{
    CLUSTER_NAME_DEFAULT, Config, Overrides, PARTITIONS_DEFAULT, PROBE_FAILURES_DEFAULT, PROBE_INTERVAL_MS_DEFAULT,
    TABLES,
};
use crate::limits;

const PAGE: &str = include_str!("../../../../../docs/configuration.md");

#[test]
fn every_key_has_its_row() {
    for (table, keys) in TABLES {
        for key in *keys {
            let path = if table.is_empty() { (*key).to_owned() } else { format!("{table}.{key}") };
            let is_table = TABLES.iter().any(|(table, _)| *table == path || table.starts_with(&format!("{path}.<")));
            let row = if is_table { format!("`{path}`") } else { format!("| `{path}` |") };
            assert!(PAGE.contains(&row), "docs/configuration.md has no {row}");
        }
    }
}

#[test]
fn every_row_has_its_key() {
    // Rows of keys have five columns.
    let rows = PAGE.lines().filter(|line| line.matches(" |").count() == 5);
    for (path, _) in rows.filter_map(|line| line.strip_prefix("| `")?.split_once("` |")) {
        let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
        let known = TABLES.iter().any(|(known, keys)| *known == table && keys.contains(&key));
        assert!(known, "docs/configuration.md documents `{path}`, which the parser does not know");
    }
}

#[test]
fn its_defaults_and_bounds_are_those_of_the_code() {
    let row = |path: &str| {
        PAGE.lines()
            .find(|line| line.starts_with(&format!("| `{path}` |")))
            .unwrap_or_else(|| panic!("no row for {path}"))
    };
    for (path, number) in [
        ("partition-groups.<name>.partitions", u64::from(PARTITIONS_DEFAULT)),
        ("partition-groups.<name>.partitions", u64::from(limits::PARTITIONS_MAX)),
        ("session-timeout-ms", limits::SESSION_TTL_MS_DEFAULT),
        ("session-timeout-ms", limits::SESSION_TTL_MS_MIN),
        ("session-timeout-ms", limits::SESSION_TTL_MS_MAX),
        ("application.interval-ms", PROBE_INTERVAL_MS_DEFAULT),
        ("application.failures", u64::from(PROBE_FAILURES_DEFAULT)),
    ] {
        assert!(row(path).contains(&format!(" {number}")), "{path}: {number} is not in {}", row(path));
    }
    assert!(row("cluster.name").contains(CLUSTER_NAME_DEFAULT));
}

#[test]
fn its_examples_are_accepted() {
    let mut examples = 0;
    for block in PAGE.split("```yaml\n").skip(1) {
        let (yaml, _) = block.split_once("```").expect("a block that ends");
        // A part of a file stands on a whole one.
        if yaml.contains("\n  local-member:") {
            examples += 1;
            if let Err(error) = Config::from_yaml(yaml, &Overrides::default()) {
                panic!("{error}\n\n{yaml}");
            }
        }
    }
    assert!(examples >= 3, "{examples} examples");
}
