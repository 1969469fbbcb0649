//! A leader goes: its pod is deleted, its application is killed; pods change their addresses.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::api::{Api, View, Watch};
use crate::context::Context;
use crate::manifests::GROUP;
use crate::poll::{self, seconds};
use crate::process;
use crate::world::{Place, World};

/// From the old leader's release until the others know the next, and the longest time without a successful read.
const HANDOVER_MAX: Duration = Duration::from_secs(1);
/// From the death of the leader's application until its sidecar has given up its place.
const RELEASE_MAX: Duration = Duration::from_millis(100);

/// kubectl delete pod: the next leader is known within 1 s of the release, no read fails for longer than 1 s.
pub(super) fn delete_leader_pod(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    for place in [Place::Elsewhere, Place::WithThePartition] {
        delete_leader(context, &world, place)?;
    }
    Ok(())
}

fn delete_leader(context: &Context<'_>, world: &World<'_>, place: Place) -> Result<()> {
    let before = world.lead_where(place)?;
    let leader = before.leader.clone().ok_or_else(|| anyhow!("nobody leads"))?;
    let pod = world.pod(&leader)?;
    let others = world.others(&leader)?;
    let watches = others.iter().map(|api| api.watch(GROUP)).collect::<Result<Vec<_>>>()?;
    let reader = others[0].reader(GROUP);

    let deleted = Instant::now();
    context.kube.run(&["delete", "pod", &leader, "--wait=false"])?;
    let mut released = Vec::new();
    let mut known = Vec::new();
    for watch in &watches {
        released.push(watch.wait_vacated(before.term, deleted, seconds(30))?);
        known.push(watch.wait_elected(before.term, deleted, seconds(30))?.0);
    }
    let after = world.wait_replaced(&pod).and_then(|_| world.wait_complete(before.term));
    let reads = reader.stop()?;
    let after = after?;

    let released = released.into_iter().min().unwrap_or(deleted);
    let known = known.into_iter().max().unwrap_or(deleted);
    context.measured(format!(
        "{place:?}: released {} ms after kubectl delete, the next known to all others {} ms after that; {} reads, {} failed, longest gap {} ms",
        (released - deleted).as_millis(), (known - released).as_millis(), reads.succeeded, reads.failed, reads.longest_gap.as_millis(),
    ));
    let story = watches[0].story(deleted);
    ensure!(
        known - released <= HANDOVER_MAX,
        "the next leader was known {:?} after the release; events:{story}",
        known - released
    );
    ensure!(
        reads.longest_gap <= HANDOVER_MAX,
        "no read succeeded for {:?}; the last failure: {}",
        reads.longest_gap,
        reads.last_failure
    );
    ensure!(
        after.leader.as_ref() != Some(&leader) && after.term > before.term,
        "the next leader is {:?} in term {}",
        after.leader,
        after.term
    );
    Ok(())
}

/// kill -9 of the leader's application: its place is given up within 100 ms.
///
/// Three times, in three pods; the median counts, as the machine has other things to do too.
pub(super) fn kill_leader_application(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    let mut term = 0;
    let mut times = Vec::new();
    for _ in 0..3 {
        let before = world.wait_complete(term)?;
        term = before.term;
        times.push(kill_application(context, &world, &before)?);
    }
    world.wait_complete(term)?;
    times.sort();
    ensure!(times[1] <= RELEASE_MAX, "the place was given up after {times:?}");
    Ok(())
}

/// Kills the leader's application; how long it took until another pod saw the place given up.
fn kill_application(context: &Context<'_>, world: &World<'_>, before: &View) -> Result<Duration> {
    let leader = world.pod(before.leader.as_deref().unwrap_or_default())?;
    let watches = world.others(&leader.name)?.into_iter().map(watched).collect::<Result<Vec<_>>>()?;
    let container = world.application_container(&leader.name)?;
    let mut kill = context.environment.kill_container(&leader.node, &container)?;

    let killed = Instant::now();
    process::run(&mut kill, None)?;
    let mut released = Vec::new();
    for (_, watch) in &watches {
        released.push(watch.wait_vacated(before.term, killed, seconds(15))?);
    }
    let first = released.into_iter().min().unwrap_or(killed) - killed;
    let (known, next) = watches[0].1.wait_elected(before.term, killed, seconds(15))?;
    context.measured(format!(
        "kill -9 in {}: another pod saw the place given up after {} ms and the leader of term {} after {} ms",
        leader.name,
        first.as_millis(),
        next.term,
        (known - killed).as_millis(),
    ));
    ensure!(Some(next.leader) != before.leader_id(), "the killed application's member leads again");
    Ok(first)
}

/// A watch, and the connection below it.
fn watched(api: Api) -> Result<(Api, Watch)> {
    let watch = api.watch(GROUP)?;
    Ok((api, watch))
}

/// Every pod gets another address, one after the other; all are ready again.
pub(super) fn pod_address_changed(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    let mut before = world.wait_complete(0)?;
    for pod in world.pods()? {
        context.kube.run(&["delete", "pod", &pod.name, "--wait=false"])?;
        let next = world.wait_replaced(&pod)?;
        ensure!(next.ip != pod.ip, "{} came back with the same address {}: nothing was shown", pod.name, pod.ip);
        context.step(&format!("{} has {} instead of {}", pod.name, next.ip, pod.ip));
        world.wait_ready()?;
        let view = world.wait_complete(before.term - 1)?;
        ensure!(view.term >= before.term, "the term went from {} to {}", before.term, view.term);
        before = view;
    }
    let status = || context.kube.get(crate::world::CLUSTERS, crate::manifests::CLUSTER);
    poll::until("the status to have the new addresses", seconds(30), || {
        let status = status()?["status"]["members"].to_string();
        let pods = world.pods()?;
        ensure!(pods.iter().all(|pod| status.contains(&format!("\"{}\"", pod.ip))), "members: {status}");
        Ok(())
    })?;
    let cluster = (crate::world::CLUSTER_KIND.1, crate::manifests::CLUSTER);
    let said = context.kube.wait_event(cluster, "MemberAddressChanged", seconds(30))?;
    context.step(&format!("the event says: {said}"));
    Ok(())
}
