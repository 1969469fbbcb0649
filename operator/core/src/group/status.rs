//! Step "report" of the PartitionGroup's controller.
//!
//! | condition | true when | reasons |
//! |---|---|---|
//! | Ready | every partition is healthy | Ready, or the reason of what is wrong |
//! | Available | every partition has a leader with a quorum | PartitionsServe, Forming, PartitionsWithoutQuorum, ClusterNotFound, ClusterNotReady, … |
//! | Degraded | a replica lags or is gone | ReplicasLag, AsWanted, or the reason of what is wrong |
//! | NameConflict | an older PartitionGroup or a profile has its name | NameConflict, NoConflict |
//! | DeletionBlocked | it is deleted but holds data, or cannot be asked | HoldsData, ClusterNotReady, NotAsked |

use coterie_crds::partition_group::{Partition, PartitionGroup, PartitionGroupStatus};
use jiff::Timestamp;

use super::decide::{Decision, group_name};
use crate::condition::{self, Claim, Event, Truth};
use crate::members::{self, View};

/// The condition that `kubectl wait` waits for.
pub const READY: &str = "Ready";
const AVAILABLE: &str = "Available";
const DEGRADED: &str = "Degraded";
const NAME_CONFLICT: &str = "NameConflict";
const DELETION_BLOCKED: &str = "DeletionBlocked";

/// What came of doing what was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, or there was nothing to do.
    Done,
    /// No member could do it now: why.
    Later(String),
    /// The members refused it: why.
    Refused(String),
}

/// The status of `group`.
pub fn status(
    group: &PartitionGroup,
    decision: &Decision,
    outcome: &Outcome,
    view: &View,
    now: Timestamp,
) -> PartitionGroupStatus {
    let previous = group.status.clone().unwrap_or_default();
    let generation = group.metadata.generation;
    let known = match decision {
        Decision::Apply(_) | Decision::Settled(_) | Decision::Delete { .. } => view.group(group_name(group)),
        Decision::Invalid(_)
        | Decision::NameConflict(_)
        | Decision::ClusterNotFound(_)
        | Decision::ClusterNotReady(_)
        | Decision::DeleteLater(_)
        | Decision::Release => None,
    };
    let service = service(decision, outcome, known, group);
    let claims = vec![
        service.ready,
        service.available,
        service.degraded,
        name_conflict(decision),
        deletion_blocked(decision, outcome, known),
    ];
    let partitions = known.map_or_else(
        || {
            if matches!(decision, Decision::ClusterNotReady(_) | Decision::DeleteLater(_)) {
                unled(&previous.partitions)
            } else {
                Vec::new()
            }
        },
        |known| known.states.iter().map(|(index, state)| partition(*index, state)).collect(),
    );
    let healthy = partitions.iter().filter(|partition| partition.ready).count();
    let mut leaders: Vec<&str> = partitions.iter().filter_map(|partition| partition.leader.as_deref()).collect();
    leaders.sort_unstable();
    leaders.dedup();
    PartitionGroupStatus {
        observed_generation: generation,
        phase: service.phase.to_owned(),
        ready: format!("{healthy}/{}", group.spec.partitions),
        leaders: leaders.join(","),
        primitives: known.map_or(previous.primitives, |known| i64::try_from(known.primitives).unwrap_or(i64::MAX)),
        partitions,
        conditions: condition::conditions(claims, &previous.conditions, generation, now),
    }
}

/// The events of what changed between two statuses.
pub fn events(previous: &PartitionGroupStatus, next: &PartitionGroupStatus) -> Vec<Event> {
    let good = |kind: &str| match kind {
        READY | AVAILABLE => Truth::True,
        _ => Truth::False,
    };
    let is_told =
        |condition: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| match condition.type_.as_str() {
            READY => condition.reason != "Forming",
            NAME_CONFLICT | DELETION_BLOCKED => condition.status == "True",
            _ => false,
        };
    let told: Vec<_> = next.conditions.iter().filter(is_told).cloned().collect();
    let mut events = condition::changes(&previous.conditions, &told, good);
    let changed: Vec<String> = next
        .partitions
        .iter()
        .filter(|partition| {
            let before = previous.partitions.iter().find(|before| before.partition == partition.partition);
            partition.leader.is_some()
                && before.is_none_or(|before| before.leader != partition.leader || before.term != partition.term)
        })
        .map(|partition| {
            format!(
                "partition {}: {} in term {}",
                partition.partition,
                partition.leader.as_deref().unwrap_or_default(),
                partition.term
            )
        })
        .collect();
    if !changed.is_empty() {
        events.push(Event::normal("LeaderChanged", changed.join("; ")));
    }
    events
}

struct Service {
    phase: &'static str,
    ready: Claim,
    available: Claim,
    degraded: Claim,
}

impl Service {
    /// The same is wrong with all of it.
    fn wrong(phase: &'static str, reason: &'static str, message: &str) -> Self {
        Self {
            phase,
            ready: Claim::new(READY, false, reason, message),
            available: Claim::new(AVAILABLE, Truth::Unknown, reason, message),
            degraded: Claim::new(DEGRADED, Truth::Unknown, reason, message),
        }
    }
}

fn service(decision: &Decision, outcome: &Outcome, known: Option<&members::Group>, group: &PartitionGroup) -> Service {
    match (decision, outcome) {
        (Decision::Invalid(why), _) => Service::wrong("Invalid", "InvalidSpec", why),
        (Decision::NameConflict(why), _) => Service::wrong("Conflict", "NameConflict", why),
        (Decision::ClusterNotFound(why), _) => Service::wrong("Pending", "ClusterNotFound", why),
        (Decision::ClusterNotReady(why), _) | (Decision::Apply(_), Outcome::Later(why)) => {
            Service::wrong("Pending", "ClusterNotReady", why)
        }
        (Decision::Apply(_), Outcome::Refused(why)) => {
            Service::wrong("Refused", "Refused", &format!("the Cluster's members refuse it: {why}"))
        }
        (Decision::Delete { .. } | Decision::DeleteLater(_) | Decision::Release, _) => {
            let mut service = of_partitions(known, group);
            service.phase = "Deleting";
            service.ready = Claim::new(READY, false, "Deleting", "it is being deleted");
            service
        }
        (Decision::Apply(_) | Decision::Settled(_), _) => of_partitions(known, group),
    }
}

fn of_partitions(known: Option<&members::Group>, group: &PartitionGroup) -> Service {
    let Some(known) = known.filter(|known| known.is_complete()) else {
        return Service::wrong("Forming", "Forming", "its partitions are being formed");
    };
    let list = |wanted: &dyn Fn(&members::Partition) -> bool| -> Vec<String> {
        known.states.iter().filter(|(_, state)| wanted(state)).map(|(index, _)| index.to_string()).collect()
    };
    let down = list(&|state| !state.is_available());
    if !down.is_empty() && down.len() == known.states.len() && known.state == "forming" {
        return Service::wrong("Forming", "Forming", "its partitions are being formed");
    }
    if !down.is_empty() {
        let cluster = &group.spec.cluster_ref.name;
        let message = format!(
            "partitions {} have no leader with a quorum; see `kubectl describe cluster.coterie.dev {cluster}`",
            down.join(", ")
        );
        return Service {
            phase: "Unavailable",
            ready: Claim::new(READY, false, "PartitionsWithoutQuorum", &message),
            available: Claim::new(AVAILABLE, false, "PartitionsWithoutQuorum", &message),
            degraded: Claim::new(DEGRADED, true, "PartitionsWithoutQuorum", message),
        };
    }
    let available = Claim::new(AVAILABLE, true, "PartitionsServe", "every partition has a leader with a quorum");
    let lagging = list(&|state| !state.lagging.is_empty());
    if !lagging.is_empty() {
        let message = format!("replicas of partitions {} are behind or gone", lagging.join(", "));
        return Service {
            phase: "Degraded",
            ready: Claim::new(READY, false, "ReplicasLag", &message),
            available,
            degraded: Claim::new(DEGRADED, true, "ReplicasLag", message),
        };
    }
    Service {
        phase: "Running",
        ready: Claim::new(READY, true, "Ready", format!("{} partitions are healthy", known.states.len())),
        available,
        degraded: Claim::new(DEGRADED, false, "AsWanted", "every replica is there"),
    }
}

fn name_conflict(decision: &Decision) -> Claim {
    match decision {
        Decision::NameConflict(why) => Claim::new(NAME_CONFLICT, true, "NameConflict", why),
        _ => Claim::new(NAME_CONFLICT, false, "NoConflict", "the name is its own"),
    }
}

fn deletion_blocked(decision: &Decision, outcome: &Outcome, known: Option<&members::Group>) -> Claim {
    match (decision, outcome) {
        (Decision::Delete { .. }, Outcome::Refused(why)) => {
            let holds = known.map_or(0, |known| known.primitives);
            let message = format!(
                "it holds {holds} primitives and spec.deletionPolicy is Retain ({why}): delete the primitives, or set spec.deletionPolicy to Delete to delete them with it"
            );
            Claim::new(DELETION_BLOCKED, true, "HoldsData", message)
        }
        (Decision::DeleteLater(why), _) | (Decision::Delete { .. }, Outcome::Later(why)) => {
            let fix = "it goes on by itself when the Cluster is back; delete the Cluster too if it never will be";
            Claim::new(DELETION_BLOCKED, true, "ClusterNotReady", format!("{why}; {fix}"))
        }
        _ => Claim::new(DELETION_BLOCKED, false, "NotAsked", "nothing is in the way of a deletion"),
    }
}

fn partition(index: u32, state: &members::Partition) -> Partition {
    Partition {
        partition: i32::try_from(index).unwrap_or(i32::MAX),
        leader: state.leader.clone(),
        term: i64::try_from(state.term).unwrap_or(i64::MAX),
        replicas: state.replicas.clone(),
        ready: state.is_healthy(),
    }
}

/// What is left of partitions that nobody can be asked about: the terms, which only rise.
fn unled(partitions: &[Partition]) -> Vec<Partition> {
    partitions.iter().map(|partition| Partition { leader: None, ready: false, ..partition.clone() }).collect()
}
