//! Keeps a stream while it is wanted, and reads it.

use std::sync::Arc;
use std::time::Duration;

use coterie_proto::v1::operations_client::OperationsClient;
use tonic::transport::Channel;

use super::state::Shared;
use super::{PAUSE_MAX, PAUSE_MIN};
use crate::error::{Error, Kind};

/// Opens a stream whenever something is to be sent and there is none, and reads it until it breaks.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut wire: OperationsClient<Channel>,
    endpoint: Arc<str>,
    timeout: Duration,
) {
    let mut pause = PAUSE_MIN;
    loop {
        shared.wanted().await;
        let opening = wire.stream(shared.outgoing());
        match tokio::time::timeout(timeout, opening).await {
            Ok(Ok(answers)) => {
                shared.opened();
                let mut answers = answers.into_inner();
                let why = loop {
                    match answers.message().await {
                        Ok(Some(batch)) => {
                            shared.answered(batch.results);
                            pause = PAUSE_MIN;
                        }
                        Ok(None) => break "the sidecar ended the stream of operations".to_owned(),
                        Err(status) => break Error::from_status(&status, Kind::Read, &endpoint).to_string(),
                    }
                };
                // Whoever holds something by this stream hears of it before this side closes it.
                shared.broke(&why, None);
                drop(answers);
            }
            Ok(Err(status)) => {
                let error = Error::from_status(&status, Kind::Read, &endpoint);
                shared.broke(&error.to_string(), Some(error));
            }
            Err(_) => {
                let error =
                    Error::Unreachable { endpoint: endpoint.to_string(), reason: "it does not answer".to_owned() };
                shared.broke(&error.to_string(), Some(error));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
