//! A watcher of all groups that saw every event from the first on. It keeps its own idea of each group, from the events
//! alone, and refuses what must never be seen.

use super::*;

/// What was seen of one group's name, over deletions.
#[derive(Default, Clone)]
struct Seen {
    /// The largest term; over the whole life of the name (S27, D4).
    term: Term,
    /// Announced, and its leader not yet (S31).
    announced: Option<Term>,
    leader: Option<MemberId>,
    releasing: bool,
    members: Vec<MemberId>,
    /// Who waits to lead, longest first (D3).
    queue: Vec<MemberId>,
    last: EventId,
}

/// What was seen of one lock's name.
#[derive(Default, Clone)]
struct SeenLock {
    holder: Option<Token>,
    /// The largest token that was granted; over the whole life of the name.
    granted: Token,
}

#[derive(Default, Clone)]
pub(super) struct Witness {
    groups: BTreeMap<GroupName, Seen>,
    maps: BTreeMap<MapName, BTreeMap<String, crate::command::Entry>>,
    locks: BTreeMap<LockName, SeenLock>,
    last: EventId,
}

impl Witness {
    pub(super) fn see(&mut self, events: &[Event]) {
        for event in events {
            assert!(event.id > self.last, "{} comes after {}", event.id, self.last);
            self.last = event.id;
            let name = &*event.of.name;
            match &event.kind {
                EventKind::Group(kind) => {
                    let seen = self.groups.entry(name.into()).or_default();
                    seen.last = event.id;
                    seen.see(kind);
                }
                EventKind::Map(kind) => self.see_map(name, event.id.revision, kind),
                EventKind::Lock(kind) => self.locks.entry(name.into()).or_default().see(kind),
            }
        }
        let open: Vec<_> = self.groups.iter().filter(|(_, seen)| seen.announced.is_some()).collect();
        assert!(open.is_empty(), "s32: a term has its leader in the same entry");
    }

    fn see_map(&mut self, name: &str, revision: Revision, kind: &MapEvent) {
        let seen = self.maps.entry(name.into()).or_default();
        match kind {
            MapEvent::Put { key, entry } => {
                assert_eq!(entry.revision, revision, "an entry has the revision of its change");
                seen.insert(key.to_string(), entry.clone());
            }
            MapEvent::Deleted { key } => assert!(seen.remove(&**key).is_some(), "what is removed was there"),
            MapEvent::Dropped => seen.clear(),
        }
    }

    /// The machine's groups, maps and locks are what the events told.
    pub(super) fn compare(&self, machine: &Machine) {
        for (name, seen) in &self.groups {
            let Some(view) = machine.group(name) else {
                assert!(seen.members.is_empty() && seen.leader.is_none(), "{name} is gone, so are its members");
                continue;
            };
            let members: Vec<_> = view.members.iter().map(|member| member.id).collect();
            let mut expected = seen.members.clone();
            expected.sort_unstable();
            assert_eq!(members, expected, "members of {name}");
            assert_eq!((view.leader, view.releasing), (seen.leader, seen.releasing), "leader of {name}");
            assert_eq!(view.leader.is_none(), members.is_empty(), "s21: {name} has a leader while it has members");
            assert!(view.term == Term(0) || view.term == seen.term, "term of {name}");
            assert!(view.last_event >= seen.last, "last event of {name}");
        }
        for (name, seen) in &self.maps {
            let found = machine.maps.view(name, Revision(0)).entries;
            let found: Vec<_> = found.iter().map(|(key, entry)| (key.to_string(), entry.clone())).collect();
            assert_eq!(found, seen.clone().into_iter().collect::<Vec<_>>(), "entries of {name}");
        }
        for (name, seen) in &self.locks {
            let view = machine.lock_view(name);
            assert_eq!(view.holder.as_ref().map(|holder| holder.token), seen.holder, "holder of {name}");
            assert!(seen.holder.is_some() || view.waiting.is_empty(), "nobody waits for {name} while it is free");
        }
    }
}

impl SeenLock {
    fn see(&mut self, kind: &LockEvent) {
        match kind {
            LockEvent::Granted { token, sidecar: _ } => {
                assert_eq!(self.holder, None, "one holder at a time");
                assert!(*token > self.granted, "{token} is granted after {}", self.granted);
                self.granted = *token;
                self.holder = Some(*token);
            }
            LockEvent::Left { token, reason: _ } if self.holder == Some(*token) => self.holder = None,
            LockEvent::Left { token, reason: _ } => assert!(*token > self.granted, "who waits was not granted before"),
        }
    }
}

impl Seen {
    fn see(&mut self, kind: &GroupEvent) {
        if !matches!(kind, GroupEvent::Elected { .. }) {
            assert_eq!(self.announced, None, "s31: the leader comes directly after its term");
        }
        match kind {
            GroupEvent::Joined(view) => {
                self.members.push(view.id);
                self.queue.push(view.id);
            }
            GroupEvent::Left { member, reason: _ } => {
                assert!(self.members.contains(member), "who leaves was there");
                self.members.retain(|other| other != member);
                self.queue.retain(|other| other != member);
            }
            GroupEvent::Updated(view) => assert!(self.members.contains(&view.id)),
            GroupEvent::Term(term) => {
                assert!(*term > self.term, "s27: {term} comes after {}", self.term);
                assert_eq!(self.leader, None, "s22: nobody leads when a term begins");
                self.term = *term;
                self.announced = Some(*term);
            }
            GroupEvent::Elected { term, leader } => {
                assert_eq!(self.announced.take(), Some(*term), "s31, s32: one leader, directly after its term");
                assert_eq!(self.queue.first(), Some(leader), "d3: the longest-standing candidate leads next");
                self.queue.remove(0);
                self.leader = Some(*leader);
            }
            GroupEvent::Vacated { term, leader } => {
                assert_eq!((Some(*leader), *term), (self.leader, self.term), "only who leads stops leading");
                self.leader = None;
                self.releasing = false;
                if self.members.contains(leader) {
                    self.queue.push(*leader);
                }
            }
            GroupEvent::Releasing { term, leader, timeout_ms: _, reason: _ } => {
                assert_eq!((Some(*leader), *term), (self.leader, self.term), "only who leads is asked to release");
                assert!(!self.releasing, "it is asked once");
                self.releasing = true;
            }
            GroupEvent::Config { .. } => {}
            GroupEvent::Deleted => assert!(self.members.is_empty() && self.leader.is_none(), "members leave first"),
        }
    }
}
