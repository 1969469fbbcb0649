//! Operations on maps.

use std::time::Duration;

use axum::http::HeaderMap;
use coterie_core::command::{Answer, Command, Condition, Entry, MapOp, MapView, Query, Reply};
use coterie_core::limits::PAGE_ENTRIES_DEFAULT;
use coterie_core::machine::validate;
use coterie_core::{ErrorCode, MapName, PrimitiveKind, Rejection, Revision};
use coterie_proto::v1;
use coterie_proto::v1::map_event::Kind;
use coterie_replication::{Read, ReadKind};
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::sync::OwnedSemaphorePermit;

use super::{Caller, Home, Ops, When, answered_otherwise, read_kind};
use crate::api::call::invalid;
use crate::api::convert;
use crate::api::map_feed::{MapFeed, Said};
use crate::limits::RETRY_PAUSE_MS;
use crate::sessions::SessionState;
use crate::watch::{Item, Watch};

impl Home {
    fn map(&self) -> MapName {
        MapName::from(&*self.of.name)
    }
}

impl Ops {
    /// Sets one key.
    pub async fn put_entry(&self, headers: &HeaderMap, request: v1::PutRequest) -> Result<v1::PutResponse, Rejection> {
        self.run("put_entry", headers, When::Serving, async |caller| {
            let home = self.home(PrimitiveKind::Map, &request.map, &request.partition_group)?;
            self.put_now(&caller, &home, request).await
        })
        .await
    }

    /// Sets one key of a map whose home is known.
    pub(in crate::api) async fn put_now(
        &self,
        caller: &Caller,
        home: &Home,
        request: v1::PutRequest,
    ) -> Result<v1::PutResponse, Rejection> {
        let command = put_command(home, request)?;
        self.record(home, caller.deadline).await?;
        let (revision, previous_revision) = self.write_entry(caller, home, command).await?;
        Ok(v1::PutResponse { revision, previous_revision })
    }

    /// Reads one key.
    pub async fn get_entry(
        &self,
        headers: &HeaderMap,
        request: v1::GetEntryRequest,
    ) -> Result<v1::GetEntryResponse, Rejection> {
        self.run("get_entry", headers, When::Serving, async |caller| {
            let home = self.home(PrimitiveKind::Map, &request.map, &request.partition_group)?;
            let (query, kind) = entry_query(&home, &request)?;
            let read = self.node().router().read(&home.partition, query, kind, caller.deadline).await?;
            entry_of(request.key, read)
        })
        .await
    }

    /// Removes one key.
    pub async fn delete_entry(
        &self,
        headers: &HeaderMap,
        request: v1::DeleteEntryRequest,
    ) -> Result<v1::DeleteEntryResponse, Rejection> {
        self.run("delete_entry", headers, When::Serving, async |caller| {
            let home = self.home(PrimitiveKind::Map, &request.map, &request.partition_group)?;
            let command = delete_command(&home, request)?;
            let (revision, previous_revision) = self.write_entry(&caller, &home, command).await?;
            Ok(v1::DeleteEntryResponse { revision, previous_revision })
        })
        .await
    }

    /// Lists keys.
    pub async fn list_entries(
        &self,
        headers: &HeaderMap,
        request: v1::ListEntriesRequest,
    ) -> Result<v1::ListEntriesResponse, Rejection> {
        self.run("list_entries", headers, When::Serving, async |caller| {
            let home = self.home(PrimitiveKind::Map, &request.map, &request.partition_group)?;
            self.list_now(&caller, &home, request).await
        })
        .await
    }

    /// Lists keys of a map whose home is known.
    pub(in crate::api) async fn list_now(
        &self,
        caller: &Caller,
        home: &Home,
        request: v1::ListEntriesRequest,
    ) -> Result<v1::ListEntriesResponse, Rejection> {
        let v1::ListEntriesRequest { map: _, partition_group: _, prefix, after, limit, consistency } = request;
        let kind = read_kind(consistency)?;
        validate::prefix("prefix", &prefix)?;
        validate::prefix("after", &after)?;
        let limit = if limit == 0 { PAGE_ENTRIES_DEFAULT } else { limit };
        validate::page(limit)?;
        let query = Query::Entries { map: home.map(), prefix, after, limit };
        let read = self.node().router().read(&home.partition, query, kind, caller.deadline).await?;
        let Answer::Entries(page) = read.answer else { return Err(answered_otherwise()) };
        let entries = page.entries.iter().map(|(key, entry)| convert::entry(key, entry)).collect();
        Ok(v1::ListEntriesResponse { entries, more: page.more, revision: read.revision.0, stale_ms: read.stale_ms })
    }

    /// Removes a map and all that is in it.
    pub async fn drop_map(
        &self,
        headers: &HeaderMap,
        request: v1::DropMapRequest,
    ) -> Result<v1::DropMapResponse, Rejection> {
        self.run("drop_map", headers, When::Serving, async |caller| {
            let home = self.home(PrimitiveKind::Map, &request.map, &request.partition_group)?;
            let command = Command::Map { name: home.map(), op: MapOp::Drop };
            let router = self.node().router();
            let (revision, _) = router.write(caller.request, &home.partition, command, caller.deadline).await?;
            if let Err(rejection) = router.forget(&home.partition, &home.of, caller.deadline).await {
                tracing::debug!(map = %home.of.name, %rejection, "forget a dropped map");
            }
            Ok(v1::DropMapResponse { revision: revision.0 })
        })
        .await
    }

    /// Watches a map.
    pub async fn watch_map(
        &self,
        headers: &HeaderMap,
        request: v1::WatchMapRequest,
    ) -> Result<BoxStream<'static, v1::MapEvent>, Rejection> {
        let said = self.run("watch_map", headers, When::Serving, async |caller| {
            let permit = self.watch_permit()?;
            let home = self.home(PrimitiveKind::Map, &request.map, &request.partition_group)?;
            self.watch_now(&caller, &home, request, permit).await
        });
        Ok(said.await?.map(Said::message).take_until(self.node().stopping().cancelled_owned()).boxed())
    }

    /// Watches a map whose home is known. Does not end by itself when the process stops.
    pub(in crate::api) async fn watch_now(
        &self,
        caller: &Caller,
        home: &Home,
        request: v1::WatchMapRequest,
        permit: OwnedSemaphorePermit,
    ) -> Result<BoxStream<'static, Said>, Rejection> {
        let v1::WatchMapRequest { map: _, partition_group: _, prefix, after } = request;
        validate::prefix("prefix", &prefix)?;
        let router = self.node().router();
        let place = match after.is_empty() {
            true => None,
            false => router.place(&home.partition, &after, caller.deadline).await?,
        };
        let feed = if let Some(place) = place {
            let watch = router.watch(&home.partition, &home.of, Some(place)).await?;
            MapFeed::new(watch, prefix, Some(place))
        } else {
            let (watch, view, state) = self.view_now(caller, home).await?;
            let kind = if after.is_empty() { Kind::Snapshot } else { Kind::Resync };
            MapFeed::new(watch, prefix, None).beginning_with(view, kind, state)
        };
        Ok(feed.into_stream(permit))
    }

    /// A watch whose view is no older than what a majority had committed when it was asked for, so that whoever was told
    /// of a change and then begins to watch sees it. Without a quorum it is what a replica knows.
    async fn view_now(
        &self,
        caller: &Caller,
        home: &Home,
    ) -> Result<(Watch, MapView, Option<SessionState>), Rejection> {
        let router = self.node().router();
        let least = match router
            .read(&home.partition, Query::Revision, ReadKind::Linearizable, self.half(caller.deadline))
            .await
        {
            Ok(read) => match read.answer {
                Answer::Revision(revision) => revision,
                _ => return Err(answered_otherwise()),
            },
            Err(rejection) if matches!(rejection.code, ErrorCode::NoQuorum | ErrorCode::DeadlineExceeded) => {
                Revision(0)
            }
            Err(rejection) => return Err(rejection),
        };
        let mut state = None;
        while !caller.deadline.passed(self.node().env()) {
            let mut watch = router.watch(&home.partition, &home.of, None).await?;
            let next =
                tokio::time::timeout(caller.deadline.remaining(self.node().env()), first(&mut watch, &mut state));
            match next.await {
                Ok(Some(view)) if view.revision >= least => return Ok((watch, view, state)),
                // The replica lags.
                Ok(_) => tokio::time::sleep(Duration::from_millis(RETRY_PAUSE_MS)).await,
                Err(_) => break,
            }
        }
        let message = format!("no replica of partition {} has come to revision {least} in time", home.partition);
        Err(Rejection::new(ErrorCode::NoQuorum, message))
    }

    async fn write_entry(&self, caller: &Caller, home: &Home, command: Command) -> Result<(u64, u64), Rejection> {
        let router = self.node().router();
        written(&router.write(caller.request, &home.partition, command, caller.deadline).await?.1)
    }
}

/// What a put asks of its partition.
pub(in crate::api) fn put_command(home: &Home, request: v1::PutRequest) -> Result<Command, Rejection> {
    let v1::PutRequest { map: _, partition_group: _, key, value, if_revision, if_absent } = request;
    let only = match (if_revision, if_absent) {
        (revision, false) => if_revision_of(revision),
        (0, true) => Condition::Absent,
        (_, true) => return Err(invalid("if_absent", "excludes if_revision; send one of them")),
    };
    validate::key("key", &key)?;
    validate::value(value.len())?;
    Ok(Command::Map { name: home.map(), op: MapOp::Put { key: key.into(), value, only } })
}

/// What a delete asks of its partition.
pub(in crate::api) fn delete_command(home: &Home, request: v1::DeleteEntryRequest) -> Result<Command, Rejection> {
    let v1::DeleteEntryRequest { map: _, partition_group: _, key, if_revision } = request;
    validate::key("key", &key)?;
    Ok(Command::Map { name: home.map(), op: MapOp::Delete { key: key.into(), only: if_revision_of(if_revision) } })
}

/// The revision that a write made, and the one that it replaced.
pub(in crate::api) fn written(reply: &Reply) -> Result<(u64, u64), Rejection> {
    match reply {
        Reply::Written { revision, previous } => Ok((revision.0, previous.0)),
        _ => Err(answered_otherwise()),
    }
}

/// What a get asks of its partition.
pub(in crate::api) fn entry_query(home: &Home, request: &v1::GetEntryRequest) -> Result<(Query, ReadKind), Rejection> {
    let v1::GetEntryRequest { map: _, partition_group: _, key, consistency } = request;
    let kind = read_kind(*consistency)?;
    validate::key("key", key)?;
    Ok((Query::Entry { map: home.map(), key: key.as_str().into() }, kind))
}

/// What a get is answered.
pub(in crate::api) fn entry_of(key: String, read: Read) -> Result<v1::GetEntryResponse, Rejection> {
    let Read { answer: Answer::Entry(entry), revision, stale_ms } = read else { return Err(answered_otherwise()) };
    let entry = entry.map(|Entry { value, revision }| v1::Entry { key, value, revision: revision.0 });
    Ok(v1::GetEntryResponse { entry, revision: revision.0, stale_ms })
}

/// The view that a watch begins with, and what it says of its connection before.
async fn first(watch: &mut Watch, state: &mut Option<SessionState>) -> Option<MapView> {
    loop {
        match watch.next().await?.entries()? {
            Item::Snapshot(view) | Item::Resync(Some(view)) => return Some(view),
            Item::Connection(said) => *state = Some(said),
            Item::Remade(_) => {}
            Item::Event(_) | Item::Resync(None) => return None,
        }
    }
}

fn if_revision_of(revision: u64) -> Condition {
    if revision == 0 { Condition::Always } else { Condition::At(Revision(revision)) }
}

/// The entry, where an answer without one is a refusal: over HTTP.
pub(in crate::api) fn value_of(response: v1::GetEntryResponse, map: &str, key: &str) -> Result<v1::Entry, Rejection> {
    let unknown = || Rejection::new(ErrorCode::EntryUnknown, format!("map `{map}` has no entry `{key}`"));
    response.entry.ok_or_else(unknown)
}
