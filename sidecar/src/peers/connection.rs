//! One connection as gRPC sees it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::tls::Roles;

/// What is known of a connection's other end.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What it may do.
    pub roles: Roles,
    /// Becomes false when the connection ends.
    pub open: Arc<AtomicBool>,
}

/// An accepted connection, with or without TLS.
pub struct Connection {
    stream: Box<dyn coterie_env::Stream>,
    caller: Caller,
}

impl Connection {
    /// Wraps a stream whose other end has these roles.
    pub fn new(stream: Box<dyn coterie_env::Stream>, roles: Roles) -> Self {
        Self { stream, caller: Caller { roles, open: Arc::new(AtomicBool::new(true)) } }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.caller.open.store(false, Ordering::Release);
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
