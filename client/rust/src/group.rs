//! A handle of one group.

use std::collections::BTreeMap;
use std::time::Duration;

use coterie_proto::v1;

use crate::client::{Client, RequestId};
use crate::error::Error;
use crate::handle::Handle;
use crate::member::Member;
use crate::types::{Consistency, GroupConfig, GroupInfo, MemberId, MemberInfo, Term};
use crate::view::View;
use crate::watch::{Elected, Left, Listener, Watch};

/// How an application joins a group.
///
/// ```
/// use coterie_client::JoinOptions;
/// let options = JoinOptions::default().metadata("url", "http://10.0.0.7:8080").zone("eu-1a");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinOptions {
    /// Free for the application; every member and watcher sees it. At most 16 KiB.
    pub metadata: BTreeMap<String, String>,
    /// The failure domain. `None`: the sidecar's.
    pub zone: Option<String>,
    /// How the membership is held.
    pub presence: JoinPresence,
}

impl JoinOptions {
    /// Adds one entry of metadata.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the failure domain.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Holds the membership with a lease of this time to live instead of a stream.
    #[must_use]
    pub fn lease(mut self, ttl: Duration) -> Self {
        self.presence = JoinPresence::Lease { ttl };
        self
    }
}

/// How a membership is held (D20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JoinPresence {
    /// By a stream to the sidecar: when this process ends, however it ends, its membership ends within milliseconds.
    #[default]
    Stream,
    /// By a lease that this client renews: survives a broken connection, ends `ttl` after the last renewal.
    Lease {
        /// 1 s to 1 h, in whole milliseconds.
        ttl: Duration,
    },
}

/// A handle of one group. Cheap to clone; holds nothing by itself (S1, S16).
///
/// ```no_run
/// # async fn example(client: coterie_client::Client) -> Result<(), coterie_client::Error> {
/// let group = client.group("workers");
/// group.create(None).await?;
/// let mut watch = group.watch();
/// while let Some(event) = watch.next().await {
///     println!("{:?}", event?.kind);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    of: Handle,
}

impl Group {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { of: Handle::new(client, name) }
    }

    /// The same name in another partition group (D15).
    #[must_use]
    pub fn in_partition_group(&self, partition_group: &str) -> Self {
        Self { of: self.of.in_partition_group(partition_group) }
    }

    /// A handle whose writes carry this request id: repeats the one write that was answered [`Error::Unknown`], so that it
    /// is applied once (D11). Use it for that one write only.
    #[must_use]
    pub fn with_request(&self, request: RequestId) -> Self {
        Self { of: self.of.with_request(request) }
    }

    /// The group's name.
    pub fn name(&self) -> &str {
        &self.of.name
    }

    /// The client that this handle was made by.
    pub fn client(&self) -> &Client {
        &self.of.client
    }

    /// Makes the group if there is none. `None`: the default configuration, or whatever it has. Fails with
    /// `exists_differently` if it exists with another configuration than the given one.
    pub async fn create(&self, config: Option<GroupConfig>) -> Result<GroupInfo, Error> {
        let (group, partition_group) = self.address();
        let message = v1::CreateGroupRequest { group, partition_group, config: config.map(Into::into) };
        let mut wire = self.of.client.wire();
        let call = |request| async move { wire.create(request).await };
        Ok(self.of.client.write(call, message, self.request()).await?.into())
    }

    /// Members, leader and term (S13, S40).
    pub async fn get(&self, consistency: Consistency) -> Result<GroupInfo, Error> {
        let (group, partition_group) = self.address();
        let consistency = v1::Consistency::from(consistency).into();
        let message = v1::GetGroupRequest { group, partition_group, consistency };
        let mut wire = self.of.client.wire();
        Ok(self.of.client.read(|request| async move { wire.get(request).await }, message).await?.into())
    }

    /// The members, linearizable, in the order of joining (S13).
    pub async fn members(&self) -> Result<Vec<MemberInfo>, Error> {
        Ok(self.get(Consistency::Linearizable).await?.members)
    }

    /// The present leader, linearizable (S40).
    pub async fn leader(&self) -> Result<Option<MemberInfo>, Error> {
        Ok(self.get(Consistency::Linearizable).await?.leading().cloned())
    }

    /// The present term, linearizable (S40); 0 before the first leader.
    pub async fn term(&self) -> Result<Term, Error> {
        Ok(self.get(Consistency::Linearizable).await?.term)
    }

    /// Replaces the configuration (S20): only if it was last changed at `if_config_revision` (else `revision_mismatch`),
    /// and only if `if_term` is not older than the present term (else `stale_term`, S39). `None`: whatever they are.
    pub async fn configure(
        &self,
        config: GroupConfig,
        if_config_revision: Option<u64>,
        if_term: Option<Term>,
    ) -> Result<GroupInfo, Error> {
        let (group, partition_group) = self.address();
        let message = v1::ConfigureGroupRequest {
            group,
            partition_group,
            config: Some(config.into()),
            if_config_revision: if_config_revision.unwrap_or(0),
            if_term: wire_term(if_term),
        };
        let mut wire = self.of.client.wire();
        let call = |request| async move { wire.configure(request).await };
        Ok(self.of.client.write(call, message, self.request()).await?.into())
    }

    /// Removes the group; its members leave. Terms go on rising if it is made again (D4).
    pub async fn delete(&self) -> Result<(), Error> {
        let (group, partition_group) = self.address();
        let mut wire = self.of.client.wire();
        let call = |request| async move { wire.delete(request).await };
        self.of.client.write(call, v1::DeleteGroupRequest { group, partition_group }, self.request()).await?;
        Ok(())
    }

    /// Asks the leader to release (D16): it is told first, and when it has released, or its time-out has passed, the next
    /// one leads. Only if `if_term` is the present term; `None`: whoever leads.
    pub async fn step_down(&self, if_term: Option<Term>) -> Result<GroupInfo, Error> {
        let (group, partition_group) = self.address();
        let message = v1::StepDownRequest { group, partition_group, if_term: wire_term(if_term) };
        let mut wire = self.of.client.wire();
        let call = |request| async move { wire.step_down(request).await };
        Ok(self.of.client.write(call, message, self.request()).await?.into())
    }

    /// Joins, and makes the group if there is none. May be called several times on one handle; each is a member of its own
    /// (S2, S3, D1). The membership ends with the returned object.
    pub async fn join(&self, options: JoinOptions) -> Result<Member, Error> {
        Member::join(self.clone(), options).await
    }

    /// Ends the membership of any member.
    pub async fn remove(&self, member: MemberId) -> Result<(), Error> {
        let (group, partition_group) = self.address();
        let message = v1::LeaveRequest { group, partition_group, member: member.0 };
        let mut wire = self.of.client.wire();
        self.of.client.write(|request| async move { wire.leave(request).await }, message, self.request()).await?;
        Ok(())
    }

    /// Every change, in order, the present state first; resumes by itself after a broken connection. Must be called within
    /// a Tokio runtime.
    pub fn watch(&self) -> Watch {
        Watch::start(self.clone(), String::new())
    }

    /// Every change after the one with this [`crate::Event::id`]; a resync comes first if that is too long ago (D17).
    pub fn watch_after(&self, id: impl Into<String>) -> Watch {
        Watch::start(self.clone(), id.into())
    }

    /// Members that join from now on (S5, S6).
    pub fn on_join(&self) -> Listener<MemberInfo> {
        Listener::joins(self.watch())
    }

    /// Members that leave or fail from now on (S10, S12).
    pub fn on_leave(&self) -> Listener<Left> {
        Listener::leaves(self.watch())
    }

    /// Each new term, the present one at once (S29, D2). Never falls (S33).
    pub fn on_term(&self) -> Listener<Term> {
        Listener::terms(self.watch())
    }

    /// Each newly elected leader, the present one at once (S30, D2), in the order of terms.
    pub fn on_election(&self) -> Listener<Elected> {
        Listener::elections(self.watch())
    }

    /// A copy of the group that keeps itself up to date (S14, S15, S17). Waits for the first state; fails with
    /// `group_unknown` if there is no such group.
    pub async fn view(&self) -> Result<View, Error> {
        View::open(self).await
    }

    pub(crate) fn address(&self) -> (String, String) {
        self.of.address()
    }

    pub(crate) fn request(&self) -> RequestId {
        self.of.request.unwrap_or_else(RequestId::mint)
    }
}

/// 0 stands for any term on the wire.
fn wire_term(term: Option<Term>) -> u64 {
    term.map_or(0, |term| term.0)
}
