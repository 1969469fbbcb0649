//! Locks over HTTP.

use axum::extract::State;
use axum::response::Response;
use coterie_proto::v1;

use super::super::ops::Ops;
use super::{Asked, PARTITION_GROUP, ok, read, shape};

pub(super) async fn acquire(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::Acquire { wait_ms, ttl_ms } = asked.body()?;
        let (lock, partition_group) = (asked.named("lock"), asked.partition_group());
        Ok(v1::AcquireRequest { lock, partition_group, wait_ms, ttl_ms })
    })?;
    Ok(ok(asked.ops(&ops).acquire(&asked.headers, request).await, shape::acquired))
}

pub(super) async fn renew_lock(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::WithToken { token } = asked.body()?;
        Ok(v1::RenewLockRequest { lock: asked.named("lock"), partition_group: asked.partition_group(), token })
    })?;
    Ok(ok(asked.ops(&ops).renew_lock(&asked.headers, request).await, shape::renewed_lock))
}

pub(super) async fn release_lock(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP])?;
        let shape::WithToken { token } = asked.body()?;
        Ok(v1::ReleaseLockRequest { lock: asked.named("lock"), partition_group: asked.partition_group(), token })
    })?;
    Ok(ok(asked.ops(&ops).release_lock(&asked.headers, request).await, |reply| shape::revision(reply.revision)))
}

pub(super) async fn get_lock(State(ops): State<Ops>, asked: Asked) -> Result<Response, Response> {
    let request = read(&ops, || {
        asked.only(&[PARTITION_GROUP, "consistency"])?;
        let (lock, partition_group, consistency) = (asked.named("lock"), asked.partition_group(), asked.consistency()?);
        Ok(v1::GetLockRequest { lock, partition_group, consistency })
    })?;
    Ok(ok(asked.ops(&ops).get_lock(&asked.headers, request).await, shape::lock))
}
