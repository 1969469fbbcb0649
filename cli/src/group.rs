//! `coterie group`: one group, once or as it changes.

use std::collections::BTreeMap;

use coterie_client::{Client, Consistency, Event, EventKind, Group, GroupInfo, MemberId, MemberInfo, Presence};

use crate::output::line;
use crate::table::{or_dash, table};

/// Shows a group: its members, leader and term.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The group's name.
    name: String,
    /// Prints every change as a line, until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
    /// The partition group. Default: the cluster's.
    #[arg(long)]
    partition_group: Option<String>,
    /// What the nearest replica knows, also without a quorum.
    #[arg(long, conflicts_with = "watch")]
    stale: bool,
}

/// Prints to standard output.
pub async fn run(client: &Client, args: Args) -> anyhow::Result<()> {
    let mut group = client.group(args.name);
    if let Some(partition_group) = &args.partition_group {
        group = group.in_partition_group(partition_group);
    }
    if args.watch {
        return watch(&group).await;
    }
    let consistency = if args.stale { Consistency::Stale } else { Consistency::Linearizable };
    line(render(&group.get(consistency).await?).trim_end())?;
    Ok(())
}

async fn watch(group: &Group) -> anyhow::Result<()> {
    let mut watch = group.watch();
    while let Some(event) = watch.next().await {
        line(change(&event?))?;
    }
    Ok(())
}

/// The group as a headline and a table.
fn render(info: &GroupInfo) -> String {
    let mut text = format!("{}\n", headline(info));
    if info.members.is_empty() {
        return text;
    }
    let mut table = table(&["ID", "LEADER", "SIDECAR", "PRESENCE", "ZONE", "METADATA"]);
    for member in &info.members {
        let leads = if info.leader == Some(member.id) { "*" } else { "" };
        table.add_row(vec![
            member.id.to_string(),
            leads.to_owned(),
            or_dash(&member.sidecar).to_owned(),
            presence(member).to_owned(),
            or_dash(&member.zone).to_owned(),
            or_dash(&pairs(&member.metadata)).to_owned(),
        ]);
    }
    text.push_str(&table.trim_fmt());
    text.push('\n');
    text
}

fn headline(info: &GroupInfo) -> String {
    let stale = match info.consistency {
        Consistency::Linearizable | Consistency::Leased => String::new(),
        Consistency::Stale => format!(", stale by {} ms", info.stale_for.as_millis()),
    };
    format!(
        "{} in {}: term {}, leader {}{}, {} members, revision {}{stale}",
        info.name,
        info.partition_group,
        info.term,
        leader(info.leader),
        if info.releasing { " (releasing)" } else { "" },
        info.members.len(),
        info.revision,
    )
}

fn leader(leader: Option<MemberId>) -> String {
    leader.map_or("-".to_owned(), |id| id.to_string())
}

fn presence(member: &MemberInfo) -> &'static str {
    match member.presence {
        Some(Presence::Stream) => "stream",
        Some(Presence::Lease) => "lease",
        Some(Presence::Probe) => "probe",
        None => "unknown",
    }
}

fn pairs(metadata: &BTreeMap<String, String>) -> String {
    metadata.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// One change as a line.
fn change(Event { id, revision: _, kind }: &Event) -> String {
    let what = match kind {
        EventKind::Snapshot(info) => format!("snapshot   {}", headline(info)),
        EventKind::Resync(info) => format!("resync     {}", headline(info)),
        EventKind::Joined(member) => {
            format!("joined     {} on {} {}", member.id, member.sidecar, pairs(&member.metadata))
        }
        EventKind::Updated(member) => format!("updated    {} {}", member.id, pairs(&member.metadata)),
        EventKind::Left { member, reason } => format!("left       {member} ({reason:?})"),
        EventKind::Term(term) => format!("term       {term}"),
        EventKind::Elected { term, leader } => format!("elected    {leader} leads in term {term}"),
        EventKind::Vacated { term, leader } => format!("vacated    {leader} leads no more in term {term}"),
        EventKind::Releasing { term, leader, timeout, reason } => {
            format!("releasing  {leader} in term {term} within {} ms ({reason})", timeout.as_millis())
        }
        EventKind::Config { config, revision } => format!("config     {config:?} at {revision}"),
        EventKind::Deleted => "deleted".to_owned(),
        EventKind::Connection(state) => format!("connection {state:?}"),
    };
    format!("{:<12} {}", or_dash(id), what.trim_end())
}
