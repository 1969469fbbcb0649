//! Giving up everything in good order (D16).
//!
//! Good order needs a majority. Without one nothing can be committed, so nothing is waited for beyond the session's
//! deadline: from then on nothing is vouched for, and the partition expires the session by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coterie_core::Term;
use coterie_core::command::{Command, GroupOp, Reply};
use futures_util::future::join_all;

use super::Presences;
use super::held::Held;
use crate::retry::{Pauses, is_transient};

impl Presences {
    /// Takes no new members; asks every leader here to release, waits until it did (or left, or its group's release
    /// time-out passed), and leaves with all. Members that do not lead go first, so that no leadership is handed to one
    /// of them. What cannot be committed before a session's deadline is left to the session's expiry.
    pub async fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
        self.0.probing.cancel();
        let (leaders, others): (Vec<_>, Vec<_>) = self.everyone().into_iter().partition(|held| held.elected().0);
        join_all(others.iter().map(|held| self.leave_in_order(held))).await;
        join_all(leaders.iter().map(|held| self.step_down(held))).await;
        // One of the others may have been elected before it left, and a join may have come in at the last moment.
        join_all(self.everyone().iter().map(|held| self.step_down(held))).await;
    }

    async fn leave_in_order(&self, held: &Arc<Held>) {
        held.withdraw();
        held.wait_out().await;
        let limit = self.deadline().remaining(&self.0.env);
        let left = tokio::select! {
            left = tokio::time::timeout(limit, self.leave_until_done(held)) => left.is_ok(),
            () = held.wait_unvouched() => false,
        };
        if !left && held.ended().borrow().is_none() {
            tracing::warn!(group = %held.group, member = held.id.0, "leave while draining: not committed in time");
            self.give_up(held);
        }
    }

    async fn step_down(&self, held: &Arc<Held>) {
        let (leads, term) = held.elected();
        held.last_term(term);
        if leads {
            tokio::select! {
                () = self.hand_over(held, term) => {}
                () = held.wait_unvouched() => {}
            }
        }
        if held.elected() == (true, term) {
            held.withdraw();
        }
        self.leave_in_order(held).await;
    }

    /// Asks to release, and waits until the term is over or its time has run out.
    async fn hand_over(&self, held: &Held, term: Term) {
        if let Some(timeout_ms) = self.ask_to_release(held, term).await {
            // Its own time-out ends it too; this one holds when there is no quorum to say so.
            let _ = tokio::time::timeout(Duration::from_millis(timeout_ms), held.wait_term_over(term)).await;
        }
    }

    /// Asks; gives the release time-out in milliseconds. `None` if it leads no more, or nobody could be asked.
    async fn ask_to_release(&self, held: &Held, term: Term) -> Option<u64> {
        let request = self.0.router.mint();
        let until = self.deadline();
        let mut pauses = Pauses::new();
        loop {
            let op = GroupOp::StepDown { if_term: Some(term), reason: "drain".to_owned() };
            let command = Command::Group { name: held.group.clone(), op };
            match self.0.router.write(request, &held.partition, command, until).await {
                Ok((_, Reply::Group(view))) => {
                    let timeout_ms = view.config.release_timeout_ms;
                    held.learn(&view);
                    return Some(timeout_ms);
                }
                Ok(_) => return None,
                Err(rejection) if is_transient(rejection.code) && !until.passed(&self.0.env) => {}
                Err(rejection) => {
                    tracing::debug!(group = %held.group, member = held.id.0, %rejection, "ask to release");
                    return None;
                }
            }
            pauses.wait(&self.0.stopping).await;
        }
    }
}
