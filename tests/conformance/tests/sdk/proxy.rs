//! A connection that can be cut while both ends live.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Passes connections on to a member, until they are cut.
pub(crate) struct Proxy {
    address: SocketAddr,
    cut: watch::Sender<u64>,
    _accepts: AbortOnDropHandle<()>,
}

impl Proxy {
    /// To a member's API.
    pub(crate) async fn to(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("it is bound");
        let target = endpoint.trim_start_matches("http://").to_owned();
        let cut = watch::Sender::new(0);
        let cuts = cut.clone();
        let accepts = tokio::spawn(async move {
            loop {
                let (inner, _) = listener.accept().await.expect("accept");
                let (target, mut cut) = (target.clone(), cuts.subscribe());
                tokio::spawn(async move { pass(inner, &target, &mut cut).await });
            }
        });
        Self { address, cut, _accepts: AbortOnDropHandle::new(accepts) }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes all connections; new ones are passed on.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

async fn pass(mut inner: TcpStream, target: &str, cut: &mut watch::Receiver<u64>) {
    let Ok(mut outer) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
        _ = cut.changed() => {}
    }
}
