//! A cluster of real sidecar processes on this machine.
//!
//! ```text
//! <home>/tls/ca.pem                 an authority for this cluster alone
//! <home>/<member>/tls.{pem,key}     its certificate, DNS name member.coterie.internal
//! <home>/<member>/config.yaml       written by the typed builder (D21, S114)
//! <home>/<member>/data/             its data directory
//! <home>/<member>/coterie.sock      its application API
//! <home>/<member>/sidecar.log       what the process says
//! ```
//! Nothing is left behind: dropping the cluster kills its processes, and if this process itself is killed, the [`reaper`]
//! does.

pub use ready::PATIENCE;

mod certificates;
mod ports;
mod process;
mod ready;
mod reaper;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use coterie_core::config::builder::{Builder, Group, Member, Security};

use certificates::Authority;
use process::Process;
use reaper::Reaper;

/// The partition group that a local cluster has unless told otherwise.
pub const PARTITION_GROUP: &str = "data";
/// More voters than this cost more than they protect.
const VOTERS_MAX: usize = 5;
/// How long a member may take to stop before it is killed: what its hand-over may take (20 s), and a little more.
pub const STOP_GRACE: Duration = Duration::from_secs(25);

/// Why a local cluster does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no sidecar program to run.
    #[error("there is no coterie-sidecar beside {} nor in PATH; run `cargo build --bins`, or name one with --sidecar", .beside.display())]
    Sidecar {
        /// Where it was looked for.
        beside: PathBuf,
    },
    /// A port is taken.
    #[error("port {port} is in use; choose another with --api-port, or free ones with --api-port 0")]
    Port {
        /// Which.
        port: u16,
    },
    /// No port is free.
    #[error("no free port was found")]
    NoPort,
    /// Certificates could not be made.
    #[error("make certificates")]
    Certificates(#[source] rcgen::Error),
    /// A file could not be written.
    #[error("{what} {}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A process could not be started or signalled.
    #[error("{what} {member}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// On which member.
        member: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A member ended instead of becoming ready.
    #[error("{member} ended with {status}; it said:\n{log}")]
    Ended {
        /// Which.
        member: String,
        /// How.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A member did not become ready in time.
    #[error("{member} was not ready after {waited:?}: {why}; it said:\n{log}")]
    NotReady {
        /// Which.
        member: String,
        /// How long it was waited for.
        waited: Duration,
        /// What was missing.
        why: String,
        /// The end of its log.
        log: String,
    },
}

/// Where a cluster's data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// In a new directory that is removed at the end.
    Temporary,
    /// In a new directory that stays.
    TemporaryKept,
    /// Here; it stays, and a cluster that was here before goes on.
    At(PathBuf),
}

/// Which ports the application APIs get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiPorts {
    /// Free ones.
    Free,
    /// This one for the first member, and ten more for each next.
    From(u16),
}

/// Adds groups, profiles and whatever else to the configuration of one member.
pub type Configure = Arc<dyn Fn(&Seat, Builder) -> Builder + Send + Sync>;

/// What to start.
#[derive(Clone)]
pub struct Plan {
    /// The names of the persistent members.
    pub members: Vec<String>,
    /// Where the data goes.
    pub home: Home,
    /// The application APIs' ports.
    pub api_ports: ApiPorts,
    /// The program. `None`: `$COTERIE_SIDECAR`, else the one beside this program, else the one in PATH.
    pub sidecar: Option<PathBuf>,
    /// What is added to a member's name, addresses, ports and certificates. `None`: [`standard_groups`].
    pub configure: Option<Configure>,
}

impl Plan {
    /// `members` members named `member-1` and so on, in a temporary directory, on free ports.
    pub fn new(members: usize) -> Self {
        Self {
            members: (1..=members).map(|number| format!("member-{number}")).collect(),
            home: Home::Temporary,
            api_ports: ApiPorts::Free,
            sidecar: None,
            configure: None,
        }
    }

    /// Configures every member with `configure` in place of [`standard_groups`].
    #[must_use]
    pub fn configure(self, configure: impl Fn(&Seat, Builder) -> Builder + Send + Sync + 'static) -> Self {
        Self { configure: Some(Arc::new(configure)), ..self }
    }
}

/// The management group and the partition group [`PARTITION_GROUP`] with three partitions, on the first members, an odd
/// number of them and at most five.
pub fn standard_groups(members: &[String], builder: Builder) -> Builder {
    let voters = members.len().min(VOTERS_MAX);
    let voters = &members[..voters - usize::from(voters > 0 && voters.is_multiple_of(2))];
    builder
        .management_group(Group::raft(voters))
        .partition_group(PARTITION_GROUP, Group::raft(voters).partitions(3))
        .default_partition_group(PARTITION_GROUP)
}

/// One member's place: names, ports and paths. It stays the same across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The member's name.
    pub name: String,
    /// The application API's port.
    pub api_port: u16,
    /// The peers' port.
    pub peer_port: u16,
    /// The health port.
    pub health_port: u16,
    /// Its own directory; see the module.
    pub directory: PathBuf,
}

impl Seat {
    /// The application API over TCP.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.api_port)
    }

    /// The application API's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("coterie.sock")
    }

    /// The data directory.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("config.yaml")
    }

    /// The log of all its runs.
    pub fn log_file(&self) -> PathBuf {
        self.directory.join("sidecar.log")
    }

    /// The peers' address.
    pub fn peer_address(&self) -> String {
        format!("127.0.0.1:{}", self.peer_port)
    }
}

/// A cluster of real sidecar processes. Methods take the member's place, from 0.
pub struct LocalCluster {
    home: PathBuf,
    /// Removes the temporary directory; `None` if the directory stays.
    temporary: Option<tempfile::TempDir>,
    sidecar: PathBuf,
    authority: Authority,
    declared: Vec<Member>,
    seats: Mutex<Vec<Arc<Seat>>>,
    /// The partition groups that a place's file declares, with those of profiles.
    groups: Mutex<BTreeMap<String, BTreeSet<String>>>,
    processes: Mutex<Vec<Option<Process>>>,
    reaper: Arc<Reaper>,
}

impl LocalCluster {
    /// Starts `members` members and waits until all are ready.
    pub async fn start(members: usize) -> Result<Self, Error> {
        let cluster = Self::prepare(&Plan::new(members))?;
        for place in 0..members {
            cluster.spawn(place)?;
        }
        cluster.wait_ready(PATIENCE).await?;
        Ok(cluster)
    }

    /// Writes everything that a cluster needs, without starting a process.
    pub fn prepare(plan: &Plan) -> Result<Self, Error> {
        let sidecar = process::find_sidecar(plan.sidecar.as_deref())?;
        let (home, temporary) = home(&plan.home)?;
        let authority = Authority::create(&home)?;
        let mut seats = Vec::new();
        for (place, name) in plan.members.iter().enumerate() {
            seats.push(Arc::new(seat(&home, name, plan.api_ports, place)?));
        }
        let declared = seats.iter().map(|seat| Member::persistent(&seat.name, seat.peer_address())).collect();
        let removed = temporary.as_ref().map(|directory| directory.path());
        let reaper = Arc::new(Reaper::start(removed)?);
        let cluster = Self {
            home,
            temporary,
            sidecar,
            authority,
            declared,
            processes: Mutex::new(seats.iter().map(|_| None).collect()),
            seats: Mutex::new(seats),
            groups: Mutex::new(BTreeMap::new()),
            reaper,
        };
        for seat in cluster.seats() {
            let base = cluster.base(&seat);
            let builder = match &plan.configure {
                Some(configure) => configure(&seat, base),
                None => standard_groups(&plan.members, base),
            };
            cluster.write(&seat, &builder)?;
        }
        Ok(cluster)
    }

    /// Adds one more process, of the member `name`, with a directory of its own named `label`, configured by `configure`;
    /// gives its place. It is not started, and the others' files do not change.
    pub fn add(
        &self,
        label: &str,
        name: &str,
        configure: impl FnOnce(&Seat, Builder) -> Builder,
    ) -> Result<usize, Error> {
        let place = self.seats().len();
        let seat = Seat { directory: self.home.join(label), ..seat(&self.home, name, ApiPorts::Free, place)? };
        self.write(&seat, &configure(&seat, self.base(&seat)))?;
        locked(&self.seats).push(Arc::new(seat));
        locked(&self.processes).push(None);
        Ok(place)
    }

    /// All places.
    pub fn seats(&self) -> Vec<Arc<Seat>> {
        locked(&self.seats).clone()
    }

    /// One place.
    ///
    /// # Panics
    /// When there is no such place; so do all methods that take one.
    pub fn seat(&self, place: usize) -> Arc<Seat> {
        locked(&self.seats)[place].clone()
    }

    /// The application API of a member over TCP.
    pub fn endpoint(&self, place: usize) -> String {
        self.seat(place).endpoint()
    }

    /// The data directory of a member.
    pub fn data_dir(&self, place: usize) -> PathBuf {
        self.seat(place).data_directory()
    }

    /// Everything that a member's runs have said so far.
    pub fn logs(&self, place: usize) -> String {
        fs::read_to_string(self.seat(place).log_file()).unwrap_or_default()
    }

    /// Where all of it is.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The program that is run.
    pub fn sidecar(&self) -> &Path {
        &self.sidecar
    }

    /// Starts a member's process; at once, without waiting for anything.
    pub fn spawn(&self, place: usize) -> Result<(), Error> {
        let process = Process::spawn(&self.sidecar, self.seat(place), self.reaper.clone())?;
        locked(&self.processes)[place] = Some(process);
        Ok(())
    }

    /// Kills a member (SIGKILL) and waits until it is gone. Nothing if it does not run.
    pub fn kill(&self, place: usize) -> Result<(), Error> {
        match locked(&self.processes)[place].take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Stops a member (SIGTERM, after [`STOP_GRACE`] SIGKILL) and waits until it is gone.
    pub async fn stop(&self, place: usize) -> Result<Option<ExitStatus>, Error> {
        let process = locked(&self.processes)[place].take();
        match process {
            Some(process) => process.stop(STOP_GRACE).await.map(Some),
            None => Ok(None),
        }
    }

    /// Starts a member again, killing it first if it runs, and waits until it is ready.
    pub async fn restart(&self, place: usize) -> Result<(), Error> {
        self.kill(place)?;
        self.spawn(place)?;
        self.wait_member(place, PATIENCE).await
    }

    /// Freezes a member (SIGSTOP).
    pub fn pause(&self, place: usize) -> Result<(), Error> {
        self.signal(place, rustix::process::Signal::STOP)
    }

    /// Lets a frozen member go on (SIGCONT).
    pub fn resume(&self, place: usize) -> Result<(), Error> {
        self.signal(place, rustix::process::Signal::CONT)
    }

    /// How a member's process ended; `None` while it runs or was not started.
    pub fn exit_status(&self, place: usize) -> Option<ExitStatus> {
        locked(&self.processes)[place].as_mut().and_then(Process::exit_status)
    }

    /// Waits until every member that runs is ready: its health port says so, it is part of the cluster, and every
    /// partition that it knows has a leader.
    pub async fn wait_ready(&self, patience: Duration) -> Result<(), Error> {
        let running: Vec<usize> =
            locked(&self.processes).iter().enumerate().filter_map(|(place, it)| it.as_ref().map(|_| place)).collect();
        for place in running {
            self.wait_member(place, patience).await?;
        }
        Ok(())
    }

    /// Waits until one member is ready; see [`LocalCluster::wait_ready`].
    pub async fn wait_member(&self, place: usize, patience: Duration) -> Result<(), Error> {
        ready::wait(self, place, patience).await
    }

    /// Stops all members at the same time, and gives how each that ran ended.
    pub async fn stop_all(&self) -> Result<Vec<ExitStatus>, Error> {
        let processes: Vec<Process> = locked(&self.processes).iter_mut().filter_map(Option::take).collect();
        for process in &processes {
            process.signal(rustix::process::Signal::CONT)?;
            process.signal(rustix::process::Signal::TERM)?;
        }
        let mut ended = Vec::new();
        let begun = Instant::now();
        for process in processes {
            ended.push(process.stop(STOP_GRACE.saturating_sub(begun.elapsed())).await?);
        }
        Ok(ended)
    }

    /// A member's configuration without any group.
    fn base(&self, seat: &Seat) -> Builder {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let builder = Builder::new()
            .cluster("local")
            .local_member(&seat.name)
            .data_directory(path(seat.data_directory()))
            .api_port(seat.api_port)
            .api_socket(path(seat.socket()))
            .health_port(seat.health_port)
            .security(Security::Certificates {
                ca: path(self.authority.certificate()),
                certificate: path(seat.directory.join("tls.pem")),
                key: path(seat.directory.join("tls.key")),
            });
        self.declared.iter().cloned().fold(builder, Builder::member)
    }

    fn write(&self, seat: &Seat, builder: &Builder) -> Result<(), Error> {
        create_directory(&seat.directory)?;
        self.authority.issue(&seat.directory)?;
        // A file that is refused declares nothing; the sidecar says what is wrong with it.
        let declared = builder.build().map(|config| config.partition_groups).unwrap_or_default();
        let declared = declared.into_keys().map(|name| name.to_string()).collect();
        locked(&self.groups).insert(seat.name.clone(), declared);
        write_file(&seat.config_file(), &builder.to_yaml())
    }

    /// The partition groups that the files of all running members declare.
    fn expected_groups(&self) -> BTreeSet<String> {
        let groups = locked(&self.groups);
        let seats = self.seats();
        let running = locked(&self.processes);
        let places = seats.iter().zip(running.iter()).filter(|(_, process)| process.is_some());
        places.filter_map(|(seat, _)| groups.get(&seat.name)).flatten().cloned().collect()
    }

    fn signal(&self, place: usize, signal: rustix::process::Signal) -> Result<(), Error> {
        match &locked(&self.processes)[place] {
            Some(process) => process.signal(signal),
            None => Ok(()),
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for process in locked(&self.processes).iter_mut().filter_map(Option::take) {
            // What cannot be killed here is left to the reaper, which ends with this object.
            let _ = process.kill();
        }
        if let Some(directory) = self.temporary.take() {
            let _ = directory.close();
        }
    }
}

impl std::fmt::Debug for LocalCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalCluster").field("home", &self.home).field("seats", &self.seats).finish_non_exhaustive()
    }
}

fn home(home: &Home) -> Result<(PathBuf, Option<tempfile::TempDir>), Error> {
    let temporary = || {
        tempfile::Builder::new().prefix("coterie-").tempdir().map_err(|source| Error::File {
            what: "make a directory in",
            path: std::env::temp_dir(),
            source,
        })
    };
    match home {
        Home::Temporary => temporary().map(|directory| (directory.path().to_owned(), Some(directory))),
        Home::TemporaryKept => temporary().map(|directory| (directory.keep(), None)),
        Home::At(path) => {
            create_directory(path)?;
            let path =
                path.canonicalize().map_err(|source| Error::File { what: "find", path: path.clone(), source })?;
            Ok((path, None))
        }
    }
}

fn seat(home: &Path, name: &str, api_ports: ApiPorts, place: usize) -> Result<Seat, Error> {
    let (api_port, health_port) = match api_ports {
        ApiPorts::Free => (ports::free()?, ports::free()?),
        ApiPorts::From(first) => {
            let api = u16::try_from(usize::from(first) + 10 * place).map_err(|_| Error::NoPort)?;
            (ports::check(api)?, ports::check(api.saturating_add(2))?)
        }
    };
    Ok(Seat { name: name.to_owned(), api_port, peer_port: ports::free()?, health_port, directory: home.join(name) })
}

fn create_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::File { what: "make directory", path: path.to_owned(), source })
}

fn write_file(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::File { what: "write", path: path.to_owned(), source })
}

/// A panic elsewhere leaves nothing half done behind these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
