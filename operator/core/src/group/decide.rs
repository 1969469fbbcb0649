//! Steps "validate" and "plan" of the PartitionGroup's controller: what is to be done for one of them.

use coterie_core::config::CONSENSUS_GROUP;
use coterie_crds::cluster::{Cluster, Profile};
use coterie_crds::partition_group::{
    ClusterRef, DeletionPolicy, PartitionGroup, PartitionGroupSpec, Protocol, RaftOptions,
};

use crate::members::{self, SYSTEM, View};
use crate::names;

/// What is asked of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// By which name applications address it.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas of each.
    pub replicas: u32,
    /// Among which members; empty: all voters.
    pub members: Vec<String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The spec cannot be followed: why, and the fix.
    Invalid(String),
    /// Another PartitionGroup, or the Cluster's profile, has the name.
    NameConflict(String),
    /// There is no such Cluster.
    ClusterNotFound(String),
    /// The Cluster cannot take it now.
    ClusterNotReady(String),
    /// It is to be made.
    Apply(Group),
    /// It is there.
    Settled(Group),
    /// It is to be deleted, with its data if `force`.
    Delete {
        /// The name in the Cluster.
        name: String,
        /// Whether it may hold primitives.
        force: bool,
    },
    /// It is being deleted, but the members cannot be asked now.
    DeleteLater(String),
    /// It is being deleted, and there is nothing to delete in a Cluster: the finalizer goes.
    Release,
}

/// The name by which applications address a PartitionGroup.
pub fn group_name(group: &PartitionGroup) -> &str {
    group.spec.name.as_deref().or(group.metadata.name.as_deref()).unwrap_or_default()
}

/// What is to be done for `group`. `siblings` are the PartitionGroups of its namespace, itself among them or not; `cluster`
/// is the one that it refers to; `view` is what that one's members say.
pub fn decide(group: &PartitionGroup, siblings: &[PartitionGroup], cluster: Option<&Cluster>, view: &View) -> Decision {
    let is_deleted = group.metadata.deletion_timestamp.is_some();
    let PartitionGroupSpec { cluster_ref: ClusterRef { name: cluster_name }, deletion_policy, .. } = &group.spec;
    let conflict = conflict(group, siblings, cluster);
    match (is_deleted, conflict, cluster) {
        // It was never made, so there is nothing to delete: least of all the data of the one that has the name.
        (true, Some(_), _) | (true, _, None) => Decision::Release,
        (true, None, Some(cluster)) if cluster.metadata.deletion_timestamp.is_some() => Decision::Release,
        (true, None, Some(_)) => delete(group_name(group), *deletion_policy, view),
        (false, _, None) => Decision::ClusterNotFound(format!(
            "there is no Cluster `{cluster_name}` in this namespace; make it, or make the PartitionGroup again with another spec.clusterRef"
        )),
        (false, Some(why), Some(_)) => Decision::NameConflict(why),
        (false, None, Some(cluster)) => apply(group, cluster, view),
    }
}

/// What is to be done for `group` when there is a Cluster that this version cannot read: nothing, and above all it is not
/// released, since its data may be there.
pub fn decide_unread(group: &PartitionGroup, why: &str) -> Decision {
    let cluster_name = &group.spec.cluster_ref.name;
    let why =
        format!("this version of the operator cannot read the Cluster `{cluster_name}` ({why}); correct what it names");
    if group.metadata.deletion_timestamp.is_some() {
        Decision::DeleteLater(why)
    } else {
        Decision::ClusterNotReady(why)
    }
}

fn delete(name: &str, policy: DeletionPolicy, view: &View) -> Decision {
    if !view.is_managed() {
        return Decision::DeleteLater("the Cluster's management group cannot be asked now".to_owned());
    }
    if view.group(name).is_none() {
        return Decision::Release;
    }
    let force = match policy {
        DeletionPolicy::Retain => false,
        DeletionPolicy::Delete => true,
    };
    Decision::Delete { name: name.to_owned(), force }
}

fn apply(group: &PartitionGroup, cluster: &Cluster, view: &View) -> Decision {
    let wanted = match validate(group, cluster) {
        Ok(wanted) => wanted,
        Err(problems) => return Decision::Invalid(problems.join("; ")),
    };
    let cluster_name = &group.spec.cluster_ref.name;
    if cluster.metadata.deletion_timestamp.is_some() {
        return Decision::ClusterNotReady(format!("the Cluster `{cluster_name}` is being deleted"));
    }
    if !view.is_managed() {
        return Decision::ClusterNotReady(format!(
            "the Cluster `{cluster_name}` has no management group that serves yet; see `kubectl describe cluster.coterie.dev {cluster_name}`"
        ));
    }
    match view.group(&wanted.name) {
        Some(known) if is_same(known, &wanted) && known.state != "deleting" => Decision::Settled(wanted),
        _ => Decision::Apply(wanted),
    }
}

fn is_same(known: &members::Group, wanted: &Group) -> bool {
    known.partitions == wanted.partitions && known.replicas == wanted.replicas
}

fn validate(group: &PartitionGroup, cluster: &Cluster) -> Result<Group, Vec<String>> {
    let mut problems = Vec::new();
    let PartitionGroupSpec { cluster_ref: _, name: _, type_, partitions, replicas, raft, deletion_policy: _ } =
        &group.spec;
    match type_ {
        Protocol::Raft => {}
        Protocol::PrimaryBackup => {
            problems.push("spec.type: PrimaryBackup is not in this version; use Raft".to_owned())
        }
    }
    let name = group_name(group);
    if name == SYSTEM || name.is_empty() {
        problems
            .push("the name `system` is the management group's: choose another metadata.name or spec.name".to_owned());
    }
    if name.len() > 63 {
        problems.push("the name must have at most 63 characters: set spec.name".to_owned());
    }
    let within = |number: i32, maximum: u32| u32::try_from(number).ok().filter(|number| (1..=maximum).contains(number));
    let voters = u32::try_from(cluster.spec.management_voters).unwrap_or(1);
    if within(*partitions, 128).is_none() {
        problems.push(format!("spec.partitions is {partitions}: it must be from 1 to 128"));
    }
    if within(*replicas, voters).is_none() {
        problems.push(format!("spec.replicas is {replicas}, but the Cluster has {voters} members that keep data (spec.managementVoters): make the PartitionGroup again with at most {voters}"));
    }
    let RaftOptions { members } = raft.clone().unwrap_or_default();
    let members = members.unwrap_or_default();
    let cluster_name = cluster.metadata.name.as_deref().unwrap_or_default();
    for member in &members {
        if names::index(cluster_name, member).is_none_or(|index| index >= voters) {
            problems.push(format!("spec.raft.members: `{member}` is not a voter of the Cluster: its voters are {cluster_name}-0 to {cluster_name}-{}", voters - 1));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let count = |number: i32| u32::try_from(number).unwrap_or(1);
    Ok(Group { name: name.to_owned(), partitions: count(*partitions), replicas: count(*replicas), members })
}

/// Why `group` does not have its name: the Cluster's profile has it, or an older PartitionGroup. One that is being deleted
/// keeps its name until it is gone.
fn conflict(group: &PartitionGroup, siblings: &[PartitionGroup], cluster: Option<&Cluster>) -> Option<String> {
    let name = group_name(group);
    let cluster_name = &group.spec.cluster_ref.name;
    let has_consensus = cluster.is_some_and(|cluster| cluster.spec.profiles.contains(&Profile::Consensus));
    if name == CONSENSUS_GROUP && has_consensus {
        return Some(format!(
            "the Cluster `{cluster_name}` has a partition group `{name}` from its profile Consensus; choose another spec.name"
        ));
    }
    let age = |group: &PartitionGroup| {
        (group.metadata.creation_timestamp.as_ref().map(|time| time.0), group.metadata.uid.clone())
    };
    let is_same = |other: &&PartitionGroup| {
        other.metadata.uid != group.metadata.uid
            && other.spec.cluster_ref.name == *cluster_name
            && group_name(other) == name
    };
    let older =
        siblings.iter().filter(is_same).filter(|other| age(other) < age(group)).min_by_key(|other| age(other))?;
    let other = older.metadata.name.as_deref().unwrap_or_default();
    Some(format!(
        "the PartitionGroup `{other}` is older and has the name `{name}` in the Cluster `{cluster_name}`; delete one of the two, or make this one again with another spec.name"
    ))
}
