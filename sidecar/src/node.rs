//! One sidecar, put together: what it owns, and how it starts, serves and stops.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coterie_core::command::MemberKind;
use coterie_core::config::{Config, Security};
use coterie_core::{ErrorCode, Rejection};
use coterie_env::Env;
use coterie_proto::peer;
use coterie_replication::{Ticker, Timing};
use coterie_store::directory::{self, Identity};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::serve::Ending;
use crate::deadline::Deadline;
use crate::directory::Directory;
use crate::greetings::{Greetings, Own};
use crate::identities::{Ephemeral, Identities};
use crate::locks::Locks;
use crate::partitions::Partitions;
use crate::peers::client::{Peers, Sender};
use crate::peers::tls::{Files, Tls};
use crate::presence::Presences;
use crate::router::{Declared, Router};
use crate::sessions::holder;
use crate::sessions::keeper::Keepers;
use crate::state::State;
use crate::volume::{self, Store};
use crate::{api, cluster, formation, health, limits, peers, status};

/// What a sidecar is started with.
pub struct Options {
    /// The world.
    pub env: Env,
    /// Validated.
    pub config: Config,
    /// Where durable bytes go. Not used by members without a volume.
    pub data_directory: PathBuf,
    /// Where the Unix socket of the local API is; `None`: no socket.
    pub api_socket: Option<PathBuf>,
}

/// How large what is kept on the volume becomes. The default is what members have; in a simulation of seconds, with that
/// nothing would ever be shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Entries between two snapshots of a partition.
    pub snapshot_entries: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { segment_bytes: coterie_store::log::Options::default().segment_bytes, snapshot_entries: 10_000 }
    }
}

/// Why a sidecar cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory is locked, not readable or not writable.
    #[error("open the data directory")]
    OpenDirectory(#[source] directory::Error),
    /// The log is damaged or not readable.
    #[error("open the log")]
    OpenLog(#[source] coterie_store::log::Error),
    /// Snapshots cannot be kept.
    #[error("open the snapshots")]
    OpenSnapshots(#[source] io::Error),
    /// The certificates are not usable.
    #[error("read the certificates")]
    ReadCertificates(#[source] io::Error),
    /// A port is taken, or the address is not this machine's.
    #[error("listen for {what} on {address}")]
    Listen {
        /// What for.
        what: &'static str,
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The disk failed; what was not flushed is lost, and nothing more is acknowledged.
    #[error("the log can no longer be written: {0}")]
    LogFailed(String),
}

/// A running sidecar. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    env: Env,
    config: Config,
    run: u64,
    store: Option<Arc<Store>>,
    identities: Arc<dyn Identities>,
    state: watch::Sender<State>,
    peers: Peers,
    greetings: Greetings,
    directory: Directory,
    partitions: Partitions,
    ticker: Ticker,
    keepers: Keepers,
    router: Router,
    sessions: holder::Sessions,
    presences: Presences,
    locks: Locks,
    ending: Ending,
    failed: watch::Sender<Option<String>>,
    ready: AtomicBool,
    draining: tokio::sync::Mutex<bool>,
    stopped: AtomicBool,
}

impl Node {
    /// Starts a sidecar: opens its directory, listens, and begins to find or form its cluster. It answers on its local
    /// API from then on, whatever the state of the cluster.
    pub async fn start(options: Options) -> Result<Self, Error> {
        Self::start_with(options, Sizes::default()).await
    }

    /// The same, with other sizes: for simulations.
    pub async fn start_with(options: Options, sizes: Sizes) -> Result<Self, Error> {
        let Options { env, config, data_directory, api_socket } = options;
        let run = env.random.next_u64();
        let (store, wrong) = volume::open(&env, &config, &data_directory, sizes).await?;
        let identities: Arc<dyn Identities> = match &store {
            Some(store) => store.clone(),
            None => Arc::new(Ephemeral::new(&config.cluster, &config.local.name)),
        };
        let tls = tls(&env, &config)?;
        let assembly = Assembly { env, config, run, store, identities, tls: tls.clone() };
        let node = Self(Arc::new(assemble(assembly)));
        for (name, member) in &node.config().members {
            if let Some(address) = member.address.as_ref().filter(|_| *name != node.config().local.name) {
                node.peers().set_address(name, &address.to_string());
            }
        }
        node.listen(tls, api_socket).await?;
        match wrong {
            Some(rejection) => node.greetings().refuse_self(rejection),
            None => node.join_cluster(),
        }
        node.follow_refusal();
        node.follow_failures();
        Ok(node)
    }

    async fn listen(&self, tls: Option<Arc<Tls>>, api_socket: Option<PathBuf>) -> Result<(), Error> {
        if let Some(listen) = self.config().peer {
            let listener = bind(self.env(), "peers", &listen.sockets()).await?;
            for listener in listener {
                let (node, tls) = (self.clone(), tls.clone());
                let serving = async move {
                    if let Err(error) = peers::server::serve(node.clone(), listener, tls).await {
                        node.fail(format!("serve peers: {error}"));
                    }
                };
                self.env().spawn.spawn("peers", Box::pin(serving));
            }
        }
        let listeners = bind(self.env(), "applications", &self.config().api.sockets()).await?;
        let counters = api::serve(self.clone(), listeners, api_socket).map_err(|source| Error::Listen {
            what: "applications",
            address: "the Unix socket".to_owned(),
            source,
        })?;
        let listeners = bind(self.env(), "health", &self.config().health.sockets()).await?;
        health::serve(self.clone(), listeners, counters);
        Ok(())
    }

    fn join_cluster(&self) {
        let spawn = &self.env().spawn;
        let (greetings, peers, stop) = (self.greetings().clone(), self.peers().clone(), self.stopping());
        spawn.spawn("greetings", Box::pin(greetings.run(peers, stop)));
        spawn.spawn("cluster", Box::pin(cluster::run(self.clone())));
    }

    /// A refused directory takes this member out of everything at once, and for good.
    fn follow_refusal(&self) {
        let node = self.clone();
        let following = async move {
            let mut refused = node.greetings().refused();
            let stop = node.stopping();
            loop {
                let rejection = refused.borrow_and_update().clone();
                if let Some(rejection) = rejection {
                    node.0.state.send_replace(State::Refused(rejection));
                    for (id, partition) in node.partitions().all() {
                        node.partitions().remove(&id);
                        node.keepers().remove(&id);
                        partition.shutdown().await;
                    }
                    return;
                }
                tokio::select! {
                    changed = refused.changed() => if changed.is_err() { return },
                    () = stop.cancelled() => return,
                }
            }
        };
        self.env().spawn.spawn("refusal", Box::pin(following));
    }

    /// A disk that fails ends the process: what it acknowledged is on a majority, what it did not is unknown.
    fn follow_failures(&self) {
        let node = self.clone();
        let following = async move {
            let stop = node.stopping();
            loop {
                if let Err(failure) = node.live() {
                    node.fail(failure);
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(limits::GREETING_MS)) => {}
                    () = stop.cancelled() => return,
                }
            }
        };
        self.env().spawn.spawn("failures", Box::pin(following));
    }

    /// Ends the process with an error.
    pub(crate) fn fail(&self, failure: String) {
        tracing::error!(failure, "this sidecar cannot go on");
        self.0.failed.send_replace(Some(failure));
    }

    /// Waits until the sidecar has stopped, or cannot go on.
    pub async fn wait(&self) -> Result<(), Error> {
        let mut failed = self.0.failed.subscribe();
        let stop = self.stopping();
        tokio::select! {
            failed = failed.wait_for(Option::is_some) => match failed {
                Ok(failure) => Err(Error::LogFailed(failure.clone().unwrap_or_default())),
                Err(_) => Ok(()),
            },
            () = stop.cancelled() => Ok(()),
        }
    }

    /// Hands over what this sidecar leads: its applications' leaderships first, then the partitions'. Returns when that
    /// is done or [`limits::DRAIN_MS_MAX`] have passed. Asked again, it waits for the first time's end.
    pub async fn drain(&self) {
        let mut done = self.0.draining.lock().await;
        if std::mem::replace(&mut *done, true) {
            return;
        }
        self.0.state.send_if_modified(|state| {
            let drains = !matches!(state, State::Refused(_));
            if drains {
                *state = State::Draining;
            }
            drains
        });
        let handing_over = async {
            self.presences().drain().await;
            let transfers = self.partitions().all().into_iter().map(|(id, partition)| async move {
                let leading = partition.leadership().borrow().leading;
                let alone = self.peers().members().is_empty();
                if leading && !alone && !partition.transfer_away().await {
                    tracing::warn!(partition = %id, "the leadership could not be handed over");
                }
            });
            futures_util::future::join_all(transfers).await;
        };
        if tokio::time::timeout(Duration::from_millis(limits::DRAIN_MS_MAX), handing_over).await.is_err() {
            tracing::warn!("handing over took too long");
        }
    }

    /// Stops in good order: drains, waits for what holders of locks were told, ends sessions, closes the log.
    pub async fn stop(&self) {
        if self.0.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        self.drain().await;
        self.locks().wait_out().await;
        let deadline = Deadline::after_ms(self.env(), limits::TRY_MS_MAX);
        self.sessions().close(deadline).await;
        if self.config().local.kind == MemberKind::Ephemeral {
            cluster::forget(self, self.config().local.name.clone(), deadline).await;
        }
        for (id, partition) in self.partitions().all() {
            self.partitions().remove(&id);
            partition.shutdown().await;
        }
        if let Some(store) = &self.0.store {
            store.log.close().await;
        }
        self.0.ending.stopping.cancel();
        self.0.ending.wait().await;
    }

    /// The world.
    pub fn env(&self) -> &Env {
        &self.0.env
    }

    /// What it was started with.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The random number of this process.
    pub fn run(&self) -> u64 {
        self.0.run
    }

    /// Its state, followed.
    pub fn state(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
    }

    /// Moves to another state, unless it is refused for good or going down.
    pub(crate) fn set_state(&self, new: State) {
        let refused = self.is_refused();
        self.0.state.send_if_modified(|state| {
            let moves = !refused && *state != State::Draining && *state != new;
            if moves {
                tracing::info!(state = new.label(), reason = new.reason(), "state");
                *state = new;
            }
            moves
        });
    }

    /// Whether this directory is refused for good.
    pub(crate) fn is_refused(&self) -> bool {
        self.greetings().refused().borrow().is_some()
    }

    /// Whether requests from peers are answered here.
    pub(crate) fn serving(&self) -> Result<(), Rejection> {
        match &*self.0.state.borrow() {
            State::Refused(rejection) => Err(Rejection::new(ErrorCode::NoQuorum, rejection.message.clone())),
            _ => Ok(()),
        }
    }

    /// Routes requests to partitions.
    pub fn router(&self) -> &Router {
        &self.0.router
    }

    /// This sidecar's sessions.
    pub fn sessions(&self) -> &holder::Sessions {
        &self.0.sessions
    }

    /// The memberships of the applications beside this sidecar.
    pub fn presences(&self) -> &Presences {
        &self.0.presences
    }

    /// The locks of the applications beside this sidecar.
    pub fn locks(&self) -> &Locks {
        &self.0.locks
    }

    /// What is known of the cluster.
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// What times the local replicas.
    pub(crate) fn ticker(&self) -> &Ticker {
        &self.0.ticker
    }

    /// Local replicas.
    pub fn partitions(&self) -> &Partitions {
        &self.0.partitions
    }

    /// Whom this member has met.
    pub(crate) fn greetings(&self) -> &Greetings {
        &self.0.greetings
    }

    /// Calls to peers.
    pub fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// The timers of local replicas.
    pub fn keepers(&self) -> &Keepers {
        &self.0.keepers
    }

    /// The data directory, on members that have one.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.0.store.as_deref()
    }

    /// The identity of its data directory.
    pub(crate) fn identity(&self) -> Identity {
        self.0.identities.identity()
    }

    /// The cluster as this sidecar sees it.
    pub fn status(&self) -> coterie_proto::v1::StatusResponse {
        status::of(self)
    }

    /// Cancelled when the process stops.
    pub fn stopping(&self) -> CancellationToken {
        self.0.ending.stopping.clone()
    }

    /// How connections of applications end.
    pub fn ending(&self) -> Ending {
        self.0.ending.clone()
    }

    /// Whether the log makes progress. Never a matter of quorum.
    pub fn live(&self) -> Result<(), String> {
        if let Some(store) = &self.0.store
            && let Some(failure) = store.log.failure()
        {
            return Err(failure);
        }
        for (id, partition) in self.0.partitions.all() {
            if let Some(failure) = partition.failed() {
                return Err(format!("partition {id}: {failure}"));
            }
        }
        Ok(())
    }

    /// False from the start until its replicas have caught up once, then true until it stops. Losing quorum or
    /// leadership changes nothing.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.0.state.borrow().clone();
        if state == State::Draining {
            return Err("draining".to_owned());
        }
        if self.0.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        if state != State::Running {
            return Err(format!("{}: {}", state.label(), state.reason()));
        }
        let view = self.directory().view().map_err(|rejection| rejection.message)?;
        let declared = self.config().partition_groups.keys();
        if let Some(missing) = declared.into_iter().find(|name| !view.directory.partition_groups.contains_key(name)) {
            return Err(format!("partition group {missing} is not formed yet"));
        }
        for id in cluster::replicas_of(self) {
            let Some(partition) = self.0.partitions.get(&id) else {
                return Err(format!("the replica of partition {id} is not open yet"));
            };
            if partition.silent_ms() > limits::STALE_MS {
                return Err(format!("the replica of partition {id} has not heard of a leader yet"));
            }
        }
        self.0.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Records a proposed formation, if it may be.
    pub(crate) fn take_formation(&self, proposal: peer::Formation) -> Result<(), Rejection> {
        let (Some(store), Some(management)) = (&self.0.store, &self.0.config.management) else {
            return Err(Rejection::new(
                ErrorCode::ExistsDifferently,
                format!("{} is not configured as a member of the management group", self.0.config.local.name),
            ));
        };
        let own = store.directory.identity();
        let has_log = store.has_log();
        let formation = formation::acceptable(&own, has_log, &management.members, &proposal)?;
        cluster::record_formation(store, formation)?;
        self.greetings().touch();
        Ok(())
    }
}

fn tls(env: &Env, config: &Config) -> Result<Option<Arc<Tls>>, Error> {
    match &config.security {
        Security::PlaintextOnLoopback | Security::PlaintextAnywhere => Ok(None),
        Security::Certificates { ca, certificate, key } => {
            let files = Files { ca: ca.clone(), certificate: certificate.clone(), key: key.clone() };
            Ok(Some(Arc::new(Tls::open(env, files).map_err(Error::ReadCertificates)?)))
        }
    }
}

struct Assembly {
    env: Env,
    config: Config,
    run: u64,
    store: Option<Arc<Store>>,
    identities: Arc<dyn Identities>,
    tls: Option<Arc<Tls>>,
}

fn assemble(assembly: Assembly) -> Inner {
    let Assembly { env, config, run, store, identities, tls } = assembly;
    let sender = Sender { node: identities.identity().node_id, run };
    let partitions = Partitions::default();
    let ticker = Ticker::start(&env, Timing::from(config.timing));
    let own = Own {
        run,
        address: config.local.address.as_ref().map(ToString::to_string).unwrap_or_default(),
        zone: config.local.zone.clone(),
        voter: config.local.kind == MemberKind::Persistent,
        timing: config.timing,
        seats: config.management.as_ref().map(|group| group.members.clone()).unwrap_or_default(),
        marks: store.as_ref().map(|store| store.marks()).unwrap_or_default(),
        partitions: partitions.clone(),
    };
    let plaintext = config.security == Security::PlaintextAnywhere;
    let peers = Peers::new(&env, tls, plaintext, sender);
    let greetings = Greetings::new(&env, own, identities.clone());
    let (directory, keepers) = (Directory::default(), Keepers::default());
    let stopping = CancellationToken::new();
    let router = Router::new(
        &env,
        config.local.name.clone(),
        Declared {
            default: config.default_partition_group.clone(),
            names: config.partition_groups.keys().cloned().collect(),
        },
        partitions.clone(),
        peers.clone(),
        directory.clone(),
    );
    let sessions = holder::Sessions::new(holder::Parts {
        env: env.clone(),
        own: config.local.name.clone(),
        incarnation: run,
        ttl_ms: config.session_timeout_ms,
        router: router.clone(),
        directory: directory.clone(),
        partitions: partitions.clone(),
        keepers: keepers.clone(),
        peers: peers.clone(),
        stopping: stopping.clone(),
    });
    let presences = Presences::new(&env, router.clone(), sessions.clone(), &config.local.zone, &stopping);
    let locks = Locks::new(&env, router.clone(), sessions.clone(), &stopping);
    Inner {
        env,
        config,
        run,
        store,
        identities,
        state: watch::Sender::new(State::Starting),
        peers,
        greetings,
        directory,
        partitions,
        ticker,
        keepers,
        router,
        sessions,
        presences,
        locks,
        ending: Ending { stopping, ..Ending::default() },
        failed: watch::Sender::new(None),
        ready: AtomicBool::new(false),
        draining: tokio::sync::Mutex::new(false),
        stopped: AtomicBool::new(false),
    }
}

/// Listens on all of these that the machine has; one is enough.
async fn bind(
    env: &Env,
    what: &'static str,
    sockets: &[std::net::SocketAddr],
) -> Result<Vec<Box<dyn coterie_env::Listener>>, Error> {
    let mut listeners = Vec::new();
    let mut failed = None;
    for socket in sockets {
        match env.network.listen(&socket.to_string()).await {
            Ok(listener) => listeners.push(listener),
            Err(source) => {
                failed = failed.or(Some(Error::Listen { what, address: socket.to_string(), source }));
            }
        }
    }
    match failed {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}
