//! Leaders of groups that are asked to release, and what was told of their leading.
//!
//! The partition ends a leader's term that is not released in time only when its sidecar has said that it knows, and for how
//! much longer the application may act on what it was told: with the session's keep-alives ([`super::keep_alives`]). So
//! nobody is elected while the former leader is vouched for, also when this sidecar's replica lags behind.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use coterie_core::machine::PendingRelease;
use coterie_core::{GroupName, Term};

use crate::limits;

/// So much that was told long ago is no matter.
const SWEEP_MIN: usize = 64;

/// Those of one session.
#[derive(Debug, Default)]
pub struct Releases(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the keep-alive was sent whose answer is taken in.
    sent_ms: u64,
    /// Until when each leader that was asked to release may be vouched for.
    until_ms: BTreeMap<(GroupName, Term), u64>,
    /// Until when an application was told that it leads, in which term.
    told: BTreeMap<GroupName, (Term, u64)>,
}

/// A release that this sidecar knows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The group.
    pub group: GroupName,
    /// The term that is to end.
    pub term: Term,
    /// For how much longer the application may act on what it was told, in milliseconds.
    pub left_ms: u64,
}

impl Releases {
    /// Asks what may be said of a member of a group, given until when the leader of a term may be vouched for at most, and
    /// remembers what is answered: that it leads this term until then.
    pub(crate) fn tell<T>(
        &self,
        group: &GroupName,
        decide: impl FnOnce(&dyn Fn(Term) -> Option<u64>) -> T,
        said: impl FnOnce(&T) -> Option<(Term, u64)>,
        now_ms: u64,
    ) -> T {
        let mut state = self.lock();
        let answer = decide(&|term| state.until_ms.get(&(group.clone(), term)).copied());
        if let Some((term, until_ms)) = said(&answer) {
            if state.told.len() >= SWEEP_MIN && !state.told.contains_key(group) {
                state.told.retain(|_, (_, until_ms)| now_ms < *until_ms);
            }
            let told = state.told.entry(group.clone()).or_insert((term, until_ms));
            *told = if told.0 == term { (term, told.1.max(until_ms)) } else { (term, until_ms) };
        }
        answer
    }

    /// The partition's leader answers a keep-alive that was sent at `sent_ms`: these releases wait for the session; true if
    /// one of them is news.
    pub(super) fn pending(&self, releases: &[PendingRelease], sent_ms: u64, now_ms: u64) -> bool {
        let mut state = self.lock();
        if sent_ms < state.sent_ms {
            // Of two answers that overtook each other this is the older one.
            return false;
        }
        state.sent_ms = sent_ms;
        let before = std::mem::take(&mut state.until_ms);
        if releases.len() >= limits::RELEASES_MAX {
            // There may be more.
            state.until_ms.clone_from(&before);
        }
        for PendingRelease { group, term, timeout_ms, .. } in releases {
            let of = (group.clone(), *term);
            let until_ms = before.get(&of).copied().unwrap_or(now_ms.saturating_add(*timeout_ms));
            state.until_ms.insert(of, until_ms);
        }
        state.until_ms.keys().any(|of| !before.contains_key(of))
    }

    /// What the partition's leader is told with the next keep-alive.
    pub(super) fn heard(&self, now_ms: u64) -> Vec<Heard> {
        let state = self.lock();
        let heard = |((group, term), until_ms): (&(GroupName, Term), &u64)| {
            let told_ms = state.told.get(group).filter(|(told, _)| told == term).map_or(0, |(_, until_ms)| *until_ms);
            let left_ms = told_ms.max(*until_ms).saturating_sub(now_ms);
            Heard { group: group.clone(), term: *term, left_ms }
        };
        state.until_ms.iter().map(heard).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

#[cfg(test)]
mod tests {
    use coterie_core::SessionId;

    use super::*;

    fn release(group: &str, term: u64, timeout_ms: u64) -> PendingRelease {
        PendingRelease { group: group.into(), term: Term(term), timeout_ms, session: SessionId(1) }
    }

    /// Tells a leader of term 3 of `g` that it leads until then, or earlier if it was asked to release.
    fn tell(releases: &Releases, until_ms: u64, now_ms: u64) -> u64 {
        let decide = |limit: &dyn Fn(Term) -> Option<u64>| until_ms.min(limit(Term(3)).unwrap_or(u64::MAX));
        releases.tell(&"g".into(), decide, |until_ms| Some((Term(3), *until_ms)), now_ms)
    }

    #[test]
    fn what_was_told_before_a_release_was_known_counts_beside_the_time_that_the_leader_has() {
        let releases = Releases::default();
        assert_eq!(tell(&releases, 900, 0), 900);
        assert!(releases.pending(&[release("g", 3, 100), release("h", 1, 50)], 5, 10));
        let left = |now_ms| releases.heard(now_ms).iter().map(|heard| heard.left_ms).collect::<Vec<_>>();
        assert_eq!(left(20), [880, 40]);
        assert_eq!(tell(&releases, 950, 30), 110, "nothing more is said beyond its time");
        assert_eq!(left(30), [870, 30]);
        assert_eq!(left(2_000), [0, 0]);
    }

    #[test]
    fn the_first_word_of_a_release_starts_its_time_and_one_that_is_over_is_forgotten() {
        let releases = Releases::default();
        assert!(releases.pending(&[release("g", 3, 100)], 5, 10));
        assert!(!releases.pending(&[release("g", 3, 100)], 50, 60), "no news");
        assert_eq!(tell(&releases, 900, 60), 110);
        assert!(!releases.pending(&[], 40, 65), "an older answer than the last one");
        assert_eq!(releases.heard(65).len(), 1);
        assert!(!releases.pending(&[], 60, 70));
        assert_eq!((releases.heard(70), tell(&releases, 900, 70)), (Vec::new(), 900));
        assert!(releases.pending(&[release("g", 4, 100)], 70, 80), "a later term's is another one");
        assert_eq!(
            releases.heard(80),
            [Heard { group: "g".into(), term: Term(4), left_ms: 100 }],
            "told of another term"
        );
    }

    #[test]
    fn what_was_told_long_ago_is_swept() {
        let releases = Releases::default();
        for number in 0..2 * SWEEP_MIN as u64 {
            let said = |(): &()| Some((Term(1), number + 1));
            releases.tell(&format!("g{number}").as_str().into(), |_| (), said, number);
        }
        assert!(releases.lock().told.len() <= SWEEP_MIN);
    }
}
