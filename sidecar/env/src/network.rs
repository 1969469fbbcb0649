//! Connections between processes. TLS is a wrapper above; the simulator runs plain below it.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};

/// A connected byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A network.
#[async_trait::async_trait]
pub trait Network: Send + Sync + 'static {
    /// Connects to `host:port`. The name is resolved anew at every call: addresses of pods change.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>>;
    /// Listens on `host:port`.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;
}

/// A listening socket.
#[async_trait::async_trait]
pub trait Listener: Send + 'static {
    /// The next connection and who made it.
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)>;
    /// The address it listens on, with the port that was chosen when `0` was asked.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}
