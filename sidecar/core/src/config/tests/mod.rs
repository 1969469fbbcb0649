//! What is refused, and with which sentence; what is accepted, and what it means; that builder and file are equal.

mod defaults;
mod docs;
mod equivalence;
mod groups;
mod keys;
mod members;
mod profiles;
mod surroundings;

use super::{Config, Overrides};
use crate::code::ErrorCode;

/// The three members of the specification's examples; 13 lines.
const MEMBERS: &str = "\
cluster:
  local-member:
    name: member-1
  members:
    member-1:
      type: persistent
      address: localhost:5001
    member-2:
      type: persistent
      address: localhost:5002
    member-3:
      type: persistent
      address: localhost:5003
";

/// The management group of the specification's example E1; 8 lines.
const MANAGEMENT: &str = "\
management-group:
  type: raft
  name: system
  partitions: 1
  members:
    - member-1
    - member-2
    - member-3
";

fn accepted(yaml: &str) -> Config {
    accepted_with(yaml, &Overrides::default())
}

fn accepted_with(yaml: &str, overrides: &Overrides) -> Config {
    match Config::from_yaml(yaml, overrides) {
        Ok(config) => config,
        Err(error) => panic!("refused:\n{error}\n\n{yaml}"),
    }
}

fn as_member(name: &str) -> Overrides {
    Overrides { local_member: Some(name.to_owned()), ..Overrides::default() }
}

/// Refused with exactly these problems: line, key and sentence of each.
fn refused(code: ErrorCode, yaml: &str, problems: &[&str]) {
    refused_with(code, yaml, &Overrides::default(), problems);
}

fn refused_with(code: ErrorCode, yaml: &str, overrides: &Overrides, problems: &[&str]) {
    match Config::from_yaml(yaml, overrides) {
        Ok(_) => panic!("accepted, but should be refused with:\n{}\n\n{yaml}", problems.join("\n")),
        Err(error) => {
            let found: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
            assert_eq!(found, problems, "{yaml}");
            assert_eq!(error.code(), code, "{error}");
            assert_eq!(error.to_string(), problems.join("\n"));
        }
    }
}

/// Refused as a mistake of the caller, with exactly these problems.
fn invalid(yaml: &str, problems: &[&str]) {
    refused(ErrorCode::InvalidArgument, yaml, problems);
}
