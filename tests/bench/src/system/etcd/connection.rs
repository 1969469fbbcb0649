//! One connection to an etcd member, shared by unary calls as etcd's own client does it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use super::wire::kv_client::KvClient;
use super::wire::lease_client::LeaseClient;
use super::wire::watch_client::WatchClient;
use super::wire::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    SortOrder, SortTarget, TxnRequest, WatchCreateRequest, WatchRequest, compare, request_op, response_op,
    watch_request,
};
use crate::fanout::Fanout;
use crate::load::{KEYS, Part, Samples, Work};
use crate::system::Connection;

/// All watched keys begin so; the end of the range is the next prefix.
const WATCHED: &str = "watched/";
const WATCHED_END: &str = "watched0";
const LEASE_SECONDS: i64 = 60;
const RETRY: Duration = Duration::from_millis(5);

pub(super) struct Unary {
    channel: Channel,
    kv: KvClient<Channel>,
    watches: Mutex<Vec<JoinHandle<()>>>,
}

impl Unary {
    pub(super) fn new(channel: Channel) -> Self {
        Self { kv: KvClient::new(channel.clone()), channel, watches: Mutex::default() }
    }

    /// One lease for all locks of a connection, as a session of etcd's own client is.
    async fn lease(&self) -> Result<i64> {
        let grant = LeaseGrantRequest { ttl: LEASE_SECONDS };
        let granted = LeaseClient::new(self.channel.clone()).lease_grant(grant).await.context("ask for a lease")?;
        Ok(granted.into_inner().id)
    }
}

#[async_trait]
impl Connection for Unary {
    async fn drive(&self, part: Part) -> Result<Samples> {
        let lease = if part.work == Work::Lock { self.lease().await? } else { 0 };
        let part = Arc::new(part);
        let mut slots = JoinSet::new();
        for slot in part.slots.clone() {
            slots.spawn(run(self.kv.clone(), part.clone(), slot, lease));
        }
        let mut samples = Samples::default();
        while let Some(slot) = slots.join_next().await {
            samples.merge(slot.context("a slot ended")?);
        }
        Ok(samples)
    }

    async fn write_lane(&self, lane: usize, timeout: Duration) -> Result<(), String> {
        let put = PutRequest { key: format!("lane/{lane}").into(), value: Fanout::value(lane, 0), lease: 0 };
        let mut kv = self.kv.clone();
        match tokio::time::timeout(timeout, kv.put(put)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(status.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    async fn write_watched(&self, _: &Fanout, slot: usize, round: u64) -> Result<(), String> {
        let put = PutRequest { key: format!("{WATCHED}{slot}").into(), value: Fanout::value(slot, round), lease: 0 };
        self.kv.clone().put(put).await.map(|_| ()).map_err(|status| status.to_string())
    }

    /// All watchers of a connection are on one stream, as in etcd's own client.
    async fn watch(&self, watchers: usize, fanout: Arc<Fanout>) -> Result<()> {
        let create = || {
            let create = WatchCreateRequest { key: WATCHED.into(), range_end: WATCHED_END.into() };
            WatchRequest { request: Some(watch_request::Request::Create(create)) }
        };
        let requests: Vec<WatchRequest> = (0..watchers).map(|_| create()).collect();
        // The stream of requests stays open; when it ends, so do the watches.
        let requests = tokio_stream::iter(requests).chain(tokio_stream::pending());
        let mut answers = WatchClient::new(self.channel.clone()).watch(requests).await.context("watch")?.into_inner();
        let mut created = 0;
        while created < watchers {
            let answer = answers.message().await.context("create a watch")?.context("the stream of watches ended")?;
            if answer.canceled {
                bail!("etcd refused a watch");
            }
            created += usize::from(answer.created);
        }
        let task = tokio::spawn(async move {
            while let Ok(Some(answer)) = answers.message().await {
                for event in answer.events {
                    if let Some(entry) = event.kv {
                        fanout.told(&entry.value);
                    }
                }
            }
        });
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        Ok(())
    }
}

impl Drop for Unary {
    fn drop(&mut self) {
        self.watches.get_mut().unwrap_or_else(PoisonError::into_inner).iter().for_each(JoinHandle::abort);
    }
}

async fn run(mut kv: KvClient<Channel>, part: Arc<Part>, slot: usize, lease: i64) -> Samples {
    let mut samples = Samples::default();
    let mut chance = part.chance(slot);
    let lock = Bytes::from(format!("lock/{slot}/"));
    loop {
        let begun = Instant::now();
        if part.window.is_over(begun) {
            return samples;
        }
        let key = Bytes::from(format!("key/{:05}", chance.below(KEYS)));
        let done = match part.work {
            Work::Write => {
                let put = PutRequest { key, value: part.values.choose(&mut chance), lease: 0 };
                kv.put(put).await.map(|_| ())
            }
            Work::Read | Work::LeasedRead => kv.range(RangeRequest { key, ..Default::default() }).await.map(|_| ()),
            Work::Lock => lock_cycle(&mut kv, &lock, lease).await,
        };
        match done {
            Ok(()) => samples.done(&part.window, begun, Instant::now()),
            Err(status) => {
                samples.fail(status);
                // plays a client that does not retry at once
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// As `concurrency.Mutex` of etcd's own client: one transaction that makes the key of the waiter and asks who was first,
/// and a deletion. Nobody else asks for the lock, so nobody waits.
async fn lock_cycle(kv: &mut KvClient<Channel>, lock: &Bytes, lease: i64) -> Result<(), tonic::Status> {
    let mine = Bytes::from([&lock[..], format!("{lease:x}").as_bytes()].concat());
    let mut end = lock.to_vec();
    end.pop();
    end.push(b'/' + 1);
    let op = |request| RequestOp { request: Some(request) };
    let owner = || {
        op(request_op::Request::Range(RangeRequest {
            key: lock.clone(),
            range_end: end.clone().into(),
            limit: 1,
            sort_order: SortOrder::Ascend.into(),
            sort_target: SortTarget::Create.into(),
        }))
    };
    let put = PutRequest { key: mine.clone(), value: Bytes::new(), lease };
    let get = RangeRequest { key: mine.clone(), ..Default::default() };
    let acquire = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::CompareCreate.into(),
            key: mine.clone(),
            union: Some(compare::Union::CreateRevision(0)),
        }],
        success: vec![op(request_op::Request::Put(put)), owner()],
        failure: vec![op(request_op::Request::Range(get)), owner()],
    };
    let answer = kv.txn(acquire).await?.into_inner();
    let first = answer.responses.into_iter().nth(1).and_then(|response| response.response);
    let held = match first {
        Some(response_op::Response::Range(range)) => range.kvs.first().is_some_and(|entry| entry.key == mine),
        Some(response_op::Response::Put(_)) | None => false,
    };
    if !answer.succeeded || !held {
        return Err(tonic::Status::aborted("someone else holds the lock"));
    }
    kv.delete_range(DeleteRangeRequest { key: mine }).await.map(|_| ())
}
