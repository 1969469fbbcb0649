//! Watchers of the registers and of the groups: each goes on after the event that it saw last, also when its machine was
//! down in between, as an application does that keeps its place.

use std::time::Duration;

use coterie_proto::v1;
use coterie_proto::v1::group_event;
use coterie_proto::v1::groups_client::GroupsClient;
use coterie_proto::v1::map_event::Kind;
use coterie_proto::v1::maps_client::MapsClient;
use tokio::time::{Instant, timeout_at};

use crate::call::{answer, pause, request};
use crate::chance::Chance;
use crate::checkers::watches::{Told, place};
use crate::groups::{self, GROUPS};
use crate::registers::MAP;
use crate::side::Side;

const TIMEOUT: Duration = Duration::from_millis(1_500);

/// Starts the watchers beside a sidecar.
pub fn start(side: &Side) {
    for of in std::iter::once(MAP).chain(GROUPS) {
        let (name, chance) = side.client(&name_of(of));
        tokio::spawn(Watcher { of, name, chance, side: side.clone() }.run());
    }
}

/// A change of a register, as the history has it.
pub fn changed(key: &str, value: Option<u64>) -> String {
    value.map_or_else(|| format!("deleted {key}"), |value| format!("{key}={value}"))
}

/// The name of the watcher of a primitive beside a member.
pub(crate) fn name(member: &str, of: &str) -> String {
    format!("{member}.{}", name_of(of))
}

fn name_of(of: &str) -> String {
    format!("watch-{of}")
}

struct Watcher {
    of: &'static str,
    name: String,
    chance: Chance,
    side: Side,
}

impl Watcher {
    async fn run(mut self) {
        loop {
            pause(self.chance.ms(5, 200)).await;
            let end = Instant::now() + self.chance.ms(100, 5_000);
            if self.of == MAP {
                self.watch_map(end).await;
            } else {
                self.watch_group(end).await;
            }
        }
    }

    async fn watch_map(&mut self, end: Instant) {
        let asked = v1::WatchMapRequest { map: MAP.to_owned(), after: self.after(), ..Default::default() };
        let mut maps = MapsClient::new(self.side.channel());
        let call = maps.watch(request(asked, TIMEOUT));
        let Some(mut stream) = answer(&self.side.history, &self.name, "watch", TIMEOUT, call).await else { return };
        while let Ok(Ok(Some(v1::MapEvent { id, revision, kind: Some(kind) }))) =
            timeout_at(end, stream.message()).await
        {
            match kind {
                Kind::Snapshot(entries) | Kind::Resync(entries) if entries.last => self.told(id, Told::View(revision)),
                Kind::Put(entry) => {
                    let value = entry.value.as_ref().try_into().map(u64::from_be_bytes).ok();
                    self.event(id, changed(&entry.key, value));
                }
                Kind::Deleted(key) => self.event(id, changed(&key, None)),
                Kind::Dropped(_) => self.event(id, "dropped".to_owned()),
                Kind::Snapshot(_) | Kind::Resync(_) | Kind::Connection(_) => {}
            }
        }
    }

    async fn watch_group(&mut self, end: Instant) {
        let asked = v1::WatchRequest { group: self.of.to_owned(), after: self.after(), ..Default::default() };
        let mut groups = GroupsClient::new(self.side.channel());
        let call = groups.watch(request(asked, TIMEOUT));
        let Some(mut stream) = answer(&self.side.history, &self.name, "watch", TIMEOUT, call).await else { return };
        while let Ok(Ok(Some(v1::GroupEvent { id, revision, kind: Some(kind) }))) =
            timeout_at(end, stream.message()).await
        {
            match kind {
                group_event::Kind::Snapshot(_) | group_event::Kind::Resync(_) => self.told(id, Told::View(revision)),
                kind => {
                    if let group_event::Kind::Left(left) = &kind {
                        self.left(left);
                    }
                    if let Some(what) = groups::describe(&kind) {
                        self.event(id, what);
                    }
                }
            }
        }
    }

    fn left(&self, left: &v1::MemberLeft) {
        if left.reason == groups::SESSION_EXPIRED {
            let now_ms = self.side.clock.monotonic_ms();
            self.side.history.seen().sessions.expired(self.of, left.member, now_ms);
        }
    }

    fn event(&self, id: String, what: String) {
        let at = place(&id).unwrap_or_default();
        self.told(id, Told::Event(at, what));
    }

    fn told(&self, id: String, told: Told) {
        self.side.history.note(&self.name, &format!("{id} {told:?}"));
        let mut seen = self.side.history.seen();
        seen.told.entry(self.of.to_owned()).or_default().entry(self.name.clone()).or_default().push(told);
        seen.places.insert(self.name.clone(), id);
    }

    /// Where it goes on.
    fn after(&self) -> String {
        self.side.history.seen().places.get(&self.name).cloned().unwrap_or_default()
    }
}
