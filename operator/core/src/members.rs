//! What the members say over the admin service, and what follows from all of their answers together.
//!
//! No single answer is trusted: a member that was cut off still tells of the leader that it last saw. Of each partition the
//! state with the highest term counts, since terms only rise, and among those one from a member that sees a quorum.

use std::collections::{BTreeMap, BTreeSet};

/// The management group's name.
pub const SYSTEM: &str = "system";

/// What one member answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The identity that its volume carries; empty before it has one.
    pub cluster_id: String,
    /// What it says of itself in a word; `refused` when its data directory is.
    pub state: String,
    /// Why.
    pub reason: String,
    /// The members that it knows.
    pub members: Vec<Member>,
    /// The partition groups that it knows, [`SYSTEM`] among them.
    pub groups: Vec<Group>,
}

/// A member, as another sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its failure domain.
    pub zone: String,
    /// Its version.
    pub version: String,
    /// The identity of its volume; 0 when unknown.
    pub node_id: u64,
    /// Why its data directory is refused; empty when it is not.
    pub refused: String,
}

/// A partition group, as a member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// How many replicas each has.
    pub replicas: u32,
    /// `forming`, `running` or `deleting`.
    pub state: String,
    /// How many primitives it holds.
    pub primitives: u64,
    /// Its partitions, by number.
    pub states: BTreeMap<u32, Partition>,
}

/// A partition, as a member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Who leads it.
    pub leader: Option<String>,
    /// The leader's term.
    pub term: u64,
    /// Who keeps a replica.
    pub replicas: Vec<String>,
    /// Whether a majority of them is in touch.
    pub has_quorum: bool,
    /// Which of them are behind.
    pub lagging: Vec<String>,
}

impl Partition {
    /// Whether it serves: a leader with a quorum.
    pub fn is_available(&self) -> bool {
        self.has_quorum && self.leader.is_some()
    }

    /// Whether it serves and could lose one replica as it was made to.
    pub fn is_healthy(&self) -> bool {
        self.is_available() && self.lagging.is_empty()
    }
}

/// All answers together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    answers: BTreeMap<String, Result<Answer, String>>,
    groups: BTreeMap<String, Group>,
}

impl View {
    /// Joins the answers of the members, by name; an error says why a member could not be asked.
    pub fn new(answers: BTreeMap<String, Result<Answer, String>>) -> Self {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for (name, answer) in &answers {
            let Ok(answer) = answer else { continue };
            if answer.is_refused() {
                continue;
            }
            for group in &answer.groups {
                match groups.get_mut(&group.name) {
                    Some(known) => known.join(group, name),
                    None => {
                        groups.insert(group.name.clone(), group.clone());
                    }
                }
            }
        }
        Self { answers, groups }
    }

    /// What this member answered.
    pub fn answer(&self, member: &str) -> Option<&Result<Answer, String>> {
        self.answers.get(member)
    }

    /// Whether any member answered.
    pub fn has_answers(&self) -> bool {
        self.answers.values().any(Result::is_ok)
    }

    /// The partition group of this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    /// The partition groups, by name.
    pub fn groups(&self) -> &BTreeMap<String, Group> {
        &self.groups
    }

    /// The management group's partition.
    pub fn management(&self) -> Option<&Partition> {
        self.group(SYSTEM)?.states.values().next()
    }

    /// Whether the management group serves, so that something can be asked of it.
    pub fn is_managed(&self) -> bool {
        self.management().is_some_and(Partition::is_available)
    }

    /// Every partition with its group's name.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, u32, &Partition)> {
        self.groups
            .iter()
            .flat_map(|(name, group)| group.states.iter().map(move |(index, state)| (name.as_str(), *index, state)))
    }

    /// Whether the management group is known and every partition is healthy: then one member may go.
    pub fn is_healthy(&self) -> bool {
        self.management().is_some()
            && self.groups.values().all(Group::is_complete)
            && self.partitions().all(|(_, _, state)| state.is_healthy())
    }

    /// Whether the management group is known and every partition serves.
    pub fn is_available(&self) -> bool {
        self.management().is_some() && self.partitions().all(|(_, _, state)| state.is_available())
    }

    /// How many partitions a member leads; the management group's counts more than all others, so that its leader is the
    /// last to go.
    pub fn leaderships(&self, member: &str) -> usize {
        let weight = |group: &str| if group == SYSTEM { 1_000_000 } else { 1 };
        self.partitions()
            .filter(|(_, _, state)| state.leader.as_deref() == Some(member))
            .map(|(group, _, _)| weight(group))
            .sum()
    }

    /// The identities that the members' volumes carry, with the members that carry each. Only members that are in.
    pub fn cluster_ids(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, answer) in &self.answers {
            if let Ok(answer) = answer
                && !answer.cluster_id.is_empty()
            {
                ids.entry(answer.cluster_id.as_str()).or_default().insert(name);
            }
        }
        ids
    }

    /// The identity of the Cluster: the one that the management group's leader carries, else the only one there is.
    pub fn cluster_id(&self) -> Option<&str> {
        let leader = self.management().and_then(|state| state.leader.as_deref());
        let of_leader = leader.and_then(|leader| self.answers.get(leader)?.as_ref().ok());
        if let Some(answer) = of_leader
            && !answer.cluster_id.is_empty()
        {
            return Some(&answer.cluster_id);
        }
        let ids = self.cluster_ids();
        if ids.len() == 1 { ids.into_keys().next() } else { None }
    }

    /// The members whose data directory is refused, with the reason: by their own word, or by another's.
    pub fn refused(&self) -> BTreeMap<&str, &str> {
        let mut refused = BTreeMap::new();
        for answer in self.answers.values().flatten() {
            for member in &answer.members {
                if !member.refused.is_empty() {
                    refused.insert(member.name.as_str(), member.refused.as_str());
                }
            }
        }
        for (name, answer) in &self.answers {
            if let Ok(answer) = answer
                && answer.is_refused()
            {
                refused.insert(name, if answer.reason.is_empty() { "it does not say why" } else { &answer.reason });
            }
        }
        refused
    }

    /// What is known of a member: by its own word if it has one, else by another's.
    pub fn member(&self, name: &str) -> Option<&Member> {
        let own = self.answers.get(name).into_iter();
        let answers = own.chain(self.answers.values()).filter_map(|answer| answer.as_ref().ok());
        answers.flat_map(|answer| &answer.members).find(|member| member.name == name)
    }
}

impl Answer {
    /// Whether its data directory is refused.
    pub fn is_refused(&self) -> bool {
        self.state == "refused"
    }
}

impl Group {
    /// Whether the state of each partition is known.
    pub fn is_complete(&self) -> bool {
        self.states.len() == self.partitions as usize
    }

    /// Takes over what another member's view of the same group knows better.
    fn join(&mut self, other: &Self, by: &str) {
        for (index, state) in &other.states {
            match self.states.get_mut(index) {
                Some(known) if !known.is_older_than(state, by) => {}
                Some(known) => *known = state.clone(),
                None => {
                    self.states.insert(*index, state.clone());
                }
            }
        }
        self.primitives = self.primitives.max(other.primitives);
        if other.state == "deleting" {
            self.state.clone_from(&other.state);
        }
    }
}

impl Partition {
    /// Whether `other`, seen by the member `by`, is nearer to the truth: a higher term, else the leader's own view, else one
    /// with a leader and a quorum.
    fn is_older_than(&self, other: &Self, by: &str) -> bool {
        let rank = |state: &Self, is_own: bool| {
            (state.term, is_own && state.has_quorum, state.leader.is_some(), state.has_quorum)
        };
        rank(other, other.leader.as_deref() == Some(by)) > rank(self, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(leader: Option<&str>, term: u64, has_quorum: bool) -> Partition {
        Partition { leader: leader.map(str::to_owned), term, has_quorum, ..Partition::default() }
    }

    fn answer(id: &str, state: Partition) -> Answer {
        let group =
            Group { name: SYSTEM.to_owned(), partitions: 1, states: BTreeMap::from([(1, state)]), ..Group::default() };
        Answer { cluster_id: id.to_owned(), groups: vec![group], ..Answer::default() }
    }

    fn view<const N: usize>(answers: [(&str, Answer); N]) -> View {
        View::new(answers.into_iter().map(|(name, answer)| (name.to_owned(), Ok(answer))).collect())
    }

    #[test]
    fn the_highest_term_counts() {
        let old = answer("1", partition(Some("a"), 4, true));
        let new = answer("1", partition(Some("b"), 5, true));
        for view in [view([("a", old.clone()), ("b", new.clone())]), view([("a", new), ("b", old)])] {
            assert_eq!(view.management().and_then(|state| state.leader.as_deref()), Some("b"));
        }
    }

    #[test]
    fn the_leaders_own_view_of_who_lags_counts() {
        let mut led = partition(Some("b"), 5, true);
        led.lagging = vec!["c".to_owned()];
        let view = view([("a", answer("1", partition(Some("b"), 5, true))), ("b", answer("1", led))]);
        assert!(view.is_available());
        assert!(!view.is_healthy());
    }

    #[test]
    fn nothing_is_healthy_before_the_management_group_is_known() {
        assert!(!View::default().is_healthy());
        assert!(!View::default().is_available());
    }

    #[test]
    fn d14_mixed_volumes_have_no_common_identity() {
        let unled = partition(None, 0, false);
        let view = view([("a", answer("1", unled.clone())), ("b", answer("2", unled))]);
        assert_eq!(view.cluster_id(), None);
        assert_eq!(view.cluster_ids().len(), 2);
    }

    #[test]
    fn d14_a_refused_member_is_named_and_not_asked_about_partitions() {
        let mut refused = answer("2", partition(Some("a"), 99, true));
        refused.state = "refused".to_owned();
        refused.reason = "another cluster's volume".to_owned();
        let view = view([("a", answer("1", partition(Some("b"), 5, true))), ("c", refused)]);
        assert_eq!(view.refused(), BTreeMap::from([("c", "another cluster's volume")]));
        assert_eq!(view.management().map(|state| state.term), Some(5));
    }
}
