//! The machine as bytes, and back.
//!
//! Replicas at the same revision give the same bytes: everything is in the order of `BTreeMap`s, and what can be
//! derived (indexes) is left out and made again. The first byte is the version of this form: version 1 ends before maps
//! and locks, and is read as one that has none; in versions 1 and 2 it is not known what a kept result was asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dedup::{Client, ClientV2, Dedup};
use super::group::Group;
use super::lock::{self, Lock};
use super::map::{Map, Maps};
use super::sessions::{Session, Sessions, Thing};
use super::{Directory, Machine, Role};
use crate::command::Error;
use crate::ids::{GroupName, LockName, MapName, Revision, SessionId, Term};

/// The version of this form that this program writes.
const SNAPSHOT_VERSION: u8 = 3;

/// The oldest version that this program reads.
const SNAPSHOT_VERSION_MIN: u8 = 1;

const WHAT: &str = "machine snapshot";

/// What is written; the order of the fields is the form.
#[derive(Serialize, Deserialize)]
struct Image<'a, C: Clone> {
    role: Role,
    revision: Revision,
    now_ms: u64,
    term_floor: Term,
    sessions: Cow<'a, BTreeMap<SessionId, Session>>,
    groups: Cow<'a, BTreeMap<GroupName, Group>>,
    horizon_ms: u64,
    clients: Cow<'a, BTreeMap<u128, C>>,
    directory: Cow<'a, Directory>,
}

/// What is written after it since version 2.
#[derive(Default, Serialize, Deserialize)]
struct Rest<'a> {
    maps: Cow<'a, BTreeMap<MapName, Map>>,
    locks: Cow<'a, BTreeMap<LockName, Lock>>,
}

impl<'a> From<Image<'a, ClientV2>> for Image<'a, Client> {
    fn from(image: Image<'a, ClientV2>) -> Self {
        let Image { role, revision, now_ms, term_floor, sessions, groups, horizon_ms, clients, directory } = image;
        let clients = clients.into_owned().into_iter().map(|(id, client)| (id, client.into())).collect();
        let clients = Cow::Owned(clients);
        Self { role, revision, now_ms, term_floor, sessions, groups, horizon_ms, clients, directory }
    }
}

impl Machine {
    /// The whole state as bytes, the same on every replica at the same revision.
    pub fn snapshot(&self) -> Vec<u8> {
        let Self { role, revision, now_ms, sessions, groups, releasing: _, maps, locks, term_floor, dedup, directory } =
            self;
        let image = Image {
            role: *role,
            revision: *revision,
            now_ms: *now_ms,
            term_floor: *term_floor,
            sessions: Cow::Borrowed(sessions.live()),
            groups: Cow::Borrowed(groups),
            horizon_ms: dedup.horizon_ms(),
            clients: Cow::Borrowed(dedup.clients()),
            directory: Cow::Borrowed(directory),
        };
        let rest = Rest { maps: Cow::Borrowed(maps.named()), locks: Cow::Borrowed(locks) };
        postcard::to_extend(&(image, rest), vec![SNAPSHOT_VERSION]).expect("the state has no unencodable parts")
    }

    /// The state that [`Machine::snapshot`] gave.
    ///
    /// # Errors
    /// `Empty` and `Version` as they say; `Decode` if the bytes are not a whole snapshot, or one that contradicts itself.
    pub fn restore(bytes: &[u8]) -> Result<Self, Error> {
        let (version, rest) = bytes.split_first().ok_or(Error::Empty { what: WHAT })?;
        if !(SNAPSHOT_VERSION_MIN..=SNAPSHOT_VERSION).contains(version) {
            return Err(Error::Version { what: WHAT, version: *version, known: SNAPSHOT_VERSION });
        }
        let decode = |source| Error::Decode { what: WHAT, source };
        let (image, mut left) = if *version > 2 {
            postcard::take_from_bytes::<Image<'_, Client>>(rest).map_err(decode)?
        } else {
            let (image, left) = postcard::take_from_bytes::<Image<'_, ClientV2>>(rest).map_err(decode)?;
            (image.into(), left)
        };
        let mut rest = Rest::default();
        if *version > 1 {
            (rest, left) = postcard::take_from_bytes(left).map_err(decode)?;
        }
        let machine = if left.is_empty() { from_image(image, rest) } else { None };
        machine.ok_or(Error::Decode { what: WHAT, source: postcard::Error::DeserializeBadEncoding })
    }
}

/// Makes the indexes again. `None` if a membership or a place hangs on no session, a leader is no member, or a lock's
/// places are not in the order of asking.
fn from_image(image: Image<'_, Client>, rest: Rest<'_>) -> Option<Machine> {
    let Image { role, revision, now_ms, term_floor, sessions, groups, horizon_ms, clients, directory } = image;
    let mut sessions = Sessions::from_live(sessions.into_owned())?;
    for (name, group) in groups.iter() {
        if group.leader.is_some_and(|leader| !group.members.contains_key(&leader)) {
            return None;
        }
        for (id, member) in &group.members {
            sessions.get(member.view.session).ok()?;
            sessions.hold(member.view.session, Thing::Member(name.clone(), *id));
        }
    }
    let Rest { maps, locks } = rest;
    if !lock::in_order(&locks) {
        return None;
    }
    for (name, lock) in locks.iter() {
        for place in &lock.queue {
            sessions.get(place.session).ok()?;
            sessions.hold(place.session, Thing::Place(name.clone(), place.token));
        }
    }
    let releases = groups.values().filter_map(Group::pending_release);
    let releasing = releases.map(|release| (release.group.clone(), release)).collect();
    Some(Machine {
        role,
        revision,
        now_ms,
        sessions,
        releasing,
        groups: groups.into_owned(),
        maps: Maps::from_named(maps.into_owned()),
        locks: locks.into_owned(),
        term_floor,
        dedup: Dedup::from_clients(horizon_ms, clients.into_owned()),
        directory: directory.into_owned(),
    })
}
