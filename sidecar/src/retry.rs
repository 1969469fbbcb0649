//! Trying again what has to be done, however long it takes.

use std::time::Duration;

use coterie_core::ErrorCode;
use coterie_core::code::Retry;
use tokio_util::sync::CancellationToken;

use crate::limits::{RETRY_PAUSE_MS, RETRY_PAUSE_MS_MAX};

/// The pauses between tries: each twice as long as the one before, up to a bound.
#[derive(Debug)]
pub(crate) struct Pauses {
    next_ms: u64,
}

impl Pauses {
    pub(crate) fn new() -> Self {
        Self { next_ms: RETRY_PAUSE_MS }
    }

    /// Waits for the next try, and no longer than the process lasts.
    pub(crate) async fn wait(&mut self, stopping: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(self.next_ms)) => {}
            () = stopping.cancelled() => {}
        }
        self.next_ms = (self.next_ms * 2).min(RETRY_PAUSE_MS_MAX);
    }
}

/// Whether sending the same again may bring it about. That a lock is held is the answer, though a later request may get
/// another one.
pub(crate) fn is_transient(code: ErrorCode) -> bool {
    code.retry() == Retry::Later && code != ErrorCode::LockHeld
}
