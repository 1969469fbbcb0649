//! What this sidecar knows of the cluster: members, partition groups, primitives and who leads which partition.
//!
//! A replica of the management group feeds it from what it applied; every other sidecar asks one of the members that it
//! knows, so that a member without a group finds it and uses it as a client (S91). What is known here is a hint: the
//! partition's leader decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use coterie_core::machine;
use coterie_core::{ErrorCode, MemberName, PartitionId, Rejection, Revision};
use tokio::sync::watch;

use crate::lineage::Lineage;

/// The directory at one revision.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The state.
    pub directory: machine::Directory,
    /// Its revision in the management group.
    pub revision: Revision,
    /// The cluster's id.
    pub cluster_id: u128,
}

/// A leader and its Raft term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leading {
    /// Who.
    pub member: MemberName,
    /// Since which Raft term.
    pub term: u64,
}

/// What is known. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    view: Arc<watch::Sender<Option<Arc<View>>>>,
    leaders: Arc<watch::Sender<BTreeMap<PartitionId, Leading>>>,
}

impl Default for Directory {
    fn default() -> Self {
        Self { view: Arc::new(watch::Sender::new(None)), leaders: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }
}

impl Directory {
    /// The newest view. `waiting_for_management_group` until one is known (D22).
    pub fn view(&self) -> Result<Arc<View>, Rejection> {
        self.view.borrow().clone().ok_or_else(|| {
            Rejection::new(
                ErrorCode::WaitingForManagementGroup,
                "waiting for the management group: no member that has it has answered yet",
            )
        })
    }

    /// Follows the view.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.view.subscribe()
    }

    /// Takes a newer view; an older or equal one changes nothing.
    pub fn update(&self, view: View) {
        self.view.send_if_modified(|present| {
            let newer = present.as_ref().is_none_or(|present| view.revision > present.revision);
            if newer {
                *present = Some(Arc::new(view));
            }
            newer
        });
    }

    /// Takes who leads a partition, as a replica of it or another member says.
    pub fn lead(&self, partition: &PartitionId, leading: Leading) {
        self.leaders.send_if_modified(|leaders| {
            let present = leaders.get(partition);
            let is_news = present.is_none_or(|present| leading.term >= present.term && leading != *present);
            if is_news {
                leaders.insert(partition.clone(), leading);
            }
            is_news
        });
    }

    /// Takes a hint from a member that does not lead.
    pub fn note_leader(&self, partition: &PartitionId, member: &MemberName) {
        self.leaders.send_if_modified(|leaders| {
            let term = leaders.get(partition).map_or(0, |present| present.term);
            let leading = Leading { member: member.clone(), term };
            leaders.insert(partition.clone(), leading.clone()) != Some(leading)
        });
    }

    /// Forgets the leader of a partition, if it is still this member.
    pub fn forget_leader(&self, partition: &PartitionId, member: &MemberName) {
        self.leaders.send_if_modified(|leaders| {
            let is_it = leaders.get(partition).is_some_and(|present| present.member == *member);
            if is_it {
                leaders.remove(partition);
            }
            is_it
        });
    }

    /// Who leads a partition, if that is known.
    pub fn leader(&self, partition: &PartitionId) -> Option<Leading> {
        self.leaders.borrow().get(partition).cloned()
    }

    /// Waits until a later leader of a partition is known than this one. Hints have no term of their own, and wake nobody:
    /// two members may name each other.
    pub async fn leader_after(&self, partition: &PartitionId, known: Option<&Leading>) {
        let term = known.map(|known| known.term);
        let is_another = |leaders: &BTreeMap<PartitionId, Leading>| {
            leaders.get(partition).is_some_and(|leading| Some(leading.term) > term)
        };
        // The sender lives as long as `self`.
        let _ = self.leaders.subscribe().wait_for(is_another).await;
    }

    /// All known leaders.
    pub fn leaders(&self) -> BTreeMap<PartitionId, Leading> {
        self.leaders.borrow().clone()
    }

    /// The generation of a partition's group; `None` if that is not known, or there is no such group now.
    pub fn generation(&self, partition: &PartitionId) -> Option<u64> {
        let view = self.view.borrow().clone()?;
        view.directory.partition_groups.get(&partition.group).map(|record| record.generation)
    }

    /// Which life of a partition its generation is, in this cluster.
    pub fn lineage(&self, partition: &PartitionId, generation: u64) -> Lineage {
        let cluster_id = self.view.borrow().as_ref().map_or(0, |view| view.cluster_id);
        Lineage::of(cluster_id, partition, generation)
    }

    /// The members that hold a replica of a partition; empty if it is not known.
    pub fn replicas(&self, partition: &PartitionId) -> Vec<MemberName> {
        let Some(view) = self.view.borrow().clone() else { return Vec::new() };
        let Some(record) = view.directory.partition_groups.get(&partition.group) else { return Vec::new() };
        let index = usize::try_from(partition.index).unwrap_or(usize::MAX).wrapping_sub(1);
        record
            .partitions
            .get(index)
            .map_or_else(Vec::new, |partition| partition.replicas.iter().map(|(member, _)| member.clone()).collect())
    }

    /// Whom to ask in this round of tries: the known leader on even rounds, else the replicas in turn; without replicas
    /// (the management group before anything is known) this member itself.
    pub fn candidate(&self, partition: &PartitionId, own: &MemberName, round: usize) -> MemberName {
        if round.is_multiple_of(2)
            && let Some(leading) = self.leader(partition)
        {
            return leading.member;
        }
        let replicas = self.replicas(partition);
        if replicas.is_empty() {
            return own.clone();
        }
        replicas[(round / 2) % replicas.len()].clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_later_leader_wakes_who_waits_and_a_hint_does_not() {
        let directory = Directory::default();
        let partition = PartitionId { group: "data".into(), index: 1 };
        let leading = |member: &str, term| Leading { member: member.into(), term };
        let news = async |known: Option<&Leading>| {
            let news = directory.leader_after(&partition, known);
            tokio::time::timeout(Duration::from_secs(1), news).await.is_ok()
        };
        assert!(!news(None).await, "nobody is known");
        directory.lead(&partition, leading("a", 1));
        assert!(news(None).await);
        let known = directory.leader(&partition);
        assert_eq!(known, Some(leading("a", 1)));
        directory.note_leader(&partition, &"b".into());
        assert_eq!(directory.leader(&partition), Some(leading("b", 1)));
        assert!(!news(known.as_ref()).await, "two that name each other wake nobody");
        let later = async {
            tokio::task::yield_now().await;
            directory.lead(&partition, leading("c", 2));
        };
        let (woken, ()) = tokio::join!(news(known.as_ref()), later);
        assert!(woken);
        directory.lead(&partition, leading("a", 1));
        assert_eq!(directory.leader(&partition), Some(leading("c", 2)), "an earlier one changes nothing");
    }
}
