//! A handle of one map.

use bytes::Bytes;
use coterie_proto::v1;
use coterie_proto::v1::operation::Request;
use coterie_proto::v1::result::Response;

use crate::client::{Client, RequestId};
use crate::error::Error;
use crate::handle::Handle;
use crate::operations::Class;
use crate::types::{Consistency, Revision};
pub use pages::{Page, Pages};
pub use types::{Changed, Entry, Found, MapEvent, MapEventKind, Part};
pub use watch::MapWatch;

mod pages;
mod types;
mod watch;

/// A handle of one map: keys with values of bytes, each with the revision that last changed it. Cheap to clone; holds
/// nothing by itself.
///
/// All operations but [`Map::watch`] and [`Map::drop_map`] travel over one stream that the client's handles share, so many
/// may be under way at once. Each ends within [`crate::ClientOptions::timeout`]; a write of which nothing was heard is sent
/// again under the same request id until then, and applied once (D11).
///
/// ```no_run
/// # async fn example(client: coterie_client::Client) -> Result<(), coterie_client::Error> {
/// let map = client.map("settings");
/// map.put("mode", "fast").await?;
/// // Compare and set: only if nobody has changed it since it was read.
/// while let Some(entry) = map.get("mode").await? {
///     let next = [&entry.value[..], b"er"].concat();
///     if map.put_if("mode", next, entry.revision).await?.is_some() {
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Map {
    of: Handle,
}

impl Map {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { of: Handle::new(client, name) }
    }

    /// The same name in another partition group (D15).
    #[must_use]
    pub fn in_partition_group(&self, partition_group: &str) -> Self {
        Self { of: self.of.in_partition_group(partition_group) }
    }

    /// A handle whose writes carry this request id: repeats the one write that was answered [`Error::Unknown`], so that it
    /// is applied once (D11). Use it for that one write only.
    #[must_use]
    pub fn with_request(&self, request: RequestId) -> Self {
        Self { of: self.of.with_request(request) }
    }

    /// The map's name.
    pub fn name(&self) -> &str {
        &self.of.name
    }

    /// The client that this handle was made by.
    pub fn client(&self) -> &Client {
        &self.of.client
    }

    /// The entry of this key, linearizable; `None` if there is none.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        Ok(self.read(key, Consistency::Linearizable).await?.entry)
    }

    /// The entry of this key, and how fresh that is.
    pub async fn read(&self, key: &str, consistency: Consistency) -> Result<Found, Error> {
        let (map, partition_group) = self.address();
        let consistency = v1::Consistency::from(consistency).into();
        let request = v1::GetEntryRequest { map, partition_group, key: key.to_owned(), consistency };
        match self.of.client.operations().read(Request::Get(request)).await? {
            Response::Get(found) => Ok(found.into()),
            _ => Err(Error::Protocol { missing: "entry" }),
        }
    }

    /// Sets a key, whatever it was. Makes the map if there is none. Keys have 1 to 1,024 bytes, values up to 1 MiB.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<Changed, Error> {
        self.set(key, value.into(), 0, false).await
    }

    /// Sets a key that is not there; `None` if it is, and then nothing changed.
    pub async fn put_if_absent(&self, key: &str, value: impl Into<Bytes>) -> Result<Option<Changed>, Error> {
        met(self.set(key, value.into(), 0, true).await)
    }

    /// Sets a key if it was last changed at this revision ([`Entry::revision`]); `None` if it was changed or removed since,
    /// and then nothing changed.
    pub async fn put_if(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        revision: Revision,
    ) -> Result<Option<Changed>, Error> {
        met(self.set(key, value.into(), revision.0, false).await)
    }

    /// Removes a key. One that is not there is no error: [`Changed::previous`] is `None`.
    pub async fn delete(&self, key: &str) -> Result<Changed, Error> {
        self.remove(key, 0).await
    }

    /// Removes a key if it was last changed at this revision; `None` if it was changed or removed since, and then nothing
    /// changed.
    pub async fn delete_if(&self, key: &str, revision: Revision) -> Result<Option<Changed>, Error> {
        met(self.remove(key, revision.0).await)
    }

    /// The entries whose keys begin with `prefix` (empty: all), in the order of the keys, page by page. Each page is
    /// linearizable by itself; what changes between two of them may show.
    pub fn list(&self, prefix: impl Into<String>) -> Pages {
        Pages::new(self.clone(), prefix.into())
    }

    /// What there is under keys that begin with `prefix` (empty: all), then every change, in order; resumes by itself after
    /// a broken connection. Must be called within a Tokio runtime.
    pub fn watch(&self, prefix: impl Into<String>) -> MapWatch {
        MapWatch::start(self.clone(), prefix.into(), String::new())
    }

    /// Every change after the one with this [`MapEvent::id`]; a resync comes first if that is too long ago (D17).
    pub fn watch_after(&self, prefix: impl Into<String>, id: impl Into<String>) -> MapWatch {
        MapWatch::start(self.clone(), prefix.into(), id.into())
    }

    /// Removes the map and all that is in it; its watches end. A later put makes it again. Not repeated by itself.
    pub async fn drop_map(&self) -> Result<Revision, Error> {
        let (map, partition_group) = self.address();
        let mut wire = self.of.client.maps();
        let call = |request| async move { wire.drop(request).await };
        let request = self.of.request.unwrap_or_else(RequestId::mint);
        let dropped = self.of.client.write(call, v1::DropMapRequest { map, partition_group }, request).await?;
        Ok(Revision(dropped.revision))
    }

    async fn set(&self, key: &str, value: Bytes, if_revision: u64, if_absent: bool) -> Result<Changed, Error> {
        let (map, partition_group) = self.address();
        let class = Class::Call(value.len());
        let key = key.to_owned();
        let request = Request::Put(v1::PutRequest { map, partition_group, key, value, if_revision, if_absent });
        match self.of.client.operations().write(request, self.of.request, class).await? {
            Response::Put(written) => Ok(Changed::new(written.revision, written.previous_revision)),
            _ => Err(Error::Protocol { missing: "revision" }),
        }
    }

    async fn remove(&self, key: &str, if_revision: u64) -> Result<Changed, Error> {
        let (map, partition_group) = self.address();
        let key = key.to_owned();
        let request = Request::Delete(v1::DeleteEntryRequest { map, partition_group, key, if_revision });
        match self.of.client.operations().write(request, self.of.request, Class::Call(0)).await? {
            Response::Delete(written) => Ok(Changed::new(written.revision, written.previous_revision)),
            _ => Err(Error::Protocol { missing: "revision" }),
        }
    }

    pub(crate) fn address(&self) -> (String, String) {
        self.of.address()
    }
}

/// Whether the condition of a write was met.
fn met(written: Result<Changed, Error>) -> Result<Option<Changed>, Error> {
    match written {
        Ok(changed) => Ok(Some(changed)),
        Err(Error::Refused(refusal)) if refusal.code == "revision_mismatch" => Ok(None),
        Err(error) => Err(error),
    }
}
