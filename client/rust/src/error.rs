//! What can go wrong, as one enum.

use std::error::Error as _;

use crate::client::RequestId;

/// Why a call did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The address of the sidecar is not one.
    #[error("{endpoint:?} is not an endpoint: {reason}; use http://127.0.0.1:7300 or unix:/run/coterie/coterie.sock")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// Why it is not one.
        reason: String,
    },
    /// No connection to the sidecar; nothing was applied.
    #[error("no connection to the sidecar at {endpoint}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The sidecar or the cluster refused; nothing was applied.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(Refusal),
    /// A write was sent and its fate is not known: it may have been applied, now or later. Repeat it with the same id,
    /// through `with_request` of its handle ([`crate::Group`], [`crate::Map`], [`crate::Lock`]), and it is applied once
    /// (D11). Writes to maps and locks were repeated so already, until the deadline.
    #[error("the outcome is not known: {message}")]
    Unknown {
        /// The id to repeat it with.
        request: RequestId,
        /// What happened.
        message: String,
    },
    /// A read was not answered in time.
    #[error("not answered in time: {message}")]
    DeadlineExceeded {
        /// What happened.
        message: String,
    },
    /// The connection broke during a read or a watch.
    #[error("the connection to the sidecar broke: {message}")]
    Disconnected {
        /// What happened.
        message: String,
    },
    /// The sidecar's answer lacks what the protocol promises.
    #[error("the sidecar's answer has no {missing}")]
    Protocol {
        /// What is missing.
        missing: &'static str,
    },
}

/// A refusal by the sidecar or the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable word, for example `group_unknown`.
    pub code: String,
    /// What happened and what to do about it.
    pub message: String,
    /// Whether sending the same again can help.
    pub retry: Retry,
}

/// What a caller should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same call, with the same request id, may succeed at once.
    Now,
    /// The same call, with the same request id, may succeed after a while.
    Later,
    /// The same call gives the same answer.
    Never,
}

impl Retry {
    pub(crate) fn from_word(word: &str) -> Self {
        match word {
            "now" => Self::Now,
            "later" => Self::Later,
            _ => Self::Never,
        }
    }
}

/// What is known of the fate of a request that ended without the sidecar's word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A read has no fate.
    Read,
    /// A write may have been applied.
    Write(RequestId),
}

impl Error {
    /// The stable word: the sidecar's, or `endpoint_invalid`, `unreachable`, `unknown`, `deadline_exceeded`,
    /// `disconnected`, `protocol`.
    pub fn code(&self) -> &str {
        match self {
            Self::Endpoint { .. } => "endpoint_invalid",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused(refusal) => &refusal.code,
            Self::Unknown { .. } => "unknown",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::Disconnected { .. } => "disconnected",
            Self::Protocol { .. } => "protocol",
        }
    }

    /// Whether sending the same again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Endpoint { .. } | Self::Protocol { .. } => Retry::Never,
            Self::Refused(refusal) => refusal.retry,
            Self::Unreachable { .. }
            | Self::Unknown { .. }
            | Self::DeadlineExceeded { .. }
            | Self::Disconnected { .. } => Retry::Later,
        }
    }

    pub(crate) fn from_status(status: &tonic::Status, kind: Kind, endpoint: &str) -> Self {
        let word = |key: &str| status.metadata().get(key).and_then(|value| value.to_str().ok());
        let message = status.message().to_owned();
        match (word("coterie-code"), kind) {
            (Some("unknown"), Kind::Write(request)) => Self::Unknown { request, message },
            (Some(code), _) => Self::Refused(Refusal {
                code: code.to_owned(),
                message,
                retry: Retry::from_word(word("coterie-retry").unwrap_or_default()),
            }),
            (None, _) if never_connected(status) => {
                Self::Unreachable { endpoint: endpoint.to_owned(), reason: deepest(status) }
            }
            (None, Kind::Write(request)) => Self::Unknown { request, message },
            (None, Kind::Read) if timed_out(status) => Self::DeadlineExceeded { message },
            (None, Kind::Read) => Self::Disconnected { message: deepest(status) },
        }
    }

    pub(crate) fn not_in_time(kind: Kind) -> Self {
        let message = "no answer before this client's deadline".to_owned();
        match kind {
            Kind::Read => Self::DeadlineExceeded { message },
            Kind::Write(request) => Self::Unknown { request, message },
        }
    }
}

fn sources(status: &tonic::Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(status.source(), |&error| error.source())
}

fn never_connected(status: &tonic::Status) -> bool {
    sources(status).any(|error| error.is::<tonic::ConnectError>())
}

fn timed_out(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::DeadlineExceeded || sources(status).any(|error| error.is::<tonic::TimeoutExpired>())
}

/// The innermost cause says most; the outer ones say "transport error".
fn deepest(status: &tonic::Status) -> String {
    sources(status).last().map_or_else(|| status.message().to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: &str, retry: &str) -> tonic::Status {
        let mut status = tonic::Status::unavailable("said why");
        status.metadata_mut().insert("coterie-code", code.parse().expect("ascii"));
        status.metadata_mut().insert("coterie-retry", retry.parse().expect("ascii"));
        status
    }

    #[test]
    fn a_refusal_keeps_the_stable_word_and_the_advice() {
        let error = Error::from_status(&status("no_quorum", "later"), Kind::Read, "here");
        assert_eq!(error.code(), "no_quorum");
        assert_eq!(error.retry(), Retry::Later);
        assert_eq!(error.to_string(), "no_quorum: said why");
    }

    #[test]
    fn d11_a_write_that_got_no_word_is_unknown_and_never_failed() {
        let request = RequestId::mint();
        for status in [tonic::Status::cancelled("Timeout expired"), status("unknown", "later")] {
            let error = Error::from_status(&status, Kind::Write(request), "here");
            assert!(matches!(error, Error::Unknown { request: id, .. } if id == request), "{error:?}");
        }
        assert_eq!(Error::not_in_time(Kind::Write(request)).code(), "unknown");
    }

    #[test]
    fn a_read_that_got_no_word_says_in_which_way() {
        assert_eq!(Error::not_in_time(Kind::Read).code(), "deadline_exceeded");
        let broken = Error::from_status(&tonic::Status::unavailable("broken pipe"), Kind::Read, "here");
        assert_eq!(broken.code(), "disconnected");
    }
}
