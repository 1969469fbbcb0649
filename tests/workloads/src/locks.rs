//! Clients of locks: they wait for one, hold it, renew, release, or go away and come back when it is no longer theirs.

use std::time::Duration;

use coterie_proto::v1;
use coterie_proto::v1::locks_client::LocksClient;
use tonic::transport::Channel;

use crate::call::{answer, pause, request};
use crate::chance::Chance;
use crate::checkers::locks::Hold;
use crate::side::Side;

const CLIENTS: usize = 2;
const LOCKS: u64 = 3;
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// Starts the clients beside a sidecar.
pub fn start(side: &Side) {
    for number in 1..=CLIENTS {
        let (name, chance) = side.client(&format!("lock-{number}"));
        let locks = LocksClient::new(side.channel());
        tokio::spawn(Client { name, chance, side: side.clone(), locks }.run());
    }
}

struct Client {
    name: String,
    chance: Chance,
    side: Side,
    locks: LocksClient<Channel>,
}

impl Client {
    fn now_ms(&self) -> u64 {
        self.side.clock.monotonic_ms()
    }

    async fn run(mut self) {
        while !self.side.history.seen().is_over {
            pause(self.chance.ms(5, 300)).await;
            let lock = format!("lock-{}", self.chance.below(LOCKS));
            if let Some(hold) = self.acquire(lock).await {
                self.use_it(hold).await;
            }
        }
    }

    /// Waits for a lock; where its hold is in the history.
    async fn acquire(&mut self, lock: String) -> Option<usize> {
        let wait = Duration::from_millis(self.chance.one_of(&[0, 400, 1_500]));
        let (timeout, ttl_ms) = (TIMEOUT + wait, 1_000 + self.chance.below(1_500));
        let wait_ms = u64::try_from(wait.as_millis()).expect("short");
        let asked = v1::AcquireRequest { lock: lock.clone(), wait_ms, ttl_ms, ..Default::default() };
        let asked_ms = self.now_ms();
        let call = self.locks.acquire(request(asked, timeout));
        let granted = answer(&self.side.history, &self.name, &format!("acquire {lock}"), timeout, call).await?;
        let v1::AcquireResponse { token, ttl_ms, revision: _ } = granted;
        self.side.history.note(&self.name, &format!("holds {lock} token={token} for {ttl_ms} ms"));
        let (client, granted_ms, until_ms) = (self.name.clone(), self.now_ms(), asked_ms + ttl_ms);
        let mut seen = self.side.history.seen();
        seen.holds.push(Hold { lock, client, token, granted_ms, until_ms, released_ms: None });
        Some(seen.holds.len() - 1)
    }

    async fn use_it(&mut self, number: usize) {
        let Hold { lock, token, .. } = self.side.history.seen().holds[number].clone();
        // How long it holds the lock counts from before it asked, which may be long ago: it asks anew.
        for renewal in 0..=self.chance.below(3) {
            if renewal > 0 {
                pause(self.chance.ms(20, 600)).await;
            }
            let asked_ms = self.now_ms();
            let asked = v1::RenewLockRequest { lock: lock.clone(), token, ..Default::default() };
            let call = self.locks.renew(request(asked, TIMEOUT));
            let Some(renewed) = answer(&self.side.history, &self.name, &format!("renew {lock}"), TIMEOUT, call).await
            else {
                break;
            };
            let until_ms = asked_ms + renewed.ttl_ms;
            let mut seen = self.side.history.seen();
            seen.holds[number].until_ms = seen.holds[number].until_ms.max(until_ms);
        }
        match self.chance.below(4) {
            // It goes away.
            0 => return,
            // It comes back when it may be no longer its own, and does not know that.
            1 => pause(self.chance.ms(1_000, 4_000)).await,
            _ => pause(self.chance.ms(5, 500)).await,
        }
        self.side.history.seen().holds[number].released_ms = Some(self.now_ms());
        let asked = v1::ReleaseLockRequest { lock: lock.clone(), token, ..Default::default() };
        let call = self.locks.release(request(asked, TIMEOUT));
        let what = format!("release {lock} token={token}");
        if answer(&self.side.history, &self.name, &what, TIMEOUT, call).await.is_some() {
            self.side.history.note(&self.name, &what);
        }
    }
}
