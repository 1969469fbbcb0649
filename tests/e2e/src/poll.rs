//! Waiting for conditions: nothing here waits for a time and hopes.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks until the answer is there, at most for `timeout`.
///
/// # Errors
/// When the time is over: what was waited for, and the last reason why it was not there.
pub(crate) fn until<T>(what: &str, timeout: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        let reason = match ask() {
            Ok(answer) => return Ok(answer),
            Err(reason) => reason,
        };
        if started.elapsed() >= timeout {
            bail!("waited {:.0} s in vain for: {what}; at last: {reason:#}", timeout.as_secs_f64());
        }
        std::thread::sleep(PAUSE); // waits for a condition
    }
}

/// Lets something last for so long.
pub(crate) fn for_long(time: Duration) {
    std::thread::sleep(time); // plays a fault that lasts
}

/// Seconds as a [`Duration`].
pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
