//! Sessions that do nothing, and clocks that step.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use common::Sidecar;
use common::crowd::{Crowd, kept_alive};
use coterie_core::limits::{SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN};
use coterie_core::machine::Machine;
use coterie_core::{PartitionId, SessionId};
use coterie_env::{Clock, Env};
use coterie_proto::peer::{self, session_alive::Result as Alive};

/// What all files of a directory hold.
fn content(directory: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut entries: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        path.hash(&mut hasher);
        if path.is_dir() {
            content(&path).hash(&mut hasher);
        } else if path.is_file() {
            std::fs::read(&path).unwrap().hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Waits until so many sessions are live.
async fn until_live(crowd: &Crowd, live: usize) {
    let begun = Instant::now();
    while crowd.live() != live {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} are live, not {live}", crowd.live());
        tokio::time::sleep(Duration::from_millis(20)).await; // waits for a condition
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_sessions_write_nothing_and_none_of_them_expires() {
    const TTL_MS: u64 = 3 * SESSION_TTL_MS_MIN;
    const SESSIONS: usize = 10_000;
    let sidecar = Sidecar::start().await;
    let crowd = Crowd::open(std::slice::from_ref(&sidecar.node), SESSIONS, TTL_MS).await;
    crowd.keep_alive().await;
    assert_eq!(crowd.live(), SESSIONS);
    let revision = crowd.partition.with_machine(Machine::revision);
    let written = content(&sidecar.data_directory());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(3 * TTL_MS) {
        let round = Instant::now();
        crowd.keep_alive().await;
        // As often as sidecars do.
        tokio::time::sleep(Duration::from_millis(TTL_MS / 3).saturating_sub(round.elapsed())).await; // plays their pace
    }
    assert_eq!(crowd.live(), SESSIONS, "none has expired");
    assert_eq!(crowd.partition.with_machine(Machine::revision), revision, "nothing was proposed");
    assert_eq!(content(&sidecar.data_directory()), written, "not a byte on disk has changed");
    // And then they stop.
    let before = Instant::now();
    until_live(&crowd, 0).await;
    println!("{SESSIONS} sessions expired {:?} after their last keep-alive", before.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_keep_alives_in_one_message_each_is_answered_for_itself_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = common::begin_three(folder.path()).await;
    let crowd = Crowd::open(&nodes, 2, SESSION_TTL_MS_MAX).await;
    let [ours, other] = &crowd.holders[..] else { panic!("two were opened") };
    let leader = crowd.node.config().local.name.clone();
    let follower = nodes.iter().find(|node| node.config().local.name != leader).unwrap();
    let nowhere = PartitionId { group: "nowhere".into(), index: 1 };
    let asked = [
        (&crowd.id, ours.session),
        (&crowd.id, other.session),
        (&nowhere, SessionId(1)),
        (&crowd.id, SessionId(999)),
        (&crowd.id, ours.session),
    ];
    let there = follower.config().local.name.clone();
    let elsewhere = Alive::NotLeader(peer::NotLeader { leader: leader.0.clone() });
    let begun = Instant::now();
    loop {
        let answers = kept_alive(follower, &leader, ours, &asked).await;
        assert_eq!(answers.len(), asked.len());
        assert!(matches!(&answers[2], Alive::NotLeader(of) if of.leader.is_empty()), "{answers:?}");
        let named = kept_alive(&crowd.node, &there, ours, &asked[..2]).await;
        if let [Alive::Alive(true), Alive::Lost(true), _, Alive::Lost(true), Alive::Alive(true)] = answers[..]
            && named.iter().all(|answer| *answer == elsewhere)
        {
            break;
        }
        // Of several none waits for a majority: on a busy machine the leader's lease lapses, or the leader is not known.
        assert!(begun.elapsed() < Duration::from_secs(30), "{answers:?} {named:?}");
        tokio::time::sleep(Duration::from_millis(20)).await; // waits for a condition
    }
    let most = vec![asked[0]; 256];
    assert_eq!(kept_alive(follower, &leader, ours, &most).await.len(), 256);
    let more = vec![asked[0]; 257];
    assert!(kept_alive(follower, &leader, ours, &more).await.is_empty(), "none of so many is answered");
}

/// A clock whose wall time is off.
struct Stepping(Arc<dyn Clock>, AtomicI64);

impl Clock for Stepping {
    fn monotonic_ms(&self) -> u64 {
        self.0.monotonic_ms()
    }

    fn wall_ms(&self) -> u64 {
        self.0.wall_ms().saturating_add_signed(self.1.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_steps_expires_no_session_and_keeps_none_alive() {
    const TTL_MS: u64 = 2 * SESSION_TTL_MS_MIN;
    const HOUR_MS: i64 = 3_600_000;
    let real = coterie_env::real();
    let clock = Arc::new(Stepping(real.clock.clone(), AtomicI64::new(0)));
    let sidecar = Sidecar::start_with(Env { clock: clock.clone(), ..real }).await;
    let crowd = Crowd::open(std::slice::from_ref(&sidecar.node), 10, TTL_MS).await;
    let begun = Instant::now();
    for step_ms in [HOUR_MS, -HOUR_MS, 24 * HOUR_MS, 0].into_iter().cycle() {
        clock.1.store(step_ms, Ordering::Relaxed);
        crowd.keep_alive().await;
        assert_eq!(crowd.live(), 10);
        if begun.elapsed() > Duration::from_millis(2 * TTL_MS) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(TTL_MS / 8)).await; // plays the pace of keep-alives
    }
    clock.1.store(-HOUR_MS, Ordering::Relaxed);
    let last = Instant::now();
    crowd.keep_alive().await;
    until_live(&crowd, 0).await;
    assert!(last.elapsed() >= Duration::from_millis(TTL_MS), "not before its time: {:?}", last.elapsed());
}
