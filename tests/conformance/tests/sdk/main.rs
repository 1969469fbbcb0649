//! Maps and locks in the Rust SDK (D21).

use std::time::Duration;

use coterie_client::{Client, ClientOptions};
use coterie_conformance::shared;

mod locks;
mod maps;
mod proxy;

/// How long anything may take that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of a member of the shared cluster.
async fn client(place: usize) -> Client {
    Client::connect(&shared().await.endpoint(place)).expect("a valid endpoint")
}

/// A client that waits out a member's restart.
fn patient(endpoint: &str) -> Client {
    let options = ClientOptions { timeout: PATIENCE, ..ClientOptions::default() };
    Client::connect_with(endpoint, options).expect("a valid endpoint")
}

/// What comes within [`PATIENCE`].
async fn soon<T>(what: &str, coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, coming).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} until {what}"))
}
