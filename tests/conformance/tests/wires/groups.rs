//! S1 to S20: create, join, leave, list.

use std::collections::BTreeMap;

use coterie_conformance::harness::clients;
use coterie_conformance::wire::{Change, If, Joining, ids};
use coterie_conformance::{both_wires, eventually, name};
use coterie_proto::v1;

both_wires! {
    async fn s1_two_clients_that_ask_for_one_name_see_one_group<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let group = name("s1");
        let made = a.create(&group, None).await.expect("create");
        assert_eq!((made.name.as_str(), made.partition_group.as_str()), (group.as_str(), "data"));
        let again = b.create(&group, None).await.expect("creating is idempotent");
        assert_eq!(again.config_revision, made.config_revision);
        let member = a.join(&group, Joining::named("one")).await.expect("join").member.expect("a member");
        for wire in [&a, &b, &c] {
            assert_eq!(ids(&wire.get(&group).await.expect("get")), vec![member.id]);
        }
        assert!(b.list().await.expect("list").iter().any(|listed| listed.name == group));
    }

    async fn s2_d1_one_client_may_be_several_members<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("s2");
        let first = a.hold(&group, Joining::named("first")).await.expect("join");
        let second = a.hold(&group, Joining::named("second")).await.expect("join again");
        assert_ne!(first.id(), second.id());
        assert_eq!(ids(&b.get(&group).await.expect("get")), vec![first.id(), second.id()]);
        a.leave(&group, first.id()).await.expect("only the first leaves");
        assert_eq!(ids(&b.get(&group).await.expect("get")), vec![second.id()]);
    }

    async fn s3_s4_join_completes_with_a_member_that_has_an_id<W: Wire>() {
        let [a, ..] = clients::<W>().await;
        let group = name("s4");
        let joined = a.join(&group, Joining::named("me")).await.expect("join");
        let member = joined.member.expect("a member");
        assert!(member.id > 0 && member.id == member.joined_revision);
        assert_eq!(member.metadata, [("name".to_owned(), "me".to_owned())].into());
        assert_eq!(member.presence(), v1::Presence::Lease);
        assert_eq!(member.sidecar, "member-1");
        assert!(joined.ttl_ms > 0);
        assert_eq!(ids(&joined.group.expect("the group as of the join")), vec![member.id]);
        let held = a.hold(&group, Joining::default()).await.expect("join");
        assert!(held.id() > member.id, "ids rise");
        assert_eq!(held.joined.member.as_ref().expect("a member").presence(), v1::Presence::Stream);
    }

    async fn s5_s6_every_listener_of_every_member_hears_of_a_new_one<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let group = name("s5");
        let mut member = a.hold(&group, Joining::named("old")).await.expect("join");
        let mut listeners = vec![
            a.watch(&group, "").await.expect("watch"),
            a.watch(&group, "").await.expect("watch twice"),
            b.watch(&group, "").await.expect("watch elsewhere"),
        ];
        for listener in &mut listeners {
            assert_eq!(ids(&listener.snapshot().await), vec![member.id()]);
        }
        let new = c.join(&group, Joining::named("new")).await.expect("join").member.expect("a member");
        for listener in &mut listeners {
            let heard = listener.joined().await;
            assert_eq!((heard.id, heard.metadata), (new.id, new.metadata.clone()));
        }
        let heard = member.said.find("the member's own stream tells of the new one", |said| match said {
            coterie_conformance::wire::Said::Event(v1::GroupEvent { kind: Some(Change::Joined(it)), .. }) => Some(it.id),
            _ => None,
        });
        assert_eq!(heard.await, new.id);
    }

    async fn s7_a_healthy_member_stays<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("s7");
        let held = a.hold(&group, Joining::default()).await.expect("join");
        let leased = a.join(&group, Joining::lease(1_000)).await.expect("join").member.expect("a member").id;
        // Its lease has run out three times over by then, had it not been renewed.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(3);
        while std::time::Instant::now() < until {
            let renewed = a.renew(&group, leased).await.expect("renew");
            assert_eq!((renewed.ttl_ms, renewed.session()), (1_000, v1::SessionState::Live));
        }
        assert_eq!(ids(&b.get(&group).await.expect("get")), vec![held.id(), leased]);
    }

    async fn s8_s11_s12_d20_a_member_whose_stream_ends_is_removed_and_the_others_hear_of_it<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("s8");
        let stays = b.hold(&group, Joining::default()).await.expect("join");
        let goes = a.hold(&group, Joining::default()).await.expect("join");
        let mut watch = b.watch(&group, "").await.expect("watch");
        watch.snapshot().await;
        let id = goes.id();
        drop(goes);
        watch.left(id).await;
        assert_eq!(ids(&b.get(&group).await.expect("get")), vec![stays.id()]);
    }

    async fn s8_s11_s12_d20_a_lease_that_is_not_renewed_ends_the_membership<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("s11");
        let leased = a.join(&group, Joining::lease(1_000)).await.expect("join").member.expect("a member").id;
        let mut watch = b.watch(&group, "").await.expect("watch");
        watch.left(leased).await;
        let failure = a.renew(&group, leased).await.expect_err("it is gone");
        assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("member_unknown", "never"), "{failure}");
    }

    async fn s9_s10_leave_removes_the_member_and_listeners_hear_its_id<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("s9");
        let id = a.join(&group, Joining::default()).await.expect("join").member.expect("a member").id;
        let mut watch = b.watch(&group, "").await.expect("watch");
        watch.snapshot().await;
        a.leave(&group, id).await.expect("leave");
        assert_eq!(watch.left(id).await, "left");
        assert_eq!(ids(&b.get(&group).await.expect("get")), Vec::<u64>::new());
        let failure = a.leave(&group, id).await.expect_err("it has left");
        assert_eq!(failure.code, "member_unknown", "{failure}");
    }

    async fn s13_s16_who_never_joined_can_list_the_members_in_the_order_of_joining<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let group = name("s13");
        let mut joined = Vec::new();
        for wire in [&a, &b, &a, &b] {
            joined.push(wire.join(&group, Joining::default()).await.expect("join").member.expect("a member").id);
        }
        let group = c.get(&group).await.expect("get");
        assert_eq!(ids(&group), joined);
        assert_eq!(group.consistency(), v1::Consistency::Linearizable);
        let leaders: Vec<_> = group.members.iter().filter(|member| member.leader).map(|member| member.id).collect();
        assert_eq!(leaders, vec![group.leader]);
    }

    async fn s14_s15_s17_a_list_follows_every_change_also_for_who_never_joined<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let group = name("s14");
        a.create(&group, None).await.expect("create");
        let mut watch = c.watch(&group, "").await.expect("watch");
        let mut list = ids(&watch.snapshot().await);
        let first = a.join(&group, Joining::default()).await.expect("join").member.expect("a member").id;
        let second = b.hold(&group, Joining::default()).await.expect("join");
        a.leave(&group, first).await.expect("leave");
        let second_id = second.id();
        drop(second);
        let gone = b.watch(&group, "").await.expect("watch").left_or_absent(second_id);
        gone.await;
        let third = a.join(&group, Joining::named("3")).await.expect("join").member.expect("a member").id;
        a.set_metadata(&group, third, BTreeMap::new(), 0).await.expect("update");
        watch
            .change("the last change", |change| {
                match change {
                    Change::Joined(member) => list.push(member.id),
                    Change::Left(left) => list.retain(|id| *id != left.member),
                    _ => {}
                }
                matches!(change, Change::Updated(member) if member.id == third).then_some(())
            })
            .await;
        assert_eq!(list, vec![third]);
        assert_eq!(ids(&c.get(&group).await.expect("get")), list);
    }

    async fn s19_one_facility_gives_membership_discovery_and_a_leader<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("s19");
        let joining = Joining { zone: "eu-1a".to_owned(), ..Joining::named("10.0.0.7:8080") };
        let member = a.join(&group, joining).await.expect("join").member.expect("a member");
        let group = b.get(&group).await.expect("get");
        assert_eq!((group.leader, group.members.len()), (member.id, 1));
        assert_eq!((group.members[0].metadata["name"].as_str(), group.members[0].zone.as_str()), ("10.0.0.7:8080", "eu-1a"));
    }

    async fn s20_d21_configuration_is_replicated_and_changed_with_a_revision<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let group = name("s20");
        let small = v1::GroupConfig { release_timeout_ms: Some(1_234), max_members: Some(1) };
        let made = a.create(&group, Some(small)).await.expect("create");
        let mut watch = c.watch(&group, "").await.expect("watch");
        assert_eq!(watch.snapshot().await.config, Some(small));
        assert_eq!(b.get(&group).await.expect("get").config, Some(small), "the others have it");

        let _one = a.hold(&group, Joining::default()).await.expect("one is allowed");
        let failure = b.join(&group, Joining::default()).await.expect_err("two are not");
        assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("limit_reached", "later"), "{failure}");

        let large = v1::GroupConfig { max_members: Some(2), ..small };
        let only_if = If { config_revision: made.config_revision, ..If::default() };
        let changed = b.configure(&group, large, only_if).await.expect("configure");
        assert!(changed.config == Some(large) && changed.config_revision > made.config_revision);
        let failure = a.configure(&group, small, only_if).await.expect_err("it has changed since");
        assert_eq!(failure.code, "revision_mismatch", "{failure}");
        let (config, revision) = watch
            .change("the configuration changes", |change| match change {
                Change::Config(config) => Some((config.config, config.config_revision)),
                _ => None,
            })
            .await;
        assert_eq!((config, revision), (Some(large), changed.config_revision));
        b.join(&group, Joining::default()).await.expect("two are allowed now");
    }

    async fn d15_a_group_made_with_other_options_is_refused_and_one_without_any_is_not<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("d15");
        let config = v1::GroupConfig { release_timeout_ms: Some(1_000), max_members: None };
        a.create(&group, Some(config)).await.expect("create");
        let other = v1::GroupConfig { release_timeout_ms: Some(2_000), max_members: None };
        let failure = b.create(&group, Some(other)).await.expect_err("it exists otherwise");
        assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("exists_differently", "never"), "{failure}");
        b.create(&group, None).await.expect("whatever it has");
        b.create(&group, Some(config)).await.expect("the same");
    }

    async fn metadata_is_replaced_and_everyone_hears_of_it<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("metadata");
        let id = a.join(&group, Joining::named("old")).await.expect("join").member.expect("a member").id;
        let mut watch = b.watch(&group, "").await.expect("watch");
        watch.snapshot().await;
        let new = BTreeMap::from([("load".to_owned(), "7".to_owned())]);
        let member = a.set_metadata(&group, id, new.clone(), 0).await.expect("set");
        let expected: std::collections::HashMap<_, _> = new.into_iter().collect();
        assert_eq!(member.metadata, expected);
        let heard = watch.change("the update", |change| match change {
            Change::Updated(member) => Some(member.metadata.clone()),
            _ => None,
        });
        assert_eq!(heard.await, expected);
    }

    async fn a_group_that_is_deleted_is_gone_and_its_watchers_hear_it_last<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("deleted");
        let held = a.hold(&group, Joining::default()).await.expect("join");
        let mut watch = b.watch(&group, "").await.expect("watch");
        watch.snapshot().await;
        b.delete(&group).await.expect("delete");
        assert_eq!(watch.left(held.id()).await, "group_deleted");
        watch.change("deleted", |change| matches!(change, Change::Deleted(_)).then_some(())).await;
        assert_eq!(watch.end().await, None, "the watch ends");
        let failure = eventually("nobody knows the group", || async {
            match a.get(&group).await {
                Err(failure) => Ok(failure),
                Ok(group) => Err(format!("{group:?}")),
            }
        });
        assert_eq!(failure.await.code, "group_unknown");
    }
}
