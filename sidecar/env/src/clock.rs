//! Time, read.

/// A clock. Reading it never blocks and never fails.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since an arbitrary point. Never goes back, and runs on while the machine is suspended
    /// (`CLOCK_BOOTTIME`): deadlines rest on it.
    fn monotonic_ms(&self) -> u64;

    /// Milliseconds since the Unix epoch. May step in either direction; for stamps that people read and for the
    /// replicated logical time, which is the maximum of what leaders saw.
    fn wall_ms(&self) -> u64;
}
