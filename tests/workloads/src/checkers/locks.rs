//! Locks: whoever is told that surely nobody else holds a lock for a while is right, tokens rise from holder to holder, and
//! none is given twice.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// A lock that a client was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The lock's name.
    pub lock: String,
    /// Who holds it.
    pub client: String,
    /// The fencing token.
    pub token: u64,
    /// When it was granted, in simulated milliseconds.
    pub granted_ms: u64,
    /// Up to when surely nobody else held it, by the last answer.
    pub until_ms: u64,
    /// When its holder asked for its release.
    pub released_ms: Option<u64>,
}

impl Hold {
    fn end_ms(&self) -> u64 {
        self.until_ms.min(self.released_ms.unwrap_or(u64::MAX))
    }
}

/// Checks all holds of a run.
///
/// # Errors
/// The first promise that was broken.
pub fn check(holds: &[Hold]) -> Result<()> {
    let mut locks: BTreeMap<&str, Vec<&Hold>> = BTreeMap::new();
    for hold in holds {
        locks.entry(&hold.lock).or_default().push(hold);
    }
    for (lock, mut holds) in locks {
        holds.sort_by_key(|hold| hold.token);
        for two in holds.windows(2) {
            let [first, next] = two else { continue };
            if first.token == next.token {
                bail!("lock {lock}: one token for two\n{first:?}\n{next:?}");
            }
            if next.granted_ms < first.end_ms() {
                bail!(
                    "lock {lock}: held by two, the first of whom was told that nobody else does\n{first:?}\n{next:?}"
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(token: u64, granted_ms: u64, until_ms: u64, released_ms: Option<u64>) -> Hold {
        Hold { lock: "l".into(), client: token.to_string(), token, granted_ms, until_ms, released_ms }
    }

    #[test]
    fn one_after_the_other_is_right() {
        check(&[hold(3, 10, 100, Some(50)), hold(4, 50, 200, None), hold(9, 200, 300, None)]).expect("right");
    }

    #[test]
    fn two_holders_at_a_time_and_tokens_out_of_order_are_found() {
        for (wrong, what) in [
            ([hold(3, 10, 100, None), hold(4, 99, 200, None)], "held by two"),
            ([hold(3, 10, 100, Some(50)), hold(4, 49, 200, None)], "held by two"),
            ([hold(3, 10, 100, Some(50)), hold(3, 70, 200, None)], "one token for two"),
            ([hold(3, 90, 95, None), hold(4, 70, 75, Some(75))], "held by two"),
        ] {
            let error = check(&wrong).expect_err("wrong").to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
