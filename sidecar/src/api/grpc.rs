//! gRPC: carries requests to [`Ops`] and answers back.

use std::collections::BTreeSet;

use coterie_core::Rejection;
use coterie_core::limits::{REQUEST_BYTES_MAX, VALUE_BYTES_MAX};
use coterie_proto::shared::operations_server::{Operations, OperationsServer};
use coterie_proto::v1;
use coterie_proto::v1::cluster_info_server::{ClusterInfo, ClusterInfoServer};
use coterie_proto::v1::groups_server::{Groups, GroupsServer};
use coterie_proto::v1::locks_server::{Locks, LocksServer};
use coterie_proto::v1::maps_server::{Maps, MapsServer};
use futures_util::stream::{BoxStream, StreamExt as _};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::server::HealthReporter;

use super::error;
use super::ops::Ops;
use super::stream::Serving;
use crate::limits::BATCH_BYTES_MAX;
use crate::state::State;

/// What applications call.
const SERVICES: [&str; 5] = [
    v1::groups_server::SERVICE_NAME,
    v1::maps_server::SERVICE_NAME,
    v1::locks_server::SERVICE_NAME,
    v1::operations_server::SERVICE_NAME,
    v1::cluster_info_server::SERVICE_NAME,
];

/// Bytes of a message with one value: the largest value, and what names it.
const MESSAGE_BYTES_MAX: usize = VALUE_BYTES_MAX + 8 * 1024;

/// Adds the gRPC services to the routes of the HTTP API.
pub fn add(router: axum::Router, ops: &Ops) -> axum::Router {
    let (reporter, health) = tonic_health::server::health_reporter();
    report_health(ops, reporter);
    let services = Services { ops: ops.clone() };
    let groups = GroupsServer::new(services.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let maps = MapsServer::new(services.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let locks = LocksServer::new(services.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let operations = OperationsServer::new(services.clone())
        .max_decoding_message_size(BATCH_BYTES_MAX)
        .max_encoding_message_size(BATCH_BYTES_MAX);
    let cluster = ClusterInfoServer::new(services).max_decoding_message_size(REQUEST_BYTES_MAX);
    const COMPILED: &str = "the descriptors are compiled in; a test reads them";
    Routes::from(router)
        .add_service(groups)
        .add_service(maps)
        .add_service(locks)
        .add_service(operations)
        .add_service(cluster)
        .add_service(health)
        .add_service(reflection().build_v1().expect(COMPILED))
        .add_service(reflection().build_v1alpha().expect(COMPILED))
        .into_axum_router()
}

/// Describes what applications call, and not what peers and the operator do.
fn reflection<'a>() -> tonic_reflection::server::Builder<'a> {
    let names: BTreeSet<&str> = SERVICES.into();
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(coterie_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health");
    names.into_iter().fold(builder, tonic_reflection::server::Builder::with_service_name)
}

/// Serving means that requests are taken: the cluster is known and the sidecar does not go down.
fn report_health(ops: &Ops, reporter: HealthReporter) {
    let mut state = ops.node().state();
    let stopping = ops.node().stopping();
    let task = async move {
        loop {
            let serving = *state.borrow_and_update() == State::Running;
            let status =
                if serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
            for service in [""].into_iter().chain(SERVICES) {
                reporter.set_service_status(service, status).await;
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                changed = state.changed() => if changed.is_err() { return },
            }
        }
    };
    ops.node().env().spawn.spawn("api-health", Box::pin(task));
}

#[derive(Clone)]
struct Services {
    ops: Ops,
}

macro_rules! unary {
    ($self:ident, $request:ident, $op:ident) => {{
        let (metadata, _, message) = $request.into_parts();
        let headers = metadata.into_headers();
        answer($self.ops.$op(&headers, message).await)
    }};
}

fn answer<T>(result: Result<T, Rejection>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(error::to_status)
}

fn answer_stream<T: Send + 'static>(
    result: Result<BoxStream<'static, T>, Rejection>,
) -> Result<Response<BoxStream<'static, Result<T, Status>>>, Status> {
    answer(result.map(|messages| messages.map(Ok).boxed()))
}

#[tonic::async_trait]
impl Groups for Services {
    async fn create(&self, request: Request<v1::CreateGroupRequest>) -> Result<Response<v1::Group>, Status> {
        unary!(self, request, create)
    }

    async fn get(&self, request: Request<v1::GetGroupRequest>) -> Result<Response<v1::Group>, Status> {
        unary!(self, request, get)
    }

    async fn list(&self, request: Request<v1::ListGroupsRequest>) -> Result<Response<v1::ListGroupsResponse>, Status> {
        unary!(self, request, list)
    }

    async fn configure(&self, request: Request<v1::ConfigureGroupRequest>) -> Result<Response<v1::Group>, Status> {
        unary!(self, request, configure)
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        unary!(self, request, delete)
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        unary!(self, request, join)
    }

    type JoinStreamStream = BoxStream<'static, Result<v1::JoinStreamResponse, Status>>;

    async fn join_stream(&self, request: Request<v1::JoinRequest>) -> Result<Response<Self::JoinStreamStream>, Status> {
        let (metadata, _, message) = request.into_parts();
        answer_stream(self.ops.join_stream(&metadata.into_headers(), message).await)
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        unary!(self, request, renew)
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        unary!(self, request, leave)
    }

    async fn set_metadata(&self, request: Request<v1::SetMetadataRequest>) -> Result<Response<v1::Member>, Status> {
        unary!(self, request, set_metadata)
    }

    async fn step_down(&self, request: Request<v1::StepDownRequest>) -> Result<Response<v1::Group>, Status> {
        unary!(self, request, step_down)
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Result<Response<v1::Group>, Status> {
        unary!(self, request, release)
    }

    type WatchStream = BoxStream<'static, Result<v1::GroupEvent, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, _, message) = request.into_parts();
        answer_stream(self.ops.watch(&metadata.into_headers(), message).await)
    }

    async fn self_(&self, request: Request<v1::SelfRequest>) -> Result<Response<v1::SelfResponse>, Status> {
        unary!(self, request, own)
    }
}

#[tonic::async_trait]
impl Maps for Services {
    async fn put(&self, request: Request<v1::PutRequest>) -> Result<Response<v1::PutResponse>, Status> {
        unary!(self, request, put_entry)
    }

    async fn get(&self, request: Request<v1::GetEntryRequest>) -> Result<Response<v1::GetEntryResponse>, Status> {
        unary!(self, request, get_entry)
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteEntryRequest>,
    ) -> Result<Response<v1::DeleteEntryResponse>, Status> {
        unary!(self, request, delete_entry)
    }

    async fn list(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<Response<v1::ListEntriesResponse>, Status> {
        unary!(self, request, list_entries)
    }

    type WatchStream = BoxStream<'static, Result<v1::MapEvent, Status>>;

    async fn watch(&self, request: Request<v1::WatchMapRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, _, message) = request.into_parts();
        answer_stream(self.ops.watch_map(&metadata.into_headers(), message).await)
    }

    async fn drop(&self, request: Request<v1::DropMapRequest>) -> Result<Response<v1::DropMapResponse>, Status> {
        unary!(self, request, drop_map)
    }
}

#[tonic::async_trait]
impl Locks for Services {
    async fn acquire(&self, request: Request<v1::AcquireRequest>) -> Result<Response<v1::AcquireResponse>, Status> {
        unary!(self, request, acquire)
    }

    async fn renew(&self, request: Request<v1::RenewLockRequest>) -> Result<Response<v1::RenewLockResponse>, Status> {
        unary!(self, request, renew_lock)
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseLockRequest>,
    ) -> Result<Response<v1::ReleaseLockResponse>, Status> {
        unary!(self, request, release_lock)
    }

    async fn get(&self, request: Request<v1::GetLockRequest>) -> Result<Response<v1::Lock>, Status> {
        unary!(self, request, get_lock)
    }
}

#[tonic::async_trait]
impl Operations for Services {
    type StreamStream = Serving;

    async fn stream(
        &self,
        request: Request<Streaming<v1::OperationBatch>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        Ok(Response::new(Serving::new(self.ops.clone(), request.into_inner())))
    }
}

#[tonic::async_trait]
impl ClusterInfo for Services {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.ops.status()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_describe_the_services_of_applications() {
        assert!(reflection().build_v1().is_ok());
        assert!(reflection().build_v1alpha().is_ok());
    }
}
