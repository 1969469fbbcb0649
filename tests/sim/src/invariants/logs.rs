//! Log matching: entries of one leader at one index are the same in all logs, with all that is before them (Ongaro and
//! Ousterhout, 2014, section 5.3).

use std::collections::BTreeMap;

/// The place of an entry: its index, and the term and node of the leader that made it.
pub type Place = (u64, (u64, u64));

/// An entry, and what is right before it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    host: &'static str,
    digest: u64,
    /// `None` where the look began.
    before: Option<Place>,
}

/// What was seen in logs.
#[derive(Debug, Default)]
pub struct Logs {
    entries: BTreeMap<(String, Place), Seen>,
}

impl Logs {
    /// Takes note of a part of the log of a partition on a host: entries in order, without a gap, each with a digest of all
    /// its bytes.
    ///
    /// # Errors
    /// What is not as it was seen elsewhere, or before.
    pub fn see(&mut self, host: &'static str, partition: &str, entries: &[(Place, u64)]) -> Result<(), String> {
        let mut before = None;
        for (place, digest) in entries {
            let seen = self.entries.entry((partition.to_owned(), *place));
            let first = seen.or_insert_with(|| Seen { host, digest: *digest, before });
            if first.digest != *digest {
                return Err(format!("{partition} has other entries at {place:?} on {host} and {}", first.host));
            }
            // By induction, all that is before those is the same too.
            match (first.before, before) {
                (None, Some(_)) => first.before = before,
                (Some(first_before), Some(before)) if first_before != before => {
                    let other = first.host;
                    return Err(format!(
                        "{partition} has {place:?} after {first_before:?} on {other} and after {before:?} on {host}"
                    ));
                }
                (Some(_) | None, _) => {}
            }
            before = Some(*place);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_that_match_are_right_also_where_one_was_cut_off_and_went_on() {
        let mut logs = Logs::default();
        logs.see("a", "p", &[((1, (1, 1)), 7), ((2, (1, 1)), 8), ((3, (1, 1)), 9)]).expect("the first");
        logs.see("b", "p", &[((1, (1, 1)), 7), ((2, (1, 1)), 8), ((3, (2, 2)), 4)]).expect("another leader's");
        logs.see("a", "p", &[((2, (1, 1)), 8), ((3, (2, 2)), 4)]).expect("taken over");
        logs.see("a", "q", &[((2, (1, 1)), 1)]).expect("another partition");
    }

    #[test]
    fn another_entry_and_another_past_are_found() {
        for (wrong, what) in [
            ([((2, (1, 1)), 9), ((3, (2, 2)), 4)], "other entries at (2"),
            ([((2, (1, 2)), 8), ((3, (2, 2)), 4)], "after (2, (1, 1)) on a and after (2, (1, 2)) on b"),
        ] {
            let mut logs = Logs::default();
            logs.see("a", "p", &[((2, (1, 1)), 8), ((3, (2, 2)), 4)]).expect("the first");
            let error = logs.see("b", "p", &wrong).expect_err("wrong");
            assert!(error.contains(what), "{error}");
        }
    }
}
