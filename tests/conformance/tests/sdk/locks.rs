//! Locks.

use std::time::{Duration, Instant};

use coterie_client::{Consistency, Lock, LockGuard, LockInfo, LossReason};
use coterie_conformance::harness::{SESSION_TIMEOUT_MS, cluster, start};
use coterie_conformance::{Grpc, Primitives as _, Wire as _, eventually, name, run, shared};

use crate::proxy::Proxy;
use crate::{client, patient, soon};

/// Waits until a lock is as it should be.
async fn until(lock: &Lock, what: &str, is: impl Fn(&LockInfo) -> bool) -> LockInfo {
    eventually(what, || async {
        let info = lock.get(Consistency::Linearizable).await.map_err(|error| error.to_string())?;
        if is(&info) { Ok(info) } else { Err(format!("{info:?}")) }
    })
    .await
}

/// Who waits for a lock; waits until it is in the queue.
async fn waits(lock: &Lock, after: u32) -> tokio::task::JoinHandle<LockGuard> {
    let asked = lock.clone();
    let waiting = tokio::spawn(async move { asked.acquire().await.expect("acquire") });
    until(lock, "it is in the queue", |info| info.waiting > after).await;
    waiting
}

#[test]
fn a_lock_goes_to_who_asked_next_through_whichever_member_with_a_larger_token() {
    run(async {
        let lock = client(0).await.lock(name("sdk-fair"));
        assert_eq!(lock.get(Consistency::Linearizable).await.expect("get").token, None);
        let mut guard = lock.try_acquire().await.expect("an answer").expect("it is free");
        assert!(guard.is_held() && guard.valid_for() > Duration::ZERO);
        assert!(lock.try_acquire().await.expect("an answer").is_none(), "held by itself is held");
        let mut queue = Vec::new();
        for place in [1, 2, 0, 1] {
            let beside = client(place).await.lock(lock.name());
            queue.push(waits(&beside, u32::try_from(queue.len()).expect("few")).await);
        }
        for next in queue {
            let info = until(&lock, "it is held", |info| info.token.is_some()).await;
            assert_eq!(info.token, Some(guard.token()));
            assert!(!next.is_finished(), "one holder at a time");
            let before = guard.token();
            guard.release().await.expect("release");
            guard = soon("the next one holds it", next).await.expect("no panic");
            assert!(guard.token() > before && guard.is_held());
        }
        drop(guard);
        until(&lock, "a guard that is dropped releases", |info| info.token.is_none()).await;
    });
}

#[test]
fn who_stops_waiting_leaves_the_queue() {
    run(async {
        let lock = client(0).await.lock(name("sdk-wait"));
        let held = lock.acquire().await.expect("acquire");
        let begun = Instant::now();
        let wait = Duration::from_millis(300);
        assert!(lock.acquire_within(wait).await.expect("an answer").is_none());
        assert!(begun.elapsed() >= wait && begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(lock.acquire_within(Duration::ZERO).await.expect("an answer").is_none());
        // A future that is dropped.
        let waiting = waits(&client(0).await.lock(lock.name()), 0).await;
        waiting.abort();
        until(&lock, "its place is given up", |info| info.waiting == 0).await;
        assert!(held.is_held());
        held.release().await.expect("release");
        // What was granted just when nobody waited for it any more is given back.
        for number in 0..60 {
            let impatient = Duration::from_micros(100 * number);
            // Which of the two comes first, is the point.
            if let Ok(guard) = tokio::time::timeout(impatient, lock.acquire()).await {
                drop(guard.expect("acquire"));
            }
        }
        until(&lock, "nobody holds it", |info| info.token.is_none() && info.waiting == 0).await;
    });
}

#[test]
fn releasing_says_whether_the_lock_was_held_until_then() {
    run(async {
        let lock = client(0).await.lock(name("sdk-release"));
        let guard = lock.acquire().await.expect("acquire");
        // Whoever knows the token may release it: an operator does, when an application hangs.
        let token = guard.token().0;
        let elsewhere = Grpc::connect(&shared().await.endpoint(1));
        elsewhere.release_lock(lock.name(), token).await.expect("release");
        let failure = elsewhere.release_lock(lock.name(), token).await.expect_err("it is released already");
        assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("token_unknown", "never"), "{failure}");
        let error = guard.release().await.expect_err("it was lost before");
        assert_eq!(error.code(), "token_unknown", "{error}");

        let guard = lock.acquire().await.expect("acquire");
        elsewhere.release_lock(lock.name(), guard.token().0).await.expect("release");
        let reason = soon("its holder is told", guard.lost()).await;
        assert!(matches!(reason, LossReason::Revoked(_)), "{reason:?}");
        assert!(!guard.is_held());
        let error = lock.with_lease(Duration::from_millis(1)).try_acquire().await.expect_err("too short");
        assert!(error.to_string().starts_with("invalid_argument: ttl_ms: "), "{error}");
        let error = client(0).await.lock("a/b").try_acquire().await.expect_err("no name");
        assert!(error.to_string().starts_with("invalid_argument: lock: "), "{error}");
    });
}

#[test]
fn a_lock_of_an_application_that_dies_is_released_at_once() {
    run(async {
        let endpoint = shared().await.endpoint(0);
        let lock = client(1).await.lock(name("sdk-dies"));
        let (named, holds) = (lock.name().to_owned(), tokio::sync::oneshot::channel());
        // A runtime that is shut down closes its connections and says nothing, as a process that is killed does.
        let (dies, application) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.expect("a runtime needs nothing that is missing");
            let guard = runtime.block_on(async { patient(&endpoint).lock(named).acquire().await.expect("acquire") });
            holds.0.send(guard.token()).expect("the test waits");
            application.recv().expect("the test says when");
            runtime.shutdown_background();
            drop(guard);
        });
        let token = holds.1.await.expect("it holds the lock");
        let next = waits(&lock, 0).await;
        let killed = Instant::now();
        dies.send(()).expect("it lives");
        let next = soon("the next one holds it", next).await.expect("no panic");
        println!("the lock of an application that died was granted to the next one after {:?}", killed.elapsed());
        assert!(next.token() > token && killed.elapsed() < Duration::from_millis(SESSION_TIMEOUT_MS));
        thread.join().expect("no panic");
    });
}

#[test]
fn a_broken_connection_costs_what_the_stream_holds_at_once_and_not_what_a_lease_holds() {
    run(async {
        let proxy = Proxy::to(&shared().await.endpoint(0)).await;
        let through = patient(&proxy.endpoint());
        let (streamed, leased) = (through.lock(name("sdk-streamed")), through.lock(name("sdk-leased")));
        let by_stream = streamed.acquire().await.expect("acquire");
        let by_lease = leased.with_lease(Duration::from_secs(60)).acquire().await.expect("acquire");
        let next = waits(&client(1).await.lock(streamed.name()), 0).await;
        proxy.cut();
        assert_eq!(soon("it is told", by_stream.lost()).await, LossReason::Disconnected);
        assert!(!by_stream.is_held() && !next.is_finished(), "told before another is granted it");
        let next = soon("the next one holds it", next).await.expect("no panic");
        assert!(next.token() > by_stream.token());
        assert!(tokio::time::timeout(Duration::from_millis(1), by_lease.lost()).await.is_err());
        eventually("the lease is renewed over another connection", || async {
            if by_lease.is_held() { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        let token = by_lease.token();
        assert_eq!(leased.get(Consistency::Linearizable).await.expect("get").token, Some(token));
        by_lease.release().await.expect("release");
    });
}

#[test]
fn a_lease_is_renewed_as_long_as_its_guard_lives() {
    run(async {
        let lock = client(0).await.lock(name("sdk-renewed")).with_lease(Duration::from_secs(1));
        let guard = lock.acquire().await.expect("acquire");
        let begun = Instant::now();
        eventually("three times its lease have passed", || async {
            assert!(guard.is_held(), "{:?}", begun.elapsed());
            if begun.elapsed() > Duration::from_secs(3) { Ok(()) } else { Err(format!("{:?}", begun.elapsed())) }
        })
        .await;
        drop(guard);
        until(&lock, "it is released", |info| info.token.is_none()).await;
    });
}

/// Until another is granted the lock: then it must not count as held any more.
async fn is_lost_before(guard: &LockGuard, next: tokio::task::JoinHandle<LockGuard>) -> LockGuard {
    let next = soon("the next one holds it", next).await.expect("no panic");
    assert!(!guard.is_held(), "{:?}", guard.valid_for());
    assert!(next.token() > guard.token());
    next
}

#[test]
fn s37_a_paused_or_killed_sidecar_costs_the_lock_and_its_holder_is_told_before_the_next_one_is_granted_it() {
    run(async {
        let cluster = cluster().await;
        let session = Duration::from_millis(SESSION_TIMEOUT_MS);
        let beside = |place: usize, name: &str| patient(&cluster.endpoint(place)).lock(name);

        let killed = beside(2, "killed").acquire().await.expect("acquire");
        let next = waits(&beside(1, "killed"), 0).await;
        let begun = Instant::now();
        cluster.kill(2).expect("kill");
        assert_eq!(soon("it is told", killed.lost()).await, LossReason::Disconnected);
        assert!(begun.elapsed() < session / 2 && !next.is_finished(), "told at once");
        is_lost_before(&killed, next).await;
        println!("a killed sidecar's lock was granted to the next one after {:?}", begun.elapsed());
        assert!(begun.elapsed() < session + Duration::from_secs(2));
        start(&cluster, [2]).await;
        soon("it may ask again", beside(2, "killed").acquire_within(Duration::from_millis(1)))
            .await
            .expect("an answer");

        let paused = beside(0, "paused").acquire().await.expect("acquire");
        let next = waits(&beside(1, "paused"), 0).await;
        let begun = Instant::now();
        cluster.pause(0).expect("pause");
        assert_eq!(soon("it is told", paused.lost()).await, LossReason::Expired);
        assert!(!next.is_finished(), "told before another is granted it");
        is_lost_before(&paused, next).await;
        println!("a paused sidecar's lock was granted to the next one after {:?}", begun.elapsed());
        assert!(begun.elapsed() < session + Duration::from_secs(2));
        cluster.resume(0).expect("resume");
    });
}
