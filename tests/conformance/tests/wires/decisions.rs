//! Section 13 where an application can see it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coterie_conformance::harness::{PATIENCE, clients};
use coterie_conformance::wire::{Change, If, Joining, ids};
use coterie_conformance::{both_wires, eventually, name};
use coterie_proto::v1;
use uuid::{Builder, Uuid};

/// A request id that was minted this long ago (or will be).
fn minted(offset_ms: i64) -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let at = i64::try_from(now).expect("a date of this age") + offset_ms;
    let random: [u8; 16] = *Uuid::now_v7().as_bytes();
    let mut tail = [0; 10];
    tail.copy_from_slice(&random[6..]);
    Builder::from_unix_timestamp_millis(u64::try_from(at).expect("after 1970"), &tail).into_uuid()
}

both_wires! {
    async fn d2_who_comes_late_gets_the_present_term_and_leader_at_once<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("d2");
        let id = a.join(&group, Joining::lease(60_000)).await.expect("join").member.expect("a member").id;
        let now = b.get(&group).await.expect("get");
        let snapshot = b.watch(&group, "").await.expect("watch").snapshot().await;
        assert_eq!((snapshot.term, snapshot.leader), (now.term, id));
    }

    async fn d11_a_write_that_is_sent_twice_is_applied_once<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let group = name("d11");
        let made = a.create(&group, None).await.expect("create");
        let (client, request) = (Uuid::now_v7(), Uuid::now_v7());
        let config = v1::GroupConfig { release_timeout_ms: Some(9), max_members: None };
        let only_if = If { config_revision: made.config_revision, ..If::default() };
        let first = a.identified(client, request).configure(&group, config, only_if).await.expect("configure");
        // The retry goes to other sidecars: the identity is the client's, not a sidecar's. Applied again, it would be
        // refused, for the configuration has changed.
        for wire in [&b, &c, &a] {
            let retry = wire.identified(client, request).configure(&group, config, only_if).await.expect("the same");
            assert_eq!(retry.config_revision, first.config_revision);
        }
        let failure = b.identified(client, Uuid::now_v7()).configure(&group, config, only_if).await;
        assert_eq!(failure.expect_err("another request is another change").code, "revision_mismatch");
    }

    async fn d11_a_join_that_is_sent_twice_gives_one_member<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let group = name("d11j");
        let (client, request) = (Uuid::now_v7(), Uuid::now_v7());
        let first = a.identified(client, request).join(&group, Joining::lease(60_000)).await.expect("join");
        let retry = a.identified(client, request).join(&group, Joining::lease(60_000)).await.expect("join again");
        let id = first.member.expect("a member").id;
        assert_eq!(retry.member.expect("a member").id, id);
        assert_eq!(ids(&c.get(&group).await.expect("get")), vec![id], "one join, one member");
        // Another sidecar cannot hold the first one's lease: the membership moves to it.
        let moved = b.identified(client, request).join(&group, Joining::lease(60_000)).await.expect("join elsewhere");
        let moved = moved.member.expect("a member").id;
        eventually("one join, one member", || async {
            let members = ids(&c.get(&group).await.map_err(|failure| failure.to_string())?);
            if members == [moved] { Ok(()) } else { Err(format!("{members:?}, not {moved}")) }
        })
        .await;
    }

    async fn d11_a_request_id_that_is_used_for_another_request_is_refused_and_nothing_is_done<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("d11o");
        let (client, request) = (Uuid::now_v7(), Uuid::now_v7());
        let joined = a.identified(client, request).join(&group, Joining::lease(60_000)).await.expect("join");
        let id = joined.member.expect("a member").id;
        for wire in [&a, &b] {
            let wire = wire.identified(client, request);
            let others = [
                wire.delete(&group).await.map(|_| ()),
                wire.create(&group, None).await.map(|_| ()),
                wire.leave(&group, id).await,
                wire.join(&group, Joining { ttl_ms: 60_000, ..Joining::named("another") }).await.map(|_| ()),
            ];
            for other in others {
                let failure = other.expect_err("the id belongs to the join");
                assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("invalid_argument", "never"), "{failure}");
                assert!(failure.message.contains("request_id: belongs to another request"), "{failure}");
            }
        }
        assert_eq!(ids(&b.get(&group).await.expect("it was not deleted")), vec![id]);
        let again = a.identified(client, request).join(&group, Joining::lease(60_000)).await.expect("join again");
        assert_eq!(again.member.expect("a member").id, id);
    }

    async fn d11_a_refusal_is_remembered_as_well<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("d11r");
        a.create(&group, None).await.expect("create");
        let (client, request) = (Uuid::now_v7(), Uuid::now_v7());
        let wire = a.identified(client, request);
        let failure = wire.leave(&group, 1).await.expect_err("there is no such member");
        assert_eq!(failure.code, "member_unknown", "{failure}");
        let again = b.identified(client, request).leave(&group, 1).await.expect_err("the same");
        assert_eq!(again.code, failure.code);
    }

    async fn d11_a_retry_beyond_what_is_kept_is_expired_and_not_applied<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("d11x");
        a.create(&group, None).await.expect("create");
        let wire = a.identified(Uuid::now_v7(), minted(-3_600_000));
        let failure = wire.join(&group, Joining::lease(60_000)).await.expect_err("an hour old");
        assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("expired", "never"), "{failure}");
        assert_eq!(ids(&b.get(&group).await.expect("get")), Vec::<u64>::new(), "nothing was applied");
        let wire = a.identified(Uuid::now_v7(), minted(3_600_000));
        let failure = wire.join(&group, Joining::lease(60_000)).await.expect_err("from the future");
        assert_eq!(failure.code, "invalid_argument", "{failure}");
    }

    async fn d12_reads_say_how_fresh_they_are<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("d12");
        a.create(&group, None).await.expect("create");
        let fresh = b.get(&group).await.expect("get");
        assert_eq!((fresh.consistency(), fresh.stale_ms), (v1::Consistency::Linearizable, 0));
        let leased = a.read(&group, v1::Consistency::Leased).await.expect("get");
        assert_eq!((leased.consistency(), leased.stale_ms), (v1::Consistency::Leased, 0));
        // The replica beside this member may hear of it last.
        let known = async {
            loop {
                match a.read(&group, v1::Consistency::Stale).await {
                    Ok(stale) => return stale,
                    Err(failure) => assert_eq!(failure.code, "group_unknown", "{failure}"),
                }
            }
        };
        let stale = tokio::time::timeout(PATIENCE, known).await.expect("the replica follows");
        assert_eq!(stale.consistency(), v1::Consistency::Stale);
        assert!(stale.stale_ms < 5_000, "{} ms", stale.stale_ms);
    }

    async fn d15_s101_a_partition_group_is_named_and_an_unknown_one_is_refused_with_those_that_are<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("d15p");
        let made = a.in_partition_group("data").create(&group, None).await.expect("create");
        assert_eq!(made.partition_group, "data");
        assert_eq!(b.get(&group).await.expect("it is the default one").name, group);
        let failure = a.in_partition_group("nowhere").create(&group, None).await.expect_err("there is none");
        assert_eq!(failure.code, "partition_group_unknown", "{failure}");
        assert!(failure.message.contains("data") && failure.message.contains("nowhere"), "{failure}");
        let failure = a.in_partition_group("system").create(&group, None).await.expect_err("it is reserved");
        assert!(!failure.code.is_empty() && failure.message.contains("system"), "{failure}");
    }

    async fn d17_s33_a_watch_resumes_after_the_last_event_and_misses_none<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let group = name("d17");
        a.create(&group, None).await.expect("create");
        let mut whole = a.watch(&group, "").await.expect("watch");
        let mut part = b.watch(&group, "").await.expect("watch");
        whole.snapshot().await;
        part.snapshot().await;
        let first = a.join(&group, Joining::lease(60_000)).await.expect("join").member.expect("a member").id;
        let last = part.find("the join", |event| matches!(&event.kind, Some(Change::Joined(it)) if it.id == first)
            .then(|| event.id.clone())).await;
        drop(part);
        a.leave(&group, first).await.expect("leave");
        let second = b.join(&group, Joining::lease(60_000)).await.expect("join").member.expect("a member").id;
        let end = |event: &v1::GroupEvent| matches!(&event.kind, Some(Change::Elected(it)) if it.leader == second);
        let mut all = Vec::new();
        whole.find("the second election", |event| {
            all.push((event.id.clone(), event.kind.clone()));
            end(event).then_some(())
        }).await;
        let after = all.iter().position(|(id, _)| *id == last).expect("it is among them") + 1;
        // Resumed at another sidecar.
        let mut resumed = c.watch(&group, &last).await.expect("watch again");
        let mut rest = Vec::new();
        resumed.find("the second election", |event| {
            rest.push((event.id.clone(), event.kind.clone()));
            end(event).then_some(())
        }).await;
        assert_eq!(rest, all[after..], "exactly the events after the last one that was seen");
    }

    async fn d17_a_watch_from_too_long_ago_is_told_to_resync<W: Wire>() {
        let [a, ..] = clients::<W>().await;
        let group = name("d17r");
        let id = a.join(&group, Joining::lease(60_000)).await.expect("join").member.expect("a member").id;
        // Revision 0 was before any partition had an event.
        let mut watch = a.watch(&group, "0.0").await.expect("watch");
        let event = watch.next().await.and_then(|event| event.kind);
        match event {
            Some(Change::Resync(group)) => assert_eq!(ids(&group), vec![id]),
            // The partition still has all its events: then it gives them.
            Some(Change::Joined(member)) => assert_eq!(member.id, id),
            other => panic!("{other:?}"),
        }
        let failure = match a.watch(&group, "yesterday").await {
            Err(failure) => failure,
            Ok(mut watch) => watch.end().await.expect("it is no event id"),
        };
        assert_eq!(failure.code, "invalid_argument", "{failure}");
    }

    async fn s17_s18_s34_d17_after_an_event_that_the_partition_never_had_comes_a_resync_at_once_and_then_every_event<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let group = name("d17l");
        let first = a.join(&group, Joining::lease(60_000)).await.expect("join").member.expect("a member").id;
        // Of another life of the partition, with a place that is yet to come and with one that is long past; and one
        // that does not say which life it is of.
        for (wire, after) in [(&a, "900000000.0.0badcafe"), (&b, "1.0.0badcafe"), (&c, "900000000.0")] {
            let mut watch = wire.watch(&group, after).await.expect("watch");
            let begun = std::time::Instant::now();
            let event = watch.find("the first word on the group", |event| {
                (!matches!(event.kind, Some(Change::Connection(_)))).then(|| event.clone())
            }).await;
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            let Some(Change::Resync(now)) = event.kind else { panic!("{event:?}") };
            assert!(ids(&now).contains(&first), "{now:?}");
            let joined = a.join(&group, Joining::lease(60_000)).await.expect("join").member.expect("a member").id;
            assert_eq!(watch.joined().await.id, joined);
            // The id that came with it is of the present life.
            let mut resumed = b.watch(&group, &event.id).await.expect("watch");
            let next = resumed.next().await.and_then(|event| event.kind);
            assert!(matches!(&next, Some(Change::Joined(member)) if member.id == joined), "{next:?}");
        }
        let nobody = name("d17n");
        let mut watch = a.watch(&nobody, "900000000.0.0badcafe").await.expect("watch");
        let event = watch.next().await.and_then(|event| event.kind);
        assert!(matches!(event, Some(Change::Deleted(_))), "{event:?}");
    }

    async fn s92_d13_status_shows_members_partitions_and_leaders<W: Wire>() {
        let [a, ..] = clients::<W>().await;
        let status = a.status().await.expect("status");
        assert_eq!((status.member.as_str(), status.cluster.as_str(), status.state.as_str()), ("member-1", "local", "running"));
        assert!(!status.cluster_id.is_empty() && status.start_counter == 1 && !status.version.is_empty());
        let members: Vec<_> = status.members.iter().map(|it| (it.name.as_str(), it.voter, it.reachable)).collect();
        assert_eq!(members, vec![("member-1", true, true), ("member-2", true, true), ("member-3", true, true)]);
        let groups: Vec<_> = status.partition_groups.iter().map(|it| (it.name.as_str(), it.partitions.len())).collect();
        assert_eq!(groups, vec![("system", 1), ("data", 3)], "the management group first");
        for partition in status.partition_groups.iter().flat_map(|group| &group.partitions) {
            assert!(partition.leader.starts_with("member-") && partition.term > 0 && partition.has_quorum, "{partition:?}");
            assert!(partition.local && partition.replicas.len() == 3, "{partition:?}");
        }
    }

    async fn d12_a_call_ends_within_its_deadline<W: Wire>() {
        let [a, ..] = clients::<W>().await;
        let group = name("deadline");
        let begun = std::time::Instant::now();
        // Whether a millisecond is enough depends on the machine; that it ends does not.
        let _ = a.within(Duration::from_millis(1)).create(&group, None).await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
}
