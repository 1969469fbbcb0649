//! Over HTTP.

use coterie_proto::v1;
use reqwest::Method;
use serde_json::json;

use super::super::http::{Http, map, segment};
use super::super::{Answer, Events, json as wire_form};
use super::{Primitives, json as form};

fn entry_path(map: &str, key: &str, query: &[(&str, String)]) -> String {
    let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", segment(value))).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("maps/{}/entries/{}{mark}{}", segment(map), segment(key), query.join("&"))
}

/// Fields that have their default are left out.
fn condition(if_revision: u64) -> Vec<(&'static str, String)> {
    (if_revision != 0).then(|| ("if-revision", if_revision.to_string())).into_iter().collect()
}

impl Primitives for Http {
    async fn put(&self, request: v1::PutRequest) -> Answer<v1::PutResponse> {
        let v1::PutRequest { map, partition_group: _, key, value, if_revision, if_absent } = request;
        let mut query = condition(if_revision);
        if if_absent {
            query.push(("if-absent", "true".to_owned()));
        }
        let request = self.request(Method::PUT, &entry_path(&map, &key, &query)).body(value);
        let (revision, previous_revision) = form::written(&self.call(request).await?);
        Ok(v1::PutResponse { revision, previous_revision })
    }

    async fn entry(&self, request: v1::GetEntryRequest) -> Answer<v1::GetEntryResponse> {
        let word = wire_form::consistency_word(request.consistency());
        let v1::GetEntryRequest { map, partition_group: _, key, consistency: _ } = request;
        let request = self.request(Method::GET, &entry_path(&map, &key, &[("consistency", word.to_owned())]));
        let (revision, value) = match self.bytes(request).await {
            Ok(found) => found,
            Err(failure) if failure.code == "entry_unknown" => return Ok(v1::GetEntryResponse::default()),
            Err(failure) => return Err(failure),
        };
        let entry = Some(v1::Entry { key, value, revision });
        Ok(v1::GetEntryResponse { entry, ..v1::GetEntryResponse::default() })
    }

    async fn remove(&self, request: v1::DeleteEntryRequest) -> Answer<v1::DeleteEntryResponse> {
        let v1::DeleteEntryRequest { map, partition_group: _, key, if_revision } = request;
        let request = self.request(Method::DELETE, &entry_path(&map, &key, &condition(if_revision)));
        let (revision, previous_revision) = form::written(&self.call(request).await?);
        Ok(v1::DeleteEntryResponse { revision, previous_revision })
    }

    async fn entries(&self, request: v1::ListEntriesRequest) -> Answer<v1::ListEntriesResponse> {
        let v1::ListEntriesRequest { map, partition_group: _, prefix, after, limit, consistency: _ } = request;
        let (map, prefix, after) = (segment(&map), segment(&prefix), segment(&after));
        let path = format!("maps/{map}/entries?prefix={prefix}&after={after}&limit={limit}");
        Ok(form::page(&self.call(self.request(Method::GET, &path)).await?))
    }

    async fn drop_map(&self, map: &str) -> Answer<v1::DropMapResponse> {
        let request = self.request(Method::DELETE, &format!("maps/{}", segment(map)));
        Ok(v1::DropMapResponse { revision: form::revision(&self.call(request).await?) })
    }

    async fn watch_map(&self, request: v1::WatchMapRequest) -> Answer<Events<v1::MapEvent>> {
        let v1::WatchMapRequest { map: name, partition_group: _, prefix, after } = request;
        let path = format!("maps/{}/watch?prefix={}", segment(&name), segment(&prefix));
        let mut request = self.request(Method::GET, &path);
        if !after.is_empty() {
            request = request.header("last-event-id", after);
        }
        Ok(map(self.stream(request).await?, form::event))
    }

    async fn acquire(&self, request: v1::AcquireRequest) -> Answer<v1::AcquireResponse> {
        let v1::AcquireRequest { lock, partition_group: _, wait_ms, ttl_ms } = request;
        let body = json!({ "wait_ms": wait_ms.to_string(), "ttl_ms": ttl_ms.to_string() });
        let request = self.request(Method::POST, &format!("locks/{}/acquire", segment(&lock))).json(&body);
        Ok(form::acquired(&self.call(request).await?))
    }

    async fn renew_lock(&self, lock: &str, token: u64) -> Answer<v1::RenewLockResponse> {
        let request = self.request(Method::POST, &format!("locks/{}/renew", segment(lock)));
        let renewed = self.call(request.json(&json!({ "token": token.to_string() }))).await?;
        Ok(v1::RenewLockResponse { ttl_ms: form::number(&renewed, "ttl_ms") })
    }

    async fn release_lock(&self, lock: &str, token: u64) -> Answer<v1::ReleaseLockResponse> {
        let request = self.request(Method::POST, &format!("locks/{}/release", segment(lock)));
        let released = self.call(request.json(&json!({ "token": token.to_string() }))).await?;
        Ok(v1::ReleaseLockResponse { revision: form::revision(&released) })
    }

    async fn lock(&self, lock: &str) -> Answer<v1::Lock> {
        Ok(form::lock(&self.call(self.request(Method::GET, &format!("locks/{}", segment(lock)))).await?))
    }
}
