//! A clock that runs on while the machine is suspended, so that a leader that slept does not believe it still leads.

use std::time::Duration;

/// A moment in time, by a clock that never goes back and runs on through suspend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Duration);

impl Deadline {
    /// Now.
    pub fn now() -> Self {
        Self(since_boot())
    }

    /// The moment `duration` after this one.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// How long until then; zero when it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_sub(since_boot())
    }

    /// Whether it has passed.
    pub fn is_past(self) -> bool {
        self.remaining().is_zero()
    }
}

#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_counts_down_and_ends() {
        let now = Deadline::now();
        assert!(now.is_past());
        let later = now.after(Duration::from_secs(60));
        assert!(!later.is_past() && later.remaining() <= Duration::from_secs(60) && later > now);
    }
}
