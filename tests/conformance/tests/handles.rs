//! Numbers about handles, listeners and futures, in the Rust SDK (D21).

use std::time::Duration;

use coterie_client::{
    Client, ClientOptions, Consistency, Error, EventKind, GroupConfig, JoinOptions, Presence, RequestId,
};
use coterie_conformance::{eventually, name, run, shared};

async fn client(place: usize) -> Client {
    Client::connect(&shared().await.endpoint(place)).expect("a valid endpoint")
}

/// Waits for the next item of a listener.
macro_rules! next {
    ($listener:expr) => {
        tokio::time::timeout(Duration::from_secs(20), $listener.next())
            .await
            .expect("something comes")
            .expect("the listener goes on")
            .expect("without an error")
    };
}

#[test]
fn s1_two_handles_of_one_name_are_the_same_group() {
    run(async {
        let name = name("sdk-s1");
        let (one, two) = (client(0).await.group(&name), client(0).await.group(&name));
        let member = one.join(JoinOptions::default()).await.expect("join");
        let other = client(1).await.group(&name);
        for handle in [&one, &two, &other, &one.clone()] {
            assert_eq!(handle.members().await.expect("members")[0].id, member.id());
        }
    });
}

#[test]
fn s2_d1_a_handle_may_join_several_times_and_each_member_leaves_by_itself() {
    run(async {
        let group = client(0).await.group(name("sdk-s2"));
        let first = group.join(JoinOptions::default().metadata("n", "1")).await.expect("join");
        let second = group.join(JoinOptions::default().metadata("n", "2")).await.expect("join again");
        assert!(second.id() > first.id());
        first.leave().await.expect("leave");
        let members = group.members().await.expect("members");
        assert_eq!(members.iter().map(|member| member.id).collect::<Vec<_>>(), vec![second.id()]);
    });
}

#[test]
fn s3_s4_join_completes_with_a_member_whose_id_is_readable() {
    run(async {
        let group = client(0).await.group(name("sdk-s4"));
        let member = group.join(JoinOptions::default().zone("eu-1a").metadata("url", "x")).await.expect("join");
        let listed = group.get(Consistency::Linearizable).await.expect("get");
        let seen = listed.member(member.id()).expect("it is listed");
        assert_eq!((seen.zone.as_str(), seen.metadata["url"].as_str()), ("eu-1a", "x"));
        assert_eq!(seen.presence, Some(Presence::Stream));
    });
}

#[test]
fn s5_s6_s10_several_listeners_on_one_handle_each_fire() {
    run(async {
        let group = client(0).await.group(name("sdk-s6"));
        group.create(None).await.expect("create");
        let mut joins = [group.on_join(), group.on_join()];
        let mut leaves = [group.on_leave(), group.on_leave()];
        // A listener hears what happens after its watch has begun; each of these has one of its own.
        let mut watches = [group.watch(), group.watch()];
        for watch in &mut watches {
            assert!(matches!(next!(watch).kind, EventKind::Snapshot(_)));
        }
        let elsewhere = client(1).await.group(group.name());
        let anchor = elsewhere.join(JoinOptions::default()).await.expect("join");
        let member = elsewhere.join(JoinOptions::default()).await.expect("join");
        let id = member.id();
        for listener in &mut joins {
            let heard = next!(listener).id;
            assert!(heard == anchor.id() || heard == id);
        }
        member.leave().await.expect("leave");
        for listener in &mut leaves {
            assert_eq!(next!(listener).member, id);
        }
    });
}

#[test]
fn s8_s11_a_member_object_that_is_dropped_leaves() {
    run(async {
        let group = client(0).await.group(name("sdk-s8"));
        for options in [JoinOptions::default(), JoinOptions::default().lease(Duration::from_secs(3_600))] {
            let member = group.join(options).await.expect("join");
            let mut view = client(1).await.group(group.name()).view().await.expect("view");
            drop(member);
            view.wait_for(|group| group.members.is_empty()).await.expect("it leaves");
        }
    });
}

#[test]
fn s14_s15_s17_the_list_of_a_live_handle_is_updated_by_itself() {
    run(async {
        let group = client(0).await.group(name("sdk-s14"));
        group.create(None).await.expect("create");
        let mut view = client(2).await.group(group.name()).view().await.expect("view");
        assert!(view.members().is_empty());
        let first = group.join(JoinOptions::default()).await.expect("join");
        let second = group.join(JoinOptions::default()).await.expect("join");
        let seen = view.wait_for(|group| group.members.len() == 2).await.expect("joins");
        assert_eq!(seen.leader, Some(first.id()));
        let id = second.id();
        first.leave().await.expect("leave");
        let seen = view.wait_for(|group| group.leader == Some(id)).await.expect("the leave");
        assert_eq!(seen.members.iter().map(|member| member.id).collect::<Vec<_>>(), vec![id]);
        drop(second);
        view.wait_for(|group| group.members.is_empty()).await.expect("the failure");
    });
}

#[test]
fn s20_d21_options_belong_to_a_client_and_configuration_to_the_group() {
    run(async {
        let options = ClientOptions { timeout: Duration::from_millis(2_500), ..ClientOptions::default() };
        let client_a = Client::connect_with(&shared().await.endpoint(0), options.clone()).expect("connect");
        assert_eq!(client_a.options(), &options);
        let group = client_a.group(name("sdk-s20"));
        let config = GroupConfig { release_timeout: Some(Duration::from_millis(750)), max_members: Some(9) };
        let made = group.create(Some(config)).await.expect("create");
        let elsewhere = client(1).await.group(group.name());
        assert_eq!(elsewhere.get(Consistency::Linearizable).await.expect("get").config, config);
        let new = GroupConfig { max_members: Some(8), ..config };
        elsewhere.configure(new, Some(made.config_revision), None).await.expect("configure");
        let error = group.configure(config, Some(made.config_revision), None).await.expect_err("changed since");
        assert_eq!(error.code(), "revision_mismatch", "{error}");
    });
}

#[test]
fn s22_s28_the_guard_says_yes_to_the_leader_alone_and_no_after_release() {
    run(async {
        let group = client(0).await.group(name("sdk-s22"));
        let first = group.join(JoinOptions::default()).await.expect("join");
        let second = client(1).await.group(group.name()).join(JoinOptions::default()).await.expect("join");
        first.leadership().wait_for(|now| now.leads).await.expect("it leads");
        let term = first.guard().expect("the guard says yes");
        assert_eq!(second.guard(), None);
        assert_eq!(first.leadership().borrow().term, term);
        group.step_down(Some(term)).await.expect("step down");
        first.leadership().wait_for(|now| now.releasing).await.expect("it is told");
        first.release(term).await.expect("release");
        assert_eq!(first.guard(), None, "from the moment of the release");
        second.leadership().wait_for(|now| now.leads).await.expect("the next one leads");
        assert!(second.guard().expect("the guard says yes") > term);
        second.leave().await.expect("leave");
        first.leadership().wait_for(|now| now.leads).await.expect("it leads again, in a new term");
        assert!(first.guard().expect("the guard says yes") > term);
    });
}

#[test]
fn s22_d20_a_lease_leads_as_well_and_is_renewed_by_the_sdk() {
    run(async {
        let group = client(0).await.group(name("sdk-lease"));
        let member = group.join(JoinOptions::default().lease(Duration::from_secs(1))).await.expect("join");
        member.leadership().wait_for(|now| now.leads).await.expect("it leads");
        let id = member.id();
        let joined = std::time::Instant::now();
        // Well beyond its time to live.
        eventually("three times its lease have passed", || async {
            let members = group.members().await.map_err(|error| error.to_string())?;
            assert!(members.iter().any(|member| member.id == id), "it is renewed");
            if joined.elapsed() > Duration::from_secs(3) { Ok(()) } else { Err(format!("{:?}", joined.elapsed())) }
        })
        .await;
        assert!(member.guard().is_some());
    });
}

#[test]
fn s29_s30_d2_listeners_that_come_late_get_term_and_leader_at_once_and_then_each_new_one() {
    run(async {
        let group = client(0).await.group(name("sdk-d2"));
        let first = group.join(JoinOptions::default()).await.expect("join");
        let second = group.join(JoinOptions::default()).await.expect("join");
        let elsewhere = client(2).await.group(group.name());
        let (mut terms, mut elections) = (elsewhere.on_term(), elsewhere.on_election());
        let term = next!(terms);
        assert_eq!(term, group.term().await.expect("term"));
        let elected = next!(elections);
        assert_eq!((elected.term, elected.leader), (term, first.id()));
        first.leave().await.expect("leave");
        let new = next!(terms);
        assert!(new > term);
        let elected = next!(elections);
        assert_eq!((elected.term, elected.leader), (new, second.id()));
    });
}

#[test]
fn s39_a_write_with_an_older_term_is_refused() {
    run(async {
        let group = client(0).await.group(name("sdk-s39"));
        let first = group.join(JoinOptions::default()).await.expect("join");
        let second = group.join(JoinOptions::default()).await.expect("join");
        let old = group.term().await.expect("term");
        first.leave().await.expect("leave");
        let error = second.set_metadata(Default::default(), Some(old)).await.expect_err("older");
        assert_eq!(error.code(), "stale_term", "{error}");
        let now = group.term().await.expect("term");
        second.set_metadata(Default::default(), Some(now)).await.expect("the present one");
    });
}

#[test]
fn s40_term_and_leader_are_readable_on_demand() {
    run(async {
        let group = client(0).await.group(name("sdk-s40"));
        let member = group.join(JoinOptions::default()).await.expect("join");
        assert_eq!(group.leader().await.expect("leader").map(|leader| leader.id), Some(member.id()));
        assert!(group.term().await.expect("term").0 > 0);
    });
}

#[test]
fn d11_a_write_is_repeated_with_its_own_request_id() {
    run(async {
        let options = ClientOptions::default();
        let connect = async |place| Client::connect_with(&shared().await.endpoint(place), options.clone());
        let (a, b) = (connect(0).await.expect("connect"), connect(1).await.expect("connect"));
        let group = name("sdk-d11");
        let made = a.group(&group).create(None).await.expect("create");
        let request = RequestId::mint();
        let config = GroupConfig { release_timeout: Some(Duration::from_millis(9)), max_members: None };
        let only_if = Some(made.config_revision);
        let first = a.group(&group).with_request(request).configure(config, only_if, None).await.expect("configure");
        let again = b.group(&group).with_request(request).configure(config, only_if, None).await.expect("the same");
        assert_eq!(again.config_revision, first.config_revision);
        let error = b.group(&group).configure(config, only_if, None).await.expect_err("another request");
        assert_eq!(error.code(), "revision_mismatch", "{error}");
    });
}

#[test]
fn an_unknown_group_is_an_error_of_watch_and_view() {
    run(async {
        let group = client(0).await.group(name("sdk-none"));
        let error = group.view().await.expect_err("there is none");
        assert!(matches!(&error, Error::Refused(refusal) if refusal.code == "group_unknown"), "{error}");
        let error = group.watch().next().await.expect("an item").expect_err("there is none");
        assert_eq!(error.code(), "group_unknown", "{error}");
    });
}

#[test]
fn the_unix_socket_serves_the_same_api() {
    run(async {
        let socket = shared().await.seat(0).socket();
        let client = Client::connect(&format!("unix:{}", socket.display())).expect("connect");
        assert_eq!(client.status().await.expect("status").member, "member-1");
    });
}
