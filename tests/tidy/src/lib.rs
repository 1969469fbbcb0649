//! Checks about the code itself: ordinary tests over the files of the repository, so that `cargo test` says when one of
//! the project's own rules is broken.
//!
//! | module | rule |
//! |---|---|
//! | `arrows` | which package may use which; the cores use no runtime |
//! | `sources` | files stay short; nothing unfinished lands; no test sleeps; no path of somebody's machine |
//! | `errors` | every error code has its section in `docs/errors.md`, and the section is right |
//! | `storage` | the smallest volume that a Cluster may ask for is one that a member can work on |

#[cfg(test)]
mod arrows;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod storage;

use std::path::{Path, PathBuf};

/// Directories that hold what was built or fetched.
const NOT_OURS: &[&str] = &["target", "node_modules", ".git"];

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two levels below the root").to_owned()
}

/// A text file of the repository.
#[derive(Debug)]
pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    /// What it says.
    pub text: String,
}

impl Source {
    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is only built for tests: below a directory `tests`, or a file `tests.rs`.
    pub fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// The lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, line))
    }
}

/// Every text file of the repository, by path. Files that are not UTF-8 are left out.
///
/// # Panics
/// If a directory cannot be read.
pub fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        let entries =
            std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("read {}: {error}", directory.display()));
        for entry in entries {
            let path = entry.expect("read a directory's entry").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_symlink() || NOT_OURS.contains(&name.as_str()) {
                continue;
            } else if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let path =
                    path.strip_prefix(&root).expect("it was found below the root").to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.iter().any(|source| source.path == "Cargo.toml"), "{} is not the repository", root.display());
    found
}
