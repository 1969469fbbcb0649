//! When a leader may answer reads without asking anybody.
//!
//! A voter that has answered a leader neither votes nor campaigns for one lease from then on. So a leader that a majority
//! has answered knows that there is no other until a lease has passed since it *sent* what they answered; it believes so
//! for a little less, since clocks do not run equally fast. Three things break that rule, and are dealt with here:
//!
//! | what | why | so |
//! |---|---|---|
//! | a voter that restarts | it has forgotten whom it answered | it neither votes nor campaigns for the longest lease after its start ([`Restarted`]) |
//! | a lead that is given away | voters need not wait when the leader says so, and its word may arrive late | no read rests on a lease in that term any more |
//! | a machine that was suspended | the clock that Raft reads stands still meanwhile | what was answered before is worth nothing |
//!
//! All replicas must mean the same time by a lease: members of other timers do not admit each other (`admission.rs` in
//! the sidecar). One that was restarted with other timers has answered leaders of the former ones; so what it keeps after a
//! start is the longest lease that there is.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coterie_env::Clock;
use coterie_mutants::{Mutant, Point, is_on, rarely};
use tokio::time::Instant;

use crate::timing::LEASE_MAX;

/// How much of the lease is used: clocks of members may differ in their rate by a tenth.
const USED_PERCENT: u32 = 90;
/// How much further the clock that runs on through a suspension may get before it counts as one.
const SUSPENDED_MS: u64 = 20;

/// What a leader knows of its lease.
#[derive(Debug)]
pub(crate) struct Lease {
    length: Duration,
    begun: Instant,
    /// The last term in which the lead was given away, or was to be.
    given_away: AtomicU64,
    awake: Mutex<Awake>,
}

/// Since when the machine was not suspended.
#[derive(Clone, Copy, Debug)]
struct Awake {
    since: Instant,
    /// By how much the clock that never stands still is ahead of Raft's.
    ahead_ms: u64,
}

impl Lease {
    pub(crate) fn new(length: Duration, clock: &dyn Clock) -> Self {
        let begun = Instant::now();
        let awake = Mutex::new(Awake { since: begun, ahead_ms: clock.monotonic_ms() });
        Self { length, begun, given_away: AtomicU64::new(0), awake }
    }

    /// The lead of this term is about to be given away. Terms begin at 1.
    pub(crate) fn give_away(&self, term: u64) {
        if !is_on(Mutant::KeepLeaseOnTransfer) {
            self.given_away.fetch_max(term, Ordering::SeqCst);
        }
    }

    /// How much of a lease is believed in: clocks may run at other rates, and a short suspension is not noticed.
    pub(crate) fn used(length: Duration) -> Duration {
        (length * USED_PERCENT / 100).saturating_sub(Duration::from_millis(SUSPENDED_MS))
    }

    /// Whether the leader of `term` is the only one, if the last that a majority has answered was sent `age` ago.
    pub(crate) fn holds(&self, term: u64, age: Duration, clock: &dyn Clock) -> bool {
        !rarely(Point::ReadConfirmed)
            && age < Self::used(self.length)
            && age < self.awake_for(clock)
            && self.given_away.load(Ordering::SeqCst) < term
    }

    fn awake_for(&self, clock: &dyn Clock) -> Duration {
        let now = Instant::now();
        let passed = u64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX);
        let ahead_ms = clock.monotonic_ms().saturating_sub(passed);
        let mut awake = self.awake.lock().expect("no holder panics");
        if ahead_ms > awake.ahead_ms + SUSPENDED_MS {
            *awake = Awake { since: now, ahead_ms };
        }
        now.saturating_duration_since(awake.since)
    }
}

/// A voter that may have answered a leader before it was restarted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restarted {
    until: Instant,
}

impl Restarted {
    pub(crate) fn now() -> Self {
        Self { until: Instant::now() + LEASE_MAX }
    }

    /// One that has never answered anybody.
    pub(crate) fn never() -> Self {
        Self { until: Instant::now() }
    }

    /// Whether it keeps still.
    pub(crate) fn keeps_still(&self) -> bool {
        Instant::now() < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(400);

    /// A clock that runs on while the runtime's stands still.
    #[derive(Default)]
    struct Ahead(AtomicU64);

    impl Clock for Ahead {
        fn monotonic_ms(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }

        fn wall_ms(&self) -> u64 {
            0
        }
    }

    async fn pass(clock: &Ahead, ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
        clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_holds_for_less_than_voters_wait() {
        let clock = Ahead::default();
        let lease = Lease::new(LEASE, &clock);
        pass(&clock, 1).await;
        let acked = Instant::now();
        pass(&clock, 339).await;
        assert!(lease.holds(1, acked.elapsed(), &clock));
        pass(&clock, 1).await;
        assert!(!lease.holds(1, acked.elapsed(), &clock));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lead_that_is_given_away_has_no_lease_in_its_term() {
        let clock = Ahead::default();
        let lease = Lease::new(LEASE, &clock);
        pass(&clock, 1).await;
        lease.give_away(3);
        assert!(!lease.holds(3, Duration::ZERO, &clock), "voters may have been told");
        assert!(lease.holds(4, Duration::ZERO, &clock));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_answered_before_a_suspension_is_worth_nothing() {
        let clock = Ahead::default();
        let lease = Lease::new(LEASE, &clock);
        pass(&clock, 50).await;
        let acked = Instant::now();
        assert!(lease.holds(1, acked.elapsed(), &clock));
        clock.0.fetch_add(5_000, Ordering::SeqCst);
        assert!(!lease.holds(1, acked.elapsed(), &clock));
        pass(&clock, 10).await;
        assert!(!lease.holds(1, acked.elapsed(), &clock), "nor later");
        let acked = Instant::now();
        pass(&clock, 10).await;
        assert!(lease.holds(1, acked.elapsed(), &clock));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_voter_keeps_still_for_the_longest_lease() {
        let restarted = Restarted::now();
        tokio::time::advance(LEASE_MAX - Duration::from_millis(1)).await;
        assert!(restarted.keeps_still());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!restarted.keeps_still());
        assert!(!Restarted::never().keeps_still());
    }
}
