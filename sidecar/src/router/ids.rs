//! The ids under which a sidecar sends what it asks for by itself (D11).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use coterie_core::RequestId;
use coterie_env::Random;
use coterie_env::random::uuid_v7;

use crate::limits::{CLIENT_IDS, CLIENT_RUN, CLOCK_BACK_MS_MAX};

/// Mints request ids that rise with the wall clock. Where that is set back by so much that ids which go on from the newest
/// would be refused as ahead of time, and ids that do not as older than what was forgotten, clients begin anew instead.
pub(super) struct Ids {
    clients: [u128; CLIENT_IDS],
    minted: AtomicUsize,
    newest_ms: AtomicU64,
    /// How often clients began anew.
    epoch: AtomicU64,
}

impl Ids {
    pub(super) fn new(random: &dyn Random, wall_ms: u64) -> Self {
        Self {
            clients: std::array::from_fn(|_| uuid_v7(random, wall_ms)),
            minted: AtomicUsize::new(0),
            newest_ms: AtomicU64::new(wall_ms),
            epoch: AtomicU64::new(0),
        }
    }

    pub(super) fn mint(&self, random: &dyn Random, wall_ms: u64) -> RequestId {
        let number = self.minted.fetch_add(1, Ordering::Relaxed);
        let newest_ms = self.newest_ms.fetch_max(wall_ms, Ordering::Relaxed);
        let set_back = wall_ms.saturating_add(CLOCK_BACK_MS_MAX) < newest_ms;
        // Of those that see it at the same time one begins anew for all.
        if set_back && self.newest_ms.compare_exchange(newest_ms, wall_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
        let issued_ms = if set_back { wall_ms } else { wall_ms.max(newest_ms) };
        // Some of one client after another: what partitions keep of it is at hand for the next.
        let client = self.clients[number / CLIENT_RUN % CLIENT_IDS];
        let epoch = u128::from(self.epoch.load(Ordering::Relaxed));
        RequestId { client: client.wrapping_add(epoch), request: uuid_v7(random, issued_ms) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use coterie_env::Random;

    use super::*;

    struct Counting(AtomicU64);

    impl Random for Counting {
        fn next_u64(&self) -> u64 {
            self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
        }
    }

    const NOW_MS: u64 = 1_700_000_000_000;

    fn minted(ids: &Ids, random: &Counting, wall_ms: u64) -> Vec<RequestId> {
        (0..CLIENT_IDS * CLIENT_RUN).map(|_| ids.mint(random, wall_ms)).collect()
    }

    fn clients(ids: &[RequestId]) -> BTreeSet<u128> {
        ids.iter().map(|id| id.client).collect()
    }

    #[test]
    fn d11_ids_do_not_fall_when_the_clock_is_set_back_a_little() {
        let random = Counting(AtomicU64::new(1));
        let ids = Ids::new(&random, NOW_MS);
        let before = minted(&ids, &random, NOW_MS);
        let after = minted(&ids, &random, NOW_MS - CLOCK_BACK_MS_MAX);
        assert_eq!(clients(&before), clients(&after));
        assert!(after.iter().all(|id| id.issued_ms() == NOW_MS));
    }

    #[test]
    fn d11_clients_begin_anew_when_the_clock_is_set_back_far() {
        let random = Counting(AtomicU64::new(1));
        let ids = Ids::new(&random, NOW_MS);
        let before = minted(&ids, &random, NOW_MS);
        let right_ms = NOW_MS - CLOCK_BACK_MS_MAX - 1;
        let after = minted(&ids, &random, right_ms);
        assert!(after.iter().all(|id| id.issued_ms() == right_ms));
        assert_eq!(clients(&after).len(), CLIENT_IDS, "begun anew once, not by every request");
        assert!(clients(&before).is_disjoint(&clients(&after)));
    }
}
