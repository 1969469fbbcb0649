//! Whoever is told that its session is live has one: nobody was told before that it expired, and one that was lost does not come
//! back (S38).

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use coterie_proto::v1::SessionState;

/// A member of a group, whose id is given once.
type Of = (String, u64);

/// What members were told of their sessions, and when others heard of the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// When each was last asked for and then said to be live.
    live: BTreeMap<Of, u64>,
    /// When each was said to be lost first.
    lost: BTreeMap<Of, u64>,
    /// When a watcher was told first that a member left because its session expired.
    expired: BTreeMap<Of, u64>,
}

impl Sessions {
    /// A member is told this of its session; it asked at this time, in simulated milliseconds.
    pub fn said(&mut self, group: &str, member: u64, state: SessionState, asked_ms: u64) {
        let of = (group.to_owned(), member);
        match state {
            SessionState::Live => _ = self.live.entry(of).and_modify(|at| *at = asked_ms.max(*at)).or_insert(asked_ms),
            SessionState::Lost => _ = self.lost.entry(of).or_insert(asked_ms),
            SessionState::Suspended | SessionState::Unspecified => {}
        }
    }

    /// A watcher is told that a member left as its session expired.
    pub fn expired(&mut self, group: &str, member: u64, now_ms: u64) {
        let first = self.expired.entry((group.to_owned(), member)).or_insert(now_ms);
        *first = now_ms.min(*first);
    }
}

/// Checks what members were told.
///
/// # Errors
/// A session that is live after its end.
pub fn check(sessions: &Sessions) -> Result<()> {
    for ((group, member), live_ms) in &sessions.live {
        let of = (group.clone(), *member);
        for (what, ends) in [("expired", &sessions.expired), ("was lost", &sessions.lost)] {
            if let Some(end_ms) = ends.get(&of).filter(|end_ms| *end_ms < live_ms) {
                bail!(
                    "group {group}: member {member} asked at {live_ms} and has a live session, which {what} by {end_ms}"
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(told: &[(SessionState, u64)], expired_ms: Option<u64>) -> Result<()> {
        let mut sessions = Sessions::default();
        for (state, asked_ms) in told {
            sessions.said("g", 1, *state, *asked_ms);
            sessions.said("g", 2, SessionState::Live, 1_000);
        }
        expired_ms.into_iter().for_each(|at| sessions.expired("g", 1, at));
        check(&sessions)
    }

    #[test]
    fn a_session_that_ends_after_it_was_live_is_right() {
        told(&[(SessionState::Live, 10), (SessionState::Suspended, 25), (SessionState::Lost, 30)], Some(20))
            .expect("right");
        told(&[(SessionState::Live, 20)], Some(20)).expect("at one time");
    }

    #[test]
    fn a_session_that_is_live_after_its_end_is_found() {
        let error =
            told(&[(SessionState::Live, 10), (SessionState::Live, 21)], Some(20)).expect_err("wrong").to_string();
        assert!(error.contains("which expired by 20"), "{error}");
        let error = told(&[(SessionState::Lost, 10), (SessionState::Live, 21)], None).expect_err("wrong").to_string();
        assert!(error.contains("which was lost by 10"), "{error}");
    }
}
