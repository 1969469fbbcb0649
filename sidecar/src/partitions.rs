//! The replicas that this member holds.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use coterie_core::PartitionId;
use coterie_replication::Partition;

/// The replicas of this member, by partition. Cheap to clone.
#[derive(Clone, Default)]
pub struct Partitions(Arc<RwLock<BTreeMap<PartitionId, Partition>>>);

impl Partitions {
    /// A replica, if this member holds one.
    pub fn get(&self, id: &PartitionId) -> Option<Partition> {
        self.0.read().expect("no panic while the lock is held").get(id).cloned()
    }

    /// Whether a replica here knows who leads a partition: it heard of it from that one itself, so that no hint of another
    /// member counts.
    pub fn know_leader(&self, id: &PartitionId) -> bool {
        self.get(id).is_some_and(|local| local.leadership().borrow().leader.is_some())
    }

    /// All of them, in order.
    pub fn all(&self) -> Vec<(PartitionId, Partition)> {
        let partitions = self.0.read().expect("no panic while the lock is held");
        partitions.iter().map(|(id, partition)| (id.clone(), partition.clone())).collect()
    }

    /// Adds one.
    pub fn insert(&self, id: PartitionId, partition: Partition) {
        self.0.write().expect("no panic while the lock is held").insert(id, partition);
    }

    /// Takes one out.
    pub fn remove(&self, id: &PartitionId) -> Option<Partition> {
        self.0.write().expect("no panic while the lock is held").remove(id)
    }
}
