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

#[derive(Default, Clone)]
pub(super) struct Witness {
    groups: BTreeMap<GroupName, Seen>,
    last: EventId,
}

impl Witness {
    pub(super) fn see(&mut self, events: &[Event]) {
        for event in events {
            assert!(event.id > self.last, "{} comes after {}", event.id, self.last);
            self.last = event.id;
            let seen = self.groups.entry(event.group.clone()).or_default();
            seen.last = event.id;
            seen.see(&event.kind);
        }
        let open: Vec<_> = self.groups.iter().filter(|(_, seen)| seen.announced.is_some()).collect();
        assert!(open.is_empty(), "s32: a term has its leader in the same entry");
    }

    /// The machine's groups are what the events told.
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
    }
}

impl Seen {
    fn see(&mut self, kind: &EventKind) {
        if !matches!(kind, EventKind::Elected { .. }) {
            assert_eq!(self.announced, None, "s31: the leader comes directly after its term");
        }
        match kind {
            EventKind::Joined(view) => {
                self.members.push(view.id);
                self.queue.push(view.id);
            }
            EventKind::Left { member, reason: _ } => {
                assert!(self.members.contains(member), "who leaves was there");
                self.members.retain(|other| other != member);
                self.queue.retain(|other| other != member);
            }
            EventKind::Updated(view) => assert!(self.members.contains(&view.id)),
            EventKind::Term(term) => {
                assert!(*term > self.term, "s27: {term} comes after {}", self.term);
                assert_eq!(self.leader, None, "s22: nobody leads when a term begins");
                self.term = *term;
                self.announced = Some(*term);
            }
            EventKind::Elected { term, leader } => {
                assert_eq!(self.announced.take(), Some(*term), "s31, s32: one leader, directly after its term");
                assert_eq!(self.queue.first(), Some(leader), "d3: the longest-standing candidate leads next");
                self.queue.remove(0);
                self.leader = Some(*leader);
            }
            EventKind::Vacated { term, leader } => {
                assert_eq!((Some(*leader), *term), (self.leader, self.term), "only who leads stops leading");
                self.leader = None;
                self.releasing = false;
                if self.members.contains(leader) {
                    self.queue.push(*leader);
                }
            }
            EventKind::Releasing { term, leader, timeout_ms: _, reason: _ } => {
                assert_eq!((Some(*leader), *term), (self.leader, self.term), "only who leads is asked to release");
                assert!(!self.releasing, "it is asked once");
                self.releasing = true;
            }
            EventKind::Config { .. } => {}
            EventKind::Deleted => assert!(self.members.is_empty() && self.leader.is_none(), "members leave first"),
        }
    }
}
