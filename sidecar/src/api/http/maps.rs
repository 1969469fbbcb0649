//! Maps over HTTP. A value is the body of its request and of its answer, as it is.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use coterie_proto::v1;

use super::super::ops::{self, Ops};
use super::{Asked, PARTITION_GROUP, error, invalid, ok, read, shape, sse};

/// When the entry was last changed.
const REVISION: HeaderName = HeaderName::from_static("coterie-revision");

pub(super) async fn put_entry(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP, "if-revision", "if-absent"])?;
        let if_absent = match asked.query("if-absent") {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(invalid("if-absent", format_args!("is `{other}`; choose true or false"))),
        };
        Ok(v1::PutRequest {
            map: asked.named("map"),
            partition_group: asked.partition_group(),
            key: asked.named("key"),
            value: asked.body.clone(),
            if_revision: asked.number("if-revision")?,
            if_absent,
        })
    })?;
    let written = asked.ops(&ops).put_entry(&asked.headers, request).await;
    Ok(ok(written, |reply| shape::written(reply.revision, reply.previous_revision)))
}

pub(super) async fn get_entry(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP, "consistency"])?;
        Ok(v1::GetEntryRequest {
            map: asked.named("map"),
            partition_group: asked.partition_group(),
            key: asked.named("key"),
            consistency: asked.consistency()?,
        })
    })?;
    let found = asked.ops(&ops).get_entry(&asked.headers, request).await;
    let found = found.and_then(|found| ops::value_of(found, &asked.named("map"), &asked.named("key")));
    let entry = found.map_err(|rejection| error::problem(&rejection))?;
    let revision = (REVISION, HeaderValue::from(entry.revision));
    let content = (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(([revision, content], entry.value).into_response())
}

pub(super) async fn delete_entry(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP, "if-revision"])?;
        let shape::Nothing {} = asked.body()?;
        Ok(v1::DeleteEntryRequest {
            map: asked.named("map"),
            partition_group: asked.partition_group(),
            key: asked.named("key"),
            if_revision: asked.number("if-revision")?,
        })
    })?;
    let written = asked.ops(&ops).delete_entry(&asked.headers, request).await;
    Ok(ok(written, |reply| shape::written(reply.revision, reply.previous_revision)))
}

pub(super) async fn list_entries(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP, "prefix", "after", "limit", "consistency"])?;
        let text = |name| asked.query(name).unwrap_or_default().to_owned();
        Ok(v1::ListEntriesRequest {
            map: asked.named("map"),
            partition_group: asked.partition_group(),
            prefix: text("prefix"),
            after: text("after"),
            limit: asked.number("limit")?,
            consistency: asked.consistency()?,
        })
    })?;
    Ok(ok(asked.ops(&ops).list_entries(&asked.headers, request).await, shape::entries))
}

pub(super) async fn watch_map(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP, "prefix", "after"])?;
        let after = sse::resume_after(&asked.headers, asked.query("after"))?;
        let (map, partition_group) = (asked.named("map"), asked.partition_group());
        Ok(v1::WatchMapRequest {
            map,
            partition_group,
            prefix: asked.query("prefix").unwrap_or_default().to_owned(),
            after,
        })
    })?;
    match asked.ops(&ops).watch_map(&asked.headers, request).await {
        Ok(events) => Ok(sse::respond(events)),
        Err(rejection) => Err(error::problem(&rejection)),
    }
}

pub(super) async fn drop_map(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::Nothing {} = asked.body()?;
        Ok(v1::DropMapRequest { map: asked.named("map"), partition_group: asked.partition_group() })
    })?;
    Ok(ok(asked.ops(&ops).drop_map(&asked.headers, request).await, |reply| shape::revision(reply.revision)))
}
