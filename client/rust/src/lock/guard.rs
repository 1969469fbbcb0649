//! The proof that a lock is held, and the task that keeps it so.
//!
//! ```text
//!   stream ended ────────────────────┐
//!   the sidecar knows it no more ────┼──▶ lost: said to whoever asks or waits, and given back
//!   not renewed in time ─────────────┘
//! ```
//! How long it is surely held is counted from before the question was sent: an answer may have waited in a buffer while this
//! process was paused (S37).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::place::{Hold, Place};
use crate::clock::Deadline;
use crate::error::Error;
use crate::types::Token;

/// The longest pause between two questions whether the lock is still held.
const ASK_MAX: Duration = Duration::from_secs(60);
/// The shortest.
const ASK_MIN: Duration = Duration::from_millis(20);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// A lock that is held, as long as this lives. Dropping it releases the lock in the background; [`LockGuard::release`] says
/// when that is done.
#[derive(Debug)]
pub struct LockGuard {
    place: Arc<Place>,
    state: watch::Sender<State>,
    generation: watch::Receiver<u64>,
    _keeps: DropGuard,
}

/// Why a lock was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The stream to the sidecar ended, and with it what it held.
    Disconnected,
    /// Nobody vouched for it in time: another may hold it now.
    Expired,
    /// The sidecar says that it is held no more; why, in a sentence.
    Revoked(String),
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected => f.write_str("the stream to the sidecar ended"),
            Self::Expired => f.write_str("nobody vouched for the lock in time"),
            Self::Revoked(why) => f.write_str(why),
        }
    }
}

/// How a lock is held.
#[derive(Clone, Debug)]
enum State {
    /// Surely until then, as far as the stream of this generation is open.
    Held { until: Deadline, generation: u64 },
    /// Not any more.
    Lost(LossReason),
    /// It is being given back, or was.
    Released,
}

impl LockGuard {
    /// Of a place that is surely held until then. A grant may have come long after it was asked for, and then says little:
    /// it is asked about, within `patience`.
    pub(super) async fn begin(place: Place, until: Deadline, patience: Duration) -> Result<Self, Error> {
        let (until, generation) = match until.remaining() > ASK_MIN {
            true => (until, place.generation()),
            false => place.renew(patience).await?,
        };
        let seen = place.client().operations().generation();
        if place.hold() == Hold::Stream && generation != place.generation() {
            place.is_gone();
            return Err(Error::Disconnected { message: LossReason::Disconnected.to_string() });
        }
        let (state, place, stop) =
            (watch::Sender::new(State::Held { until, generation }), Arc::new(place), CancellationToken::new());
        let keeper = Keeper { place: place.clone(), state: state.clone(), generation: seen.clone() };
        let keeps = stop.clone().drop_guard();
        place.client().operations().spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keeper.keep() => {}
            }
        });
        Ok(Self { place, state, generation: seen, _keeps: keeps })
    }

    /// The fencing token. Hand it to whatever the lock protects.
    pub fn token(&self) -> Token {
        self.place.token()
    }

    /// The lock's name.
    pub fn name(&self) -> &str {
        self.place.name()
    }

    /// Whether the lock is surely held right now. Ask at the moment of acting: nobody else is granted it while this says
    /// yes, given that clocks run at about the same rate. A process that is paused *after* it asked is protected only by the
    /// token (S37).
    pub fn is_held(&self) -> bool {
        !self.valid_for().is_zero()
    }

    /// How long the lock is surely held from now on without further word from the sidecar; zero if it is not.
    pub fn valid_for(&self) -> Duration {
        match &*self.state.borrow() {
            State::Held { until, generation } if *generation == *self.generation.borrow() => until.remaining(),
            State::Held { .. } | State::Lost(_) | State::Released => Duration::ZERO,
        }
    }

    /// Waits until the lock is lost, and says why. That is said before anybody else is granted the lock, as far as this
    /// process runs: [`LockGuard::is_held`] says no at that moment in any case. Cancel safe; may be waited for by several.
    pub async fn lost(&self) -> LossReason {
        let mut seen = self.state.subscribe();
        let lost = seen.wait_for(|state| matches!(state, State::Lost(_))).await;
        match lost.map(|state| state.clone()) {
            Ok(State::Lost(reason)) => reason,
            Ok(State::Held { .. } | State::Released) | Err(_) => {
                unreachable!("this guard has the sender, is not released, and waited for a loss")
            }
        }
    }

    /// Releases the lock; the next one in the queue is granted it. From the moment of calling [`LockGuard::is_held`] says
    /// no. Fails with `token_unknown` if the lock was lost before: what was done under it may have overlapped with what the
    /// next one did. After any other error, and if the future is dropped, it is released in the background.
    pub async fn release(self) -> Result<(), Error> {
        self.state.send_replace(State::Released);
        self.place.give_back().await
    }
}

/// The task that keeps a lock.
struct Keeper {
    place: Arc<Place>,
    state: watch::Sender<State>,
    generation: watch::Receiver<u64>,
}

impl Keeper {
    /// Until it is lost or released.
    async fn keep(mut self) {
        let Some(reason) = self.until_lost().await else { return };
        let expired = reason == LossReason::Expired;
        let lost = self.state.send_if_modified(|state| {
            let held = matches!(state, State::Held { .. });
            if held {
                *state = State::Lost(reason);
            }
            held
        });
        if !expired {
            // Nothing is left of it at the sidecar.
            self.place.is_gone();
        } else if lost {
            // Nobody acts on it here any more: let the next one have it. What fails is done again when the guard drops.
            let _ = self.place.give_back().await;
        }
    }

    /// Why it is lost; `None` if it is released.
    async fn until_lost(&mut self) -> Option<LossReason> {
        let granted_in = self.place.generation();
        loop {
            let State::Held { until, generation } = self.state.borrow().clone() else { return None };
            let left = until.remaining();
            if left.is_zero() {
                return Some(LossReason::Expired);
            }
            // Over a new stream it is asked at once: until then a lease is not surely held.
            let pause = match generation == *self.generation.borrow_and_update() {
                true => (left / 3).clamp(ASK_MIN, ASK_MAX),
                false if self.place.hold() == Hold::Stream => return Some(LossReason::Disconnected),
                false => ASK_MIN,
            };
            tokio::select! {
                () = tokio::time::sleep(pause.min(left)) => {}
                changed = self.generation.changed() => {
                    if changed.is_err() || self.place.hold() == Hold::Stream {
                        return Some(LossReason::Disconnected);
                    }
                    continue;
                }
            }
            let renewed = tokio::select! {
                renewed = self.place.renew(PATIENCE.min(until.remaining())) => renewed,
                () = stream_ends(self.generation.clone(), granted_in), if self.place.hold() == Hold::Stream => {
                    return Some(LossReason::Disconnected);
                }
                () = tokio::time::sleep(until.remaining()) => continue,
            };
            match renewed {
                Ok((until, generation)) => {
                    _ = self.state.send_if_modified(|state| {
                        if let State::Held { .. } = state {
                            *state = State::Held { until, generation };
                        }
                        false
                    })
                }
                Err(Error::Refused(refusal)) if refusal.code == "token_unknown" => {
                    return Some(LossReason::Revoked(refusal.message));
                }
                // It is asked again as long as there is time.
                Err(_) => {}
            }
        }
    }
}

/// Waits until there is another stream than this.
async fn stream_ends(mut seen: watch::Receiver<u64>, generation: u64) {
    // The sender is gone with the client, which the place has.
    let _ = seen.wait_for(|now| *now != generation).await;
}
