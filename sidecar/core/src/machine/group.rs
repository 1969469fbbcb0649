//! Groups: who is a member, and the group's configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coterie_mutants::{Mutant, is_on};
use serde::{Deserialize, Serialize};

use super::sessions::Thing;
use super::{Machine, Step, validate};
use crate::chunks::Chunks;
use crate::code::{ErrorCode, Rejection};
use crate::command::{GroupConfig, GroupEvent, GroupOp, GroupView, LeaveReason, MemberView, Outcome, Presence, Reply};
use crate::ids::{EventId, GroupName, MemberId, Revision, SessionId, Term};
use crate::limits::GROUPS_MAX;

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) view: MemberView,
    /// Its place in the queue (D3): when it joined, or last stopped leading.
    pub(super) candidate_since: Revision,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) name: GroupName,
    pub(super) config: GroupConfig,
    config_revision: Revision,
    /// 0 before the first leader.
    pub(super) term: Term,
    /// All terms of this group are above this one.
    pub(super) terms_from: Term,
    pub(super) leader: Option<MemberId>,
    /// While the leader is asked to release: how many milliseconds it was given.
    pub(super) releasing: Option<u64>,
    /// In a snapshot they are parts of their own.
    #[serde(skip)]
    pub(super) members: Chunks<MemberId, Member>,
    /// Before the first event: number 0 of the revision that made the group, which had none.
    pub(super) last_event: EventId,
}

/// `group_unknown`.
pub(super) fn unknown(name: &GroupName) -> Rejection {
    Rejection::new(ErrorCode::GroupUnknown, format!("there is no group `{name}`: create it, or join it to make it"))
}

impl Group {
    fn new(step: &Step, name: &GroupName, config: GroupConfig, terms_from: Term) -> Self {
        Self {
            name: name.clone(),
            config,
            config_revision: step.revision,
            term: Term(0),
            terms_from,
            leader: None,
            releasing: None,
            members: Chunks::default(),
            last_event: EventId { revision: step.revision, ordinal: 0 },
        }
    }

    /// The group as others see it. `revision` is the partition's.
    pub(super) fn view(&self, revision: Revision) -> GroupView {
        GroupView {
            name: self.name.clone(),
            term: self.term,
            leader: self.leader,
            releasing: self.releasing.is_some(),
            members: self.members.values().map(|member| member.view.clone()).collect(),
            config: self.config,
            config_revision: self.config_revision,
            revision,
            last_event: self.last_event,
        }
    }

    /// Removes members, then elects if the leader was among them.
    pub(super) fn remove(&mut self, step: &mut Step, leaving: &BTreeSet<MemberId>, reason: LeaveReason) {
        for member in leaving {
            if self.members.remove(member).is_some() {
                step.emit_group(self, GroupEvent::Left { member: *member, reason });
            }
        }
        if self.leader.is_some_and(|leader| !self.members.contains_key(&leader)) {
            self.vacate(step);
            self.elect(step);
        }
    }

    fn member(&mut self, id: MemberId) -> Result<&mut Member, Rejection> {
        self.members.get_mut(&id).ok_or_else(|| {
            Rejection::new(
                ErrorCode::MemberUnknown,
                format!("member {id} is not, or no longer, in group `{}`: join again", self.name),
            )
        })
    }

    /// Refuses a writer that knows an older term than the present one (S39).
    fn check_term_not_newer(&self, if_term: Option<Term>) -> Result<(), Rejection> {
        match if_term {
            Some(term) if self.term > term => Err(self.stale_term(term)),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses a term that is not the present one.
    fn check_term_is(&self, if_term: Option<Term>) -> Result<(), Rejection> {
        match if_term {
            Some(term) if self.term != term => Err(self.stale_term(term)),
            Some(_) | None => Ok(()),
        }
    }

    fn stale_term(&self, term: Term) -> Rejection {
        let message =
            format!("if_term: is {term}, group `{}` is in term {}: read the group again", self.name, self.term);
        Rejection::new(ErrorCode::StaleTerm, message)
    }

    fn configure(
        &mut self,
        step: &mut Step,
        config: GroupConfig,
        if_config_revision: Option<Revision>,
        if_term: Option<Term>,
    ) -> Result<(), Rejection> {
        validate::config(&config)?;
        self.check_term_not_newer(if_term)?;
        if let Some(asked) = if_config_revision.filter(|asked| *asked != self.config_revision) {
            return Err(Rejection::new(
                ErrorCode::RevisionMismatch,
                format!(
                    "if_config_revision: is {asked}, the configuration of group `{}` was last changed at {}: read the \
                     group again",
                    self.name, self.config_revision
                ),
            ));
        }
        self.config = config;
        self.config_revision = step.revision;
        step.emit_group(self, GroupEvent::Config { config, config_revision: step.revision });
        Ok(())
    }

    fn set_metadata(
        &mut self,
        step: &mut Step,
        id: MemberId,
        metadata: &BTreeMap<String, String>,
        if_term: Option<Term>,
    ) -> Result<(), Rejection> {
        validate::metadata(metadata)?;
        self.check_term_not_newer(if_term)?;
        let member = self.member(id)?;
        member.view.metadata.clone_from(metadata);
        let view = member.view.clone();
        step.emit_group(self, GroupEvent::Updated(view));
        Ok(())
    }
}

/// What a new member brings.
struct Joining<'a> {
    session: SessionId,
    metadata: &'a BTreeMap<String, String>,
    zone: &'a str,
    presence: Presence,
}

impl Machine {
    pub(super) fn change_group(&mut self, step: &mut Step, name: &GroupName, op: &GroupOp) -> Outcome {
        self.check_primitives_live_here()?;
        validate::name("group", name.as_str())?;
        match op {
            GroupOp::Create { config } => self.create_group(step, name, *config),
            GroupOp::Delete => self.delete_group(step, name),
            GroupOp::Join { session, metadata, zone, presence } => {
                self.join(step, name, &Joining { session: *session, metadata, zone, presence: *presence })
            }
            GroupOp::Leave(member) => self.leave(step, name, *member),
            GroupOp::Configure { config, if_config_revision, if_term } => {
                self.with_group(step, name, |group, step| group.configure(step, *config, *if_config_revision, *if_term))
            }
            GroupOp::SetMetadata { member, metadata, if_term } => {
                self.with_group(step, name, |group, step| group.set_metadata(step, *member, metadata, *if_term))
            }
            GroupOp::StepDown { if_term, reason } => self.with_group(step, name, |group, step| {
                validate::label("reason", reason)?;
                group.check_term_is(*if_term)?;
                group.step_down(step, reason);
                Ok(())
            }),
            GroupOp::Release(term) => self.with_group(step, name, |group, step| {
                group.release(step, *term);
                Ok(())
            }),
            GroupOp::ReleaseTimedOut(term) => self.with_group(step, name, |group, step| {
                group.release_timed_out(step, *term);
                Ok(())
            }),
        }
    }

    /// Changes a group that must exist; answers the group after it.
    fn with_group(
        &mut self,
        step: &mut Step,
        name: &GroupName,
        change: impl FnOnce(&mut Group, &mut Step) -> Result<(), Rejection>,
    ) -> Outcome {
        let group = Arc::make_mut(self.groups.get_mut(name).ok_or_else(|| unknown(name))?);
        change(group, step)?;
        Ok(Reply::Group(Box::new(group.view(step.revision))))
    }

    fn create_group(&mut self, step: &mut Step, name: &GroupName, config: Option<GroupConfig>) -> Outcome {
        if let Some(config) = &config {
            validate::config(config)?;
        }
        if let Some(group) = self.groups.get(name) {
            let differs = config.is_some_and(|config| config != group.config);
            return if differs { Err(exists_differently(group)) } else { Ok(group_reply(group, step)) };
        }
        self.check_groups_limit()?;
        let group = Group::new(step, name, config.unwrap_or_default(), self.term_floor);
        let reply = group_reply(&group, step);
        self.groups.insert(name.clone(), Arc::new(group));
        Ok(reply)
    }

    fn delete_group(&mut self, step: &mut Step, name: &GroupName) -> Outcome {
        let mut group = Arc::unwrap_or_clone(self.groups.remove(name).ok_or_else(|| unknown(name))?);
        let members = std::mem::take(&mut group.members);
        for (id, member) in members.iter() {
            self.sessions.drop_held(member.view.session, Thing::Member(name.clone(), *id));
            step.emit_group(&mut group, GroupEvent::Left { member: *id, reason: LeaveReason::GroupDeleted });
        }
        group.vacate(step);
        step.emit_group(&mut group, GroupEvent::Deleted);
        // A group made again under any name starts above this, so the name's terms are never used again (D4).
        self.term_floor = self.term_floor.max(group.term);
        Ok(Reply::Done)
    }

    fn join(&mut self, step: &mut Step, name: &GroupName, joining: &Joining<'_>) -> Outcome {
        validate::metadata(joining.metadata)?;
        validate::label("zone", joining.zone)?;
        let sidecar = self.sessions.get(joining.session)?.member.clone();
        match self.groups.get(name) {
            Some(group) => check_members_limit(group)?,
            None => self.check_groups_limit()?,
        }
        let floor = self.term_floor;
        let new = || Arc::new(Group::new(step, name, GroupConfig::default(), floor));
        let group = Arc::make_mut(self.groups.get_or_insert_with(name, new));
        let id = match is_on(Mutant::ReuseMemberIdentity) {
            true => MemberId(group.members.keys().last().map_or(1, |last| last.0 + 1)),
            false => MemberId(step.revision.0),
        };
        let view = MemberView {
            id,
            session: joining.session,
            sidecar,
            metadata: joining.metadata.clone(),
            zone: joining.zone.to_owned(),
            presence: joining.presence,
            joined_ms: step.now_ms,
        };
        group.members.insert(id, Member { view: view.clone(), candidate_since: step.revision });
        self.sessions.hold(joining.session, Thing::Member(name.clone(), id));
        step.emit_group(group, GroupEvent::Joined(view));
        group.elect(step);
        Ok(Reply::Joined(Box::new((id, group.view(step.revision)))))
    }

    fn leave(&mut self, step: &mut Step, name: &GroupName, id: MemberId) -> Outcome {
        let group = Arc::make_mut(self.groups.get_mut(name).ok_or_else(|| unknown(name))?);
        let session = group.member(id)?.view.session;
        group.remove(step, &BTreeSet::from([id]), LeaveReason::Left);
        self.sessions.drop_held(session, Thing::Member(name.clone(), id));
        Ok(Reply::Done)
    }

    fn check_groups_limit(&self) -> Result<(), Rejection> {
        if self.groups.len() < GROUPS_MAX {
            return Ok(());
        }
        Err(Rejection::new(
            ErrorCode::LimitReached,
            format!("the partition has {GROUPS_MAX} groups, which is the limit; delete one that is not used"),
        ))
    }
}

fn group_reply(group: &Group, step: &Step) -> Reply {
    Reply::Group(Box::new(group.view(step.revision)))
}

fn exists_differently(group: &Group) -> Rejection {
    let GroupConfig { release_timeout_ms, max_members } = group.config;
    Rejection::new(
        ErrorCode::ExistsDifferently,
        format!(
            "config: group `{}` exists with release_timeout_ms {release_timeout_ms} and max_members {max_members}; \
             configure it instead, or create it without a config",
            group.name
        ),
    )
}

fn check_members_limit(group: &Group) -> Result<(), Rejection> {
    let max = group.config.max_members;
    if group.members.len() < usize::try_from(max).unwrap_or(usize::MAX) {
        return Ok(());
    }
    Err(Rejection::new(
        ErrorCode::LimitReached,
        format!(
            "group `{}` has {max} members, which is its max_members; raise that, or join when one has left",
            group.name
        ),
    ))
}
