//! Clients of locks: they wait for one, hold it, renew, release, or go away and come back when it is no longer theirs.

use std::time::Duration;

use coterie_proto::v1;
use coterie_proto::v1::locks_client::LocksClient;
use tonic::transport::Channel;

use super::call::{answer, request};
use crate::application;
use crate::checkers::locks::Hold;
use crate::cluster::Life;
use crate::history::History;
use crate::world::{self, Chance};

const CLIENTS: usize = 2;
const LOCKS: u64 = 3;
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// Starts the clients of one life.
pub fn start(life: &Life) {
    for number in 1..=CLIENTS {
        let name = format!("{}.lock-{number}", life.host);
        let chance = Chance::of(life.seed, &format!("{name}-{}", life.number));
        let locks = LocksClient::new(application::channel());
        tokio::spawn(Client { name, chance, history: life.history.clone(), locks }.run());
    }
}

struct Client {
    name: String,
    chance: Chance,
    history: History,
    locks: LocksClient<Channel>,
}

impl Client {
    async fn run(mut self) {
        while !self.history.seen().is_over {
            tokio::time::sleep(self.chance.ms(5, 300)).await;
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
        let call = self.locks.acquire(request(asked, timeout));
        let granted = answer(&self.history, &self.name, &format!("acquire {lock}"), timeout, call).await?;
        let v1::AcquireResponse { token, ttl_ms, revision: _ } = granted;
        self.history.note(&self.name, &format!("holds {lock} token={token} for {ttl_ms} ms"));
        let granted_ms = world::now_ms();
        let (client, until_ms) = (self.name.clone(), granted_ms + ttl_ms);
        let mut seen = self.history.seen();
        seen.holds.push(Hold { lock, client, token, granted_ms, until_ms, released_ms: None });
        Some(seen.holds.len() - 1)
    }

    async fn use_it(&mut self, number: usize) {
        let Hold { lock, token, .. } = self.history.seen().holds[number].clone();
        for _ in 0..self.chance.below(3) {
            tokio::time::sleep(self.chance.ms(20, 600)).await;
            let asked = v1::RenewLockRequest { lock: lock.clone(), token, ..Default::default() };
            let call = self.locks.renew(request(asked, TIMEOUT));
            let Some(renewed) = answer(&self.history, &self.name, &format!("renew {lock}"), TIMEOUT, call).await else {
                break;
            };
            let until_ms = world::now_ms() + renewed.ttl_ms;
            let mut seen = self.history.seen();
            seen.holds[number].until_ms = seen.holds[number].until_ms.max(until_ms);
        }
        match self.chance.below(4) {
            // It goes away.
            0 => return,
            // It comes back when it may be no longer its own, and does not know that.
            1 => tokio::time::sleep(self.chance.ms(1_000, 4_000)).await,
            _ => tokio::time::sleep(self.chance.ms(5, 500)).await,
        }
        self.history.seen().holds[number].released_ms = Some(world::now_ms());
        let asked = v1::ReleaseLockRequest { lock: lock.clone(), token, ..Default::default() };
        let call = self.locks.release(request(asked, TIMEOUT));
        let what = format!("release {lock} token={token}");
        if answer(&self.history, &self.name, &what, TIMEOUT, call).await.is_some() {
            self.history.note(&self.name, &what);
        }
    }
}
