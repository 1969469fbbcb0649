//! Over gRPC.

use coterie_proto::v1;
use coterie_proto::v1::locks_client::LocksClient;
use coterie_proto::v1::maps_client::MapsClient;
use tonic::transport::Channel;

use super::super::grpc::{Grpc, failure, pump};
use super::super::{Answer, Events};
use super::Primitives;

impl Grpc {
    fn maps(&self) -> MapsClient<Channel> {
        MapsClient::new(self.channel.clone()).max_decoding_message_size(64 << 20).max_encoding_message_size(256 << 20)
    }

    fn locks(&self) -> LocksClient<Channel> {
        LocksClient::new(self.channel.clone())
    }

    fn place(&self) -> String {
        self.partition_group.clone()
    }
}

impl Primitives for Grpc {
    async fn put(&self, request: v1::PutRequest) -> Answer<v1::PutResponse> {
        let message = v1::PutRequest { partition_group: self.place(), ..request };
        Ok(self.maps().put(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn entry(&self, request: v1::GetEntryRequest) -> Answer<v1::GetEntryResponse> {
        let message = v1::GetEntryRequest { partition_group: self.place(), ..request };
        Ok(self.maps().get(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn remove(&self, request: v1::DeleteEntryRequest) -> Answer<v1::DeleteEntryResponse> {
        let message = v1::DeleteEntryRequest { partition_group: self.place(), ..request };
        Ok(self.maps().delete(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn entries(&self, request: v1::ListEntriesRequest) -> Answer<v1::ListEntriesResponse> {
        let message = v1::ListEntriesRequest { partition_group: self.place(), ..request };
        Ok(self.maps().list(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn drop_map(&self, map: &str) -> Answer<v1::DropMapResponse> {
        let message = v1::DropMapRequest { map: map.to_owned(), partition_group: self.place() };
        Ok(self.maps().drop(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn watch_map(&self, request: v1::WatchMapRequest) -> Answer<Events<v1::MapEvent>> {
        let message = v1::WatchMapRequest { partition_group: self.place(), ..request };
        let stream = self.maps().watch(self.open(message)).await.map_err(failure)?.into_inner();
        Ok(pump(stream, |event| event))
    }

    async fn acquire(&self, request: v1::AcquireRequest) -> Answer<v1::AcquireResponse> {
        let message = v1::AcquireRequest { partition_group: self.place(), ..request };
        Ok(self.locks().acquire(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn renew_lock(&self, lock: &str, token: u64) -> Answer<v1::RenewLockResponse> {
        let message = v1::RenewLockRequest { lock: lock.to_owned(), partition_group: self.place(), token };
        Ok(self.locks().renew(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn release_lock(&self, lock: &str, token: u64) -> Answer<v1::ReleaseLockResponse> {
        let message = v1::ReleaseLockRequest { lock: lock.to_owned(), partition_group: self.place(), token };
        Ok(self.locks().release(self.call(message)).await.map_err(failure)?.into_inner())
    }

    async fn lock(&self, lock: &str) -> Answer<v1::Lock> {
        let (lock, partition_group) = (lock.to_owned(), self.place());
        let message = v1::GetLockRequest { lock, partition_group, ..v1::GetLockRequest::default() };
        Ok(self.locks().get(self.call(message)).await.map_err(failure)?.into_inner())
    }
}
