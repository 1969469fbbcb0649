//! Giving back to the volume the bytes of a file that has no name any longer.

use coterie_env::File;

use crate::limits::SNAPSHOT_FREE_BYTES;

/// The thread that does it, where the caller must not block.
pub(super) const THREAD: &str = "snapshot-free";

/// Frees the bytes of a file, from their end, in steps that are each flushed. A file system frees a large file as a whole
/// once its last handle is gone, and whatever is flushed meanwhile waits for that: the log, and with it every request.
///
/// Blocks. What cannot be freed so goes with the handle.
pub(super) fn give_back(file: &dyn File) {
    let mut left = file.len().unwrap_or(0);
    while left > 0 {
        left = left.saturating_sub(SNAPSHOT_FREE_BYTES);
        if file.set_len(left).and_then(|()| file.sync_data()).is_err() {
            return;
        }
    }
}
