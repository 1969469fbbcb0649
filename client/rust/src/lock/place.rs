//! A lock that was granted, until it is given back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coterie_proto::v1;
use coterie_proto::v1::operation::Request;
use coterie_proto::v1::result::Response;
use tokio::time::Instant;

use crate::client::Client;
use crate::clock::Deadline;
use crate::error::{Error, Kind, Retry};
use crate::operations::{Class, PAUSE_MAX, PAUSE_MIN, Undo};
use crate::types::Token;

/// How long to try to give back what is held by a lease: then it has run out, but for the longest ones.
const GIVE_BACK: Duration = Duration::from_secs(60);

/// Which lock.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) lock: String,
    pub(super) partition_group: String,
}

/// What a lock is held by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// The stream of the generation that it was granted in.
    Stream,
    /// A lease.
    Lease,
}

/// A lock that is held. Dropping it gives it back in the background.
#[derive(Debug)]
pub(super) struct Place {
    granted: Granted,
    given_back: AtomicBool,
}

/// What was granted.
#[derive(Clone, Debug)]
struct Granted {
    client: Client,
    address: Address,
    token: Token,
    hold: Hold,
    /// Of the stream that granted it.
    generation: u64,
}

impl Place {
    pub(super) fn new(client: &Client, address: Address, token: Token, hold: Hold, generation: u64) -> Self {
        let granted = Granted { client: client.clone(), address, token, hold, generation };
        Self { granted, given_back: AtomicBool::new(false) }
    }

    /// Gives back what is granted to a request that nobody waits for any more.
    pub(super) fn undo(client: &Client, address: Address, hold: Hold) -> Undo {
        let client = client.clone();
        Box::new(move |response, generation| {
            if let Response::Acquire(granted) = response {
                drop(Self::new(&client, address, Token(granted.token), hold, generation));
            }
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.granted.client
    }

    pub(super) fn name(&self) -> &str {
        &self.granted.address.lock
    }

    pub(super) fn token(&self) -> Token {
        self.granted.token
    }

    pub(super) fn hold(&self) -> Hold {
        self.granted.hold
    }

    /// Of the stream that granted it.
    pub(super) fn generation(&self) -> u64 {
        self.granted.generation
    }

    /// Asks until when it is surely held, from before the question on; and over the stream of which generation.
    pub(super) async fn renew(&self, within: Duration) -> Result<(Deadline, u64), Error> {
        let Granted { client, address: Address { lock, partition_group }, token, hold: _, generation: _ } =
            &self.granted;
        let (lock, partition_group) = (lock.clone(), partition_group.clone());
        let request = Request::RenewLock(v1::RenewLockRequest { lock, partition_group, token: token.0 });
        let operations = client.operations();
        let generations = operations.generation();
        let deadline = Instant::now() + within;
        loop {
            let (at, generation) = (Deadline::now(), *generations.borrow());
            match operations.call(request.clone(), Kind::Read, Class::Urgent, deadline).await? {
                // Over the next stream, which may be to another run of the sidecar: it is asked again.
                Response::RenewLock(_) if *generations.borrow() != generation => {}
                Response::RenewLock(renewed) => {
                    return Ok((at.after(Duration::from_millis(renewed.ttl_ms)), generation));
                }
                _ => return Err(Error::Protocol { missing: "time to live" }),
            }
        }
    }

    /// Gives it back; what fails here is tried again when this is dropped.
    pub(super) async fn give_back(&self) -> Result<(), Error> {
        let released = self.granted.give_back().await;
        if released.as_ref().map_or_else(is_over, |()| true) {
            self.is_gone();
        }
        released
    }

    /// Nothing is left to give back.
    pub(super) fn is_gone(&self) {
        self.given_back.store(true, Ordering::Release);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !*self.given_back.get_mut() {
            self.client().operations().spawn(self.granted.clone().give_back_at_last());
        }
    }
}

impl Granted {
    async fn give_back(&self) -> Result<(), Error> {
        let Address { lock, partition_group } = self.address.clone();
        let request = Request::ReleaseLock(v1::ReleaseLockRequest { lock, partition_group, token: self.token.0 });
        self.client.operations().write(request, None, Class::Urgent).await.map(|_| ())
    }

    /// Until it is given back, or gone by itself.
    async fn give_back_at_last(self) {
        let generations = self.client.operations().generation();
        let until = Instant::now() + GIVE_BACK;
        let mut pause = PAUSE_MIN;
        loop {
            let ended_with_its_stream = self.hold == Hold::Stream && *generations.borrow() != self.generation;
            let gave_up = self.hold == Hold::Lease && Instant::now() >= until;
            if ended_with_its_stream || gave_up || self.give_back().await.as_ref().map_or_else(is_over, |()| true) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Whether there is nothing to be given back, or nothing that asking again could do.
fn is_over(error: &Error) -> bool {
    error.retry() == Retry::Never
}
