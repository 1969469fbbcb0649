//! A run in numbers: whether it shows anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::checkers::leaders;
use crate::history::Seen;

/// What a run came to, when nothing that was promised was broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Changes of registers that were acknowledged.
    pub acknowledged: u64,
    /// Operations on registers whose outcome nobody knows.
    pub unknown: u64,
    /// Locks that were granted.
    pub grants: u64,
    /// How often a member was told that it leads, with another term.
    pub terms: u64,
    /// Events that watchers were told.
    pub events: u64,
    /// The least time between the end of what one leader of a group was told and the next one's knowing that it leads.
    pub closest_ms: u64,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, unknown, grants, terms, events, closest_ms } = self;
        write!(
            f,
            "{acknowledged} changes acknowledged, {unknown} unknown, {grants} locks granted, {terms} terms led, {events} events told, \
             from the end of one leader's last word to the next one's first {closest_ms} ms at least"
        )
    }
}

impl Totals {
    /// Of what clients saw.
    pub fn of(seen: &Seen) -> Self {
        let operations = seen.known_operations();
        let terms: BTreeSet<_> = seen.claims.iter().map(|claim| (&claim.group, claim.term)).collect();
        Self {
            acknowledged: seen.changed.values().map(|count| *count as u64).sum(),
            unknown: operations.iter().filter(|operation| operation.answered.is_none()).count() as u64,
            grants: seen.holds.len() as u64,
            terms: terms.len() as u64,
            closest_ms: leaders::closest_ms(&seen.claims).unwrap_or_default(),
            events: seen.told.values().flat_map(BTreeMap::values).map(|told| told.len() as u64).sum(),
        }
    }

    /// Those that are printed, in their order.
    pub fn from_numbers(numbers: &[u64]) -> Option<Self> {
        let &[acknowledged, unknown, grants, terms, events, closest_ms] = numbers else { return None };
        Some(Self { acknowledged, unknown, grants, terms, events, closest_ms })
    }
}
