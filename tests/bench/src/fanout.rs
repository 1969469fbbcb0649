//! Who has seen what: a put of a watched key is done when all watchers were told of it.
//!
//! A value begins with the slot that wrote it and how often it has; so a watcher needs no table, and whoever waits for an
//! earlier round than the one it hears of hears of nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::load::VALUE_BYTES;

/// What is shared by the writers and the watchers of one measurement.
#[derive(Debug)]
pub struct Fanout {
    watchers: u64,
    slots: Vec<Slot>,
    /// Events that watchers were given.
    delivered: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    /// The round that is waited for.
    round: AtomicU64,
    /// How many watchers have seen it.
    seen: AtomicU64,
    all: Notify,
}

impl Fanout {
    /// Nothing written, nothing seen.
    pub fn new(watchers: usize, slots: usize) -> Self {
        let slots = (0..slots).map(|_| Slot::default()).collect();
        Self { watchers: watchers as u64, slots, delivered: AtomicU64::new(0) }
    }

    /// Events that watchers were given so far.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Says that a slot is about to write this round.
    pub fn begin(&self, slot: usize, round: u64) {
        self.slots[slot].seen.store(0, Ordering::SeqCst);
        self.slots[slot].round.store(round, Ordering::SeqCst);
    }

    /// Returns when all watchers have seen the slot's round.
    pub async fn seen_by_all(&self, slot: usize) {
        let slot = &self.slots[slot];
        while slot.seen.load(Ordering::SeqCst) < self.watchers {
            slot.all.notified().await;
        }
    }

    /// What a slot writes in a round.
    pub fn value(slot: usize, round: u64) -> Bytes {
        let mut value = vec![0x5a; VALUE_BYTES];
        value[..8].copy_from_slice(&(slot as u64).to_le_bytes());
        value[8..16].copy_from_slice(&round.to_le_bytes());
        value.into()
    }

    /// One watcher was told of this value.
    pub fn told(&self, value: &[u8]) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        let Some((slot, round)) = value.get(..16).map(|head| head.split_at(8)) else { return };
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte));
        let Some(slot) = self.slots.get(number(slot) as usize) else { return };
        if slot.round.load(Ordering::SeqCst) == number(round)
            && slot.seen.fetch_add(1, Ordering::SeqCst) + 1 >= self.watchers
        {
            slot.all.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_put_is_done_when_all_watchers_have_seen_it_and_not_an_earlier_one() {
        let fanout = Fanout::new(2, 3);
        fanout.begin(1, 7);
        fanout.told(&Fanout::value(1, 6));
        fanout.told(&Fanout::value(1, 7));
        let early = tokio::time::timeout(std::time::Duration::ZERO, fanout.seen_by_all(1)).await;
        assert!(early.is_err(), "one watcher has not seen it");
        fanout.told(&Fanout::value(1, 7));
        fanout.seen_by_all(1).await;
        assert_eq!(fanout.delivered(), 3);
    }
}
