//! What this sidecar answers to the operator.

use coterie_core::command::MemberKind;
use coterie_core::command::PartitionGroupRecord;
use coterie_core::command::Protocol;
use coterie_core::placement::{self, Candidate};
use coterie_core::{ErrorCode, MemberName, PartitionGroupName, Rejection};
use coterie_proto::admin;
use coterie_proto::admin::admin_server::Admin;
use coterie_proto::v1;
use tonic::{Request, Response, Status};

use super::server::caller;
use crate::deadline::Deadline;
use crate::node::Node;
use crate::{cluster, status};

/// The service.
pub struct Service {
    node: Node,
}

impl Service {
    /// For this sidecar.
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    fn deadline(&self) -> Deadline {
        Deadline::after_ms(self.node.env(), coterie_core::limits::DEADLINE_MS_DEFAULT)
    }

    fn group(&self, group: v1::PartitionGroupStatus) -> admin::PartitionGroupState {
        let v1::PartitionGroupStatus { name, r#type, partitions, state } = group;
        let primitives = self.node.directory().view().map_or(0, |view| {
            view.directory.primitives.keys().filter(|address| address.partition_group.0 == name).count()
        });
        let replicas = partitions.first().map_or(0, |partition| partition.replicas.len());
        let partition_states = partitions.into_iter().map(|partition| {
            let v1::PartitionStatus {
                partition,
                leader,
                term,
                replicas,
                has_quorum,
                applied: _,
                local: _,
                read_only: _,
            } = partition;
            let absent = |member: &&String| {
                **member != self.node.config().local.name.0
                    && !self.node.greetings().reachable(&MemberName((*member).clone()))
            };
            let lagging = replicas.iter().filter(absent).cloned().collect();
            admin::PartitionState { partition, leader, term, replicas, has_quorum, lagging }
        });
        let partition_states: Vec<_> = partition_states.collect();
        admin::PartitionGroupState {
            partitions: u32::try_from(partition_states.len()).unwrap_or(u32::MAX),
            replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
            partition_states,
            name,
            r#type,
            state,
            primitives: primitives as u64,
        }
    }

    fn state(&self, name: &str) -> Option<admin::PartitionGroupState> {
        let groups = self.node.status().partition_groups;
        groups.into_iter().find(|group| group.name == name).map(|group| self.group(group))
    }

    async fn apply(&self, spec: admin::PartitionGroupSpec) -> Result<admin::PartitionGroupState, Rejection> {
        let admin::PartitionGroupSpec { name, r#type, partitions, replicas, members } = spec;
        let protocol = match r#type.as_str() {
            "raft" => Protocol::Raft,
            "primary-backup" => {
                return Err(Rejection::new(
                    ErrorCode::NotInThisVersion,
                    "type `primary-backup` is not in this version",
                ));
            }
            other => {
                let message = format!("type {other:?} is not known: use `raft`");
                return Err(Rejection::new(ErrorCode::InvalidArgument, message));
            }
        };
        let view = self.node.directory().view()?;
        let candidates: Vec<Candidate> = view
            .directory
            .members
            .values()
            .filter(|record| record.kind == MemberKind::Persistent)
            .filter(|record| members.is_empty() || members.contains(&record.name.0))
            .map(|record| Candidate { name: record.name.clone(), node: record.node, zone: record.zone.clone() })
            .collect();
        let present = view.directory.partition_groups.get(&PartitionGroupName(name.clone()));
        let placed = match present {
            // What is placed stays where it is; the machine says whether it is the same group.
            Some(present) if present.partitions.len() == partitions as usize => present.partitions.clone(),
            _ => placement::place(partitions, replicas, &candidates)?,
        };
        let asked = placed.first().map_or(0, |partition| partition.replicas.len());
        if asked != replicas as usize {
            return Err(Rejection::new(
                ErrorCode::ExistsDifferently,
                format!(
                    "partition group {name} has {asked} replicas per partition, not {replicas}; that cannot be changed"
                ),
            ));
        }
        let record = PartitionGroupRecord {
            name: PartitionGroupName(name.clone()),
            protocol,
            partitions: placed,
            generation: 0,
        };
        cluster::create_partition_group(&self.node, record, self.deadline()).await?;
        let made = || admin::PartitionGroupState {
            name: name.clone(),
            r#type: r#type.clone(),
            partitions,
            replicas,
            state: "forming".to_owned(),
            ..Default::default()
        };
        Ok(self.state(&name).unwrap_or_else(made))
    }
}

fn operator_only<T>(request: &Request<T>) -> Result<(), Status> {
    if caller(request).roles.operator {
        Ok(())
    } else {
        Err(Status::permission_denied("administration takes the operator's certificate"))
    }
}

#[tonic::async_trait]
impl Admin for Service {
    async fn status(&self, request: Request<admin::StatusRequest>) -> Result<Response<admin::StatusResponse>, Status> {
        operator_only(&request)?;
        let of = status::of(&self.node);
        let records = self.node.directory().view().ok();
        let members = of.members.into_iter().map(|member| {
            let name = MemberName(member.name);
            let node_id =
                records.as_ref().and_then(|view| view.directory.members.get(&name)).map_or(0, |record| record.node.0);
            admin::MemberStatus {
                r#type: member.r#type,
                address: member.address,
                zone: member.zone,
                reachable: member.reachable,
                version: member.version,
                node_id,
                refused: member.refused,
                name: name.0,
            }
        });
        Ok(Response::new(admin::StatusResponse {
            members: members.collect(),
            member: of.member,
            cluster_id: of.cluster_id,
            state: of.state,
            reason: of.reason,
            partition_groups: of.partition_groups.into_iter().map(|group| self.group(group)).collect(),
        }))
    }

    async fn apply_partition_group(
        &self,
        request: Request<admin::PartitionGroupSpec>,
    ) -> Result<Response<admin::PartitionGroupState>, Status> {
        operator_only(&request)?;
        self.apply(request.into_inner()).await.map(Response::new).map_err(crate::api::error::to_status)
    }

    async fn delete_partition_group(
        &self,
        request: Request<admin::DeletePartitionGroupRequest>,
    ) -> Result<Response<admin::DeletePartitionGroupResponse>, Status> {
        operator_only(&request)?;
        let admin::DeletePartitionGroupRequest { name, force } = request.into_inner();
        let name = PartitionGroupName(name);
        let existed =
            self.node.directory().view().is_ok_and(|view| view.directory.partition_groups.contains_key(&name));
        cluster::delete_partition_group(&self.node, name, force, self.deadline())
            .await
            .map_err(crate::api::error::to_status)?;
        Ok(Response::new(admin::DeletePartitionGroupResponse { existed }))
    }
}
