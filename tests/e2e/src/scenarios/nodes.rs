//! Nodes lose their power, one and all.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;

use crate::api::{Api, number};
use crate::context::Context;
use crate::kube::Pod;
use crate::manifests::GROUP;
use crate::poll::{self, seconds};
use crate::world::{ELECTED, Place, READY, World};

/// The session time-out (5 s) and 2 s.
const NEXT_LEADER_MAX: Duration = Duration::from_secs(7);
/// Groups whose configuration is written before all nodes are killed, and while.
const GROUPS_MAX: u64 = 500;

/// A node dies, also the one that leads the partition: a leader within 7 s; after start the pod rejoins by itself.
pub(super) fn node_killed(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    for place in [Place::WithThePartition, Place::Elsewhere] {
        kill_leaders_node(context, &world, place)?;
    }
    Ok(())
}

fn kill_leaders_node(context: &Context<'_>, world: &World<'_>, place: Place) -> Result<()> {
    let before = world.lead_where(place)?;
    let pod = world.pod(before.leader.as_deref().unwrap_or_default())?;
    let others = world.others(&pod.name)?;
    let watches = others.iter().map(|api| api.watch(GROUP)).collect::<Result<Vec<_>>>()?;

    let killed = Instant::now();
    context.environment.kill_node(&pod.node)?;
    let known =
        watches.iter().map(|watch| watch.wait_elected(before.term, killed, seconds(30))).collect::<Result<Vec<_>>>();
    let started = Instant::now();
    // Whatever came: the node gets its power back, for the scenarios after this one.
    context.environment.start_node(&pod.node)?;
    let known = known?;
    let last = known.iter().map(|(at, _)| *at - killed).max().unwrap_or_default();
    context.measured(format!(
        "{place:?}: node {} killed, the next leader (term {}) known to all others after {:.2} s",
        pod.node,
        known[0].1.term,
        last.as_secs_f64()
    ));
    ensure!(last <= NEXT_LEADER_MAX, "the next leader was known after {last:?}; events:{}", watches[0].story(killed));

    wait_restarted(world, &pod)?;
    let after = world.wait_complete(before.term)?;
    ensure!(after.members.contains(&pod.name), "{} is not in the group: {}", pod.name, after.raw);
    context.measured(format!(
        "{place:?}: {} rejoined {:.1} s after its node's start",
        pod.name,
        started.elapsed().as_secs_f64()
    ));
    world.wait_ready()
}

/// Waits until the pod on a node that was started again is ready, with new containers.
pub(super) fn wait_restarted(world: &World<'_>, before: &Pod) -> Result<()> {
    poll::until(&format!("{} to be ready again", before.name), READY, || {
        let pod = world.pod(&before.name)?;
        ensure!(pod.ready && (pod.uid != before.uid || pod.ip != before.ip), "it is {pod:?}");
        Ok(())
    })
}

/// All nodes die at once: everything acknowledged is there after start, terms went on rising.
pub(super) fn all_nodes_killed(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    let before = world.wait_complete(0)?;
    let pods = world.pods()?;
    let api = Api::open(&context.kube, &pods[0].name)?;

    // One writer writes on while the power goes, so that the last acknowledged write is a fresh one.
    let (acknowledged, told) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || write_groups(&api, &acknowledged));
    poll::until("the first writes", seconds(30), || {
        while let Ok(n) = told.try_recv() {
            if n >= 20 {
                return Ok(());
            }
        }
        Err(anyhow!("fewer than 20 writes are acknowledged"))
    })?;
    let nodes: Vec<_> = pods.iter().map(|pod| pod.node.clone()).collect();
    let killed = std::thread::scope(|scope| {
        let kills: Vec<_> = nodes.iter().map(|node| scope.spawn(|| context.environment.kill_node(node))).collect();
        kills.into_iter().map(|kill| kill.join().map_err(|_| anyhow!("a kill panicked"))?).collect::<Result<Vec<_>>>()
    });
    for node in &nodes {
        context.environment.start_node(node)?;
    }
    killed?;
    let written = writer.join().map_err(|_| anyhow!("the writer panicked"))?;
    let started = Instant::now();
    context.step(&format!("all nodes were killed after {written} acknowledged groups, and started again"));

    for pod in &pods {
        wait_restarted(&world, pod)?;
    }
    world.wait_ready()?;
    let after = world.wait_complete(before.term)?;
    context.measured(format!(
        "ready with a leader {:.1} s after the start; the term went from {} to {}",
        started.elapsed().as_secs_f64(),
        before.term,
        after.term
    ));
    let api = Api::open(&context.kube, &pods[1].name)?;
    for n in 0..written {
        let view = poll::until(&format!("group {}", name(n)), ELECTED, || api.group(&name(n)))?;
        let kept = number(&view.raw["config"]["release_timeout_ms"]);
        ensure!(
            kept == Some(timeout_ms(n)),
            "group {} was acknowledged with {} ms and has {}",
            name(n),
            timeout_ms(n),
            view.raw["config"]
        );
    }
    context.measured(format!("all {written} acknowledged groups are there with their configuration"));
    Ok(())
}

/// Makes groups until one is not acknowledged; how many were.
fn write_groups(api: &Api, acknowledged: &std::sync::mpsc::Sender<u64>) -> u64 {
    for n in 0..GROUPS_MAX {
        let config = json!({"config": {"release_timeout_ms": timeout_ms(n).to_string()}});
        let answer = api
            .request("PUT", &format!("/v1/groups/{}", name(n)), Some(&config))
            .and_then(|a| a.ok())
            .context("make a group");
        if answer.is_err() {
            return n;
        }
        let _ = acknowledged.send(n + 1);
    }
    GROUPS_MAX
}

fn name(n: u64) -> String {
    format!("kept-{n}")
}

/// A configuration that no other group has.
fn timeout_ms(n: u64) -> u64 {
    1_000 + n
}
