//! Maps.

use std::collections::{BTreeMap, BTreeSet};

use coterie_cli::local::LocalCluster;
use coterie_client::{
    Changed, Client, ClientOptions, Consistency, Entry, Map, MapEvent, MapEventKind, MapWatch, RequestId, Revision,
    SessionState,
};
use coterie_conformance::harness::{cluster, start};
use coterie_conformance::{Grpc, Wire as _, eventually, name, run, shared};
use coterie_core::routing::partition_of;
use futures_util::StreamExt as _;
use futures_util::future::join_all;

use crate::{client, patient, soon};

/// The next event that is not about the connection.
async fn next(watch: &mut MapWatch) -> MapEvent {
    loop {
        let event =
            soon("the watch says something", watch.next()).await.expect("it goes on").expect("without an error");
        if !matches!(event.kind, MapEventKind::Connection(_)) {
            return event;
        }
    }
}

/// The entries that a watch begins with.
async fn view(watch: &mut MapWatch) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        match next(watch).await.kind {
            MapEventKind::Snapshot(part) | MapEventKind::Resync(part) => {
                assert_eq!(part.first, entries.is_empty());
                entries.extend(part.entries);
                if part.last {
                    return entries;
                }
            }
            other => panic!("{other:?} is not all entries"),
        }
    }
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

#[test]
fn what_was_put_is_read_through_every_member_and_conditions_say_whether_they_were_met() {
    run(async {
        let map = client(0).await.map(name("sdk-map"));
        let elsewhere = client(1).await.map(map.name());
        assert_eq!(map.get("k").await.expect("get"), None);
        let first = map.put("k", "one").await.expect("put");
        assert_eq!(first.previous, None);
        let found = elsewhere.get("k").await.expect("get").expect("an entry");
        assert_eq!((found.key.as_str(), &found.value[..], found.revision), ("k", &b"one"[..], first.revision));

        assert_eq!(elsewhere.put_if_absent("k", "x").await.expect("an answer"), None);
        let second = elsewhere.put_if("k", "two", first.revision).await.expect("an answer").expect("it was as read");
        assert_eq!(second.previous, Some(first.revision));
        assert_eq!(map.put_if("k", "x", first.revision).await.expect("an answer"), None, "it has changed");
        assert_eq!(map.delete_if("k", first.revision).await.expect("an answer"), None);
        assert_eq!(&map.get("k").await.expect("get").expect("an entry").value[..], b"two");
        let gone = map.delete_if("k", second.revision).await.expect("an answer").expect("it was as read");
        assert_eq!(gone.previous, Some(second.revision));
        assert_eq!(elsewhere.delete("k").await.expect("delete").previous, None, "there is none");
        let again = map.put_if_absent("k", "three").await.expect("an answer").expect("there was none");
        assert!(again.revision > gone.revision);
        let read = elsewhere.read("k", Consistency::Linearizable).await.expect("read");
        assert!(read.revision >= again.revision && read.stale_for.is_zero());
        let leased = elsewhere.read("k", Consistency::Leased).await.expect("read");
        assert_eq!(leased.entry, read.entry);
        eventually("a replica near it has it", || async {
            let stale = elsewhere.read("k", Consistency::Stale).await.map_err(|error| error.to_string())?;
            if stale.entry.is_some_and(|entry| entry.revision == again.revision) { Ok(()) } else { Err(String::new()) }
        })
        .await;

        for (error, field) in [
            (map.put("", "v").await.expect_err("no key"), "key"),
            (map.get(&"k".repeat(1_025)).await.expect_err("too long"), "key"),
            (client(0).await.map("a/b").put("k", "v").await.expect_err("no name"), "map"),
        ] {
            assert_eq!(error.code(), "invalid_argument", "{error}");
            assert!(error.to_string().starts_with(&format!("invalid_argument: {field}: ")), "{error}");
        }
        let error = map.put("k", vec![0; (1 << 20) + 1]).await.expect_err("more than a MiB");
        assert_eq!(error.code(), "too_large", "{error}");
    });
}

#[test]
fn entries_are_listed_page_by_page_in_the_order_of_their_keys() {
    run(async {
        let map = client(0).await.map(name("sdk-list"));
        assert_eq!(map.list("").all().await.expect("list"), []);
        let wanted: Vec<String> = (0..25).map(|number| format!("a/{number:02}")).collect();
        let others = ["0", "b"];
        join_all(wanted.iter().map(String::as_str).chain(others).map(|key| map.put(key, key.to_owned()))).await;
        let pages: Vec<_> = client(2).await.map(map.name()).list("a/").page_size(10).collect().await;
        let pages: Vec<_> = pages.into_iter().map(|page| page.expect("a page").entries).collect();
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(keys(&pages.concat()), wanted);
        assert_eq!(map.list("").all().await.expect("list").len(), 27);
        let error = map.list("").page_size(1_001).next().await.expect("an item").expect_err("too many");
        assert!(error.to_string().starts_with("invalid_argument: limit: "), "{error}");
    });
}

#[test]
fn d17_a_watch_shows_what_there_is_then_every_change_and_resumes_after_any() {
    run(async {
        let map = client(0).await.map(name("sdk-watch"));
        map.put("a/1", "v").await.expect("put");
        map.put("b/1", "v").await.expect("put");
        let elsewhere = client(1).await.map(map.name());
        let mut watch = elsewhere.watch("a/");
        assert_eq!(keys(&view(&mut watch).await), ["a/1"]);
        let put = map.put("a/2", "w").await.expect("put");
        map.put("b/2", "w").await.expect("put");
        let deleted = map.delete("a/1").await.expect("delete");
        let first = next(&mut watch).await;
        let entry = Entry { key: "a/2".to_owned(), value: "w".into(), revision: put.revision };
        assert_eq!((first.revision, &first.kind), (put.revision, &MapEventKind::Put(entry)));
        let mut resumed = client(2).await.map(map.name()).watch_after("a/", first.id);
        let dropped = map.drop_map().await.expect("drop");
        for watch in [&mut watch, &mut resumed] {
            let event = next(watch).await;
            assert_eq!((event.revision, event.kind), (deleted.revision, MapEventKind::Deleted("a/1".to_owned())));
            let event = next(watch).await;
            assert_eq!((event.revision, event.kind), (dropped, MapEventKind::Dropped));
            assert!(soon("it ends", watch.next()).await.is_none());
        }
        assert_eq!(map.get("a/2").await.expect("get"), None);
        let error = elsewhere.watch_after("", "not an id").next().await.expect("an item").expect_err("no id");
        assert_eq!(error.code(), "invalid_argument", "{error}");
    });
}

#[test]
fn watches_that_nobody_reads_hold_up_nothing_else() {
    const BYTES: usize = 64 * 1024;
    const PUTS: usize = 160;
    run(async {
        let map = client(0).await.map(name("sdk-unread"));
        map.put("first", "v").await.expect("put");
        // More than one connection holds unread with the windows that are usual.
        let mut watches: Vec<_> = (0..8).map(|_| map.watch("")).collect();
        for watch in &mut watches {
            assert_eq!(keys(&view(watch).await), ["first"]);
        }
        let mut last = Revision::default();
        for number in 0..PUTS {
            last =
                soon("a put is answered", map.put(&format!("k-{number}"), vec![7; BYTES])).await.expect("put").revision;
        }
        // Whoever reads then gets every change, or is told that it missed some.
        for watch in &mut watches {
            let mut copy = BTreeSet::new();
            loop {
                let event = next(watch).await;
                match event.kind {
                    MapEventKind::Put(entry) => _ = copy.insert(entry.key),
                    MapEventKind::Resync(part) => {
                        if part.first {
                            copy.clear();
                        }
                        copy.extend(part.entries.into_iter().map(|entry| entry.key).filter(|key| key != "first"));
                        if !part.last {
                            continue;
                        }
                    }
                    other => panic!("{other:?}"),
                }
                if event.revision >= last {
                    break;
                }
            }
            assert_eq!(copy.len(), PUTS);
        }
    });
}

#[test]
fn d11_a_write_is_repeated_with_its_own_request_id_also_through_another_member() {
    run(async {
        let options = ClientOptions::default();
        let connect = async |place| Client::connect_with(&shared().await.endpoint(place), options.clone());
        let (a, b) = (connect(0).await.expect("connect"), connect(1).await.expect("connect"));
        let (map, request) = (name("sdk-once"), RequestId::mint());
        let first = a.map(&map).with_request(request).put_if_absent("k", "v").await.expect("an answer");
        let again = b.map(&map).with_request(request).put_if_absent("k", "v").await.expect("an answer");
        assert_eq!(again, first);
        assert!(first.is_some());
        assert_eq!(b.map(&map).put_if_absent("k", "v").await.expect("an answer"), None, "another request");
        let error = a.map(&map).with_request(request).put("k", "w").await.expect_err("the id is of another request");
        assert_eq!(error.code(), "invalid_argument", "{error}");
    });
}

#[test]
fn thousands_of_operations_of_one_client_are_under_way_at_once() {
    run(async {
        let map = patient(&shared().await.endpoint(0)).map(name("sdk-many"));
        let keys: Vec<String> = (0..5_000).map(|number| format!("k-{number:04}")).collect();
        let put = join_all(keys.iter().map(|key| map.put(key, key.clone()))).await;
        let revisions: BTreeMap<_, _> =
            keys.iter().zip(put).map(|(key, put)| (key, put.expect("put").revision)).collect();
        let got = join_all(keys.iter().map(|key| map.get(key))).await;
        for (key, entry) in keys.iter().zip(got) {
            let entry = entry.expect("get").expect("an entry");
            assert_eq!((&entry.key, &entry.value[..], &entry.revision), (key, key.as_bytes(), &revisions[key]));
        }
    });
}

/// Puts keys that are not there, many at once, until told to stop: what each was answered.
async fn put_new(map: &Map, lane: usize, stop: &tokio::sync::Notify) -> usize {
    let stopped = stop.notified();
    tokio::pin!(stopped);
    for number in 0.. {
        let key = format!("{lane}/{number}");
        let put = map.put_if_absent(&key, "v");
        tokio::select! {
            biased;
            () = &mut stopped => return number,
            // Applied twice, it would find its own key there.
            put = put => assert!(put.expect("it is repeated until it is known").is_some(), "{lane}/{number}"),
        }
    }
    unreachable!("it goes on until it is stopped")
}

/// Kills and starts a place while many writes are under way through another, or the same.
async fn writes_are_applied_once_across_a_kill(cluster: &LocalCluster, victim: usize, map: &Map) {
    let stop = tokio::sync::Notify::new();
    let killing = async {
        let written = |at_least| async move {
            eventually("writes go on", || async {
                let page = map.list("0/").page_size(1_000).all().await.map_err(|error| error.to_string())?;
                if page.len() >= at_least { Ok(page.len()) } else { Err(format!("{}", page.len())) }
            })
            .await
        };
        let before = written(10).await;
        cluster.kill(victim).expect("kill");
        start(cluster, [victim]).await;
        written(before + 20).await;
        stop.notify_waiters();
    };
    let (written, ()) = tokio::join!(join_all((0..300).map(|lane| put_new(map, lane, &stop))), killing);
    println!("{} writes, each applied once, while member-{} was killed", written.iter().sum::<usize>(), victim + 1);
}

/// Which place leads the partition of a map.
async fn leader_of(cluster: &LocalCluster, map: &str) -> usize {
    let index = partition_of("map", map, 3) as usize - 1;
    eventually("the partition has a leader", || async {
        let status = Grpc::connect(&cluster.endpoint(0)).status().await.map_err(|failure| failure.to_string())?;
        let data = status.partition_groups.iter().find(|group| group.name == "data").ok_or("no group")?;
        let leader = data.partitions[index].leader.clone();
        (0..3).find(|place| leader == format!("member-{}", place + 1)).ok_or(leader)
    })
    .await
}

#[test]
fn s112_d11_writes_under_way_are_applied_once_when_their_sidecar_is_killed_and_when_the_leader_is() {
    run(async {
        let cluster = cluster().await;
        let own = patient(&cluster.endpoint(0)).map("own-sidecar");
        own.put("made", "v").await.expect("put");
        writes_are_applied_once_across_a_kill(&cluster, 0, &own).await;
        let name = "leader";
        patient(&cluster.endpoint(0)).map(name).put("made", "v").await.expect("put");
        let leader = leader_of(&cluster, name).await;
        let beside = patient(&cluster.endpoint((leader + 1) % 3)).map(name);
        writes_are_applied_once_across_a_kill(&cluster, leader, &beside).await;
    });
}

#[test]
fn s18_d17_a_watch_goes_on_without_gap_or_repetition_across_restarts_of_its_sidecar() {
    run(async {
        let cluster = cluster().await;
        let map = patient(&cluster.endpoint(1)).map("resumed");
        let first = map.put("k-0", "v").await.expect("put");
        let mut watch = patient(&cluster.endpoint(0)).map("resumed").watch("");
        assert_eq!(view(&mut watch).await[0].revision, first.revision);
        let mut number = 0;
        let mut put = async |count: usize| {
            let mut made: Vec<Changed> = Vec::new();
            for _ in 0..count {
                number += 1;
                made.push(map.put(&format!("k-{number}"), "v").await.expect("put"));
            }
            made
        };
        let mut made = put(10).await;
        cluster.kill(0).expect("kill");
        loop {
            let event = soon("it is told", watch.next()).await.expect("it goes on").expect("without an error");
            match event.kind {
                MapEventKind::Put(_) => assert_eq!(event.revision, made.remove(0).revision),
                MapEventKind::Connection(SessionState::Suspended) => break,
                other => panic!("{other:?}"),
            }
        }
        made.extend(put(10).await);
        start(&cluster, [0]).await;
        made.extend(put(10).await);
        for change in made {
            let event = next(&mut watch).await;
            assert!(matches!(event.kind, MapEventKind::Put(_)), "{event:?}");
            assert_eq!(event.revision, change.revision, "every change, once");
        }
    });
}
