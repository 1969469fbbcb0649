//! S21 to S40: leaders and terms.

use std::collections::BTreeMap;

use coterie_conformance::harness::clients;
use coterie_conformance::wire::{Change, Events, Held, If, Joining, Said};
use coterie_conformance::{Wire, both_wires, eventually, name};
use coterie_proto::v1;

/// Three members, each at another sidecar, in the order of joining.
async fn three<W: Wire>(wires: &[W; 3], group: &str) -> Vec<Held> {
    let mut members = Vec::new();
    for wire in wires {
        members.push(wire.hold(group, Joining::default()).await.expect("join"));
    }
    members
}

/// Terms and elections in the order in which a watcher heard of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Term(u64),
    Elected(u64, u64),
}

/// Listens until the `elections`-th election.
async fn listen(watch: &mut Events<v1::GroupEvent>, elections: usize) -> Vec<Heard> {
    let mut heard = Vec::new();
    let mut seen = 0;
    watch
        .change("enough elections", |change| {
            match change {
                Change::Term(term) => heard.push(Heard::Term(*term)),
                Change::Elected(elected) => {
                    heard.push(Heard::Elected(elected.term, elected.leader));
                    seen += 1;
                }
                _ => {}
            }
            (seen == elections).then_some(())
        })
        .await;
    heard
}

/// Makes `elections` elections in a group of leases, by the leader leaving and joining again.
async fn elect<W: Wire>(wires: &[W; 3], group: &str, elections: usize) {
    for _ in 0..elections {
        let leader = wires[0].get(group).await.expect("get").leader;
        wires[1].leave(group, leader).await.expect("leave");
        wires[2].join(group, Joining::lease(60_000)).await.expect("join");
    }
}

both_wires! {
    async fn s21_s23_first_member_to_join_leads<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("s23");
        a.create(&group, None).await.expect("create");
        let empty = b.get(&group).await.expect("get");
        assert_eq!((empty.term, empty.leader), (empty.term, 0), "nobody leads before somebody joined");
        let first = a.join(&group, Joining::lease(60_000)).await.expect("join");
        let id = first.member.expect("a member").id;
        let at_join = first.group.expect("the group as of the join");
        assert!(at_join.leader == id && at_join.term > 0, "the first joiner leads as of its join");
        b.join(&group, Joining::lease(60_000)).await.expect("join");
        let now = b.get(&group).await.expect("get");
        assert_eq!((now.leader, now.term), (id, at_join.term), "a second joiner changes nothing");
    }

    async fn s22_at_most_one_member_is_told_that_it_leads<W: Wire>() {
        let wires = clients::<W>().await;
        let group = name("s22");
        let mut members = three(&wires, &group).await;
        let term = members[0].leads().await;
        for (wire, member) in wires.iter().zip(&members) {
            let leads = member.id() == members[0].id();
            let id = member.id();
            let itself = eventually("the sidecar knows whether its member leads", || async {
                let itself = wire.itself(&group).await.map_err(|failure| failure.to_string())?;
                if itself.leads == leads { Ok(itself) } else { Err(format!("{itself:?}")) }
            })
            .await;
            assert_eq!(itself.members.iter().map(|state| state.member).collect::<Vec<_>>(), vec![id]);
            assert_eq!(itself.members[0].leads, leads);
            assert!(!leads || (itself.term == term && itself.members[0].valid_ms > 0), "{itself:?}");
            assert!(leads || itself.members[0].valid_ms == 0, "{itself:?}");
        }
    }

    async fn s24_d3_the_longest_standing_candidate_leads_next<W: Wire>() {
        let wires = clients::<W>().await;
        let group = name("s24");
        let mut watch = wires[0].hold(&group, Joining::default()).await.map(|first| vec![first]).expect("join");
        for wire in [&wires[1], &wires[2], &wires[0]] {
            watch.push(wire.hold(&group, Joining::default()).await.expect("join"));
        }
        let order: Vec<u64> = watch.iter().map(Held::id).collect();
        let mut events = wires[1].watch(&group, "").await.expect("watch");
        let mut term = events.snapshot().await.term;
        // The first joins again, at the end of the queue.
        watch.remove(0);
        let again = wires[0].hold(&group, Joining::default()).await.expect("join again");
        let expected = [order[1], order[2], order[3], again.id()];
        for (place, next) in expected.into_iter().enumerate() {
            let (elected_in, leader) = events.elected(term).await;
            assert_eq!(leader, next, "first in, first out");
            term = elected_in;
            if place < 3 {
                watch.remove(0);
            }
        }
    }

    async fn s24_d3_a_leader_that_steps_down_goes_to_the_end<W: Wire>() {
        let wires = clients::<W>().await;
        let group = name("d3");
        let mut members = three(&wires, &group).await;
        let ids: Vec<u64> = members.iter().map(Held::id).collect();
        let mut expected = Vec::new();
        let mut term = 0;
        for turn in 0..4 {
            let leader = &mut members[turn % 3];
            // Its stream may still hold what it was told of its last term.
            let before = term;
            while term == before {
                term = leader.leads().await.max(before);
            }
            wires[0].step_down(&group, term).await.expect("step down");
            wires[turn % 3].release(&group, term).await.expect("release");
            expected.push(ids[(turn + 1) % 3]);
            let now = wires[1].get(&group).await.expect("get");
            assert!(now.leader == expected[turn] && now.term > term, "{now:?}");
        }
        assert_eq!(wires[0].get(&group).await.expect("get").members.len(), 3, "who steps down stays a member");
    }

    async fn s25_s26_s27_each_leadership_has_a_term_of_its_own_and_terms_rise<W: Wire>() {
        let wires = clients::<W>().await;
        let group = name("s27");
        wires[0].join(&group, Joining::lease(60_000)).await.expect("join");
        wires[1].join(&group, Joining::lease(60_000)).await.expect("join");
        let mut terms = vec![wires[0].get(&group).await.expect("get").term];
        for _ in 0..5 {
            elect(&wires, &group, 1).await;
            terms.push(wires[1].get(&group).await.expect("get").term);
        }
        assert!(terms.windows(2).all(|pair| pair[0] < pair[1]), "{terms:?}");
    }

    async fn s26_s27_d4_terms_go_on_rising_when_a_group_is_deleted_and_made_again<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let group = name("d4");
        let mut last = 0;
        for _ in 0..3 {
            a.join(&group, Joining::lease(60_000)).await.expect("join");
            let now = b.get(&group).await.expect("get");
            assert!(now.term > last, "{} after {last}", now.term);
            last = now.term;
            b.delete(&group).await.expect("delete");
        }
    }

    async fn s28_s39_the_term_fences_an_older_leader_off<W: Wire>() {
        let wires = clients::<W>().await;
        let group = name("s28");
        let mut members = three(&wires, &group).await;
        let old = members[0].leads().await;
        members.remove(0);
        let new = members[0].leads().await;
        // A resource outside: it keeps the highest token that it has seen.
        let mut highest = 0;
        let mut write = |token: u64| {
            let accepted = token >= highest;
            highest = highest.max(token);
            accepted
        };
        assert!(write(new) && !write(old), "the older leader is refused");
        // The same within the cluster.
        let config = v1::GroupConfig { release_timeout_ms: Some(777), max_members: None };
        let failure = wires[0].configure(&group, config, If { term: old, ..If::default() }).await.expect_err("older");
        assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("stale_term", "never"), "{failure}");
        let id = members[1].id();
        let failure = wires[0].set_metadata(&group, id, BTreeMap::new(), old).await.expect_err("older");
        assert_eq!(failure.code, "stale_term", "{failure}");
        wires[0].configure(&group, config, If { term: new, ..If::default() }).await.expect("the present leader may");
    }

    async fn s29_s30_listeners_hear_each_new_term_and_each_leader<W: Wire>() {
        let wires = clients::<W>().await;
        let group = name("s29");
        let mut members = three(&wires, &group).await;
        let mut listeners = Vec::new();
        for wire in &wires {
            listeners.push(wire.watch(&group, "").await.expect("watch"));
        }
        let term = members[0].leads().await;
        let next = members[1].id();
        members.remove(0);
        for listener in &mut listeners {
            let heard = listen(listener, 1).await;
            assert!(matches!(heard[..], [Heard::Term(t), Heard::Elected(u, leader)]
                if t == u && t > term && leader == next), "{heard:?}");
        }
    }

    async fn s31_s32_a_term_is_heard_before_its_leader_and_has_at_most_one<W: Wire>() {
        let wires = clients::<W>().await;
        let group = name("s31");
        wires[0].create(&group, None).await.expect("create");
        let mut watch = wires[1].watch(&group, "").await.expect("watch");
        for wire in &wires {
            wire.join(&group, Joining::lease(60_000)).await.expect("join");
        }
        elect(&wires, &group, 9).await;
        let heard = listen(&mut watch, 10).await;
        let mut term = 0;
        for pair in heard.chunks(2) {
            let [Heard::Term(began), Heard::Elected(of, _)] = *pair else {
                panic!("a term comes before its leader, and each has one: {heard:?}");
            };
            assert!(began == of && began > term, "{heard:?}");
            term = began;
        }
    }

    async fn s33_s34_all_observers_see_one_sequence_of_terms_and_leaders<W: Wire>() {
        let wires = clients::<W>().await;
        let group = name("s34");
        wires[0].create(&group, None).await.expect("create");
        let mut observers = Vec::new();
        for wire in &wires {
            let mut watch = wire.watch(&group, "").await.expect("watch");
            watch.snapshot().await;
            observers.push(watch);
        }
        for wire in &wires {
            wire.join(&group, Joining::lease(60_000)).await.expect("join");
        }
        elect(&wires, &group, 9).await;
        let first = listen(&mut observers[0], 10).await;
        for observer in &mut observers[1..] {
            assert_eq!(listen(observer, 10).await, first);
        }
        let terms: Vec<u64> =
            first.iter().map(|heard| match heard { Heard::Term(term) | Heard::Elected(term, _) => *term }).collect();
        assert!(terms.is_sorted(), "{terms:?}");
    }

    async fn s35_a_leader_is_told_how_long_it_may_say_so<W: Wire>() {
        let [a, ..] = clients::<W>().await;
        let group = name("s35");
        let mut member = a.hold(&group, Joining::default()).await.expect("join");
        let term = member.leads().await;
        let itself = a.itself(&group).await.expect("self");
        let state = itself.members.iter().find(|state| state.member == member.id()).expect("it is held here");
        assert!(state.leads && state.term == term);
        // Never longer than the session time-out, after which another one may be elected.
        assert!(state.valid_ms > 0 && state.valid_ms <= 5_000, "{state:?}");
    }

    async fn s36_d16_the_leader_is_told_first_and_its_release_ends_the_wait<W: Wire>() {
        let wires = clients::<W>().await;
        let group = name("s36");
        let config = v1::GroupConfig { release_timeout_ms: Some(60_000), max_members: None };
        wires[0].create(&group, Some(config)).await.expect("create");
        let mut members = three(&wires, &group).await;
        let mut watch = wires[2].watch(&group, "").await.expect("watch");
        let term = members[0].leads().await;
        let asked = wires[1].step_down(&group, 0).await.expect("step down");
        assert!(asked.releasing && asked.term == term && asked.leader == members[0].id(), "it still leads: {asked:?}");
        let id = members[0].id();
        let told = members[0].said.find("the leader is told", |said| match said {
            Said::Self_(state) if state.member == id && state.releasing => Some(state.term),
            _ => None,
        });
        assert_eq!(told.await, term);
        wires[0].release(&group, term).await.expect("release");
        let mut order = Vec::new();
        watch
            .change("the election", |change| {
                match change {
                    Change::Releasing(releasing) => order.push(("releasing", releasing.term)),
                    Change::Vacated(vacated) => order.push(("vacated", vacated.term)),
                    Change::Term(new) => order.push(("term", u64::from(*new > term))),
                    Change::Elected(elected) => return (elected.term > term).then(|| assert_ne!(elected.leader, id)),
                    _ => {}
                }
                None
            })
            .await;
        assert_eq!(order, vec![("releasing", term), ("vacated", term), ("term", 1)]);
    }

    async fn s36_d16_a_leader_that_does_not_release_is_waited_for_until_its_timeout<W: Wire>() {
        let wires = clients::<W>().await;
        let group = name("d16");
        let config = v1::GroupConfig { release_timeout_ms: Some(500), max_members: None };
        wires[0].create(&group, Some(config)).await.expect("create");
        let mut members = three(&wires, &group).await;
        let term = members[0].leads().await;
        let asked = std::time::Instant::now();
        wires[1].step_down(&group, term).await.expect("step down");
        let next = members[1].leads().await;
        assert!(next > term && asked.elapsed().as_millis() >= 500, "after {:?}", asked.elapsed());
        let failure = wires[1].step_down(&group, term).await.expect_err("that term is over");
        assert_eq!(failure.code, "stale_term", "{failure}");
    }

    async fn s38_a_client_is_told_that_its_session_is_live<W: Wire>() {
        let [a, ..] = clients::<W>().await;
        let group = name("s38");
        let held = a.hold(&group, Joining::default()).await.expect("join");
        let itself = a.itself(&group).await.expect("self");
        assert!(itself.members.iter().any(|it| it.member == held.id() && it.session() == v1::SessionState::Live));
    }

    async fn s40_term_and_leader_are_readable_on_demand<W: Wire>() {
        let wires = clients::<W>().await;
        let group = name("s40");
        let mut members = three(&wires, &group).await;
        let term = members[0].leads().await;
        for wire in &wires {
            let now = wire.get(&group).await.expect("get");
            assert_eq!((now.term, now.leader), (term, members[0].id()));
            let stale = eventually("the replica knows as well", || async {
                let stale = wire.read(&group, v1::Consistency::Stale).await.map_err(|failure| failure.to_string())?;
                if stale.term == term { Ok(stale) } else { Err(format!("{stale:?}")) }
            });
            let stale = stale.await;
            assert_eq!((stale.leader, stale.consistency()), (members[0].id(), v1::Consistency::Stale));
        }
    }
}
