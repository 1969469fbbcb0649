//! Port 7302: `/startupz`, `/livez`, `/readyz` and `/metrics`, nothing else.
//!
//! Startup: the application API answers and the configuration is valid, no quorum needed. Live: the event loop and the
//! log's writer make progress, never quorum. Ready: the replicas have caught up once, until shutdown; quorum loss and
//! leadership never change it.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use coterie_core::command::Presence;
use coterie_env::Listener;
use coterie_proto::v1::{PartitionStatus, StatusResponse};

use crate::api::counters::Counters;
use crate::api::serve::tcp;
use crate::node::Node;
use crate::state;

/// The media type of the Prometheus text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves the health port on bound listeners until the process stops. Call after [`crate::api::serve`], which gives the
/// counters: from then on `/startupz` says yes.
pub fn serve(node: Node, listeners: Vec<Box<dyn Listener>>, counters: Counters) {
    let (env, ending) = (node.env().clone(), node.ending());
    tcp(&env, listeners, &routes(Shared { node, counters }), &ending);
}

#[derive(Clone)]
struct Shared {
    node: Node,
    counters: Counters,
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/startupz", get(|| async { answer(Ok(())) }))
        .route("/livez", get(|State(shared): State<Shared>| async move { answer(shared.node.live()) }))
        .route("/readyz", get(|State(shared): State<Shared>| async move { answer(shared.node.ready()) }))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

fn answer(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let status = shared.node.status();
    let measured = Measured {
        status: &status,
        requests: shared.counters.all(),
        sessions: shared.node.sessions().count(),
        memberships: shared.node.presences().counts(),
    };
    ([(header::CONTENT_TYPE, METRICS_TYPE)], exposition(&measured)).into_response()
}

/// What is exposed.
struct Measured<'a> {
    status: &'a StatusResponse,
    requests: Vec<(&'static str, &'static str, u64)>,
    sessions: usize,
    memberships: [(Presence, usize); 3],
}

/// The Prometheus text format, version 0.0.4.
fn exposition(measured: &Measured<'_>) -> String {
    let Measured { status, requests, sessions, memberships } = measured;
    let mut text = Text::default();
    text.family("coterie_state", "gauge", "What the sidecar is doing: 1 for the present state.");
    for label in state::State::LABELS {
        text.sample("coterie_state", &[("state", label)], u64::from(*label == status.state));
    }
    text.partitions("coterie_partition_leader", "Whether this member leads the partition.", status, |partition| {
        u64::from(partition.leader == status.member)
    });
    let help = "The index in its log up to which this member's replica has applied.";
    text.partitions("coterie_partition_applied", help, status, |partition| partition.applied);
    let help = "Whether this member's replica refuses writes for want of room, or would if it led.";
    text.partitions("coterie_partition_read_only", help, status, |partition| {
        u64::from(!partition.read_only.is_empty())
    });
    text.family("coterie_requests_total", "counter", "Requests of applications by operation and code.");
    for (op, code, count) in requests {
        text.sample("coterie_requests_total", &[("op", op), ("code", code)], *count);
    }
    text.family("coterie_sessions", "gauge", "Sessions that this sidecar holds, one per partition that it uses.");
    text.sample("coterie_sessions", &[], count(*sessions));
    text.family("coterie_memberships", "gauge", "Memberships that this sidecar holds, by presence.");
    for (presence, number) in memberships {
        text.sample("coterie_memberships", &[("presence", presence_label(*presence))], count(*number));
    }
    text.0
}

fn presence_label(presence: Presence) -> &'static str {
    match presence {
        Presence::Stream => "stream",
        Presence::Lease => "lease",
        Presence::Probe => "probe",
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// A gauge of each partition with a replica on this member.
    fn partitions(&mut self, name: &str, help: &str, status: &StatusResponse, value: impl Fn(&PartitionStatus) -> u64) {
        self.family(name, "gauge", help);
        for group in &status.partition_groups {
            for partition in group.partitions.iter().filter(|partition| partition.local) {
                let index = partition.partition.to_string();
                self.sample(name, &[("partition_group", &group.name), ("partition", &index)], value(partition));
            }
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use coterie_proto::v1::PartitionGroupStatus;

    use super::*;

    #[test]
    fn metrics_say_state_leaders_requests_sessions_and_memberships() {
        let partition = |leader: &str, local| PartitionStatus {
            partition: 1,
            leader: leader.to_owned(),
            applied: 40,
            read_only: if leader == "member-1" { "" } else { "the volume is full" }.to_owned(),
            local,
            ..PartitionStatus::default()
        };
        let group = |name: &str, partition| PartitionGroupStatus {
            name: name.to_owned(),
            partitions: vec![partition],
            ..PartitionGroupStatus::default()
        };
        let status = StatusResponse {
            member: "member-1".to_owned(),
            state: "running".to_owned(),
            partition_groups: vec![
                group("system", partition("member-1", true)),
                group("a\"b", partition("member-2", true)),
                group("elsewhere", partition("member-2", false)),
            ],
            ..StatusResponse::default()
        };
        let text = exposition(&Measured {
            status: &status,
            requests: vec![("join", "ok", 3)],
            sessions: 2,
            memberships: [(Presence::Stream, 5), (Presence::Lease, 0), (Presence::Probe, 1)],
        });
        for line in [
            "coterie_state{state=\"running\"} 1",
            "coterie_state{state=\"draining\"} 0",
            "coterie_partition_leader{partition_group=\"system\",partition=\"1\"} 1",
            "coterie_partition_leader{partition_group=\"a\\\"b\",partition=\"1\"} 0",
            "coterie_partition_applied{partition_group=\"system\",partition=\"1\"} 40",
            "coterie_partition_read_only{partition_group=\"system\",partition=\"1\"} 0",
            "coterie_partition_read_only{partition_group=\"a\\\"b\",partition=\"1\"} 1",
            "coterie_requests_total{op=\"join\",code=\"ok\"} 3",
            "coterie_sessions 2",
            "coterie_memberships{presence=\"stream\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
        }
        assert!(!text.contains("elsewhere"));
    }

    #[test]
    fn a_reason_makes_the_answer_503() {
        assert_eq!(answer(Ok(())).status(), StatusCode::OK);
        assert_eq!(answer(Err("catching up".to_owned())).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
