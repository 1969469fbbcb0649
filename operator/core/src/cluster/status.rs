//! Step "report" of the Cluster's controller: what was observed, as status, conditions and events.
//!
//! | condition | true when | reasons |
//! |---|---|---|
//! | Ready | every wanted pod is ready, every partition serves, nothing is refused | Ready, or the reason of what is wrong |
//! | Available | every partition has a leader with a quorum | PartitionsServe, Forming, NoMemberAnswers, PartitionsWithoutQuorum |
//! | Progressing | something is still under way | Creating, Resizing, RollingOut, Scaling, Starting, AuthorityReplaced, Settled |
//! | Degraded | a failure is there that the next one could add to | see [`troubles`], AsWanted |
//! | ScaleDownBlocked | spec.replicas is below spec.managementVoters | VotersCannotBeRemoved, NotAsked |
//! | ReconciliationPaused | spec.paused | Paused, NotPaused |

use coterie_crds::cluster::{ClusterStatus, Member};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{self, Desired};
use super::{Observed, Validated, rollout, validate};
use crate::condition::{self, Claim, Event, Truth};
use crate::names;

/// The condition that `kubectl wait` waits for.
pub const READY: &str = "Ready";
const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const DEGRADED: &str = "Degraded";
const SCALE_DOWN_BLOCKED: &str = "ScaleDownBlocked";
const PAUSED: &str = "ReconciliationPaused";
/// The one reason of `Progressing` that a person may want to look into.
const AUTHORITY_REPLACED: &str = "AuthorityReplaced";

/// What came of applying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Everything was applied.
    All,
    /// Nothing was but certificates that run out, since the Cluster is paused.
    Paused,
    /// An object that is not the Cluster's has a name that it needs: which, and what to do.
    Taken(String),
    /// What an earlier Cluster of this name left is not gone yet: which object.
    Leaving(String),
    /// The Secret of the authority holds what cannot be used: which, why, and what to do.
    AuthorityUnusable(String),
    /// The API server refused an object: which, and why.
    Refused(String),
    /// It refused to make a volume larger: why.
    ResizeRefused(String),
}

/// What the report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The spec.
    pub cluster: &'a Validated,
    /// Its generation.
    pub generation: Option<i64>,
    /// What there is.
    pub observed: &'a Observed,
    /// What there should be.
    pub desired: &'a Desired,
    /// What came of applying it.
    pub applied: &'a Applied,
    /// The status before.
    pub previous: &'a ClusterStatus,
}

/// Something that is wrong.
struct Trouble {
    reason: &'static str,
    message: String,
}

/// The status of a Cluster whose spec can be followed.
pub fn status(report: Report<'_>, now: Timestamp) -> ClusterStatus {
    let Report { cluster, generation, observed, desired, applied, previous } = report;
    let wanted = plan::pods(cluster, observed);
    let ready = (0..wanted).filter(|index| is_ready(observed, &names::pod(&cluster.name, *index))).count();
    let troubles = troubles(cluster, observed, applied, wanted);
    let available = available(observed, previous);
    let progressing = progressing(observed, desired, wanted, ready);
    let claims = vec![
        ready_claim(&troubles, &available, wanted, ready, observed),
        available.clone(),
        progressing,
        degraded(&troubles),
        scale_down_blocked(cluster, wanted),
        paused(cluster.paused),
    ];
    let conditions = condition::conditions(claims, &previous.conditions, generation, now);
    let phase = phase(cluster, observed, &conditions, previous);
    let Said { replicas, cluster_id, leader, term } = Said::of(observed, previous);
    ClusterStatus {
        observed_generation: generation,
        phase: phase.to_owned(),
        ready: format!("{ready}/{wanted}"),
        replicas,
        selector: names::selector_text(&cluster.name),
        cluster_id,
        leader,
        term,
        members: members(cluster, observed, wanted, &previous.members),
        conditions,
    }
}

/// The status of a Cluster whose spec cannot be followed: what runs is reported on, by the members that there were.
pub fn invalid(
    error: &validate::Error,
    generation: Option<i64>,
    observed: &Observed,
    previous: &ClusterStatus,
    now: Timestamp,
) -> ClusterStatus {
    let message = format!("the spec is not followed: {error}");
    let mut claims = vec![
        Claim::new(READY, false, "InvalidSpec", &message),
        handover(observed).unwrap_or_else(|| Claim::new(PROGRESSING, false, "InvalidSpec", &message)),
        Claim::new(DEGRADED, true, "InvalidSpec", message),
    ];
    if !previous.members.is_empty() {
        claims.push(available(observed, previous));
    }
    let mut conditions = condition::conditions(claims, &previous.conditions, generation, now);
    for kept in &previous.conditions {
        if !conditions.iter().any(|condition| condition.type_ == kept.type_) {
            conditions.push(kept.clone());
        }
    }
    let members: Vec<Member> = previous
        .members
        .iter()
        .map(|before| member(before.name.clone(), &before.role, observed, &previous.members))
        .collect();
    let ready = members.iter().filter(|member| member.ready).count();
    let said = Said::of(observed, previous);
    ClusterStatus {
        observed_generation: generation,
        phase: "Invalid".to_owned(),
        ready: if members.is_empty() { previous.ready.clone() } else { format!("{ready}/{}", members.len()) },
        replicas: said.replicas,
        selector: previous.selector.clone(),
        cluster_id: said.cluster_id,
        leader: said.leader,
        term: said.term,
        members,
        conditions,
    }
}

/// What is said of a Cluster whether or not its spec can be followed.
struct Said {
    replicas: i32,
    cluster_id: Option<String>,
    leader: Option<String>,
    term: Option<i64>,
}

impl Said {
    fn of(observed: &Observed, previous: &ClusterStatus) -> Self {
        let management = observed.view.management();
        Self {
            replicas: i32::try_from(observed.pods.len()).unwrap_or(i32::MAX),
            cluster_id: observed.view.cluster_id().map(str::to_owned).or_else(|| previous.cluster_id.clone()),
            leader: management.and_then(|state| state.leader.clone()),
            term: management.map(|state| i64::try_from(state.term).unwrap_or(i64::MAX)).or(previous.term),
        }
    }
}

/// The events of what changed between two statuses.
pub fn events(previous: &ClusterStatus, next: &ClusterStatus) -> Vec<Event> {
    let good = |kind: &str| match kind {
        READY | AVAILABLE => Truth::True,
        _ => Truth::False,
    };
    // Readiness repeats what the others say, except that it came; the first forming of a Cluster is no failure.
    let is_told =
        |condition: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| match condition.type_.as_str() {
            READY => condition.status == "True" || condition.reason == "InvalidSpec",
            AVAILABLE => condition.reason != "Forming" && condition.reason != "NoMemberAnswers",
            PROGRESSING => condition.reason == AUTHORITY_REPLACED,
            DEGRADED => {
                next.cluster_id.is_some()
                    || !["PodsNotReady", "VolumePending", "NameNotFreeYet"].contains(&condition.reason.as_str())
            }
            _ => true,
        };
    let told: Vec<_> = next.conditions.iter().filter(is_told).cloned().collect();
    let mut events = condition::changes(&previous.conditions, &told, good);
    for member in &next.members {
        let before = previous
            .members
            .iter()
            .find(|before| before.name == member.name)
            .and_then(|before| before.address.as_ref());
        if let (Some(before), Some(after)) = (before, &member.address)
            && before != after
        {
            let note = format!(
                "{}: the address changed from {before} to {after}; its peers reach it by its name",
                member.name
            );
            events.push(Event::normal("MemberAddressChanged", note));
        }
    }
    if let (Some(leader), Some(term)) = (&next.leader, next.term)
        && (previous.leader.as_ref() != Some(leader) || previous.term != Some(term))
    {
        events.push(Event::normal("LeaderChanged", format!("{leader} leads the management group in term {term}")));
    }
    events
}

/// The event of a Cluster that was made anew and found the volumes of its predecessor: told once, when its members say
/// which cluster they are (D14). `made` is when the Cluster was.
pub fn adopted(
    previous: &ClusterStatus,
    next: &ClusterStatus,
    observed: &Observed,
    made: Option<&Time>,
) -> Option<Event> {
    let id = next.cluster_id.as_ref().filter(|_| previous.cluster_id.is_none())?;
    let is_older =
        |claim: &super::observed::Claim| claim.made.as_ref().zip(made).is_some_and(|(claim, made)| claim < made);
    let older: Vec<&str> =
        observed.claims.iter().filter(|(_, claim)| is_older(claim)).map(|(name, _)| name.as_str()).collect();
    if older.is_empty() {
        return None;
    }
    let note = format!(
        "the claims {} were there before this Cluster: it goes on as cluster {id}, with what they hold and with higher terms",
        older.join(", ")
    );
    Some(Event::normal("VolumesAdopted", note))
}

fn is_ready(observed: &Observed, pod: &str) -> bool {
    observed.pods.get(pod).is_some_and(|pod| pod.is_ready && !pod.is_terminating)
}

/// Everything that is wrong, the most telling first.
fn troubles(cluster: &Validated, observed: &Observed, applied: &Applied, wanted: u32) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    let mut add = |reason, message: String| troubles.push(Trouble { reason, message });
    match applied {
        Applied::All | Applied::Paused => {}
        Applied::Taken(why) => add("NameTaken", format!("what the spec asks for is not made: {why}")),
        Applied::AuthorityUnusable(why) => {
            let what = "no certificates are issued and members cannot be asked";
            add("AuthorityUnusable", format!("{why}; {what} until then"));
        }
        Applied::Leaving(what) => {
            add("NameNotFreeYet", format!("Kubernetes still removes {what} of an earlier Cluster of this name"));
        }
        Applied::Refused(why) => add("ApplyRefused", format!("Kubernetes refuses what the spec asks for: {why}")),
        Applied::ResizeRefused(why) => {
            let fix = "allow expansion in their storage class; until then they stay as they are";
            add("VolumeResizeRefused", format!("volumes cannot be made larger: {why}; {fix}"));
        }
    }
    let refused = observed.view.refused();
    if !refused.is_empty() {
        let each: Vec<String> = refused.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        let fix =
            "delete the claim and the pod of such a member to replace it by a new one, or give it its own volume back";
        add("MembersRefused", format!("data directories are refused ({}); {fix}", each.join("; ")));
    }
    let ids = observed.view.cluster_ids();
    if ids.len() > 1 {
        let each: Vec<String> = ids
            .iter()
            .map(|(id, members)| format!("{id}: {}", members.iter().copied().collect::<Vec<_>>().join(", ")))
            .collect();
        add(
            "MixedVolumes",
            format!(
                "the members' volumes are of different clusters ({}); keep the claims of one of them",
                each.join("; ")
            ),
        );
    }
    let pending: Vec<&str> = (0..wanted)
        .map(|index| names::claim(&names::pod(&cluster.name, index)))
        .filter_map(|name| observed.claims.get_key_value(&name))
        .filter(|(_, claim)| !claim.is_bound)
        .map(|(name, _)| name.as_str())
        .collect();
    if !pending.is_empty() {
        let claims = pending.join(", ");
        if cluster.storage.storage_class_name.is_none() && observed.has_default_storage_class == Some(false) {
            let fix =
                "mark a storage class as the default one, or make the Cluster again with spec.storage.storageClassName";
            add(
                "NoDefaultStorageClass",
                format!("claims wait for a volume ({claims}), and there is no default storage class; {fix}"),
            );
        } else {
            add("VolumePending", format!("claims wait for a volume ({claims}); see `kubectl describe pvc`"));
        }
    }
    let unready: Vec<String> = (0..wanted)
        .map(|index| names::pod(&cluster.name, index))
        .filter(|name| !is_ready(observed, name))
        .map(|name| match observed.pods.get(&name) {
            None => format!("{name}: no pod"),
            Some(pod) if pod.is_terminating => format!("{name}: terminating"),
            Some(pod) => format!("{name}: {}", pod.trouble.as_deref().unwrap_or("not ready")),
        })
        .collect();
    if !unready.is_empty() {
        add("PodsNotReady", format!("{} of {wanted} pods are not ready ({})", unready.len(), unready.join("; ")));
    }
    let lagging: Vec<String> = observed
        .view
        .partitions()
        .filter(|(_, _, state)| state.is_available() && !state.lagging.is_empty())
        .map(|(group, index, state)| format!("{group}/{index}: {}", state.lagging.join(", ")))
        .collect();
    if !lagging.is_empty() {
        add("ReplicasLag", format!("replicas are behind ({})", lagging.join("; ")));
    }
    troubles
}

fn ready_claim(troubles: &[Trouble], available: &Claim, wanted: u32, ready: usize, observed: &Observed) -> Claim {
    if let Some(Trouble { reason, message }) = troubles.first() {
        return Claim::new(READY, false, reason, message);
    }
    if available.truth != Truth::True {
        return Claim::new(READY, false, available.reason, &available.message);
    }
    let partitions = observed.view.partitions().count();
    Claim::new(READY, true, "Ready", format!("{ready} of {wanted} pods are ready and {partitions} partitions serve"))
}

fn available(observed: &Observed, previous: &ClusterStatus) -> Claim {
    let view = &observed.view;
    if view.is_available() {
        return Claim::new(AVAILABLE, true, "PartitionsServe", "every partition has a leader with a quorum");
    }
    if !view.has_answers() {
        let why: Vec<String> = observed
            .pods
            .keys()
            .filter_map(|pod| view.answer(pod)?.as_ref().err().map(|error| format!("{pod}: {error}")))
            .collect();
        let why = if why.is_empty() { "no sidecar runs".to_owned() } else { why.join("; ") };
        return Claim::new(
            AVAILABLE,
            Truth::Unknown,
            "NoMemberAnswers",
            format!("no member answers the operator ({why})"),
        );
    }
    if previous.cluster_id.is_none() && !view.is_managed() {
        return Claim::new(
            AVAILABLE,
            false,
            "Forming",
            "the management group is not formed yet: it waits for every listed member",
        );
    }
    let down: Vec<String> = view
        .partitions()
        .filter(|(_, _, state)| !state.is_available())
        .map(|(group, index, _)| format!("{group}/{index}"))
        .collect();
    let down = if down.is_empty() { "system/1".to_owned() } else { down.join(", ") };
    Claim::new(
        AVAILABLE,
        false,
        "PartitionsWithoutQuorum",
        format!("partitions have no leader with a quorum ({down}); see which pods are not ready"),
    )
}

fn progressing(observed: &Observed, desired: &Desired, wanted: u32, ready: usize) -> Claim {
    let outdated = rollout::outdated(observed);
    let pods = u32::try_from(observed.pods.len()).unwrap_or(u32::MAX);
    let is_new = observed.pods.is_empty() && !observed.stateful_set.as_ref().is_some_and(|set| set.is_observed);
    if observed.stateful_set.is_none() || is_new {
        return Claim::new(PROGRESSING, true, "Creating", "the pods are being made");
    }
    if let Some(claim) = handover(observed) {
        return claim;
    }
    if let Some(resize) = &desired.resize {
        return Claim::new(PROGRESSING, true, "Resizing", format!("volumes are being made {} large", resize.size));
    }
    // Which pods are of an earlier template is not known before.
    if !observed.stateful_set.as_ref().is_some_and(|set| set.is_observed) {
        return Claim::new(PROGRESSING, true, "RollingOut", "Kubernetes has not looked at the last change yet");
    }
    if outdated > 0 {
        return Claim::new(PROGRESSING, true, "RollingOut", format!("{outdated} pods are still of an earlier spec"));
    }
    if pods != wanted {
        return Claim::new(PROGRESSING, true, "Scaling", format!("{pods} pods of {wanted}"));
    }
    if ready < wanted as usize {
        return Claim::new(PROGRESSING, true, "Starting", format!("{ready} of {wanted} pods are ready"));
    }
    Claim::new(PROGRESSING, false, "Settled", "nothing is under way")
}

fn handover(observed: &Observed) -> Option<Claim> {
    let until = Timestamp::from_second(observed.handover?).ok()?;
    let message = format!(
        "certificates are of another authority than the one in the Secret that ends in `-ca`, which was lost or replaced: both are trusted until {until}, and all certificates are issued anew meanwhile; leave that Secret as it is, and pods keep running"
    );
    Some(Claim::new(PROGRESSING, true, AUTHORITY_REPLACED, message))
}

fn degraded(troubles: &[Trouble]) -> Claim {
    match troubles.first() {
        None => Claim::new(DEGRADED, false, "AsWanted", "nothing is known to be wrong"),
        Some(first) => {
            let all: Vec<&str> = troubles.iter().map(|trouble| trouble.message.as_str()).collect();
            Claim::new(DEGRADED, true, first.reason, all.join(". "))
        }
    }
}

fn scale_down_blocked(cluster: &Validated, wanted: u32) -> Claim {
    if !cluster.asks_for_too_few() {
        return Claim::new(SCALE_DOWN_BLOCKED, false, "NotAsked", "spec.replicas is not below spec.managementVoters");
    }
    let message = format!(
        "spec.replicas is {}, below spec.managementVoters ({}): votes cannot be moved away in this version, so the {wanted} pods stay; set spec.replicas to {} or more",
        cluster.replicas, cluster.voters, cluster.voters
    );
    Claim::new(SCALE_DOWN_BLOCKED, true, "VotersCannotBeRemoved", message)
}

fn paused(paused: bool) -> Claim {
    if paused {
        Claim::new(
            PAUSED,
            true,
            "Paused",
            "spec.paused is true: the operator changes nothing but certificates that run out; set it to false to go on",
        )
    } else {
        Claim::new(PAUSED, false, "NotPaused", "changes of the spec are followed")
    }
}

fn phase(
    cluster: &Validated,
    observed: &Observed,
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    previous: &ClusterStatus,
) -> &'static str {
    let was_formed = previous.cluster_id.is_some() || observed.view.cluster_id().is_some();
    if cluster.paused {
        "Paused"
    } else if condition::is_true(conditions, READY) {
        "Running"
    } else if condition::is_true(conditions, AVAILABLE) {
        "Degraded"
    } else if was_formed {
        "Unavailable"
    } else if observed.view.has_answers() {
        "Forming"
    } else {
        "Pending"
    }
}

fn members(cluster: &Validated, observed: &Observed, wanted: u32, previous: &[Member]) -> Vec<Member> {
    let role = |index: u32| if index < cluster.voters { "Voter" } else { "Client" };
    (0..wanted).map(|index| member(names::pod(&cluster.name, index), role(index), observed, previous)).collect()
}

fn member(name: String, role: &str, observed: &Observed, previous: &[Member]) -> Member {
    let last_address = || previous.iter().find(|member| member.name == name).and_then(|member| member.address.clone());
    let pod = observed.pods.get(&name);
    let known = observed.view.member(&name);
    let state = match (observed.view.answer(&name), pod) {
        (Some(Ok(answer)), _) => answer.state.clone(),
        (Some(Err(error)), _) => format!("does not answer: {error}"),
        (None, Some(pod)) => pod.trouble.clone().unwrap_or_else(|| "starting".to_owned()),
        (None, None) => "no pod".to_owned(),
    };
    Member {
        role: role.to_owned(),
        // The last known one stays while there is none, so that the next is seen to be another.
        address: pod.and_then(|pod| pod.ip.clone()).or_else(last_address),
        zone: known.map(|known| known.zone.clone()).filter(|zone| !zone.is_empty()),
        node_id: known.map(|known| known.node_id).filter(|id| *id != 0).map(|id| id.to_string()),
        version: known.map(|known| known.version.clone()).filter(|version| !version.is_empty()),
        state,
        ready: is_ready(observed, &name),
        name,
    }
}
