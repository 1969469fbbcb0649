//! Under which client id a request is sent (D11).
//!
//! A partition remembers the results of the last 128 requests of each client id, and refuses a request that is older than
//! those and not among them (`expired`): it cannot know whether it was applied. So a request that is held up, by an
//! election for example, must not be overtaken by that many others of its client id.
//!
//! ```text
//!   lane 0   done done OPEN done … 117 more … done        full: its oldest request has not been answered yet
//!   lane 1   done OPEN OPEN                               takes the next one
//! ```
//! Each lane has a client id of its own, made from the client's, and the number of the lane is in the last bits of the
//! request id: so whoever repeats a request repeats it under the same client id. A client that asks for little uses one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use uuid::Uuid;

use crate::client::RequestId;

/// How many requests of one client id may be minted from its oldest open one on: less than what is remembered.
const SPAN: u64 = 120;
/// Lanes of a client: more than requests can be held up at once while others go on.
const LANES: u128 = 64;

/// The client ids of one client. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    client: u128,
    lanes: Arc<Mutex<Vec<Lane>>>,
}

#[derive(Debug, Default)]
struct Lane {
    minted: u64,
    open: BTreeSet<u64>,
}

impl Lane {
    /// How many were minted from the oldest open one on.
    fn span(&self) -> u64 {
        self.open.first().map_or(0, |oldest| self.minted - oldest)
    }
}

/// A request id that is in use. Dropping it says that its request is done.
#[derive(Debug)]
pub(crate) struct Minted {
    /// The id.
    pub(crate) request: RequestId,
    lanes: Lanes,
    number: u64,
}

impl Drop for Minted {
    fn drop(&mut self) {
        let lane = usize::try_from(lane_of(self.request)).expect("a lane's number is small");
        self.lanes.lock()[lane].open.remove(&self.number);
    }
}

impl Lanes {
    /// Of the client with this id.
    pub(crate) fn new(client: Uuid) -> Self {
        Self { client: client.as_u128(), lanes: Arc::default() }
    }

    /// A new request id. If every lane is held up, the one that is so least is used nevertheless: at worst its oldest
    /// request is refused, unapplied.
    pub(crate) fn mint(&self) -> Minted {
        let mut lanes = self.lock();
        let index = match lanes.iter().position(|lane| lane.span() < SPAN) {
            Some(index) => index,
            None if (lanes.len() as u128) < LANES => {
                lanes.push(Lane::default());
                lanes.len() - 1
            }
            None => (0..lanes.len()).min_by_key(|index| lanes[*index].span()).expect("there are lanes"),
        };
        let lane = &mut lanes[index];
        let number = lane.minted;
        lane.minted += 1;
        lane.open.insert(number);
        // While the lock is held, so that the ids of a lane are in the order of its numbers.
        let id = RequestId::mint().0.as_u128() / LANES * LANES + index as u128;
        Minted { request: RequestId(Uuid::from_u128(id)), lanes: self.clone(), number }
    }

    /// The client id that a request is sent under. Never the client's own, under which single calls are sent.
    pub(crate) fn client_of(&self, request: RequestId) -> Uuid {
        let id = self.client ^ (lane_of(request) + 1);
        // No client id is nil.
        Uuid::from_u128(if id == 0 { LANES } else { id })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.lanes.lock().expect("no panic while the lock is held")
    }
}

fn lane_of(request: RequestId) -> u128 {
    request.0.as_u128() % LANES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d11_a_client_that_asks_for_one_thing_at_a_time_uses_one_client_id() {
        let lanes = Lanes::new(Uuid::now_v7());
        let clients: BTreeSet<Uuid> = (0..10_000).map(|_| lanes.client_of(lanes.mint().request)).collect();
        assert_eq!(clients.len(), 1);
    }

    #[test]
    fn d11_a_request_that_is_held_up_is_not_overtaken_by_as_many_as_are_remembered() {
        let own = Uuid::now_v7();
        let lanes = Lanes::new(own);
        let stuck = lanes.mint();
        let client = lanes.client_of(stuck.request);
        let after: Vec<_> = (0..10_000).map(|_| lanes.mint().request).collect();
        let overtaking = after.iter().filter(|request| lanes.client_of(**request) == client).count();
        assert!(overtaking < 128, "{overtaking}");
        assert!(after.iter().all(|request| request.0.get_version_num() == 7 && lanes.client_of(*request) != own));
        drop(stuck);
        assert_eq!(lanes.client_of(lanes.mint().request), client, "the lane goes on");
    }

    #[test]
    fn d11_ids_of_a_lane_rise() {
        let lanes = Lanes::new(Uuid::now_v7());
        let minted: Vec<_> = (0..1_000).map(|_| lanes.mint()).collect();
        for lane in 0..LANES {
            let ids: Vec<_> = minted.iter().map(|it| it.request).filter(|request| lane_of(*request) == lane).collect();
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(ids.len() as u64 <= SPAN);
        }
    }

    #[test]
    fn d11_a_request_that_is_repeated_by_another_run_has_the_same_client_id() {
        let own = Uuid::now_v7();
        let request = Lanes::new(own).mint().request;
        assert_eq!(Lanes::new(own).client_of(request), Lanes::new(own).client_of(request));
        assert_ne!(Lanes::new(Uuid::from_u128(1)).client_of(RequestId(Uuid::from_u128(LANES * 9))), Uuid::nil());
    }
}
