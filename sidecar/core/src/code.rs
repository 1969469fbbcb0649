//! Every error that a caller can meet, as one enum. It maps to the gRPC code, the HTTP status, a stable word for clients
//! and metrics, and the advice to retry.

use serde::{Deserialize, Serialize};

/// A refusal or failure, with a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// What kind.
    pub code: ErrorCode,
    /// What happened, and what to do about it.
    pub message: String,
}

impl Rejection {
    /// A rejection.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What a caller should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request may succeed when sent again, with the same request id.
    Later,
    /// Sending the same again gives the same.
    Never,
}

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident = $label:literal, $grpc:literal, $http:literal, $retry:ident;)*) => {
        /// A stable code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum ErrorCode { $($(#[$meta])* $name,)* }

        impl ErrorCode {
            /// All of them, in the order of this file.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            /// The stable word.
            pub fn label(self) -> &'static str { match self { $(Self::$name => $label,)* } }
            /// The gRPC status code.
            pub fn grpc(self) -> i32 { match self { $(Self::$name => $grpc,)* } }
            /// The HTTP status.
            pub fn http(self) -> u16 { match self { $(Self::$name => $http,)* } }
            /// The advice.
            pub fn retry(self) -> Retry { match self { $(Self::$name => Retry::$retry,)* } }
            /// The code with this stable word.
            pub fn from_label(label: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.label() == label)
            }
        }
    };
}

// label, gRPC code (google.rpc.Code), HTTP status, retry. New ones come last: snapshots hold their numbers.
codes! {
    /// A field is wrong; the sentence names it and says what would be right.
    InvalidArgument = "invalid_argument", 3, 400, Never;
    /// The request is larger than a limit.
    TooLarge = "too_large", 11, 413, Never;
    /// There is no such path or method.
    NotFound = "not_found", 5, 404, Never;
    /// There is no group of this name.
    GroupUnknown = "group_unknown", 5, 404, Never;
    /// The member is not, or no longer, in the group.
    MemberUnknown = "member_unknown", 5, 404, Never;
    /// The session ended or never was; what it held is released.
    SessionUnknown = "session_unknown", 5, 404, Never;
    /// There is no such partition group; the sentence lists those that are.
    PartitionGroupUnknown = "partition_group_unknown", 5, 404, Never;
    /// Several partition groups and no default: name one (D15).
    PartitionGroupAmbiguous = "partition_group_ambiguous", 3, 400, Never;
    /// Exists with other options.
    ExistsDifferently = "exists_differently", 6, 409, Never;
    /// Still holds something.
    NotEmpty = "not_empty", 9, 409, Never;
    /// Changed since the revision that the request names.
    RevisionMismatch = "revision_mismatch", 10, 409, Never;
    /// Carries an older term than the present one (S39).
    StaleTerm = "stale_term", 9, 409, Never;
    /// A limit is reached; the sentence names it.
    LimitReached = "limit_reached", 8, 429, Later;
    /// The volume of the partition's leader is nearly full: reads go on, and writes once there is room. Nothing was applied.
    StorageFull = "storage_full", 8, 507, Later;
    /// More is asked than can be taken at the moment.
    Overloaded = "overloaded", 8, 429, Later;
    /// The partition has no leader that a majority follows (D12). Nothing was applied.
    NoQuorum = "no_quorum", 14, 503, Later;
    /// No management group has been found or formed yet (D22).
    WaitingForManagementGroup = "waiting_for_management_group", 14, 503, Later;
    /// The sidecar is shutting down. Nothing was applied.
    ShuttingDown = "shutting_down", 14, 503, Later;
    /// Not answered in time. Nothing was applied.
    DeadlineExceeded = "deadline_exceeded", 4, 504, Later;
    /// Proposed, and its fate not known: it may have been applied. A retry with the same request id is applied once (D11).
    Unknown = "unknown", 2, 504, Later;
    /// The request is too old to know whether it was applied; it was not applied now (D11).
    Expired = "expired", 9, 409, Never;
    /// Cannot be had in this version.
    NotInThisVersion = "not_in_this_version", 12, 501, Never;
    /// The data directory was emptied or belongs to another identity (D14).
    DirectoryReplaced = "directory_replaced", 9, 409, Never;
    /// The data directory is older than what the cluster has seen of it (D14).
    DirectoryRolledBack = "directory_rolled_back", 9, 409, Never;
    /// Another process runs on a copy of this data directory (D14).
    DirectoryCopied = "directory_copied", 9, 409, Never;
    /// The caller may not do this.
    Forbidden = "forbidden", 7, 403, Never;
    /// A bug or a broken machine; the sentence and the log say more.
    Internal = "internal", 13, 500, Never;
    /// The map has no entry under this key.
    EntryUnknown = "entry_unknown", 5, 404, Never;
    /// The lock is held by another, and was not granted in the time that the request waits.
    LockHeld = "lock_held", 10, 409, Later;
    /// The token is not, or no longer, that of the lock's holder or of one that waits for it.
    TokenUnknown = "token_unknown", 5, 404, Never;
}
