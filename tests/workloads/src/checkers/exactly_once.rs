//! A change is made once: whoever sends it again is told what became of it the first time (D11).

use anyhow::{Result, bail};

use super::linearizability::{Answer, Call};

/// A change that was answered, and sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// Who asked.
    pub client: String,
    /// The register.
    pub key: String,
    /// For what.
    pub call: Call,
    /// What was answered first.
    pub first: Answer,
    /// What was answered then.
    pub again: Answer,
}

/// Checks all changes that were sent again.
///
/// # Errors
/// The first that was answered otherwise.
pub fn check(repeated: &[Repeated]) -> Result<()> {
    for Repeated { client, key, call, first, again } in repeated {
        if first != again {
            bail!("{key} {call:?} of {client} was answered {first:?}, then {again:?}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::linearizability::Only;
    use super::*;

    #[test]
    fn another_answer_is_found() {
        let of = |again| {
            let first = Answer::Changed { revision: 3, previous: 0 };
            Repeated { client: "a".into(), key: "k".into(), call: Call::Write(1, Only::Always), first, again }
        };
        check(&[of(Answer::Changed { revision: 3, previous: 0 })]).expect("right");
        let error = check(&[of(Answer::Changed { revision: 9, previous: 3 })]).expect_err("wrong").to_string();
        assert!(error.contains("was answered"), "{error}");
    }
}
