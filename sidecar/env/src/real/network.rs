//! TCP.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use crate::network::{Listener, Network, Stream};

/// Connections that the kernel has accepted and the process has not.
const BACKLOG: u32 = 1024;

/// The network of this machine.
pub(super) struct SystemNetwork;

#[async_trait::async_trait]
impl Network for SystemNetwork {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        // Resolves at every call and tries every address that the name has.
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let mut failed = None;
        for address in lookup_host(address).await? {
            match bind(address) {
                Ok(listener) => return Ok(Box::new(SystemListener(listener))),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{address} resolves to no address"))
        }))
    }
}

/// Listens on one address; on `[::]` for IPv4 as well, and on `0.0.0.0` alone where the machine has no IPv6.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match bind_exactly(address) {
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && no_ipv6(&error) => {
            bind_exactly(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        other => other,
    }
}

fn bind_exactly(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if address.is_ipv6() && address.ip().is_unspecified() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn no_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL].iter().any(|no| code == Some(no.raw_os_error()))
}

struct SystemListener(TcpListener);

#[async_trait::async_trait]
impl Listener for SystemListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        // A connection from IPv4 to a listener for both arrives as ::ffff:a.b.c.d; who asks for the loopback address
        // must see 127.0.0.1.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        Ok((Box::new(stream), from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn echo_once(listen: &str, connect: &str) {
        let mut listener = SystemNetwork.listen(listen).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, from) = listener.accept().await.unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            stream.write_all(&byte).await.unwrap();
            from
        });
        let mut stream = SystemNetwork.connect(&format!("{connect}:{port}")).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"x");
        assert!(server.await.unwrap().ip().is_loopback());
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_bytes_go_both_ways() {
        echo_once("127.0.0.1:0", "localhost").await;
    }

    #[tokio::test]
    async fn the_wildcard_address_takes_ipv4_too() {
        echo_once("[::]:0", "127.0.0.1").await;
    }
}
