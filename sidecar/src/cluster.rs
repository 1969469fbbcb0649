//! Finding or forming the cluster, and a member's duties in it.
//!
//! ```text
//! greet ─▶ open (or form) the management group ─▶ register ─▶ open the replicas that the directory gives this member
//!     └──▶ (members without it) ask for the directory ────▶ register
//! ```
//!
//! Every member makes the partition groups that its own configuration declares (S88). Whoever leads the management group
//! forgets ephemeral members that are long gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coterie_core::command::{
    Command, DirectoryOp, MemberKind, MemberRecord, PartitionGroupRecord, PartitionRecord, Reply,
};
use coterie_core::machine::MACHINE_VERSION;
use coterie_core::{ErrorCode, MemberName, NodeId, PartitionGroupName, PartitionId, Rejection, machine};
use coterie_proto::peer;
use coterie_replication::{Partition, Progress, Target, storage_key};
use coterie_store::directory::Formation;

use crate::deadline::Deadline;
use crate::directory::{Leading, View};
use crate::formation::{self, Situation, Step};
use crate::identities::Identities as _;
use crate::limits;
use crate::node::Node;
use crate::peers::admission;
use crate::state::State;
use crate::volume::Store;

/// Runs until the process stops or the directory is refused.
pub async fn run(node: Node) {
    let seated = node
        .config()
        .management
        .as_ref()
        .is_some_and(|group| node.store().is_some() && group.members.contains(&node.config().local.name));
    if seated {
        if !open_management(&node).await {
            return;
        }
    } else {
        node.set_state(State::WaitingForManagementGroup { reason: String::new() });
    }
    node.env().spawn.spawn("directory", Box::pin(ask_for_directory(node.clone())));
    if !register(&node).await {
        return;
    }
    node.set_state(State::Running);
    node.env().spawn.spawn("manage", Box::pin(manage(node.clone())));
    if let Some(application) = &node.config().application {
        node.presences().start_probe(application);
    }
    follow_directory(node).await;
}

/// Records a formation durably.
pub(crate) fn record_formation(store: &Store, formation: Formation) -> Result<(), Rejection> {
    store
        .directory
        .update(|identity| {
            identity.cluster_id = Some(formation.cluster_id);
            identity.formation = Some(formation);
        })
        .map_err(|error| Rejection::new(ErrorCode::Internal, format!("record the formation: {error}")))
}

/// Opens the replica of the management group, once that is safe. False if it never will be.
async fn open_management(node: &Node) -> bool {
    let (Some(store), Some(management)) = (node.store(), node.config().management.as_ref()) else { return false };
    let mut changes = node.greetings().changes();
    let stop = node.stopping();
    let address = node.config().local.address.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut form = None;
    loop {
        changes.mark_unchanged();
        if node.is_refused() {
            return false;
        }
        let has_log = store.has_log();
        let own = store.directory.identity();
        let met = node.greetings().met();
        let greeted = node.greetings().rounds() > 0;
        let listed = &management.members;
        let situation = Situation { own: &own, has_log, greeted, listed, met: &met, address: &address };
        match formation::decide(&situation) {
            Step::Open => break,
            Step::Refuse(rejection) => {
                node.greetings().refuse_self(rejection);
                return false;
            }
            Step::Wait(missing) => node.set_state(match node.greetings().doubt() {
                Some(doubt) => State::Refused(doubt),
                None => State::WaitingForMembers { missing },
            }),
            Step::Propose(seats) => match propose(node, store, seats).await {
                Ok(formation) => {
                    form = Some(formation);
                    break;
                }
                Err(rejection) => tracing::warn!(reason = %rejection.message, "the management group is not formed yet"),
            },
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return false },
            () = stop.cancelled() => return false,
        }
    }
    node.set_state(State::WaitingForManagementGroup { reason: String::new() });
    match open_partition(node, store, &PartitionId::system(), 0).await {
        Some(partition) => {
            if let Some(formation) = form {
                let seats = formation.seats.iter().map(target_of_seat).collect();
                if let Err(error) = partition.form(seats).await {
                    node.fail(format!("form the management group: {error}"));
                    return false;
                }
            }
            node.env().spawn.spawn("management", Box::pin(follow_management(node.clone(), partition)));
            true
        }
        None => false,
    }
}

fn target_of_seat(seat: &coterie_store::directory::Seat) -> Target {
    Target { node: NodeId(seat.node_id), member: MemberName(seat.member.clone()) }
}

/// Has every listed member record the list. The cluster's id is minted once and proposed again after a crash.
async fn propose(
    node: &Node,
    store: &Store,
    seats: Vec<coterie_store::directory::Seat>,
) -> Result<Formation, Rejection> {
    let minted = || coterie_env::random::uuid_v7(&*node.env().random, node.env().clock.wall_ms());
    let cluster_id = store.directory.identity().cluster_id.unwrap_or_else(minted);
    let formation = Formation { cluster_id, seats };
    record_formation(store, formation.clone())?;
    let own = &node.config().local.name;
    let proposal = peer::Formation {
        cluster_id: cluster_id.to_be_bytes().to_vec().into(),
        proposer: own.0.clone(),
        seats: formation
            .seats
            .iter()
            .map(|seat| peer::Seat {
                member: seat.member.clone(),
                node_id: seat.node_id,
                address: seat.address.clone(),
            })
            .collect(),
        cluster: node.config().cluster.clone(),
    };
    for seat in formation.seats.iter().filter(|seat| seat.member != own.0) {
        let member = MemberName(seat.member.clone());
        let mut client = node.peers().client(&member)?;
        let call = client.propose_formation(proposal.clone());
        let failed = |reason: String| Rejection::new(ErrorCode::NoQuorum, format!("{member}: {reason}"));
        let answer = tokio::time::timeout(Duration::from_millis(limits::TRY_MS_MAX), call)
            .await
            .map_err(|_| failed("did not record the list in time".to_owned()))?
            .map_err(|status| failed(status.message().to_owned()))?
            .into_inner();
        if !answer.refused.is_empty() {
            return Err(failed(answer.refused));
        }
    }
    tracing::info!(cluster_id = format!("{cluster_id:032x}"), "the management group is formed");
    Ok(formation)
}

/// Opens a replica; `None` if that failed, or if this directory is refused: then it holds no replica, whichever came first.
async fn open_partition(node: &Node, store: &Store, id: &PartitionId, generation: u64) -> Option<Partition> {
    if node.is_refused() {
        return None;
    }
    let options = coterie_replication::Options {
        env: node.env().clone(),
        id: id.clone(),
        node: NodeId(store.directory.identity().node_id),
        member: node.config().local.name.clone(),
        generation,
        log: store.log.clone(),
        snapshots: store.snapshots.clone(),
        transport: std::sync::Arc::new(node.peers().clone()),
        ticker: node.ticker().clone(),
        snapshot_entries: store.sizes.snapshot_entries,
    };
    match Partition::open(options).await {
        Ok(partition) => {
            node.partitions().insert(id.clone(), partition.clone());
            if node.is_refused() {
                node.partitions().remove(id);
                partition.shutdown().await;
                return None;
            }
            node.keepers().start(node.env(), id, &partition, node.stopping());
            let following = follow_leader(node.clone(), id.clone(), partition.clone());
            node.env().spawn.spawn("leader", Box::pin(following));
            Some(partition)
        }
        Err(error) => {
            node.fail(format!("open the replica of partition {id}: {error}"));
            None
        }
    }
}

/// Tells the directory who leads a local partition.
async fn follow_leader(node: Node, id: PartitionId, partition: Partition) {
    let mut leadership = partition.leadership();
    loop {
        let now = leadership.borrow_and_update().clone();
        if let Some(member) = now.leader {
            node.directory().lead(&id, Leading { member, term: now.term });
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Feeds the directory from the local replica of the management group.
async fn follow_management(node: Node, partition: Partition) {
    let mut applied = partition.applied();
    let stop = node.stopping();
    let mut seen = machine::Directory::default();
    loop {
        let Progress { index, revision: _ } = *applied.borrow_and_update();
        let identity = node.identity();
        if index > 0 {
            if let Some(store) = node.store().filter(|_| !identity.formed)
                && let Err(error) = store.directory.update(|identity| identity.formed = true)
            {
                node.fail(format!("record that the cluster is formed: {error}"));
                return;
            }
            let (changed, revision) = partition.with_machine(|machine| {
                let changed = *machine.directory() != seen;
                if changed {
                    seen = machine.directory().clone();
                }
                (changed, machine.revision())
            });
            if changed || node.directory().view().is_err() {
                let cluster_id = identity.cluster_id.unwrap_or_default();
                node.directory().update(View { directory: seen.clone(), revision, cluster_id });
            }
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// Asks other members for the directory: all of it on members without a replica of the management group, and who leads
/// the partitions that this member has no replica of on all.
async fn ask_for_directory(node: Node) {
    let stop = node.stopping();
    let mut round = 0;
    loop {
        let members = node.peers().members();
        let reachable: Vec<_> = members.iter().filter(|member| node.greetings().reachable(member)).collect();
        if let Some(member) = reachable.get(round % reachable.len().max(1))
            && let Err(reason) = ask(&node, member).await
        {
            tracing::debug!(%member, reason, "a member did not tell its directory");
        }
        round += 1;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(limits::DIRECTORY_POLL_MS)) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn ask(node: &Node, member: &MemberName) -> Result<(), String> {
    let mut client = node.peers().client(member).map_err(|rejection| rejection.message)?;
    let call = client.directory(peer::DirectoryRequest {});
    let answer = tokio::time::timeout(Duration::from_millis(limits::TRY_MS_MAX), call)
        .await
        .map_err(|_| "not answered in time".to_owned())?
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    for leading in answer.leading {
        let id = crate::peers::client::from_wire(leading.partition).map_err(|rejection| rejection.message)?;
        if node.partitions().get(&id).is_none() {
            let leading = Leading { member: MemberName(leading.leader), term: leading.term };
            node.directory().lead(&id, leading);
        }
    }
    if node.partitions().get(&PartitionId::system()).is_some() {
        return Ok(());
    }
    let directory: machine::Directory =
        coterie_core::command::decode("directory", &answer.directory).map_err(|error| error.to_string())?;
    let cluster_id = admission::cluster_id(&answer.cluster_id).ok_or("no cluster id")?;
    adopt(node, cluster_id)?;
    if node.directory().view().is_ok_and(|view| view.cluster_id != cluster_id) {
        // Sessions, terms and addresses of the former cluster mean nothing in this one: a new process starts afresh.
        node.fail(format!("the cluster was made anew: {member} is of the cluster id {cluster_id:032x}"));
        return Ok(());
    }
    let revision = coterie_core::Revision(answer.revision);
    node.directory().update(View { directory, revision, cluster_id });
    Ok(())
}

/// A member with a volume but without a seat belongs, from now on, to the cluster that it found.
fn adopt(node: &Node, cluster_id: u128) -> Result<(), String> {
    let Some(store) = node.store() else { return Ok(()) };
    if store.directory.identity().cluster_id.is_none() {
        let adopted = store.directory.update(|identity| identity.cluster_id = Some(cluster_id));
        adopted.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Says who this member is, until the management group has recorded it. False if its directory is refused.
async fn register(node: &Node) -> bool {
    let stop = node.stopping();
    loop {
        if node.is_refused() {
            return false;
        }
        if node.directory().view().is_ok() || node.partitions().get(&PartitionId::system()).is_some() {
            let command = Command::Directory(DirectoryOp::RegisterMember(own_record(node)));
            let deadline = Deadline::after_ms(node.env(), coterie_core::limits::DEADLINE_MS_DEFAULT);
            let router = node.router();
            match router.write(router.mint(), &PartitionId::system(), command, deadline).await {
                Ok(_) if node.directory().view().is_ok() => return true,
                Ok(_) => {}
                Err(rejection) => match rejection.code {
                    ErrorCode::DirectoryReplaced | ErrorCode::DirectoryRolledBack | ErrorCode::DirectoryCopied => {
                        node.greetings().refuse_self(rejection);
                        return false;
                    }
                    // Said, and logged, when it changes.
                    _ => node.set_state(waiting(node, rejection)),
                },
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(limits::RETRY_PAUSE_MS_MAX)) => {}
            () = stop.cancelled() => return false,
        }
    }
}

/// What a member waits for that the management group has not recorded: the members that it does not hear of, if nobody
/// who leads has answered; otherwise what was answered.
fn waiting(node: &Node, rejection: Rejection) -> State {
    let members = node.peers().members().into_iter();
    let missing: Vec<String> =
        members.filter(|member| !node.greetings().reachable(member)).map(|member| member.0).collect();
    if rejection.code == ErrorCode::NoQuorum && !missing.is_empty() && node.store().is_some() {
        return State::WaitingForMembers { missing };
    }
    State::WaitingForManagementGroup { reason: rejection.message }
}

fn own_record(node: &Node) -> MemberRecord {
    let config = node.config();
    let identity = node.identity();
    let dialled = config.local.kind == MemberKind::Persistent;
    MemberRecord {
        name: config.local.name.clone(),
        kind: config.local.kind,
        address: config.local.address.as_ref().filter(|_| dialled).map(ToString::to_string).unwrap_or_default(),
        zone: config.local.zone.clone(),
        node: NodeId(identity.node_id),
        start_counter: identity.start_counter,
        run: node.run(),
        machine_version: MACHINE_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The partitions that the directory gives this member a replica of, the management group's included.
pub(crate) fn replicas_of(node: &Node) -> Vec<PartitionId> {
    let mut replicas: Vec<PartitionId> = wanted(node).into_keys().collect();
    if node.partitions().get(&PartitionId::system()).is_some() {
        replicas.push(PartitionId::system());
    }
    replicas
}

struct Wanted {
    generation: u64,
    seats: Vec<Target>,
}

fn wanted(node: &Node) -> BTreeMap<PartitionId, Wanted> {
    let own = NodeId(node.identity().node_id);
    let Ok(view) = node.directory().view() else { return BTreeMap::new() };
    let mut wanted = BTreeMap::new();
    for (name, record) in &view.directory.partition_groups {
        for (index, partition) in (1..).zip(&record.partitions) {
            let mine =
                |(member, node_id): &(MemberName, NodeId)| *member == node.config().local.name && *node_id == own;
            if partition.replicas.iter().any(mine) {
                let seats = partition.replicas.iter();
                let seats = seats.map(|(member, node)| Target { node: *node, member: member.clone() }).collect();
                let id = PartitionId { group: name.clone(), index };
                wanted.insert(id, Wanted { generation: record.generation, seats });
            }
        }
    }
    wanted
}

/// Opens and removes replicas as the directory says, and learns addresses from it.
async fn follow_directory(node: Node) {
    let mut changes = node.directory().subscribe();
    let stop = node.stopping();
    loop {
        let view = changes.borrow_and_update().clone();
        if let Some(view) = view {
            for record in view.directory.members.values().filter(|record| record.name != node.config().local.name) {
                if !record.address.is_empty() {
                    node.peers().set_address(&record.name, &record.address);
                }
            }
            if let Some(store) = node.store() {
                follow_partitions(&node, store).await;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

async fn follow_partitions(node: &Node, store: &Store) {
    let wanted = wanted(node);
    let open: BTreeSet<PartitionId> = node.partitions().all().into_iter().map(|(id, _)| id).collect();
    for (id, wanted) in &wanted {
        if open.contains(id) {
            continue;
        }
        let Some(partition) = open_partition(node, store, id, wanted.generation).await else { return };
        if let Err(error) = partition.form(wanted.seats.clone()).await {
            node.fail(format!("form partition {id}: {error}"));
            return;
        }
    }
    let gone = open.iter().filter(|id| !id.group.is_system() && !wanted.contains_key(id));
    for id in gone {
        if let Some(partition) = node.partitions().remove(id) {
            node.keepers().remove(id);
            partition.shutdown().await;
        }
    }
    let kept: BTreeSet<String> = wanted.iter().map(|(id, wanted)| storage_key(id, wanted.generation)).collect();
    for key in store.log.partitions() {
        if key != storage_key(&PartitionId::system(), 0) && !kept.contains(&key) {
            let removed = store.log.remove_partition(&key).await;
            if let Err(error) = removed.and_then(|()| store.snapshots.remove(&key)) {
                tracing::warn!(partition = key, %error, "the data of a deleted partition was not removed");
            }
        }
    }
}

/// Declares this member's partition groups, and the duties of whoever leads the management group.
async fn manage(node: Node) {
    let stop = node.stopping();
    let mut absent: BTreeMap<MemberName, u64> = BTreeMap::new();
    loop {
        let system = node.partitions().get(&PartitionId::system());
        let leads = system.is_some_and(|partition| partition.leadership().borrow().leading);
        // Whoever leads need not have a group that others carry (S88), so everyone declares its own; they all say the same.
        declare_partition_groups(&node).await;
        if leads {
            forget_absent(&node, &mut absent).await;
        } else {
            absent.clear();
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(limits::DIRECTORY_POLL_MS)) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Makes the partition groups of the configuration, once all members that they name are registered.
async fn declare_partition_groups(node: &Node) {
    let Ok(view) = node.directory().view() else { return };
    for (name, group) in &node.config().partition_groups {
        if view.directory.partition_groups.contains_key(name) {
            continue;
        }
        let seats: Option<Vec<(MemberName, NodeId)>> = group
            .members
            .iter()
            .map(|member| view.directory.members.get(member).map(|record| (member.clone(), record.node)))
            .collect();
        let Some(seats) = seats else { continue };
        let partitions = (0..group.partitions).map(|index| {
            let mut replicas = seats.clone();
            // Another first replica for each partition, so that leaders spread.
            replicas.rotate_left(index as usize % seats.len());
            PartitionRecord { replicas }
        });
        let record = PartitionGroupRecord {
            name: name.clone(),
            protocol: group.protocol,
            partitions: partitions.collect(),
            generation: 0,
        };
        let deadline = Deadline::after_ms(node.env(), coterie_core::limits::DEADLINE_MS_DEFAULT);
        match create_partition_group(node, record, deadline).await {
            Ok(_) => tracing::info!(partition_group = %name, "partition group made"),
            Err(rejection) => tracing::warn!(partition_group = %name, reason = %rejection.message, "not made"),
        }
    }
}

/// Makes a partition group.
pub(crate) async fn create_partition_group(
    node: &Node,
    record: PartitionGroupRecord,
    deadline: Deadline,
) -> Result<PartitionGroupRecord, Rejection> {
    let router = node.router();
    let command = Command::Directory(DirectoryOp::CreatePartitionGroup(record));
    match router.write(router.mint(), &PartitionId::system(), command, deadline).await? {
        (_, Reply::PartitionGroup(record)) => Ok(*record),
        _ => Err(Rejection::new(ErrorCode::Internal, "making a partition group did not answer with it")),
    }
}

/// Forgets ephemeral members that were not heard of for ten session time-outs.
async fn forget_absent(node: &Node, absent: &mut BTreeMap<MemberName, u64>) {
    let Ok(view) = node.directory().view() else { return };
    let now_ms = node.env().clock.monotonic_ms();
    let ephemeral = view.directory.members.values().filter(|record| record.kind == MemberKind::Ephemeral);
    for record in ephemeral {
        if record.name == node.config().local.name || node.greetings().reachable(&record.name) {
            absent.remove(&record.name);
            continue;
        }
        let since_ms = *absent.entry(record.name.clone()).or_insert(now_ms);
        if now_ms >= since_ms + 10 * node.config().session_timeout_ms {
            absent.remove(&record.name);
            let deadline = Deadline::after_ms(node.env(), limits::TRY_MS_MAX);
            forget(node, record.name.clone(), deadline).await;
        }
    }
    absent.retain(|member, _| view.directory.members.contains_key(member));
}

/// Takes an ephemeral member out of the directory.
pub(crate) async fn forget(node: &Node, member: MemberName, deadline: Deadline) {
    let router = node.router();
    let command = Command::Directory(DirectoryOp::ForgetMember(member.clone()));
    if let Err(rejection) = router.write(router.mint(), &PartitionId::system(), command, deadline).await {
        tracing::debug!(%member, reason = %rejection.message, "a member was not forgotten");
    }
}

/// Removes a partition group.
pub(crate) async fn delete_partition_group(
    node: &Node,
    name: PartitionGroupName,
    force: bool,
    deadline: Deadline,
) -> Result<(), Rejection> {
    let router = node.router();
    let command = Command::Directory(DirectoryOp::DeletePartitionGroup { name, force });
    router.write(router.mint(), &PartitionId::system(), command, deadline).await.map(|_| ())
}
