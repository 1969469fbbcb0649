//! Clients in every pod while nodes are cut off, killed and drained, and what they saw.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use coterie_workloads::groups::GROUPS;
use coterie_workloads::real::Clients;
use tokio::runtime::Runtime;

use crate::api::Api;
use crate::context::Context;
use crate::inside::Inside;
use crate::kube::Pod;
use crate::manifests::CLUSTER;
use crate::poll::{self, seconds};
use crate::world::{ELECTED, World};

/// For longer than a session lives.
const CUT: Duration = seconds(12);
const WITHOUT_POWER: Duration = seconds(4);
const SEED: u64 = 1;
/// Where the trace goes, in the directory for temporary files.
const TRACE: &str = "coterie-e2e-histories.trace";

/// Nodes are cut off, killed and drained: what clients in all pods saw is checked.
pub(super) fn histories_while_nodes_fail(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    let inside = world
        .pods()?
        .iter()
        .map(|pod| Inside::of(context, &pod.name))
        .collect::<Result<Vec<_>>>()
        .context("reach into the pods")?;
    let members: Vec<_> = inside.iter().map(|inside| (inside.pod().to_owned(), inside.endpoint())).collect();
    let runtime = Runtime::new().context("start a runtime")?;
    let clients = {
        let _inside = runtime.enter();
        Clients::start(SEED, &members)?
    };
    let driven = drive(context, &world, &runtime, &clients);
    let trace = std::env::temp_dir().join(TRACE);
    std::fs::write(&trace, &clients.history().seen().trace).context("write the trace")?;
    driven.with_context(|| format!("the trace of the clients is {}", trace.display()))
}

fn drive(context: &Context<'_>, world: &World<'_>, runtime: &Runtime, clients: &Clients) -> Result<()> {
    let note = |what: &str| {
        clients.history().note("all", what);
        context.step(what);
    };
    runtime.block_on(clients.until_changed()).context("at the beginning")?;

    let cut = leaders_pod(context, world)?;
    note(&format!("cut off {}, where {} and a leader are", cut.node, cut.name));
    context.environment.cut_node(&cut.node)?;
    poll::for_long(CUT);
    context.environment.heal_node(&cut.node)?;
    note("healed");
    world.wait_ready()?;
    runtime.block_on(clients.until_changed()).context("after a node was cut off")?;

    let killed = leaders_pod(context, world)?;
    note(&format!("kill {}, where {} and a leader are", killed.node, killed.name));
    context.environment.kill_node(&killed.node)?;
    poll::for_long(WITHOUT_POWER);
    context.environment.start_node(&killed.node)?;
    note("started");
    super::nodes::wait_restarted(world, &killed)?;
    world.wait_ready()?;
    runtime.block_on(clients.until_changed()).context("after a node was killed")?;

    let drained = leaders_pod(context, world)?;
    note(&format!("drain {}, where {} and a leader are", drained.node, drained.name));
    let emptied = drain(context, &drained);
    context.kube.run(&["uncordon", &drained.node])?;
    emptied?;
    note("uncordoned");
    world.wait_replaced(&drained)?;
    world.wait_ready()?;

    let told = runtime.block_on(clients.end())?;
    context.measured(told.to_string());
    Ok(())
}

/// Evicts every pod of this scenario from a node, as the PodDisruptionBudget allows it.
fn drain(context: &Context<'_>, pod: &Pod) -> Result<()> {
    let begun = Instant::now();
    let selector = format!("--pod-selector=coterie.dev/cluster={CLUSTER}");
    let drain = ["drain", &pod.node, &selector, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"];
    context.kube.run(&drain)?;
    context.measured(format!("{} was drained in {:.1} s", pod.node, begun.elapsed().as_secs_f64()));
    Ok(())
}

/// The pod beside whose sidecar the leader of one of the clients' groups is.
fn leaders_pod(context: &Context<'_>, world: &World<'_>) -> Result<Pod> {
    let pods = world.pods()?;
    let asked = pods.iter().find(|pod| pod.ready).ok_or_else(|| anyhow!("no pod is ready"))?;
    let api = Api::open(&context.kube, &asked.name)?;
    let leader = poll::until("a leader", ELECTED, || {
        api.group(GROUPS[0])?.leader.ok_or_else(|| anyhow!("nobody leads {}", GROUPS[0]))
    })?;
    world.pod(&leader)
}
