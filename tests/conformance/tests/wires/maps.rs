//! Maps.

use coterie_conformance::harness::clients;
use coterie_conformance::wire::primitives::{MapChange, delete, get, list, put, watch};
use coterie_conformance::{both_wires, name};
use coterie_proto::v1;
use futures_util::future::join_all;
use uuid::Uuid;

fn keys(entries: &[v1::Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

both_wires! {
    async fn d12_an_entry_that_was_written_is_read_through_every_other_member_at_once<W: Wire>() {
        let wires = clients::<W>().await;
        let map = name("read-after-write");
        // A linearizable read that lags shows only sometimes: it is asked for often.
        for round in 0..30 {
            let value = format!("value-{round}");
            let written = wires[round % 3].put(put(&map, "k", &value)).await.expect("put");
            let others = [1, 2].map(|step| wires[(round + step) % 3].entry(get(&map, "k")));
            for found in join_all(others).await {
                let entry = found.expect("get").entry.expect("an entry");
                assert_eq!((&entry.value[..], entry.revision), (value.as_bytes(), written.revision));
            }
        }
    }

    async fn compare_and_set_is_met_by_one_of_many<W: Wire>() {
        let wires = clients::<W>().await;
        let map = name("cas");
        let first = wires[0].put(v1::PutRequest { if_absent: true, ..put(&map, "k", "0") }).await.expect("put");
        assert_eq!(first.previous_revision, 0);
        let failure = wires[1].put(v1::PutRequest { if_absent: true, ..put(&map, "k", "x") }).await.expect_err("there is one");
        assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("revision_mismatch", "never"), "{failure}");

        let mut revision = first.revision;
        for round in 1..=5 {
            let tries = (0..9).map(|place| {
                let wire = wires[place % 3].clone();
                let value = format!("{round} by {place}");
                let request = v1::PutRequest { if_revision: revision, ..put(&map, "k", &value) };
                async move { (wire.put(request).await, value) }
            });
            let (met, refused): (Vec<_>, Vec<_>) = join_all(tries).await.into_iter().partition(|(put, _)| put.is_ok());
            assert_eq!((met.len(), refused.len()), (1, 8), "one of them");
            assert!(refused.iter().all(|(put, _)| put.as_ref().is_err_and(|it| it.code == "revision_mismatch")));
            let (written, value) = met.into_iter().next().expect("one");
            let written = written.expect("it was met");
            assert_eq!(written.previous_revision, revision);
            revision = written.revision;
            let entry = wires[2].entry(get(&map, "k")).await.expect("get").entry.expect("an entry");
            assert_eq!((entry.revision, &entry.value[..]), (revision, value.as_bytes()));
        }
        let stale = v1::DeleteEntryRequest { if_revision: first.revision, ..delete(&map, "k") };
        assert_eq!(wires[0].remove(stale).await.expect_err("changed since").code, "revision_mismatch");
        let now = v1::DeleteEntryRequest { if_revision: revision, ..delete(&map, "k") };
        assert_eq!(wires[1].remove(now).await.expect("delete").previous_revision, revision);
        assert_eq!(wires[2].entry(get(&map, "k")).await.expect("get").entry, None);
        assert_eq!(wires[2].remove(delete(&map, "k")).await.expect("no error").previous_revision, 0);
    }

    async fn s112_d11_a_put_that_is_sent_twice_is_applied_once<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let map = name("once");
        let (client, request) = (Uuid::now_v7(), Uuid::now_v7());
        let only = v1::PutRequest { if_absent: true, ..put(&map, "k", "v") };
        let first = a.identified(client, request).put(only.clone()).await.expect("put");
        b.put(put(&map, "k", "w")).await.expect("put");
        for wire in [&b, &c, &a] {
            let again = wire.identified(client, request).put(only.clone()).await.expect("the answer of the first");
            assert_eq!(again, first);
        }
        let entry = c.entry(get(&map, "k")).await.expect("get").entry.expect("an entry");
        assert_eq!(&entry.value[..], b"w", "it was not put again");
        let failure = a.identified(client, request).put(put(&map, "other", "v")).await.expect_err("the id is taken");
        assert_eq!(failure.code, "invalid_argument", "{failure}");
        assert!(failure.message.contains("request_id"), "{failure}");
    }

    async fn keys_are_listed_in_their_order_a_page_at_a_time<W: Wire>() {
        let [a, b, _] = clients::<W>().await;
        let map = name("pages");
        assert_eq!(b.entries(list(&map, "", "", 0)).await.expect("list").entries, []);
        let odd = ["", " x", "%2F", "/", "ä", "🗝"].map(|end| format!("p/{end}"));
        for key in odd.iter().map(String::as_str).chain(["a", "q"]) {
            a.put(put(&map, key, key)).await.expect("put");
        }
        let mut sorted = odd.to_vec();
        sorted.sort();
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = b.entries(list(&map, "p/", &after, 4)).await.expect("list");
            assert!(page.entries.iter().all(|entry| entry.value == entry.key.as_bytes()));
            seen.extend(page.entries.into_iter().map(|entry| entry.key));
            after = seen.last().expect("a page has entries").clone();
            if !page.more {
                break;
            }
            assert_eq!(seen.len(), 4);
        }
        assert_eq!(seen, sorted);
    }

    async fn d17_a_watch_shows_what_there_is_then_each_change_once_and_resumes_through_another_member<W: Wire>() {
        let [a, b, c] = clients::<W>().await;
        let map = name("watch");
        a.put(put(&map, "p/1", "v")).await.expect("put");
        a.put(put(&map, "q/1", "v")).await.expect("put");
        let mut events = b.watch_map(watch(&map, "p/", "")).await.expect("watch");
        assert_eq!(keys(&events.view().await.0), ["p/1"]);
        let mut made = Vec::new();
        for number in 0..20 {
            made.push(a.put(put(&map, &format!("p/{}", number % 3), "w")).await.expect("put").revision);
            a.put(put(&map, "q/2", "w")).await.expect("put");
        }
        made.push(c.remove(delete(&map, "p/1")).await.expect("delete").revision);
        made.push(c.drop_map(&map).await.expect("drop").revision);
        let mut told = Vec::new();
        while let Some(event) = events.changed().await {
            told.push((event.revision, event.id));
        }
        assert_eq!(told.iter().map(|(revision, _)| *revision).collect::<Vec<_>>(), made, "and then the watch ends");
        // From the middle, elsewhere.
        let mut resumed = c.watch_map(watch(&map, "p/", &told[9].1)).await.expect("watch");
        let mut rest = Vec::new();
        while let Some(event) = resumed.changed().await {
            assert!(!matches!(event.kind, Some(MapChange::Snapshot(_) | MapChange::Resync(_))), "{event:?}");
            rest.push(event.revision);
        }
        assert_eq!(rest, made[10..]);
    }

    async fn bad_input_about_maps_is_refused_with_the_name_of_the_field<W: Wire>() {
        let [a, b, ..] = clients::<W>().await;
        let map = name("bad");
        let long = "k".repeat(1_025);
        let both = v1::PutRequest { if_revision: 7, if_absent: true, ..put(&map, "k", "v") };
        let cases = [
            // Over HTTP a name or a parameter has its own spelling.
            (a.put(put("a/b", "k", "v")).await.map(|_| ()), &["map"][..]),
            (a.put(put(&map, &long, "v")).await.map(|_| ()), &["key"]),
            (a.put(both).await.map(|_| ()), &["if_absent", "if-absent"]),
            (a.entry(get(&map, &long)).await.map(|_| ()), &["key"]),
            (a.remove(delete(&map, &long)).await.map(|_| ()), &["key"]),
            (a.entries(list(&map, "", "", 1_001)).await.map(|_| ()), &["limit"]),
            (a.entries(list(&map, &long, "", 1)).await.map(|_| ()), &["prefix"]),
            (a.entries(list(&map, "", &long, 1)).await.map(|_| ()), &["after"]),
            (a.watch_map(watch(&map, &long, "")).await.map(|_| ()), &["prefix"]),
            (a.watch_map(watch(&map, "", "yesterday")).await.map(|_| ()), &["after"]),
            (a.drop_map("a/b").await.map(|_| ()), &["map"]),
        ];
        for (answer, fields) in cases {
            let failure = answer.expect_err("it is wrong");
            assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("invalid_argument", "never"), "{failure}");
            assert!(fields.iter().any(|field| failure.message.contains(field)), "{fields:?}: {failure}");
            assert!(failure.message.len() < 500, "it does not repeat what was sent: {failure}");
        }
        // At another member: this one closes a connection on which too much was sent.
        assert_eq!(b.entries(list(&map, "", "", 0)).await.expect("list").entries, [], "nothing was done");
        let elsewhere = b.in_partition_group("nowhere").put(put(&map, "k", "v")).await.expect_err("no such group");
        assert_eq!(elsewhere.code, "partition_group_unknown", "{elsewhere}");
    }
}
