//! Answers that wait for those of other operations, so that they share a message.
//!
//! A message costs as much as several operations, here and where it is read. So what is answered waits while more of the
//! stream's reads and writes are under way than are answered, but no longer than [`RESULTS_HELD_MAX`]. One alone never
//! waits, what is not an answer of a read or a write (an event, a lock) lets nothing wait, and what waited in vain is a
//! sign that the others take long: the next ones go at once.

use std::pin::Pin;
use std::task::Context;

use tokio::time::Sleep;

use crate::limits::RESULTS_HELD_MAX;

/// Messages that are not held after one that waited in vain.
const NOT_HELD: usize = 64;

/// How many are under way, and how many are answered and not sent.
#[derive(Default)]
pub(super) struct Holding {
    under_way: usize,
    answered: usize,
    /// Until when they may wait, and how many there were when they began to.
    until: Option<(Pin<Box<Sleep>>, usize)>,
    /// Messages that go at once: what is under way takes long.
    at_once: usize,
}

impl Holding {
    /// So many reads and writes leave for their partitions.
    pub(super) fn leave(&mut self, count: usize) {
        self.under_way += count;
    }

    /// So many are answered.
    pub(super) fn come(&mut self, count: usize) {
        self.under_way -= count;
        self.answered += count;
    }

    /// What was answered is sent.
    pub(super) fn sent(&mut self) {
        self.answered = 0;
        self.until = None;
        self.at_once = self.at_once.saturating_sub(1);
    }

    /// Whether what is ready waits. The task is woken when it has waited enough.
    pub(super) fn waits(&mut self, cx: &mut Context<'_>, ready: usize) -> bool {
        if self.answered == 0 || ready > self.answered || self.answered >= self.under_way || self.at_once > 0 {
            return false;
        }
        let begin = || (Box::pin(tokio::time::sleep(RESULTS_HELD_MAX)), self.answered);
        let (until, answered) = self.until.get_or_insert_with(begin);
        let waits = until.as_mut().poll(cx).is_pending();
        if !waits && *answered == self.answered {
            self.at_once = NOT_HELD;
        }
        waits
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    async fn waits(holding: &mut Holding, ready: usize) -> bool {
        poll_fn(|cx| Poll::Ready(holding.waits(cx, ready))).await
    }

    #[tokio::test(start_paused = true)]
    async fn answers_wait_for_as_many_more_and_not_for_long() {
        let mut holding = Holding::default();
        assert!(!waits(&mut holding, 0).await, "nothing is there");
        holding.leave(1);
        holding.come(1);
        assert!(!waits(&mut holding, 1).await, "nothing else is under way");
        holding.sent();
        holding.leave(8);
        holding.come(3);
        assert!(waits(&mut holding, 3).await, "five are under way");
        assert!(!waits(&mut holding, 4).await, "an event is among what is ready");
        holding.come(2);
        assert!(!waits(&mut holding, 5).await, "three are under way");
        holding.sent();
        holding.come(1);
        assert!(waits(&mut holding, 1).await);
        tokio::time::advance(RESULTS_HELD_MAX).await;
        assert!(!waits(&mut holding, 1).await, "it has waited long enough");
        holding.sent();
        for _ in 1..NOT_HELD {
            holding.leave(4);
            holding.come(1);
            assert!(!waits(&mut holding, 1).await, "the last one waited in vain");
            holding.sent();
        }
        holding.leave(4);
        holding.come(1);
        assert!(waits(&mut holding, 1).await);
        holding.come(1);
        tokio::time::advance(RESULTS_HELD_MAX).await;
        assert!(!waits(&mut holding, 2).await);
        holding.sent();
        holding.leave(4);
        holding.come(1);
        assert!(waits(&mut holding, 1).await, "the last one did not wait in vain");
    }
}
