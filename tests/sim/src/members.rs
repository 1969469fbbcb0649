//! Changes of who votes: one machine's replicas are taken out of all partitions, and taken in again. Whoever leads goes on
//! with what another has begun, at whichever step that ended.

use std::collections::BTreeMap;
use std::time::Duration;

use coterie_core::ErrorCode;
use coterie_replication::{Membership, Partition, ProposeError, Target};

use crate::cluster::{HOSTS, Life};

/// How long one try may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Who is to vote, and what became of that.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Whose replicas are not to vote.
    pub without: Option<&'static str>,
    /// All voters of each partition that is known, as they were at first.
    all: BTreeMap<String, Vec<Target>>,
    /// Of which of them the wanted ones vote, and nobody else, as its leader says.
    reached: BTreeMap<String, bool>,
    /// How often a membership became the wanted one.
    pub changes: u32,
}

impl Wanted {
    /// Whether the wanted ones vote in each partition.
    pub fn is_reached(&self) -> bool {
        self.reached.values().all(|reached| *reached)
    }

    /// Takes this machine out, or all in.
    pub fn want(&mut self, without: Option<&'static str>) {
        self.without = without;
        self.reached.values_mut().for_each(|reached| *reached = false);
    }

    fn voters(&self, partition: &str) -> Vec<Target> {
        let all = self.all.get(partition).into_iter().flatten();
        all.filter(|target| Some(&*target.member.0) != self.without).cloned().collect()
    }

    /// Learns of a membership; the voters that it is to have, if it has not.
    fn learn(&mut self, partition: &str, now: &Membership) -> Option<Vec<Target>> {
        if !self.all.contains_key(partition) {
            let replicas = now.replicas.iter();
            let all: Vec<_> = replicas.map(|(node, it)| Target { node: *node, member: it.member.clone() }).collect();
            if all.len() < HOSTS.len() {
                return None;
            }
            self.all.insert(partition.to_owned(), all);
            self.reached.insert(partition.to_owned(), true);
        }
        let wanted = self.voters(partition);
        let votes = |target: &Target| now.is_voter(target.node);
        let is_so =
            !now.is_joint() && now.is_committed && now.replicas.len() == wanted.len() && wanted.iter().all(votes);
        let reached = self.reached.entry(partition.to_owned()).or_default();
        if is_so && !*reached {
            self.changes += 1;
        }
        *reached = is_so;
        (!is_so).then_some(wanted)
    }
}

/// Sees to the membership of a partition that is led here. Calls of it may overlap: one of them is at it, the others are
/// refused.
pub fn see_to(life: &Life, id: &str, partition: &Partition) {
    let Some(voters) = life.history.seen().members.learn(id, &partition.membership()) else { return };
    let (history, host, id, partition) = (life.history.clone(), life.host, id.to_owned(), partition.clone());
    tokio::spawn(async move {
        match partition.reconfigure(&voters, TIMEOUT).await {
            Ok(_) => history.note(host, &format!("{id} has {} voters", voters.len())),
            Err(ProposeError::Rejected(rejection)) if rejection.code == ErrorCode::Overloaded => {}
            Err(error) => history.note(host, &format!("{id} has not the wanted voters: {error:?}")),
        }
    });
}
