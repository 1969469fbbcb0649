//! Locks.

use std::time::{Duration, Instant};

use coterie_conformance::harness::clients;
use coterie_conformance::wire::primitives::acquire;
use coterie_conformance::{Wire, both_wires, eventually, name};
use coterie_proto::v1;
use uuid::Uuid;

/// Waits until so many wait for a lock.
async fn until_waiting<W: Wire>(wire: &W, lock: &str, waiting: u32) -> v1::Lock {
    eventually("they wait", || async {
        let seen = wire.lock(lock).await.map_err(|failure| failure.to_string())?;
        if seen.waiting == waiting { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await
}

both_wires! {
    async fn a_lock_goes_to_who_asked_next_through_whichever_member_with_a_larger_token<W: Wire>() {
        let wires = clients::<W>().await;
        let lock = name("fair");
        let mut token = wires[0].acquire(acquire(&lock, 0, 60_000)).await.expect("acquire").token;
        assert_eq!(wires[1].lock(&lock).await.expect("get").sidecar, "member-1");
        let failure = wires[1].acquire(acquire(&lock, 0, 0)).await.expect_err("it is held");
        assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("lock_held", "later"), "{failure}");
        let local = tokio::task::LocalSet::new();
        local.run_until(async {
            let mut queue = Vec::new();
            for place in [1, 2, 0, 2] {
                let (wire, asked) = (wires[place].within(Duration::from_secs(60)), acquire(&lock, 60_000, 60_000));
                queue.push(tokio::task::spawn_local(async move { wire.acquire(asked).await }));
                until_waiting(&wires[0], &lock, u32::try_from(queue.len()).expect("few")).await;
            }
            for (served, next) in queue.into_iter().enumerate() {
                assert!(!next.is_finished(), "one holder at a time");
                // Any member releases; whoever has the token may.
                wires[served % 3].release_lock(&lock, token).await.expect("release");
                let granted = next.await.expect("no panic").expect("acquire");
                assert!(granted.token > token && granted.ttl_ms > 0);
                token = granted.token;
                assert_eq!(wires[1].lock(&lock).await.expect("get").token, token);
            }
        }).await;
        wires[0].release_lock(&lock, token).await.expect("release");
        let again = wires[2].release_lock(&lock, token).await.expect_err("it is released already");
        assert_eq!((again.code.as_str(), again.retry.as_str()), ("token_unknown", "never"), "{again}");
        let free = wires[1].lock(&lock).await.expect("get");
        assert_eq!((free.token, free.waiting), (0, 0));
        let next = wires[1].acquire(acquire(&lock, 0, 60_000)).await.expect("acquire").token;
        assert!(next > token, "also when it was free");
    }

    async fn who_waits_too_long_or_goes_away_leaves_the_queue<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let lock = name("impatient");
        let held = a.acquire(acquire(&lock, 0, 60_000)).await.expect("acquire");
        let begun = Instant::now();
        let failure = b.acquire(acquire(&lock, 300, 0)).await.expect_err("it is held for longer");
        assert_eq!(failure.code, "lock_held", "{failure}");
        assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        // A deadline is shorter than the wait.
        let failure = b.within(Duration::from_millis(400)).acquire(acquire(&lock, 60_000, 0)).await;
        assert_eq!(failure.expect_err("it is held for longer").code, "lock_held");
        // A call that is given up.
        {
            let waiting = c.acquire(acquire(&lock, 60_000, 0));
            tokio::pin!(waiting);
            tokio::select! {
                granted = &mut waiting => panic!("{granted:?}"),
                _ = until_waiting(&b, &lock, 1) => {}
            }
        }
        until_waiting(&b, &lock, 0).await;
        assert_eq!(b.lock(&lock).await.expect("get").token, held.token);
    }

    async fn a_lease_that_is_not_renewed_gives_the_lock_to_the_next_one_and_not_before_it_has_run_out<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let lock = name("lease");
        let begun = Instant::now();
        let held = a.acquire(acquire(&lock, 0, 1_000)).await.expect("acquire");
        assert!(held.ttl_ms > 0 && held.ttl_ms <= 1_000, "{}", held.ttl_ms);
        let renewing = Instant::now();
        let renewed = a.renew_lock(&lock, held.token).await.expect("renew");
        let elsewhere = b.renew_lock(&lock, held.token).await.expect_err("only where it was acquired");
        assert_eq!(elsewhere.code, "token_unknown", "{elsewhere}");
        let next = b.within(Duration::from_secs(20)).acquire(acquire(&lock, 20_000, 60_000)).await.expect("acquire");
        let took = renewing.elapsed();
        assert!(next.token > held.token);
        assert!(took >= Duration::from_millis(renewed.ttl_ms), "it was vouched for {}, not {took:?}", renewed.ttl_ms);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        let failure = a.renew_lock(&lock, held.token).await.expect_err("it has run out");
        assert_eq!(failure.code, "token_unknown", "{failure}");
        let failure = a.release_lock(&lock, held.token).await.expect_err("it has run out");
        assert_eq!(failure.code, "token_unknown", "{failure}");
        assert_eq!(b.lock(&lock).await.expect("get").token, next.token, "that of the next one is untouched");
    }

    async fn s112_d11_an_acquire_that_is_sent_again_gives_the_same_token<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let lock = name("again");
        let wire = a.identified(Uuid::now_v7(), Uuid::now_v7());
        let first = wire.acquire(acquire(&lock, 0, 60_000)).await.expect("acquire");
        let again = wire.acquire(acquire(&lock, 0, 60_000)).await.expect("the same");
        assert_eq!(again.token, first.token);
        let seen = b.lock(&lock).await.expect("get");
        assert_eq!((seen.token, seen.waiting), (first.token, 0), "one place");
        a.release_lock(&lock, first.token).await.expect("release");
        let failure = wire.acquire(acquire(&lock, 0, 60_000)).await.expect_err("what it was granted is given back");
        assert_eq!(failure.code, "token_unknown", "{failure}");
    }

    async fn bad_input_about_locks_is_refused_with_the_name_of_the_field<W: Wire>() {
        let [a, ..] = clients::<W>().await;
        let lock = name("bad");
        let cases = [
            (a.acquire(acquire("a/b", 0, 0)).await.map(|_| ()), "lock"),
            (a.acquire(acquire(&"l".repeat(254), 0, 0)).await.map(|_| ()), "lock"),
            (a.acquire(acquire(&lock, 0, 999)).await.map(|_| ()), "ttl_ms"),
            (a.acquire(acquire(&lock, 0, 3_600_001)).await.map(|_| ()), "ttl_ms"),
            (a.renew_lock(&lock, 0).await.map(|_| ()), "token"),
            (a.release_lock(&lock, 0).await.map(|_| ()), "token"),
            (a.lock("a/b").await.map(|_| ()), "lock"),
        ];
        for (answer, field) in cases {
            let failure = answer.expect_err("it is wrong");
            assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("invalid_argument", "never"), "{failure}");
            assert!(failure.message.starts_with(&format!("{field}: ")), "{field}: {failure}");
        }
        assert_eq!(a.lock(&lock).await.expect("get").token, 0, "nothing was done");
        let failure = a.release_lock(&lock, 12_345).await.expect_err("nobody was granted that");
        assert_eq!(failure.code, "token_unknown", "{failure}");
    }
}
