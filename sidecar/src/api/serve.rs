//! Listeners and connections: HTTP/1.1 and HTTP/2 without TLS (by prior knowledge) on one port.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use coterie_core::limits::WATCHES_MAX;
use coterie_env::{Env, Listener};
#[cfg(not(feature = "sim"))]
use hyper_util::rt::TokioExecutor as Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::{CONNECTION_END_MS_MAX, CONNECTIONS_MAX, RETRY_PAUSE_MS_MAX};

/// Everybody in the pod may connect: containers run as different users.
const SOCKET_MODE: u32 = 0o666;

/// What connections share.
#[derive(Clone)]
struct Shared {
    env: Env,
    routes: Router,
    ending: Ending,
    connections: Arc<Semaphore>,
}

/// Runs requests as tasks that stand still with their process.
#[cfg(feature = "sim")]
#[derive(Clone)]
struct Executor;

#[cfg(feature = "sim")]
impl Executor {
    fn new() -> Self {
        Self
    }
}

#[cfg(feature = "sim")]
impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        tokio::spawn(coterie_env::pause::gated(task));
    }
}

/// How connections end: they are told by the one, and waited for by the other.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// The process stops.
    pub stopping: CancellationToken,
    /// What is still served.
    pub open: TaskTracker,
}

impl Ending {
    /// Waits until what was served has ended, for as long as connections may take.
    pub async fn wait(&self) {
        self.open.close();
        let limit = Duration::from_millis(CONNECTION_END_MS_MAX);
        if tokio::time::timeout(limit, self.open.wait()).await.is_err() {
            tracing::info!("some connections of applications did not end in time");
        }
    }
}

/// Serves what connects to these listeners until the process stops.
pub(crate) fn tcp(env: &Env, listeners: Vec<Box<dyn Listener>>, routes: &Router, ending: &Ending) {
    let shared = Shared::new(env, routes, ending);
    for listener in listeners {
        env.spawn.spawn("listen-tcp", Box::pin(accept(shared.clone(), listener)));
    }
}

/// Makes a Unix socket, open to every user, and serves it. One that a dead process left behind is replaced.
///
/// # Errors
/// `AddrInUse` if another process serves it; whatever the file system says. A path that is too long for a socket is
/// logged and left out: the same API is on the loopback port.
pub(crate) fn socket(env: &Env, path: &Path, routes: &Router, ending: &Ending) -> io::Result<()> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let message = format!("another process serves the socket {}", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = match UnixListener::bind(path) {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            tracing::warn!(path = %path.display(), %error, "no Unix socket: give a shorter path for it");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    env.spawn.spawn("listen-socket", Box::pin(accept(Shared::new(env, routes, ending), listener)));
    Ok(())
}

impl Shared {
    fn new(env: &Env, routes: &Router, ending: &Ending) -> Self {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { env: env.clone(), routes: routes.clone(), ending: ending.clone(), connections }
    }

    /// A permit for one more connection; `None` when the process stops.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            () = self.ending.stopping.cancelled() => None,
            permit = Arc::clone(&self.connections).acquire_owned() => permit.ok(),
        }
    }

    async fn failed(&self, error: &io::Error) {
        tracing::debug!(%error, "a connection could not be accepted");
        tokio::time::sleep(Duration::from_millis(RETRY_PAUSE_MS_MAX)).await;
    }

    fn spawn<S>(&self, stream: S, permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shared = self.clone();
        let task = async move {
            connection(&shared, stream).await;
            drop(permit);
        };
        self.env.spawn.spawn("connection", Box::pin(self.ending.open.track_future(task)));
    }
}

/// A listener of either kind.
trait Accept: Send {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for Box<dyn Listener> {
    type Stream = Box<dyn coterie_env::Stream>;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        (**self).accept().await.map(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }
}

async fn accept(shared: Shared, mut listener: impl Accept) {
    while let Some(permit) = shared.permit().await {
        let accepted = tokio::select! {
            () = shared.ending.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => shared.spawn(stream, permit),
            Err(error) => shared.failed(&error).await,
        }
    }
}

/// Serves one connection until the other side closes it, or the process stops. A closed connection drops its streams at
/// once; that is what a membership held by a stream rests on.
async fn connection<S>(shared: &Shared, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = auto::Builder::new(Executor::new());
    builder.http1().timer(TokioTimer::new());
    let streams = u32::try_from(WATCHES_MAX).unwrap_or(u32::MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(streams);
    let service = TowerToHyperService::new(shared.routes.clone());
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shared.ending.stopping.cancelled() => {
            served.as_mut().graceful_shutdown();
            let limit = Duration::from_millis(CONNECTION_END_MS_MAX);
            tokio::time::timeout(limit, served.as_mut()).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use futures_util::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;

    /// Says when it is dropped.
    struct Told(Option<oneshot::Sender<()>>);
    impl Drop for Told {
        fn drop(&mut self) {
            if let Some(sender) = self.0.take() {
                let _ = sender.send(());
            }
        }
    }

    /// A route whose answer never ends, and the end of its stream.
    fn endless() -> (Router, oneshot::Receiver<()>) {
        let (sender, ended) = oneshot::channel();
        let told = Arc::new(Mutex::new(Some(Told(Some(sender)))));
        let handler = move || {
            let told = told.lock().unwrap().take();
            async move {
                let first = futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"first"))]);
                let rest = futures_util::stream::pending().map(move |item| {
                    let _held = &told;
                    item
                });
                Body::from_stream(first.chain(rest))
            }
        };
        (Router::new().route("/", get(handler)), ended)
    }

    #[tokio::test]
    async fn d20_a_stream_ends_at_once_when_its_http_1_connection_is_closed() {
        let (routes, ended) = endless();
        let shared = Shared::new(&coterie_env::real::real(), &routes, &Ending::default());
        let (mut client, server) = tokio::io::duplex(4096);
        tokio::spawn(async move { connection(&shared, server).await });
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"first\r\n") {
            seen.push(client.read_u8().await.unwrap());
        }
        drop(client);
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_is_open_to_every_user_and_replaces_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coterie.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let env = coterie_env::real::real();
        let ending = Ending::default();
        let routes = Router::new().route("/", get(|| async { "here" }));
        socket(&env, &path, &routes, &ending).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
        let again = socket(&env, &path, &routes, &ending).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_stopping_process_ends_its_connections() {
        let (routes, ended) = endless();
        let ending = Ending::default();
        let env = coterie_env::real::real();
        let listener = env.network.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tcp(&env, vec![listener], &routes, &ending);
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        client.read_u8().await.unwrap();
        ending.stopping.cancel();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        ended.await.unwrap();
    }
}
