//! `coterie status`: the cluster as one sidecar sees it.

use coterie_client::{Client, Status, StatusPartition};
use serde_json::{Value, json};

use crate::output::line;
use crate::table::{or_dash, table};

/// Shows the cluster: members, partition groups, partitions, leaders and terms.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// `text` or `json`.
    #[arg(long, short, default_value = "text")]
    output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Output {
    /// Tables.
    Text,
    /// JSON; numbers of 64 bits are strings, as in the HTTP API.
    Json,
}

/// Prints to standard output.
pub async fn run(client: &Client, args: Args) -> anyhow::Result<()> {
    let status = client.status().await?;
    match args.output {
        Output::Text => line(render(&status).trim_end())?,
        Output::Json => line(format_args!("{:#}", to_json(&status)))?,
    }
    Ok(())
}

fn render(status: &Status) -> String {
    let mut members = table(&["MEMBER", "TYPE", "VOTER", "REACHABLE", "ADDRESS", "ZONE", "VERSION", "REFUSED"]);
    for member in &status.members {
        members.add_row(vec![
            member.name.as_str(),
            &member.kind,
            yes(member.voter),
            yes(member.reachable),
            or_dash(&member.address),
            or_dash(&member.zone),
            or_dash(&member.version),
            or_dash(&member.refused),
        ]);
    }
    let mut partitions =
        table(&["PARTITION", "TYPE", "STATE", "LEADER", "TERM", "QUORUM", "REPLICAS", "APPLIED", "READ-ONLY"]);
    for group in &status.partition_groups {
        for partition in &group.partitions {
            partitions.add_row(vec![
                format!("{}/{}", group.name, partition.index),
                group.kind.clone(),
                group.state.clone(),
                or_dash(partition.leader.as_deref().unwrap_or_default()).to_owned(),
                partition.term.to_string(),
                yes(partition.has_quorum).to_owned(),
                partition.replicas.join(","),
                applied(partition),
                or_dash(&partition.read_only).to_owned(),
            ]);
        }
    }
    format!("{}\n\n{}\n\n{}\n", headline(status), members.trim_fmt(), partitions.trim_fmt())
}

fn headline(status: &Status) -> String {
    let id = or_dash(&status.cluster_id);
    let head = format!("cluster {} ({id}) as seen by {}: {}", status.cluster, status.member, status.state);
    if status.reason.is_empty() { head } else { format!("{head}: {}", status.reason) }
}

fn applied(partition: &StatusPartition) -> String {
    if partition.local { partition.applied.to_string() } else { "-".to_owned() }
}

fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

fn to_json(status: &Status) -> Value {
    let members = status.members.iter().map(|member| {
        json!({
            "name": member.name, "type": member.kind, "address": member.address, "zone": member.zone,
            "voter": member.voter, "reachable": member.reachable, "version": member.version, "refused": member.refused,
        })
    });
    let partition = |partition: &StatusPartition| {
        json!({
            "partition": partition.index, "leader": partition.leader, "term": partition.term.to_string(),
            "replicas": partition.replicas, "applied": partition.applied.to_string(), "local": partition.local,
            "has_quorum": partition.has_quorum, "read_only": partition.read_only,
        })
    };
    let groups = status.partition_groups.iter().map(|group| {
        json!({
            "name": group.name, "type": group.kind, "state": group.state,
            "partitions": group.partitions.iter().map(partition).collect::<Vec<_>>(),
        })
    });
    json!({
        "member": status.member, "cluster": status.cluster, "cluster_id": status.cluster_id, "state": status.state,
        "reason": status.reason, "version": status.version, "start_counter": status.start_counter.to_string(),
        "members": members.collect::<Vec<_>>(), "partition_groups": groups.collect::<Vec<_>>(),
    })
}
