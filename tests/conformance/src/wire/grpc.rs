//! Over gRPC, with nothing between the test and the wire but the generated client.

use std::collections::BTreeMap;
use std::time::Duration;

use coterie_proto::v1;
use coterie_proto::v1::cluster_info_client::ClusterInfoClient;
use coterie_proto::v1::groups_client::GroupsClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use uuid::Uuid;

use super::{Answer, Events, Failure, Held, If, Joining, Said, Wire};

/// gRPC.
#[derive(Clone, Debug)]
pub struct Grpc {
    pub(super) channel: Channel,
    identity: Option<(Uuid, Uuid)>,
    deadline: Duration,
    pub(super) partition_group: String,
}

impl Grpc {
    fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel.clone()).max_decoding_message_size(64 << 20).max_encoding_message_size(256 << 20)
    }

    pub(super) fn open<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some((client, id)) = self.identity {
            let mut put = |key: &'static str, id: Uuid| {
                request.metadata_mut().insert(key, id.to_string().parse().expect("a UUID is ASCII"));
            };
            put("coterie-client-id", client);
            put("coterie-request-id", id);
        }
        request
    }

    pub(super) fn call<T>(&self, message: T) -> Request<T> {
        let mut request = self.open(message);
        let deadline = self.deadline.as_millis().to_string().parse().expect("digits are ASCII");
        request.metadata_mut().insert("coterie-timeout-ms", deadline);
        request
    }
}

pub(super) fn failure(status: Status) -> Failure {
    let word =
        |key: &str| status.metadata().get(key).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut message = status.message().to_owned();
    let mut source = std::error::Error::source(&status);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Failure {
        code: word("coterie-code"),
        message,
        retry: word("coterie-retry"),
        status: format!("{:?}", status.code()),
    }
}

pub(super) fn pump<T, R>(mut stream: Streaming<T>, mut take: impl FnMut(T) -> R + Send + 'static) -> Events<R>
where
    T: Send + 'static,
    R: Send + std::fmt::Debug + 'static,
{
    Events::start(|sender| async move {
        loop {
            let item = match stream.message().await {
                Ok(Some(item)) => Ok(take(item)),
                Ok(None) => return,
                Err(status) => Err(failure(status)),
            };
            let ends = item.is_err();
            if sender.send(item).is_err() || ends {
                return;
            }
        }
    })
}

impl Wire for Grpc {
    fn connect(endpoint: &str) -> Self {
        let endpoint = Endpoint::from_shared(endpoint.to_owned()).expect("tests give valid endpoints");
        Self {
            channel: endpoint.connect_lazy(),
            identity: None,
            deadline: Duration::from_secs(10),
            partition_group: String::new(),
        }
    }

    fn identified(&self, client: Uuid, request: Uuid) -> Self {
        Self { identity: Some((client, request)), ..self.clone() }
    }

    fn within(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    fn in_partition_group(&self, name: &str) -> Self {
        Self { partition_group: name.to_owned(), ..self.clone() }
    }

    async fn create(&self, group: &str, config: Option<v1::GroupConfig>) -> Answer<v1::Group> {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        let message = v1::CreateGroupRequest { group, partition_group, config };
        Ok(self.groups().create(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn read(&self, group: &str, consistency: v1::Consistency) -> Answer<v1::Group> {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        let message = v1::GetGroupRequest { group, partition_group, consistency: consistency.into() };
        Ok(self.groups().get(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn list(&self) -> Answer<Vec<v1::Group>> {
        let message = v1::ListGroupsRequest { partition_group: self.partition_group.clone() };
        Ok(self.groups().list(self.call(message)).await.map_err(failure)?.into_inner().groups)
    }

    async fn configure(&self, group: &str, config: v1::GroupConfig, only_if: If) -> Answer<v1::Group> {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        let If { config_revision: if_config_revision, term: if_term } = only_if;
        let config = Some(config);
        let message = v1::ConfigureGroupRequest { group, partition_group, config, if_config_revision, if_term };
        Ok(self.groups().configure(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn delete(&self, group: &str) -> Answer<()> {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        let message = v1::DeleteGroupRequest { group, partition_group };
        self.groups().delete(self.call(message)).await.map_err(failure).map(|_| ())
    }

    async fn join(&self, group: &str, joining: Joining) -> Answer<v1::JoinResponse> {
        Ok(self.groups().join(self.call(self.joining(group, joining))).await.map_err(failure)?.into_inner())
    }

    async fn hold(&self, group: &str, joining: Joining) -> Answer<Held> {
        let request = self.open(self.joining(group, joining));
        let mut stream = self.groups().join_stream(request).await.map_err(failure)?.into_inner();
        let first = stream.message().await.map_err(failure)?.and_then(|first| first.kind);
        let Some(Said::Joined(joined)) = first else { panic!("a join stream begins with joined, not with {first:?}") };
        let said = pump(stream, |said: v1::JoinStreamResponse| said.kind.expect("the sidecar says something"));
        Ok(Held { joined, said })
    }

    async fn renew(&self, group: &str, member: u64) -> Answer<v1::RenewResponse> {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        let message = v1::RenewRequest { group, partition_group, member };
        Ok(self.groups().renew(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn leave(&self, group: &str, member: u64) -> Answer<()> {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        let message = v1::LeaveRequest { group, partition_group, member };
        self.groups().leave(self.call(message)).await.map_err(failure).map(|_| ())
    }

    async fn set_metadata(
        &self,
        group: &str,
        member: u64,
        metadata: BTreeMap<String, String>,
        if_term: u64,
    ) -> Answer<v1::Member> {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        let metadata = metadata.into_iter().collect();
        let message = v1::SetMetadataRequest { group, partition_group, member, metadata, if_term };
        Ok(self.groups().set_metadata(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn step_down(&self, group: &str, if_term: u64) -> Answer<v1::Group> {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        let message = v1::StepDownRequest { group, partition_group, if_term };
        Ok(self.groups().step_down(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn release(&self, group: &str, term: u64) -> Answer<v1::Group> {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        let message = v1::ReleaseRequest { group, partition_group, term };
        Ok(self.groups().release(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn watch(&self, group: &str, after: &str) -> Answer<Events<v1::GroupEvent>> {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        let message = v1::WatchRequest { group, partition_group, after: after.to_owned() };
        let stream = self.groups().watch(self.open(message)).await.map_err(failure)?.into_inner();
        Ok(pump(stream, |event| event))
    }

    async fn itself(&self, group: &str) -> Answer<v1::SelfResponse> {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        let message = v1::SelfRequest { group, partition_group };
        Ok(self.groups().self_(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn status(&self) -> Answer<v1::StatusResponse> {
        let mut client = ClusterInfoClient::new(self.channel.clone());
        Ok(client.status(self.call(v1::StatusRequest {})).await.map_err(failure)?.into_inner())
    }
}

impl Grpc {
    fn joining(&self, group: &str, Joining { metadata, zone, ttl_ms }: Joining) -> v1::JoinRequest {
        let (group, partition_group) = (group.to_owned(), self.partition_group.clone());
        v1::JoinRequest { group, partition_group, metadata: metadata.into_iter().collect(), zone, ttl_ms }
    }
}
