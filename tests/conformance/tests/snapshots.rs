//! A member that was away for so long that the others have dropped the log behind what it missed.

use std::time::Duration;

use coterie_cli::local::LocalCluster;
use coterie_conformance::harness::{cluster, start};
use coterie_conformance::{eventually, run};
use coterie_proto::v1;
use coterie_proto::v1::maps_client::MapsClient;
use futures_util::StreamExt as _;
use tonic::transport::Channel;

/// Bytes of a value; a snapshot is taken every 16 MiB, and some hundred entries stay behind it.
const VALUE_BYTES: usize = 32 * 1024;
const KEYS: usize = 2_000;

async fn maps(cluster: &LocalCluster, place: usize) -> MapsClient<Channel> {
    let endpoint = Channel::from_shared(cluster.endpoint(place)).expect("an address").timeout(Duration::from_secs(10));
    MapsClient::new(endpoint.connect_lazy())
}

async fn put(maps: MapsClient<Channel>, number: usize) {
    let value = vec![u8::try_from(number % 251).expect("a byte"); VALUE_BYTES];
    eventually("the value is written", || async {
        let message = v1::PutRequest {
            map: "away".to_owned(),
            key: number.to_string(),
            value: value.clone().into(),
            ..v1::PutRequest::default()
        };
        maps.clone().put(message).await.map_err(|status| status.to_string())
    })
    .await;
}

async fn value(maps: &MapsClient<Channel>, number: usize, consistency: v1::Consistency) -> Result<Vec<u8>, String> {
    let message = v1::GetEntryRequest {
        map: "away".to_owned(),
        key: number.to_string(),
        consistency: consistency.into(),
        ..v1::GetEntryRequest::default()
    };
    let found = maps.clone().get(message).await.map_err(|status| status.to_string())?.into_inner();
    found.entry.map(|entry| entry.value.to_vec()).ok_or_else(|| format!("{number} is not there"))
}

#[test]
fn a_member_that_was_away_for_long_is_sent_a_snapshot_and_is_as_good_as_the_others() {
    run(async {
        let cluster = cluster().await;
        let one = maps(&cluster, 0).await;
        put(one.clone(), 0).await;
        cluster.kill(2).expect("kill");
        let puts = (1..KEYS).map(|number| put(one.clone(), number));
        futures_util::stream::iter(puts).buffer_unordered(16).collect::<Vec<()>>().await;
        start(&cluster, [2]).await;
        let three = maps(&cluster, 2).await;
        let (last, expected) = (KEYS - 1, vec![u8::try_from((KEYS - 1) % 251).expect("a byte"); VALUE_BYTES]);
        let stale = eventually("the member has what it missed", || value(&three, last, v1::Consistency::Stale)).await;
        assert_eq!(stale, expected);
        let logs = [0, 1].map(|place| cluster.logs(place)).concat();
        assert!(logs.contains("send a snapshot"), "{logs}");

        // One of the others goes: what is read now, only this member and one more can have.
        cluster.kill(1).expect("kill");
        for number in [1, KEYS / 2, last] {
            let read = || value(&three, number, v1::Consistency::Linearizable);
            let found = eventually("the rest is a majority", read).await;
            assert_eq!(found, vec![u8::try_from(number % 251).expect("a byte"); VALUE_BYTES]);
        }
    });
}
