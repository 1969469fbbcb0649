//! Replicas of a partition hold the same bytes when they have applied the same, at any time.

use std::collections::BTreeMap;

/// What was seen of replicas.
#[derive(Debug, Default)]
pub struct States {
    digests: BTreeMap<(String, u64), (&'static str, u64)>,
}

impl States {
    /// Takes note of what a replica holds at a revision, as a digest of all its bytes.
    ///
    /// # Errors
    /// It is not what was held elsewhere, or before, at that revision.
    pub fn see(&mut self, host: &'static str, partition: &str, revision: u64, digest: u64) -> Result<(), String> {
        let (other, first) = *self.digests.entry((partition.to_owned(), revision)).or_insert((host, digest));
        if first != digest {
            return Err(format!("{partition} differs at revision {revision} on {host} and {other}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_differ_at_one_revision_are_found() {
        let mut states = States::default();
        states.see("a", "p", 3, 77).expect("the first");
        states.see("b", "p", 3, 77).expect("the same");
        states.see("b", "p", 4, 78).expect("another revision");
        let error = states.see("c", "p", 3, 78).expect_err("wrong");
        assert_eq!(error, "p differs at revision 3 on c and a");
    }
}
