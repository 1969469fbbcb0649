//! Operations on groups.

use axum::http::HeaderMap;
use coterie_core::command::{Answer, Command, GroupConfig, GroupOp, GroupView, Query, Reply};
use coterie_core::limits::SESSION_TTL_MS_DEFAULT;
use coterie_core::machine::validate;
use coterie_core::{
    ErrorCode, EventId, GroupName, MemberId, PartitionGroupName, PartitionId, Rejection, Revision, Term,
};
use coterie_proto::v1;
use coterie_proto::v1::group_event::Kind as Change;
use coterie_replication::ReadKind;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use tokio::sync::OwnedSemaphorePermit;

use super::{Caller, Ops, When, admit, answered_otherwise, read_kind};
use crate::api::call::{Call, invalid};
use crate::api::convert::{self, Freshness, Wire};
use crate::api::feed::{self, Events, JoinFeed, Order, Shown};
use crate::deadline::Deadline;
use crate::presence::state::place_of;
use crate::presence::{Join, Kind, Own};

/// Partitions that a listing asks at once.
const LIST_CONCURRENCY: usize = 16;

/// A group and where it lives.
struct Place {
    partition: PartitionId,
    group: GroupName,
}

impl Ops {
    /// Makes a group.
    pub async fn create(&self, headers: &HeaderMap, request: v1::CreateGroupRequest) -> Result<v1::Group, Rejection> {
        self.run("create", headers, When::Serving, async |caller| {
            let v1::CreateGroupRequest { group, partition_group, config } = request;
            let config = config.map(|config| convert::config_over(&config, GroupConfig::default()));
            config.as_ref().map_or(Ok(()), validate::config)?;
            let place = self.place(&group, &partition_group)?;
            self.node().router().record(&place.partition, &(&place.group).into(), caller.deadline).await?;
            self.change(&caller, &place, GroupOp::Create { config }).await
        })
        .await
    }

    /// Reads a group.
    pub async fn get(&self, headers: &HeaderMap, request: v1::GetGroupRequest) -> Result<v1::Group, Rejection> {
        self.run("get", headers, When::Serving, async |caller| self.get_group_now(&caller, &request).await).await
    }

    /// Reads a group.
    pub(in crate::api) async fn get_group_now(
        &self,
        caller: &Caller,
        request: &v1::GetGroupRequest,
    ) -> Result<v1::Group, Rejection> {
        let kind = read_kind(request.consistency)?;
        let place = self.place(&request.group, &request.partition_group)?;
        let (view, freshness) = self.read(&place, kind, caller.deadline).await?;
        Ok(convert::group(&view, place.partition.group.as_str(), freshness))
    }

    /// Lists groups, by partition group and name; without a partition group, of all of them.
    pub async fn list(
        &self,
        headers: &HeaderMap,
        request: v1::ListGroupsRequest,
    ) -> Result<v1::ListGroupsResponse, Rejection> {
        self.run("list", headers, When::Serving, async |caller| {
            let partitions = self.partitions(&request.partition_group)?;
            let read = |partition: PartitionId| async move { self.read_all(partition, caller.deadline).await };
            let groups: Vec<Vec<v1::Group>> =
                stream::iter(partitions).map(read).buffered(LIST_CONCURRENCY).try_collect().await?;
            let mut groups: Vec<v1::Group> = groups.into_iter().flatten().collect();
            groups.sort_by(|a, b| (&a.partition_group, &a.name).cmp(&(&b.partition_group, &b.name)));
            Ok(v1::ListGroupsResponse { groups })
        })
        .await
    }

    /// Changes a group's configuration. Fields that are not given stay as they are; the change is then conditional on
    /// the configuration that they were read from.
    pub async fn configure(
        &self,
        headers: &HeaderMap,
        request: v1::ConfigureGroupRequest,
    ) -> Result<v1::Group, Rejection> {
        self.run("configure", headers, When::Serving, async |caller| {
            let asked = request.config.ok_or_else(|| invalid("config", "is missing"))?;
            let place = self.place(&request.group, &request.partition_group)?;
            let mut if_config_revision =
                Some(request.if_config_revision).filter(|revision| *revision != 0).map(Revision);
            let partial = asked.release_timeout_ms.is_none() || asked.max_members.is_none();
            let present = if partial {
                let (view, _) = self.read(&place, ReadKind::Linearizable, caller.deadline).await?;
                if_config_revision = if_config_revision.or(Some(view.config_revision));
                view.config
            } else {
                GroupConfig::default()
            };
            let config = convert::config_over(&asked, present);
            validate::config(&config)?;
            let if_term = convert::if_term(request.if_term);
            self.change(&caller, &place, GroupOp::Configure { config, if_config_revision, if_term }).await
        })
        .await
    }

    /// Removes a group.
    pub async fn delete(
        &self,
        headers: &HeaderMap,
        request: v1::DeleteGroupRequest,
    ) -> Result<v1::DeleteGroupResponse, Rejection> {
        self.run("delete", headers, When::Serving, async |caller| {
            let place = self.place(&request.group, &request.partition_group)?;
            let command = Command::Group { name: place.group.clone(), op: GroupOp::Delete };
            let router = self.node().router();
            let (revision, _) = router.write(caller.request, &place.partition, command, caller.deadline).await?;
            if let Err(rejection) = router.forget(&place.partition, &(&place.group).into(), caller.deadline).await {
                tracing::debug!(group = %place.group, %rejection, "forget a deleted group");
            }
            Ok(v1::DeleteGroupResponse { revision: revision.0 })
        })
        .await
    }

    /// Joins with a lease.
    pub async fn join(&self, headers: &HeaderMap, request: v1::JoinRequest) -> Result<v1::JoinResponse, Rejection> {
        self.run("join", headers, When::Joining, async |caller| {
            let ttl_ms = if request.ttl_ms == 0 { SESSION_TTL_MS_DEFAULT } else { request.ttl_ms };
            validate::ttl_ms(ttl_ms)?;
            let join = self.joining(caller, request, Kind::Lease { ttl_ms })?;
            let membership = self.node().presences().join(join).await?;
            Ok(feed::joined(self.node(), &membership))
        })
        .await
    }

    /// Joins with a stream: the membership lasts as long as what is returned is read.
    pub async fn join_stream(
        &self,
        headers: &HeaderMap,
        request: v1::JoinRequest,
    ) -> Result<BoxStream<'static, v1::JoinStreamResponse>, Rejection> {
        self.run("join_stream", headers, When::Joining, async |caller| {
            if request.ttl_ms != 0 {
                return Err(invalid("ttl_ms", "is for leases; a membership that a stream holds lasts as long as that"));
            }
            let permit = self.watch_permit()?;
            let join = self.joining(caller, request, Kind::Stream)?;
            let place = Place { partition: join.partition.clone(), group: join.group.clone() };
            let membership = self.node().presences().join(join).await?;
            let order = Order::after(Some(place_of(membership.view())), membership.view().leader);
            let events = self.events(&place, Some(place_of(membership.view())), order).await?;
            Ok(JoinFeed::new(self.node().clone(), membership, events).into_stream(permit).boxed())
        })
        .await
    }

    /// Extends a lease that this sidecar holds.
    pub async fn renew(&self, headers: &HeaderMap, request: v1::RenewRequest) -> Result<v1::RenewResponse, Rejection> {
        self.run("renew", headers, When::Serving, async |_| {
            let place = self.place(&request.group, &request.partition_group)?;
            let presences = self.node().presences();
            let (ttl_ms, session) = presences.renew(&place.partition, &place.group, MemberId(request.member))?;
            Ok(v1::RenewResponse { ttl_ms, session: v1::SessionState::from(Wire(session)).into() })
        })
        .await
    }

    /// A member leaves.
    pub async fn leave(&self, headers: &HeaderMap, request: v1::LeaveRequest) -> Result<v1::LeaveResponse, Rejection> {
        self.run("leave", headers, When::Serving, async |Caller { request: id, minted: _, deadline }| {
            let place = self.place(&request.group, &request.partition_group)?;
            let member = MemberId(request.member);
            let presences = self.node().presences();
            let revision = presences.leave(&place.partition, &place.group, member, id, deadline).await?;
            Ok(v1::LeaveResponse { revision: revision.0 })
        })
        .await
    }

    /// Replaces a member's metadata.
    pub async fn set_metadata(
        &self,
        headers: &HeaderMap,
        request: v1::SetMetadataRequest,
    ) -> Result<v1::Member, Rejection> {
        self.run("set_metadata", headers, When::Serving, async |caller| {
            let metadata = convert::metadata(request.metadata);
            validate::metadata(&metadata)?;
            let place = self.place(&request.group, &request.partition_group)?;
            let if_term = convert::if_term(request.if_term);
            let op = GroupOp::SetMetadata { member: MemberId(request.member), metadata, if_term };
            let group = self.change(&caller, &place, op).await?;
            let member = group.members.into_iter().find(|member| member.id == request.member);
            member.ok_or_else(|| Rejection::new(ErrorCode::Internal, "the answer lacks the member that was changed"))
        })
        .await
    }

    /// Asks the leader to release.
    pub async fn step_down(&self, headers: &HeaderMap, request: v1::StepDownRequest) -> Result<v1::Group, Rejection> {
        self.run("step_down", headers, When::Serving, async |caller| {
            let place = self.place(&request.group, &request.partition_group)?;
            let if_term = convert::if_term(request.if_term);
            self.change(&caller, &place, GroupOp::StepDown { if_term, reason: "requested".to_owned() }).await
        })
        .await
    }

    /// The leader has stopped acting.
    pub async fn release(&self, headers: &HeaderMap, request: v1::ReleaseRequest) -> Result<v1::Group, Rejection> {
        self.run("release", headers, When::Serving, async |Caller { request: id, minted: _, deadline }| {
            if request.term == 0 {
                return Err(invalid("term", "is missing; give the term that is released"));
            }
            let place = self.place(&request.group, &request.partition_group)?;
            let presences = self.node().presences();
            let (_, reply) =
                presences.release(&place.partition, &place.group, Term(request.term), id, deadline).await?;
            group_of(reply, &place)
        })
        .await
    }

    /// Watches a group.
    pub async fn watch(
        &self,
        headers: &HeaderMap,
        request: v1::WatchRequest,
    ) -> Result<BoxStream<'static, v1::GroupEvent>, Rejection> {
        self.run("watch", headers, When::Serving, async |caller| {
            let permit = self.watch_permit()?;
            let place = self.place(&request.group, &request.partition_group)?;
            if request.after.is_empty() {
                return self.watch_from_now(&place, Change::Snapshot, permit, caller.deadline).await;
            }
            let after = self.node().router().place(&place.partition, &request.after, caller.deadline).await?;
            if after.is_some() {
                let events = self.events(&place, after, Order::after(after, None)).await?;
                return Ok(events.into_stream(permit));
            }
            match self.watch_from_now(&place, Change::Resync, permit, caller.deadline).await {
                Err(rejection) if rejection.code == ErrorCode::GroupUnknown => {
                    Ok(stream::once(std::future::ready(feed::gone())).boxed())
                }
                watch => watch,
            }
        })
        .await
    }

    /// The snapshot is a linearizable read, so that whoever was told of a change and then begins to watch sees it, also
    /// where the replica here lags. Without a quorum it is what a replica knows, and says so.
    async fn watch_from_now(
        &self,
        place: &Place,
        kind: Shown,
        permit: OwnedSemaphorePermit,
        deadline: Deadline,
    ) -> Result<BoxStream<'static, v1::GroupEvent>, Rejection> {
        let (view, freshness) = match self.read(place, ReadKind::Linearizable, self.half(deadline)).await {
            Err(rejection) if matches!(rejection.code, ErrorCode::NoQuorum | ErrorCode::DeadlineExceeded) => self
                .read(place, ReadKind::Stale, deadline)
                .await
                .map_err(|rejection| not_known_here(rejection, place))?,
            read => read?,
        };
        let at = Some(place_of(&view));
        let events = self.events(place, at, Order::after(at, view.leader)).await?;
        let first = events.first(&view, freshness, kind);
        Ok(stream::once(std::future::ready(first)).chain(events.into_stream(permit)).boxed())
    }

    /// Whether the application beside this sidecar leads. Answers in every state: without a cluster nobody leads.
    pub async fn own(&self, headers: &HeaderMap, request: v1::SelfRequest) -> Result<v1::SelfResponse, Rejection> {
        let result = self.own_now(headers, &request).await;
        self.0.counters.count("self", &result);
        result
    }

    async fn own_now(&self, headers: &HeaderMap, request: &v1::SelfRequest) -> Result<v1::SelfResponse, Rejection> {
        let call = Call::from_headers(headers)?;
        let deadline = Deadline::after_ms(self.node().env(), call.timeout_ms);
        let place = match self.place(&request.group, &request.partition_group) {
            Ok(place) => place,
            Err(rejection) if rejection.code == ErrorCode::WaitingForManagementGroup => {
                return Ok(v1::SelfResponse::default());
            }
            Err(rejection) => return Err(rejection),
        };
        let own = self.node().presences().list(&place.partition, &place.group);
        let mut response = self_response(&own, self.node().env().clock.monotonic_ms());
        if own.members.is_empty() && admit(&self.node().state().borrow(), When::Serving).is_ok() {
            let known = self.read(&place, ReadKind::Stale, deadline).await;
            response.term = known.map_or(0, |(view, _)| view.term.0);
        }
        Ok(response)
    }

    fn place(&self, group: &str, partition_group: &str) -> Result<Place, Rejection> {
        validate::name("group", group)?;
        validate::label("partition_group", partition_group)?;
        let group = GroupName::from(group);
        let asked = Some(partition_group).filter(|name| !name.is_empty());
        let partition = self.node().router().locate(asked, &(&group).into())?;
        Ok(Place { partition, group })
    }

    fn partitions(&self, asked: &str) -> Result<Vec<PartitionId>, Rejection> {
        validate::label("partition_group", asked)?;
        let all = self.node().router().partition_groups()?;
        if !asked.is_empty() && !all.iter().any(|(name, _)| name.as_str() == asked) {
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Rejection::new(
                ErrorCode::PartitionGroupUnknown,
                format!("partition_group: there is no `{asked}`; there is: {}", names.join(", ")),
            ));
        }
        let wanted = all.into_iter().filter(|(name, _)| asked.is_empty() || name.as_str() == asked);
        Ok(wanted.flat_map(|(group, count)| partitions_of(&group, count)).collect())
    }

    fn joining(&self, caller: Caller, request: v1::JoinRequest, kind: Kind) -> Result<Join, Rejection> {
        let v1::JoinRequest { group, partition_group, metadata, zone, ttl_ms: _ } = request;
        let metadata = convert::metadata(metadata);
        validate::metadata(&metadata)?;
        validate::label("zone", &zone)?;
        let Place { partition, group } = self.place(&group, &partition_group)?;
        let Caller { request, minted, deadline } = caller;
        Ok(Join { partition, group, metadata, zone, kind, request, minted, deadline })
    }

    async fn change(&self, caller: &Caller, place: &Place, op: GroupOp) -> Result<v1::Group, Rejection> {
        let command = Command::Group { name: place.group.clone(), op };
        let router = self.node().router();
        let (_, reply) = router.write(caller.request, &place.partition, command, caller.deadline).await?;
        group_of(reply, place)
    }

    async fn read(
        &self,
        place: &Place,
        kind: ReadKind,
        deadline: Deadline,
    ) -> Result<(GroupView, Freshness), Rejection> {
        let query = Query::Group(place.group.clone());
        let read = self.node().router().read(&place.partition, query, kind, deadline).await?;
        let freshness = match kind {
            ReadKind::Linearizable => Freshness::Linearizable,
            ReadKind::Leased => Freshness::Leased,
            ReadKind::Stale => Freshness::Stale { stale_ms: read.stale_ms },
        };
        match read.answer {
            Answer::Group(view) => Ok((*view, freshness)),
            _ => Err(answered_otherwise()),
        }
    }

    async fn read_all(&self, partition: PartitionId, deadline: Deadline) -> Result<Vec<v1::Group>, Rejection> {
        let read = self.node().router().read(&partition, Query::Groups, ReadKind::Linearizable, deadline).await?;
        match read.answer {
            Answer::Groups(views) => {
                let group = |view| convert::group(view, partition.group.as_str(), Freshness::Linearizable);
                Ok(views.iter().map(group).collect())
            }
            _ => Err(answered_otherwise()),
        }
    }

    async fn events(&self, place: &Place, after: Option<EventId>, order: Order) -> Result<Events, Rejection> {
        let watch = self.node().router().watch(&place.partition, &(&place.group).into(), after).await?;
        Ok(Events::new(self.node().clone(), place.partition.clone(), place.group.clone(), watch, order))
    }
}

fn partitions_of(group: &PartitionGroupName, count: u32) -> Vec<PartitionId> {
    (1..=count).map(|index| PartitionId { group: group.clone(), index }).collect()
}

/// A replica that does not know a group says nothing about it while no majority confirms that.
fn not_known_here(rejection: Rejection, place: &Place) -> Rejection {
    if rejection.code != ErrorCode::GroupUnknown {
        return rejection;
    }
    let message = format!(
        "partition {} has no leader that a majority follows, and the replica that was asked does not know group `{}`: \
         it may exist nevertheless; watch it again later",
        place.partition, place.group
    );
    Rejection::new(ErrorCode::NoQuorum, message)
}

fn group_of(reply: Reply, place: &Place) -> Result<v1::Group, Rejection> {
    match reply {
        Reply::Group(view) => Ok(convert::group(&view, place.partition.group.as_str(), Freshness::Linearizable)),
        _ => Err(answered_otherwise()),
    }
}

/// The group's term is the one that the memberships know; that of the leading one, if one leads.
fn self_response(own: &Own, now_ms: u64) -> v1::SelfResponse {
    let members: Vec<v1::SelfState> = own.members.iter().map(|state| convert::self_state(state, now_ms)).collect();
    let leading = members.iter().find(|member| member.leads);
    let leads = leading.is_some();
    let newest = members.iter().map(|member| member.term).max().unwrap_or(0);
    let term = leading.map_or(newest, |member| member.term);
    v1::SelfResponse { members, leads, term }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::SelfState;
    use crate::sessions::SessionState;

    fn state(member: u64, leads: bool, term: u64) -> SelfState {
        SelfState {
            member: MemberId(member),
            leads,
            term: Term(term),
            valid_until_ms: if leads { 1_500 } else { 0 },
            session: SessionState::Live,
            releasing: false,
            elected_at: EventId::default(),
        }
    }

    #[test]
    fn s40_self_says_the_term_of_the_member_that_leads() {
        let own = Own { members: vec![state(3, false, 9), state(4, true, 9), state(5, false, 9)] };
        let response = self_response(&own, 1_000);
        assert!(response.leads);
        assert_eq!(response.term, 9);
        assert_eq!(response.members.iter().map(|member| member.valid_ms).collect::<Vec<_>>(), [0, 500, 0]);
        let late = self_response(&own, 1_500);
        assert!(!late.leads && late.term == 9);
    }

    #[test]
    fn d12_without_a_quorum_a_group_that_a_replica_does_not_know_may_exist() {
        let place = Place { partition: PartitionId { group: "data".into(), index: 1 }, group: "g".into() };
        let unknown = Rejection::new(ErrorCode::GroupUnknown, "there is no group");
        assert_eq!(not_known_here(unknown, &place).code, ErrorCode::NoQuorum);
        let other = Rejection::new(ErrorCode::PartitionGroupUnknown, "there is no partition group");
        assert_eq!(not_known_here(other.clone(), &place), other);
    }
}
