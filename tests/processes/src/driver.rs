//! The one who lets things go wrong.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use coterie_cli::local::{Home, LocalCluster, Plan, standard_groups};
use coterie_client::Client;
use coterie_workloads::chance::Chance;
use coterie_workloads::groups::GROUPS;
use coterie_workloads::real::Clients;

use crate::faults::Kind;
use crate::volume::Volume;

const MEMBERS: usize = 3;
/// Of a session; some runs have the longer one.
const SESSION_TIMEOUTS_MS: [u64; 2] = [2_000, 5_000];
/// How long a group may be without a leader that anybody can name, once all is well.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// How long a member that was started may take to become ready.
const READY: Duration = Duration::from_secs(60);

/// Runs it.
///
/// # Errors
/// The first promise that was broken, or what did not come; where the trace is.
pub(crate) async fn run(seed: u64, rounds: usize, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    let chance = Chance::of(seed, "faults");
    let session_timeout_ms = chance.one_of(&SESSION_TIMEOUTS_MS);
    let names: Vec<String> = (1..=MEMBERS).map(|number| format!("member-{number}")).collect();
    let plan = Plan { home: Home::At(folder.to_owned()), ..Plan::new(MEMBERS) }
        .configure(move |_, builder| standard_groups(&names, builder).session_timeout_ms(session_timeout_ms));
    let cluster = LocalCluster::prepare(&plan)?;
    let volumes: Vec<Volume> =
        cluster.seats().iter().map(|seat| Volume::at(seat.data_directory())).collect::<Result<_>>()?;
    for place in 0..MEMBERS {
        cluster.spawn(place)?;
    }
    cluster.wait_ready(READY).await?;
    let beside: Vec<_> = cluster.seats().iter().map(|seat| (seat.name.clone(), seat.endpoint())).collect();
    let clients = Clients::start(seed, &beside)?;
    let mut driver = Driver { chance, cluster, volumes, clients };
    let ran = driver.run(rounds).await;
    let trace = folder.join("trace");
    fs::write(&trace, &driver.clients.history().seen().trace).context("write the trace")?;
    ran.with_context(|| format!("the trace is {}, the logs of sidecars are beside it", trace.display()))
}

struct Driver {
    chance: Chance,
    cluster: LocalCluster,
    volumes: Vec<Volume>,
    clients: Clients,
}

impl Driver {
    async fn run(&mut self, rounds: usize) -> Result<()> {
        self.clients.until_changed().await?;
        let begun = Instant::now();
        for kind in Kind::deck(&self.chance, rounds) {
            self.happens(kind).await.with_context(|| format!("{kind:?}"))?;
            tokio::time::sleep(self.chance.ms(200, 3_000)).await; // plays a world in which something fails now and then
        }
        for place in 0..MEMBERS {
            self.goes_on(place).await?;
        }
        let told = self.clients.end().await?;
        println!(
            "{} faults in {:.0} s; {told}",
            rounds * Kind::deck(&self.chance, 1).len(),
            begun.elapsed().as_secs_f64()
        );
        for status in self.cluster.stop_all().await? {
            if !status.success() {
                bail!("a sidecar that was told to stop ended with {status}");
            }
        }
        Ok(())
    }

    async fn happens(&mut self, kind: Kind) -> Result<()> {
        let lasts = kind.lasts(&self.chance);
        let place = match kind {
            Kind::KillLeader | Kind::StopLeader => self.leader().await?,
            _ => usize::try_from(self.chance.below(MEMBERS as u64)).expect("few"),
        };
        let places = if kind == Kind::KillAll { 0..MEMBERS } else { place..place + 1 };
        self.note(place, &format!("FAULT {kind:?} for {lasts:?}"));
        for place in places.clone() {
            match kind {
                Kind::Kill | Kind::KillLeader | Kind::KillAll => self.cluster.kill(place)?,
                Kind::Stop | Kind::StopLeader => self.cluster.pause(place)?,
                Kind::Terminate => {
                    let ended = self.cluster.stop(place).await?;
                    if !ended.is_some_and(|status| status.success()) {
                        bail!("{} was told to stop and ended with {ended:?}", self.cluster.seat(place).name);
                    }
                }
                Kind::FullDisk => self.volumes[place].fill()?,
            }
        }
        tokio::time::sleep(lasts).await; // plays a fault that lasts
        for place in places {
            self.note(place, &format!("{kind:?} ENDS"));
            match kind {
                Kind::Stop | Kind::StopLeader => self.cluster.resume(place)?,
                Kind::FullDisk => {
                    self.volumes[place].free()?;
                    self.restarted(place)?;
                }
                Kind::Kill | Kind::KillLeader | Kind::KillAll | Kind::Terminate => self.cluster.spawn(place)?,
            }
        }
        Ok(())
    }

    /// Starts a sidecar again that had no room, if it has ended for that.
    fn restarted(&self, place: usize) -> Result<()> {
        if let Some(status) = self.cluster.exit_status(place) {
            self.note(place, &format!("it had ended with {status}"));
            self.cluster.spawn(place)?;
        }
        Ok(())
    }

    /// Waits until a sidecar is ready, which has not ended by itself.
    async fn goes_on(&self, place: usize) -> Result<()> {
        if let Some(status) = self.cluster.exit_status(place) {
            let volume = self.volumes[place].path().display();
            bail!("{} ended by itself with {status}; its volume is {volume}", self.cluster.seat(place).name);
        }
        Ok(self.cluster.wait_member(place, READY).await?)
    }

    /// The place of the sidecar beside which the leader of a group is.
    async fn leader(&self) -> Result<usize> {
        let begun = Instant::now();
        loop {
            let (group, asked) = (self.chance.one_of(&GROUPS), self.chance.below(MEMBERS as u64));
            let api = self.cluster.endpoint(usize::try_from(asked).expect("few"));
            let found = Client::connect(&api)?.group(group).leader().await;
            if let Ok(Some(leader)) = &found {
                let seats = self.cluster.seats();
                return seats.iter().position(|seat| seat.name == leader.sidecar).context("no place of that name");
            }
            if begun.elapsed() > PATIENCE {
                bail!("nobody leads a group after {PATIENCE:?}: {found:?}");
            }
            tokio::time::sleep(POLL).await; // waits for a condition
        }
    }

    fn note(&self, place: usize, what: &str) {
        self.clients.history().note(&self.cluster.seat(place).name, what);
    }
}
