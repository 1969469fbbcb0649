//! A point in time by which a caller wants its answer.

use std::time::Duration;

use coterie_env::Env;

/// A deadline on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at_ms: u64,
}

impl Deadline {
    /// `ms` from now.
    pub fn after_ms(env: &Env, ms: u64) -> Self {
        Self { at_ms: env.clock.monotonic_ms().saturating_add(ms) }
    }

    /// What is left; zero when it has passed.
    pub fn remaining(&self, env: &Env) -> Duration {
        Duration::from_millis(self.at_ms.saturating_sub(env.clock.monotonic_ms()))
    }

    /// Whether it has passed.
    pub fn passed(&self, env: &Env) -> bool {
        self.remaining(env).is_zero()
    }
}
