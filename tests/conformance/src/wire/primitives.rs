//! Maps and locks over both wires.

use coterie_proto::v1;

use super::{Answer, Events};

mod grpc;
mod http;
mod json;

/// Maps and locks. Requests go to the client's partition group, whatever they name.
#[allow(async_fn_in_trait)]
pub trait Primitives {
    /// Put.
    async fn put(&self, request: v1::PutRequest) -> Answer<v1::PutResponse>;
    /// Get an entry. Over HTTP the answer does not say the partition's revision.
    async fn entry(&self, request: v1::GetEntryRequest) -> Answer<v1::GetEntryResponse>;
    /// Delete an entry.
    async fn remove(&self, request: v1::DeleteEntryRequest) -> Answer<v1::DeleteEntryResponse>;
    /// List entries.
    async fn entries(&self, request: v1::ListEntriesRequest) -> Answer<v1::ListEntriesResponse>;
    /// Drop a map.
    async fn drop_map(&self, map: &str) -> Answer<v1::DropMapResponse>;
    /// Watch a map.
    async fn watch_map(&self, request: v1::WatchMapRequest) -> Answer<Events<v1::MapEvent>>;
    /// Acquire.
    async fn acquire(&self, request: v1::AcquireRequest) -> Answer<v1::AcquireResponse>;
    /// Renew a lock's lease.
    async fn renew_lock(&self, lock: &str, token: u64) -> Answer<v1::RenewLockResponse>;
    /// Release a lock.
    async fn release_lock(&self, lock: &str, token: u64) -> Answer<v1::ReleaseLockResponse>;
    /// Who holds a lock.
    async fn lock(&self, lock: &str) -> Answer<v1::Lock>;
}

/// Sets a key.
pub fn put(map: &str, key: &str, value: &str) -> v1::PutRequest {
    let (map, key, value) = (map.to_owned(), key.to_owned(), value.to_owned().into());
    v1::PutRequest { map, key, value, ..v1::PutRequest::default() }
}

/// Reads a key.
pub fn get(map: &str, key: &str) -> v1::GetEntryRequest {
    v1::GetEntryRequest { map: map.to_owned(), key: key.to_owned(), ..v1::GetEntryRequest::default() }
}

/// Removes a key.
pub fn delete(map: &str, key: &str) -> v1::DeleteEntryRequest {
    v1::DeleteEntryRequest { map: map.to_owned(), key: key.to_owned(), ..v1::DeleteEntryRequest::default() }
}

/// Lists keys after one.
pub fn list(map: &str, prefix: &str, after: &str, limit: u32) -> v1::ListEntriesRequest {
    let (map, prefix, after) = (map.to_owned(), prefix.to_owned(), after.to_owned());
    v1::ListEntriesRequest { map, prefix, after, limit, ..v1::ListEntriesRequest::default() }
}

/// Watches a map after an event.
pub fn watch(map: &str, prefix: &str, after: &str) -> v1::WatchMapRequest {
    let (map, prefix, after) = (map.to_owned(), prefix.to_owned(), after.to_owned());
    v1::WatchMapRequest { map, prefix, after, ..v1::WatchMapRequest::default() }
}

/// Acquires a lock with a lease; 0: the default.
pub fn acquire(lock: &str, wait_ms: u64, ttl_ms: u64) -> v1::AcquireRequest {
    v1::AcquireRequest { lock: lock.to_owned(), partition_group: String::new(), wait_ms, ttl_ms }
}

/// One change of a map, taken out of its envelope.
pub type MapChange = v1::map_event::Kind;

impl Events<v1::MapEvent> {
    /// Takes the entries that a watch begins with, all parts of them, and the id of the last.
    ///
    /// # Panics
    /// When something else comes first.
    pub async fn view(&mut self) -> (Vec<v1::Entry>, String) {
        let mut entries = Vec::new();
        loop {
            let event = self.next().await.expect("a watch begins with all entries");
            match event.kind {
                Some(MapChange::Snapshot(part) | MapChange::Resync(part)) => {
                    entries.extend(part.entries);
                    if part.last {
                        return (entries, event.id);
                    }
                }
                Some(MapChange::Connection(_)) => {}
                other => panic!("a watch begins with all entries, not with {other:?}"),
            }
        }
    }

    /// The next change that is not about the connection; `None` at the end.
    pub async fn changed(&mut self) -> Option<v1::MapEvent> {
        loop {
            let event = self.next().await?;
            if !matches!(event.kind, Some(MapChange::Connection(_))) {
                return Some(event);
            }
        }
    }
}
