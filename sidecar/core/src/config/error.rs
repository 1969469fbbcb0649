//! Everything that is wrong with a configuration, at once.

use std::fmt;

use crate::code::{ErrorCode, Rejection};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// [`ErrorCode::NotInThisVersion`] for what is right but not offered yet, else [`ErrorCode::InvalidArgument`].
    pub code: ErrorCode,
    /// The line of the file, from 1. `None` if it does not come from a file.
    pub line: Option<u64>,
    /// The path of the key, such as `management-group.members[2]`, or an option of the command line. Empty: the whole.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub right: String,
}

impl Problem {
    /// A mistake at `key`.
    pub(super) fn invalid(key: impl Into<String>, what: impl Into<String>, right: impl Into<String>) -> Self {
        Self { code: ErrorCode::InvalidArgument, line: None, key: key.into(), what: what.into(), right: right.into() }
    }

    /// Something at `key` that a later version may offer.
    pub(super) fn not_in_this_version(key: impl Into<String>, what: &str, right: impl Into<String>) -> Self {
        let what = format!("{what} is not in this version");
        Self { code: ErrorCode::NotInThisVersion, line: None, key: key.into(), what, right: right.into() }
    }

    /// The same, at a line.
    pub(super) fn at(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.what, self.right)
    }
}

/// A configuration that is refused, with every problem that it has, in the order of the file's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl Error {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        assert!(!problems.is_empty(), "an error without a problem would refuse without a reason");
        problems.sort_by_key(|problem| problem.line.unwrap_or(0));
        Self { problems }
    }

    /// [`ErrorCode::NotInThisVersion`] if that is all there is, else [`ErrorCode::InvalidArgument`].
    pub fn code(&self) -> ErrorCode {
        if self.problems.iter().all(|problem| problem.code == ErrorCode::NotInThisVersion) {
            ErrorCode::NotInThisVersion
        } else {
            ErrorCode::InvalidArgument
        }
    }
}

impl fmt::Display for Error {
    /// One line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
