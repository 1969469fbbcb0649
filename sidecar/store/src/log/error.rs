//! Why a log was not opened.

use std::io;
use std::path::PathBuf;

/// Why a log was not opened. Nothing was changed, except in [`Error::Prepare`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or the folder could not be read.
    #[error("read {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer program wrote a segment.
    #[error(
        "the log segment {segment} has version {found}, and this program reads up to {supported}; run the newer program"
    )]
    Version {
        /// The segment's file.
        segment: PathBuf,
        /// Its version.
        found: u32,
        /// What this program reads.
        supported: u32,
    },
    /// Bytes that were flushed, and perhaps acknowledged, have changed or are missing. Serving without them could break
    /// a promise, so the member must not come back with this directory.
    #[error(
        "the log segment {segment} is damaged at byte {offset}: {what}; this member's data cannot be trusted: empty its \
         data directory, it then comes back as a new member and is replaced"
    )]
    Damaged {
        /// The segment's file.
        segment: PathBuf,
        /// Where what is valid ends.
        offset: u64,
        /// What was found there.
        what: String,
    },
    /// The folder, the torn tail or the first segment could not be written.
    #[error("prepare the log in {path}")]
    Prepare {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
