//! The directory: which members, partition groups and primitives the cluster has. Only in the management group.
//!
//! A member's identity belongs to its data directory (D14). What a PERSISTENT member presents against what is recorded:
//!
//! | node id | run | start counter | answer |
//! |---|---|---|---|
//! | another | any | any | `directory_replaced`: emptied, or of somebody else |
//! | the same | the same | any | recorded: a change of address, zone or version |
//! | the same | another | higher | recorded: a restart |
//! | the same | another | equal | `directory_copied`: two processes started from one state of the directory |
//! | the same | another | lower | `directory_rolled_back`: an older state of the directory came back |

use super::{Directory, GENERATIONS_MAX, Machine, Step, validate};
use crate::code::{ErrorCode, Rejection};
use crate::command::{
    DirectoryOp, MemberKind, MemberRecord, Outcome, PartitionGroupRecord, PartitionRecord, PrimitiveAddress, Protocol,
    Reply,
};
use crate::ids::{MemberName, NodeId, PartitionGroupName, Revision};
use crate::limits::{CLUSTER_MEMBERS_MAX, PARTITION_GROUPS_MAX, PARTITIONS_MAX, PRIMITIVES_MAX};

impl Machine {
    pub(super) fn change_directory(&mut self, step: &mut Step, op: &DirectoryOp) -> Outcome {
        self.check_directory_lives_here()?;
        let directory = &mut self.directory;
        match op {
            DirectoryOp::RegisterMember(record) => directory.register_member(record),
            DirectoryOp::ForgetMember(name) => directory.forget_member(name),
            DirectoryOp::CreatePartitionGroup(record) => directory.create_partition_group(record),
            DirectoryOp::DeletePartitionGroup { name, force } => directory.delete_partition_group(name, *force),
            DirectoryOp::RecordPrimitive(address) => directory.record_primitive(address, step.revision),
            DirectoryOp::ForgetPrimitive(address) => {
                directory.primitives.remove(address);
                Ok(Reply::Done)
            }
        }
    }
}

impl Directory {
    fn register_member(&mut self, presented: &MemberRecord) -> Outcome {
        validate_member(presented)?;
        match self.members.get(&presented.name) {
            None if self.members.len() >= CLUSTER_MEMBERS_MAX => {
                return Err(Rejection::new(
                    ErrorCode::LimitReached,
                    format!(
                        "the cluster has {CLUSTER_MEMBERS_MAX} members, which is the limit; stop one that is not used"
                    ),
                ));
            }
            None => {}
            Some(recorded) => check_identity(recorded, presented)?,
        }
        let mut record = presented.clone();
        if let Some(recorded) = self.members.get(&presented.name).filter(|recorded| recorded.node == presented.node) {
            // Within one run it cannot fall; if it seems to, what was seen stays seen.
            record.start_counter = record.start_counter.max(recorded.start_counter);
        }
        self.members.insert(record.name.clone(), record);
        Ok(Reply::Done)
    }

    fn forget_member(&mut self, name: &MemberName) -> Outcome {
        if self.members.get(name).is_some_and(|member| member.kind == MemberKind::Persistent) {
            return Err(validate::invalid(
                "name",
                format_args!(
                    "`{name}` is a persistent member, whose identity stays recorded so that a copy of its data directory \
                     is noticed; only ephemeral members are forgotten"
                ),
            ));
        }
        self.members.remove(name);
        Ok(Reply::Done)
    }

    fn create_partition_group(&mut self, asked: &PartitionGroupRecord) -> Outcome {
        validate_partition_group(asked)?;
        if let Some(recorded) = self.partition_groups.get(&asked.name) {
            return if shape(recorded) == shape(asked) {
                Ok(Reply::PartitionGroup(Box::new(recorded.clone())))
            } else {
                Err(exists_differently(recorded))
            };
        }
        if self.partition_groups.len() >= PARTITION_GROUPS_MAX {
            return Err(Rejection::new(
                ErrorCode::LimitReached,
                format!(
                    "the cluster has {PARTITION_GROUPS_MAX} partition groups, which is the limit; delete one first"
                ),
            ));
        }
        if self.deleted_partition_groups >= GENERATIONS_MAX {
            return Err(Rejection::new(
                ErrorCode::LimitReached,
                format!("{GENERATIONS_MAX} partition groups were deleted, which is the limit; make a new cluster"),
            ));
        }
        for (partition, index) in asked.partitions.iter().zip(1..) {
            self.check_replicas(partition, index)?;
        }
        let record = PartitionGroupRecord { generation: self.deleted_partition_groups, ..asked.clone() };
        self.partition_groups.insert(record.name.clone(), record.clone());
        Ok(Reply::PartitionGroup(Box::new(record)))
    }

    /// A replica is a member that is known, PERSISTENT (S107), and has the identity that the placement says (D14).
    fn check_replicas(&self, partition: &PartitionRecord, index: u32) -> Result<(), Rejection> {
        let field = format!("partitions[{index}].replicas");
        for (name, node) in &partition.replicas {
            let problem = match self.members.get(name) {
                None => format!("`{name}` is not a member of the cluster; start it first, or list another"),
                Some(member) if member.kind == MemberKind::Ephemeral => {
                    format!("`{name}` is an ephemeral member, which may not vote; list persistent members only")
                }
                Some(member) if member.node != *node => format!(
                    "`{name}` has identity {}, the placement says {node}; place the partitions again",
                    member.node
                ),
                Some(_) => continue,
            };
            return Err(validate::invalid(&field, problem));
        }
        Ok(())
    }

    fn delete_partition_group(&mut self, name: &PartitionGroupName, force: bool) -> Outcome {
        check_not_reserved("name", name)?;
        if !self.partition_groups.contains_key(name) {
            return Ok(Reply::Done);
        }
        let held = self.primitives.keys().filter(|address| address.partition_group == *name).count();
        if held > 0 && !force {
            return Err(Rejection::new(
                ErrorCode::NotEmpty,
                format!(
                    "partition group `{name}` holds {held} primitives; delete those first, or force it to delete them"
                ),
            ));
        }
        self.primitives.retain(|address, _| address.partition_group != *name);
        self.partition_groups.remove(name);
        self.deleted_partition_groups += 1;
        Ok(Reply::Done)
    }

    fn record_primitive(&mut self, address: &PrimitiveAddress, revision: Revision) -> Outcome {
        let PrimitiveAddress { partition_group, kind, name } = address;
        check_not_reserved("partition_group", partition_group)?;
        validate::name("kind", kind)?;
        validate::name("name", name)?;
        if !self.partition_groups.contains_key(partition_group) {
            return Err(crate::routing::partition_group_unknown(self, partition_group));
        }
        if self.primitives.contains_key(address) {
            return Ok(Reply::Done);
        }
        if self.primitives.len() >= PRIMITIVES_MAX {
            return Err(Rejection::new(
                ErrorCode::LimitReached,
                format!("the cluster has {PRIMITIVES_MAX} primitives, which is the limit; delete one that is not used"),
            ));
        }
        self.primitives.insert(address.clone(), revision);
        Ok(Reply::Done)
    }
}

/// What makes two requests for a partition group the same: its placement may have been made from other members, and the
/// one that is recorded counts.
fn shape(record: &PartitionGroupRecord) -> (Protocol, usize, usize) {
    let replicas = record.partitions.first().map_or(0, |partition| partition.replicas.len());
    (record.protocol, record.partitions.len(), replicas)
}

fn exists_differently(recorded: &PartitionGroupRecord) -> Rejection {
    let (protocol, partitions, replicas) = shape(recorded);
    let protocol = match protocol {
        Protocol::Raft => "raft",
        Protocol::PrimaryBackup => "primary-backup",
    };
    Rejection::new(
        ErrorCode::ExistsDifferently,
        format!(
            "partition group `{}` exists with type {protocol}, {partitions} partitions and {replicas} replicas; these cannot \
             change: ask for the same, or choose another name",
            recorded.name
        ),
    )
}

fn check_not_reserved(field: &str, name: &PartitionGroupName) -> Result<(), Rejection> {
    validate::name(field, name.as_str())?;
    if name.is_system() {
        return Err(crate::routing::reserved(field));
    }
    Ok(())
}

fn validate_member(record: &MemberRecord) -> Result<(), Rejection> {
    validate::name("name", record.name.as_str())?;
    validate::label("address", &record.address)?;
    validate::label("zone", &record.zone)?;
    validate::label("version", &record.version)?;
    if record.kind == MemberKind::Persistent && record.node == NodeId(0) {
        return Err(validate::invalid("node", "is 0; a persistent member presents the identity of its data directory"));
    }
    Ok(())
}

fn validate_partition_group(record: &PartitionGroupRecord) -> Result<(), Rejection> {
    check_not_reserved("name", &record.name)?;
    match record.protocol {
        Protocol::Raft => {}
        Protocol::PrimaryBackup => {
            return Err(Rejection::new(
                ErrorCode::NotInThisVersion,
                format!(
                    "type: partition group `{}` is primary-backup, which this version does not have; use raft",
                    record.name
                ),
            ));
        }
    }
    let partitions = record.partitions.len();
    if partitions == 0 || partitions > usize::try_from(PARTITIONS_MAX).unwrap_or(usize::MAX) {
        return Err(validate::invalid("partitions", format_args!("is {partitions}; choose 1 to {PARTITIONS_MAX}")));
    }
    let (_, _, replicas) = shape(record);
    for (partition, index) in record.partitions.iter().zip(1..) {
        validate_replicas(partition, index, replicas)?;
    }
    Ok(())
}

/// Every partition has as many replicas as the first, at least one, and none twice.
fn validate_replicas(partition: &PartitionRecord, index: u32, expected: usize) -> Result<(), Rejection> {
    let field = format!("partitions[{index}].replicas");
    let replicas = &partition.replicas;
    if replicas.is_empty() {
        return Err(validate::invalid(&field, "is empty; list the members that carry the partition"));
    }
    if replicas.len() != expected {
        let found = replicas.len();
        return Err(validate::invalid(
            &field,
            format_args!("has {found} members, the first partition has {expected}; list as many for each"),
        ));
    }
    let twice =
        replicas.iter().enumerate().find(|(at, (name, _))| replicas[..*at].iter().any(|(other, _)| other == name));
    match twice {
        Some((_, (name, _))) => Err(validate::invalid(&field, format_args!("lists `{name}` twice; list it once"))),
        None => Ok(()),
    }
}

/// The table at the top of this file.
fn check_identity(recorded: &MemberRecord, presented: &MemberRecord) -> Result<(), Rejection> {
    match (recorded.kind, presented.kind) {
        (MemberKind::Ephemeral, MemberKind::Ephemeral | MemberKind::Persistent) => Ok(()),
        (MemberKind::Persistent, MemberKind::Ephemeral) => Err(Rejection::new(
            ErrorCode::ExistsDifferently,
            format!(
                "name: `{}` is the name of a persistent member; an ephemeral member needs another name",
                recorded.name
            ),
        )),
        (MemberKind::Persistent, MemberKind::Persistent) => check_directory(recorded, presented),
    }
}

fn check_directory(recorded: &MemberRecord, presented: &MemberRecord) -> Result<(), Rejection> {
    let name = &recorded.name;
    let (was, is) = (recorded.start_counter, presented.start_counter);
    if recorded.node != presented.node {
        return Err(Rejection::new(
            ErrorCode::DirectoryReplaced,
            format!(
                "member `{name}` is recorded with identity {}, its data directory presents {}: it was emptied or belongs to \
                 another member. Bring the directory back, or replace the member as a new member",
                recorded.node, presented.node
            ),
        ));
    }
    if recorded.run == presented.run || is > was {
        return Ok(());
    }
    if is == was {
        return Err(Rejection::new(
            ErrorCode::DirectoryCopied,
            format!(
                "member `{name}` (identity {}) presents start counter {is} a second time, from another run: its data \
                 directory was rolled back or copied. Replace the member as a new member",
                recorded.node
            ),
        ));
    }
    Err(Rejection::new(
        ErrorCode::DirectoryRolledBack,
        format!(
            "member `{name}` (identity {}) presents start counter {is}, the cluster has seen {was}: its data directory was \
             rolled back or copied. Replace the member as a new member",
            recorded.node
        ),
    ))
}
