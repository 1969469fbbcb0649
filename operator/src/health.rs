//! `/livez` and `/readyz` on one port.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

/// Whether the controllers have read what there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// They have.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(address: SocketAddr, readiness: Readiness) -> std::io::Result<()> {
    let ready = move || async move {
        if readiness.0.load(Ordering::Acquire) {
            (StatusCode::OK, "ready")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the controllers have not read the custom resources yet")
        }
    };
    let router = Router::new().route("/livez", get(|| async { "live" })).route("/readyz", get(ready));
    axum::serve(listen(address).await?, router).await
}

/// On all IPv4 addresses where all IPv6 addresses are asked for and the machine has none.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    }
}
