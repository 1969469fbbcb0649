//! How clients call their sidecar.

use std::future::Future;
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::history::History;

/// A request that ends within this time.
pub(crate) fn request<T>(asked: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(asked);
    let timeout = timeout.as_millis().to_string();
    request.metadata_mut().insert("coterie-timeout-ms", timeout.parse().expect("digits"));
    request
}

/// What a call gives; nothing, and a line in the trace, if it fails or takes half as long again as it may.
pub(crate) async fn answer<A>(
    history: &History,
    who: &str,
    what: &str,
    timeout: Duration,
    call: impl Future<Output = Result<Response<A>, Status>>,
) -> Option<A> {
    let why = match tokio::time::timeout(timeout + timeout / 2, call).await {
        Ok(Ok(answer)) => return Some(answer.into_inner()),
        Ok(Err(status)) => status.message().to_owned(),
        Err(_) => "no answer".to_owned(),
    };
    history.note(who, &format!("{what}: {why}"));
    None
}

/// Time that a client spends on other things.
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await; // plays a client at its own pace
}
