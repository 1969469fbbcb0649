//! Operations on locks.

use axum::http::HeaderMap;
use coterie_core::command::{Answer, LockView, Query};
use coterie_core::limits::{LOCK_WAIT_MS_MAX, SESSION_TTL_MS_DEFAULT};
use coterie_core::machine::validate;
use coterie_core::{LockName, PrimitiveKind, Rejection, Token};
use coterie_proto::v1;

use super::{Caller, Home, Ops, When, answered_otherwise, read_kind};
use crate::api::call::invalid;
use crate::locks::{Ask, Hold};

impl Home {
    fn lock(&self) -> LockName {
        LockName::from(&*self.of.name)
    }
}

impl Ops {
    /// Acquires a lock with a lease.
    pub async fn acquire(
        &self,
        headers: &HeaderMap,
        request: v1::AcquireRequest,
    ) -> Result<v1::AcquireResponse, Rejection> {
        self.run("acquire", headers, When::Joining, async |caller| {
            let ttl_ms = if request.ttl_ms == 0 { SESSION_TTL_MS_DEFAULT } else { request.ttl_ms };
            // Whoever made this one call is gone with its deadline.
            let left = caller.deadline.remaining(self.node().env()).as_millis();
            let wait_ms = request.wait_ms.min(u64::try_from(left).unwrap_or(u64::MAX));
            let home = self.home(PrimitiveKind::Lock, &request.lock, &request.partition_group)?;
            self.lease_now(&caller, &home, v1::AcquireRequest { ttl_ms, wait_ms, ..request }).await
        })
        .await
    }

    /// Acquires a lock whose home is known, with a lease.
    pub(in crate::api) async fn lease_now(
        &self,
        caller: &Caller,
        home: &Home,
        request: v1::AcquireRequest,
    ) -> Result<v1::AcquireResponse, Rejection> {
        validate::ttl_ms(request.ttl_ms)?;
        let hold = self.acquire_now(caller, home, request.wait_ms).await?;
        let (token, revision) = (hold.token().0, hold.revision().0);
        let ttl_ms = self.node().locks().lease(hold, request.ttl_ms);
        Ok(v1::AcquireResponse { token, ttl_ms, revision })
    }

    /// Acquires a lock whose home is known. It is held as long as what is returned.
    pub(in crate::api) async fn acquire_now(
        &self,
        caller: &Caller,
        home: &Home,
        wait_ms: u64,
    ) -> Result<Hold, Rejection> {
        self.record(home, caller.deadline).await?;
        let (partition, lock) = (home.partition.clone(), home.lock());
        let (request, deadline) = (caller.request, caller.deadline);
        let wait_ms = wait_ms.min(LOCK_WAIT_MS_MAX);
        self.node().locks().acquire(Ask { partition, lock, wait_ms, request, deadline }).await
    }

    /// Extends a lease that this sidecar holds.
    pub async fn renew_lock(
        &self,
        headers: &HeaderMap,
        request: v1::RenewLockRequest,
    ) -> Result<v1::RenewLockResponse, Rejection> {
        self.run("renew_lock", headers, When::Serving, async |_| {
            let home = self.home(PrimitiveKind::Lock, &request.lock, &request.partition_group)?;
            self.renew_now(&home, &request)
        })
        .await
    }

    /// Extends a lease of a lock whose home is known.
    pub(in crate::api) fn renew_now(
        &self,
        home: &Home,
        request: &v1::RenewLockRequest,
    ) -> Result<v1::RenewLockResponse, Rejection> {
        let ttl_ms = self.node().locks().renew(&home.partition, &home.lock(), token(request.token)?)?;
        Ok(v1::RenewLockResponse { ttl_ms })
    }

    /// Gives a lock back.
    pub async fn release_lock(
        &self,
        headers: &HeaderMap,
        request: v1::ReleaseLockRequest,
    ) -> Result<v1::ReleaseLockResponse, Rejection> {
        self.run("release_lock", headers, When::Serving, async |caller| {
            let home = self.home(PrimitiveKind::Lock, &request.lock, &request.partition_group)?;
            self.release_now(&caller, &home, &request).await
        })
        .await
    }

    /// Gives a lock back whose home is known.
    pub(in crate::api) async fn release_now(
        &self,
        caller: &Caller,
        home: &Home,
        request: &v1::ReleaseLockRequest,
    ) -> Result<v1::ReleaseLockResponse, Rejection> {
        let Caller { request: id, minted: _, deadline } = caller;
        let locks = self.node().locks();
        let token = token(request.token)?;
        let revision = locks.release(&home.partition, &home.lock(), token, *id, *deadline).await?;
        Ok(v1::ReleaseLockResponse { revision: revision.0 })
    }

    /// Reads a lock.
    pub async fn get_lock(&self, headers: &HeaderMap, request: v1::GetLockRequest) -> Result<v1::Lock, Rejection> {
        self.run("get_lock", headers, When::Serving, async |caller| {
            let home = self.home(PrimitiveKind::Lock, &request.lock, &request.partition_group)?;
            self.get_lock_now(&caller, &home, &request).await
        })
        .await
    }

    /// Reads a lock whose home is known.
    pub(in crate::api) async fn get_lock_now(
        &self,
        caller: &Caller,
        home: &Home,
        request: &v1::GetLockRequest,
    ) -> Result<v1::Lock, Rejection> {
        let kind = read_kind(request.consistency)?;
        let query = Query::Lock(home.lock());
        let read = self.node().router().read(&home.partition, query, kind, caller.deadline).await?;
        let Answer::Lock(view) = read.answer else { return Err(answered_otherwise()) };
        let LockView { name, holder, waiting, revision: _ } = *view;
        let (token, sidecar) = holder.map_or((0, String::new()), |holder| (holder.token.0, holder.sidecar.0));
        Ok(v1::Lock {
            name: name.0,
            partition_group: home.partition.group.0.clone(),
            token,
            sidecar,
            waiting: u32::try_from(waiting.len()).unwrap_or(u32::MAX),
            revision: read.revision.0,
            stale_ms: read.stale_ms,
        })
    }
}

fn token(token: u64) -> Result<Token, Rejection> {
    match token {
        0 => Err(invalid("token", "is missing; give the one that acquiring answered")),
        token => Ok(Token(token)),
    }
}
