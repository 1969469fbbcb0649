//! Arrows point inward: shells know cores, cores know nobody; `crds` and `proto` know no client and no runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Which packages of the workspace each package may use. `sidecar/core` stands here for the operator and the command line
/// because the one typed builder of configurations lives in it (D21).
const ALLOWED: &[(&str, &[&str])] = &[
    ("coterie-proto", &[]),
    ("coterie-crds", &[]),
    ("coterie-operator-core", &["coterie-crds", "coterie-core"]),
    ("coterie-operator", &["coterie-operator-core", "coterie-crds", "coterie-proto"]),
    ("coterie-core", &["coterie-mutants"]),
    ("coterie-mutants", &[]),
    ("coterie-env", &[]),
    ("coterie-store", &["coterie-env", "coterie-mutants"]),
    ("coterie-replication", &["coterie-core", "coterie-env", "coterie-mutants", "coterie-store"]),
    ("base2histogram", &[]),
    (
        "coterie-sidecar",
        &["coterie-core", "coterie-env", "coterie-mutants", "coterie-store", "coterie-replication", "coterie-proto"],
    ),
    ("coterie-client", &["coterie-proto"]),
    ("coterie-cli", &["coterie-client", "coterie-core", "coterie-proto"]),
    ("coterie-example-worker", &["coterie-client"]),
    ("coterie-demo", &["coterie-client", "coterie-cli"]),
    ("coterie-conformance", &["coterie-client", "coterie-cli", "coterie-core", "coterie-proto"]),
    ("coterie-bench", &["coterie-cli", "coterie-core", "coterie-proto"]),
    ("coterie-workloads", &["coterie-client", "coterie-env", "coterie-proto"]),
    ("coterie-processes", &["coterie-cli", "coterie-client", "coterie-workloads"]),
    // It compares what one promises with what the other needs.
    ("coterie-tidy", &["coterie-crds", "coterie-store"]),
    ("coterie-e2e", &["coterie-workloads"]),
];

/// Packages that decide without a clock, chance, I/O or a runtime.
const CORES: &[&str] = &["coterie-core", "coterie-operator-core"];

/// What a core must not be built on: runtimes, I/O and sources of chance. (`jiff` is there for its type of a time; that
/// nobody asks it for the present one is clippy's to watch, see the cores' `clippy.toml`.)
const NOT_IN_A_CORE: &[&str] = &[
    "async-std",
    "fastrand",
    "futures",
    "getrandom",
    "mio",
    "rand",
    "reqwest",
    "rustix",
    "smol",
    "tempfile",
    "tokio",
    "tokio-util",
    "tonic",
    "tracing-subscriber",
    "uuid",
];

struct Dependency {
    name: String,
    /// `normal`, `build` or `dev`.
    kind: String,
}

fn packages() -> BTreeMap<String, Vec<Dependency>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(crate::root())
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let text = |value: &Value| value.as_str().expect("a name is a text").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let dependency = |value: &Value| Dependency {
        name: text(&value["name"]),
        kind: value["kind"].as_str().unwrap_or("normal").to_owned(),
    };
    list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["name"]), list(&package["dependencies"]).iter().map(dependency).collect()))
        .collect()
}

#[test]
fn every_arrow_points_inward() {
    let packages = packages();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for (package, dependencies) in &packages {
        let Some(allowed) = allowed.get(package.as_str()) else {
            wrong.push(format!("{package} is not in the table of arrows: say which packages it may use"));
            continue;
        };
        for Dependency { name, kind } in dependencies {
            if packages.contains_key(name) && name != package && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{package} must not use {name} ({kind})"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_of_arrows_names_no_package_that_is_gone() {
    let packages = packages();
    let known = ALLOWED.iter().flat_map(|(package, allowed)| allowed.iter().chain([package]));
    let gone: BTreeSet<&str> = known.copied().filter(|name| !packages.contains_key(*name)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

#[test]
fn the_table_of_arrows_has_no_circle() {
    let mut rest: BTreeMap<&str, BTreeSet<&str>> =
        ALLOWED.iter().map(|(package, allowed)| (*package, allowed.iter().copied().collect())).collect();
    while !rest.is_empty() {
        let inner: Vec<&str> = rest.iter().filter(|(_, uses)| uses.is_empty()).map(|(package, _)| *package).collect();
        assert!(!inner.is_empty(), "these use each other: {rest:?}");
        for package in inner {
            rest.remove(package);
            rest.values_mut().for_each(|uses| _ = uses.remove(package));
        }
    }
}

#[test]
fn the_cores_are_built_on_no_runtime_io_or_chance() {
    let packages = packages();
    for core in CORES {
        for Dependency { name, kind } in packages.get(*core).unwrap_or_else(|| panic!("{core} is gone")) {
            let wrong = kind != "dev" && NOT_IN_A_CORE.contains(&name.as_str());
            assert!(
                !wrong,
                "{core} decides without a clock, chance, I/O or a runtime, and must not use {name} ({kind})"
            );
        }
    }
}
