//! What goes wrong in a simulated world, one thing after the other and several at a time, as a seed decides. Each is put
//! right again after a while.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use coterie_workloads::chance::Chance;

use crate::cluster::{Cluster, HOSTS, Loss};
use crate::history::Shut;
use crate::look::LOOK;
use crate::volume::{self, Lack};
use crate::world::Pace;

mod links;
mod roll;

use links::{Fault, Wrong};
use roll::Roll;

/// The longest that one fault lasts.
const LASTS_MS: (u64, u64) = (100, 2_500);
/// The same of a volume that is tight: until what it had prepared is used up.
const TIGHT_MS: (u64, u64) = (1_000, 10_000);
/// Between the beginnings of two.
const PAUSE_MS: (u64, u64) = (50, 1_500);
/// What a tight volume has room for, in quarters of a segment of the log: below this. From two segments down the log is
/// held back; whoever is in the middle of something then finds no room for the rest.
const ROOM_QUARTERS: [u64; 3] = [1, 4, 12];
/// In one run of so many a volume may be lost, in another one a replica shut, in another one voters change.
const LOSES_ONE_OF: u64 = 3;
/// How long two are cut off from each other before the third loses power, and for how long it does.
const SQUEEZE_MS: (u64, u64) = (200, 700);
const BRIEF_MS: (u64, u64) = (5, 60);
/// How long a process stands still: up to one of these.
const PAUSED_MS_MIN: u64 = 100;
const PAUSED_MS_MAX: [u64; 3] = [400, 2_000, 10_000];
/// How long a step with a slow disk takes: up to one of these.
const DISK_MS: [u64; 3] = [20, 200, 1_500];
/// How long what machines send each other takes at most when they overtake each other.
const JITTER_MS: u64 = 300;
/// How long a little is lost.
const BLINK_MS: (u64, u64) = (1, 30);
/// How far a clock steps.
const STEP_MS: i64 = 3_600_000;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A machine loses power, and all that was not flushed.
    Crash,
    /// A machine loses power in the middle of writes.
    TornCrash,
    /// All machines lose power at once.
    Outage,
    /// Two machines do not hear each other.
    Cut,
    /// One machine does not hear another, which hears it.
    OneWay,
    /// A machine hears nobody.
    Isolation,
    /// What two machines send each other waits, and then comes all at once.
    Hold,
    /// What two machines send each other takes long.
    Delay,
    /// The wall clock of a machine steps.
    ClockStep,
    /// A volume says that nothing is free.
    FullDisk,
    /// A volume has room for a little more, and then none.
    TightDisk,
    /// A machine hands over what it leads, and may be cut off in the middle of that.
    HandOver,
    /// Two machines do not hear each other, and the third loses power for a moment: whoever led among the two may lead no
    /// more, and does not know.
    Squeeze,
    /// A machine loses its volume, once in a run at most: what it was is gone for good, and it may not pass for it.
    LostVolume,
    /// A sidecar stops in good order, and is started again.
    Stop,
    /// All do, one after the other, each once the one before is ready again or had time for that.
    RollingRestart,
    /// The process of a sidecar stands still; its applications do not.
    Pause,
    /// Each step of a sidecar with its disk takes long.
    SlowDisk,
    /// What machines send each other takes as long as chance has it: connections overtake each other.
    Jitter,
    /// Connections between a machine and others break.
    Reset,
    /// A little of what two machines send each other is lost.
    Blink,
    /// The clocks of the machines run at different rates, and their wall clocks differ, from the beginning to the end.
    Drift,
    /// A replica that leads is shut, once in a run at most, while its process lives on and does not know.
    DeadReplica,
    /// A machine's replicas are voters no more, and then again.
    Members,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Crash,
        Self::TornCrash,
        Self::Outage,
        Self::Cut,
        Self::OneWay,
        Self::Isolation,
        Self::Hold,
        Self::Delay,
        Self::ClockStep,
        Self::FullDisk,
        Self::TightDisk,
        Self::HandOver,
        Self::Squeeze,
        Self::LostVolume,
        Self::Stop,
        Self::RollingRestart,
        Self::Pause,
        Self::SlowDisk,
        Self::Jitter,
        Self::Reset,
        Self::Blink,
        Self::Drift,
        Self::DeadReplica,
        Self::Members,
    ];
}

/// What is to be put right.
#[derive(Clone, Copy, Debug)]
enum Remedy {
    Restart(&'static str),
    Link(Fault),
    Room(&'static str, Lack),
    /// A rolling restart goes on.
    Roll(Roll),
    /// A process goes on.
    Resume(&'static str),
    /// A disk no longer takes up to so many milliseconds.
    Disk(&'static str, u64),
    /// All machines are to have voters.
    Members,
}

/// What goes wrong.
pub struct Faults {
    chance: Chance,
    /// How often each kind was injected.
    pub injected: BTreeMap<Kind, u32>,
    /// Whose volume is lost.
    pub lost: Option<&'static str>,
    /// On which machine a replica was shut, and in which of its lives.
    shut: Option<(&'static str, u32)>,
    may_lose: bool,
    may_shut: bool,
    may_change: bool,
    /// What is wrong now, and until when.
    present: Vec<(Duration, Remedy)>,
}

impl Faults {
    /// Those of a seed.
    pub fn of(seed: u64) -> Self {
        let chance = Chance::of(seed, "faults");
        // One of them: what is on two machines of three has no majority on one.
        let may = chance.below(LOSES_ONE_OF);
        let (may_lose, may_shut, may_change) = (may == 0, may == 1, may == 2);
        let (injected, present) = (BTreeMap::new(), Vec::new());
        Self { chance, injected, lost: None, shut: None, may_lose, may_shut, may_change, present }
    }

    /// The machine with a replica that is still shut.
    pub fn dead(&self, cluster: &Cluster<'_>) -> Option<&'static str> {
        self.shut.filter(|(host, lives)| cluster.machine(host).lives() == *lives).map(|(host, _)| host)
    }

    /// Lets things go wrong for so long.
    pub fn happen(&mut self, cluster: &mut Cluster<'_>, time: Duration) -> Result<()> {
        let end = cluster.sim.elapsed() + time;
        if cluster.machines().any(|machine| machine.skew.pace() != Pace::default()) {
            self.injected.insert(Kind::Drift, 1);
        }
        while cluster.sim.elapsed() < end {
            let next = cluster.sim.elapsed() + self.chance.ms(PAUSE_MS.0, PAUSE_MS.1);
            while let Some(due) = self.due(next) {
                cluster.pass(due.saturating_sub(cluster.sim.elapsed()))?;
                self.heal(cluster, due);
            }
            cluster.pass(next.saturating_sub(cluster.sim.elapsed()))?;
            let kind = self.chance.one_of(&Kind::ALL);
            self.inject(cluster, kind)?;
        }
        Ok(())
    }

    /// Puts everything right.
    pub fn end(&mut self, cluster: &mut Cluster<'_>) {
        self.heal(cluster, Duration::MAX);
        for machine in cluster.machines() {
            machine.skew.step(0);
        }
    }

    /// When the next of what is wrong is put right, if that is not after `until`.
    fn due(&self, until: Duration) -> Option<Duration> {
        self.present.iter().map(|(due, _)| *due).min().filter(|due| *due <= until)
    }

    fn heal(&mut self, cluster: &mut Cluster<'_>, until: Duration) {
        while let Some(at) = self.present.iter().position(|(due, _)| *due <= until) {
            let before = self.on_links();
            match self.present.remove(at).1 {
                Remedy::Restart(host) => cluster.restart(host),
                Remedy::Link(fault) => {
                    cluster.history.note(fault.host, &format!("{:?} {} ENDS", fault.wrong, fault.other));
                    links::set(&mut cluster.sim, &fault, &before, &self.on_links());
                }
                Remedy::Room(host, lack) => {
                    cluster.history.note(host, &format!("{lack:?} ENDS"));
                    self.set_room(cluster, host);
                }
                Remedy::Resume(host) => {
                    cluster.history.note(host, "GOES ON");
                    cluster.machine(host).process.gate().open();
                }
                Remedy::Disk(host, _) => self.set_disk(cluster, host),
                Remedy::Members => {
                    cluster.history.note("all", "MEMBERS");
                    cluster.history.seen().members.want(None);
                }
                Remedy::Roll(_) if until == Duration::MAX => {}
                Remedy::Roll(roll) => {
                    self.present.extend(roll.go_on(cluster).map(|(due, roll)| (due, Remedy::Roll(roll))));
                }
            }
        }
    }

    /// Makes a volume lack what all that is wrong with it says.
    fn set_room(&self, cluster: &Cluster<'_>, host: &str) {
        let of_host = |(_, remedy): &(Duration, Remedy)| match remedy {
            Remedy::Room(of, lack) if *of == host => Some(*lack),
            _ => None,
        };
        let lacks: Vec<Lack> = self.present.iter().filter_map(of_host).collect();
        volume::lack(&cluster.machine(host).disk, &lacks);
    }

    /// Makes a disk as slow as the worst of what is wrong with it.
    fn set_disk(&self, cluster: &Cluster<'_>, host: &str) {
        let of_host = |(_, remedy): &(Duration, Remedy)| match remedy {
            Remedy::Disk(of, ms) if *of == host => Some(*ms),
            _ => None,
        };
        cluster.machine(host).process.slow_disk(self.present.iter().filter_map(of_host).max().unwrap_or_default());
    }

    /// What is wrong with links now.
    fn on_links(&self) -> Vec<Fault> {
        let of_link = |(_, remedy): &(Duration, Remedy)| match remedy {
            Remedy::Link(fault) => Some(*fault),
            _ => None,
        };
        self.present.iter().filter_map(of_link).collect()
    }

    fn inject(&mut self, cluster: &mut Cluster<'_>, kind: Kind) -> Result<()> {
        let host = self.chance.one_of(&HOSTS);
        let other = self.chance.one_of(&HOSTS.into_iter().filter(|other| *other != host).collect::<Vec<_>>());
        let loss = Loss::Some(self.chance.number());
        let ms = self.chance.ms(0, 2 * STEP_MS.unsigned_abs()).as_millis() as i64 - STEP_MS;
        let lasts = match kind {
            Kind::TightDisk => TIGHT_MS,
            Kind::Pause => (PAUSED_MS_MIN, self.chance.one_of(&PAUSED_MS_MAX)),
            Kind::Blink => BLINK_MS,
            _ => LASTS_MS,
        };
        let until = cluster.sim.elapsed() + self.chance.ms(lasts.0, lasts.1);
        let is_up = |cluster: &mut Cluster<'_>, host: &str| cluster.sim.is_host_running(host);
        let link = |other, wrong| Remedy::Link(Fault { host, other, wrong });
        let mut remedies = Vec::new();
        match kind {
            Kind::Crash | Kind::TornCrash if is_up(cluster, host) => {
                cluster.crash(host, if kind == Kind::Crash { Loss::Everything } else { loss });
                remedies.push(Remedy::Restart(host));
            }
            Kind::LostVolume if is_up(cluster, host) && self.may_lose => {
                cluster.crash(host, Loss::Volume);
                self.lost = Some(host);
                self.may_lose = false;
                remedies.push(Remedy::Restart(host));
            }
            Kind::Outage => {
                for host in HOSTS {
                    if is_up(cluster, host) {
                        cluster.crash(host, loss);
                        remedies.push(Remedy::Restart(host));
                    }
                }
            }
            Kind::Cut => remedies.push(link(other, Wrong::Cut)),
            Kind::OneWay => remedies.push(link(other, Wrong::Deaf)),
            Kind::Isolation => {
                remedies.extend(HOSTS.into_iter().filter(|other| *other != host).map(|other| link(other, Wrong::Cut)));
            }
            Kind::Hold => remedies.push(link(other, Wrong::Held)),
            Kind::Delay => {
                let latency = Duration::from_millis(self.chance.below(300) + 10);
                remedies.push(link(other, Wrong::Slow(latency)));
            }
            Kind::ClockStep => cluster.machine(host).skew.step(ms),
            Kind::HandOver => {
                cluster.history.seen().hand_over.insert(host);
                if self.chance.below(2) == 0 {
                    let moment = self.chance.ms(1, 8);
                    cluster.pass_until(LOOK * 2, |seen| !seen.hand_over.contains(host))?;
                    cluster.pass(moment)?;
                    remedies
                        .extend(HOSTS.into_iter().filter(|other| *other != host).map(|other| link(other, Wrong::Cut)));
                }
            }
            Kind::Squeeze => remedies.push(link(other, Wrong::Cut)),
            Kind::FullDisk => remedies.push(Remedy::Room(host, Lack::Said)),
            Kind::TightDisk => {
                let machine = cluster.machine(host);
                let quarters = self.chance.one_of(&ROOM_QUARTERS);
                let more = self.chance.below(quarters * machine.sizes.segment_bytes / 4);
                remedies.push(Remedy::Room(host, Lack::Capacity(volume::used(&machine.disk) + more)));
            }
            Kind::Pause if is_up(cluster, host) && !cluster.machine(host).process.gate().is_closed() => {
                cluster.machine(host).process.gate().close();
                remedies.push(Remedy::Resume(host));
            }
            Kind::DeadReplica if self.may_shut => {
                cluster.history.seen().shut = Shut::Wanted;
                cluster.pass_until(LOOK * 2, |seen| seen.shut != Shut::Wanted)?;
                let Shut::Done(host) = std::mem::take(&mut cluster.history.seen().shut) else { return Ok(()) };
                self.may_shut = false;
                self.shut = Some((host, cluster.machine(host).lives()));
            }
            Kind::Members if self.may_change && cluster.history.seen().members.without.is_none() => {
                cluster.history.seen().members.want(Some(host));
                remedies.push(Remedy::Members);
            }
            Kind::SlowDisk => remedies.push(Remedy::Disk(host, self.chance.one_of(&DISK_MS))),
            Kind::Jitter => {
                let slow = Wrong::Slow(Duration::from_millis(JITTER_MS));
                let pairs = [(HOSTS[0], HOSTS[1]), (HOSTS[1], HOSTS[2]), (HOSTS[2], HOSTS[0])];
                remedies.extend(pairs.map(|(host, other)| Remedy::Link(Fault { host, other, wrong: slow })));
            }
            Kind::Reset if cluster.machine(host).process.reset() > 0 => {}
            Kind::Blink => remedies.push(link(other, Wrong::Cut)),
            Kind::Stop if is_up(cluster, host) => cluster.stop(host),
            Kind::RollingRestart if !self.present.iter().any(|(_, remedy)| matches!(remedy, Remedy::Roll(_))) => {
                remedies.push(Remedy::Roll(Roll::from(host)));
            }
            // What cannot go wrong now, and what did when the machines were started.
            Kind::Crash
            | Kind::TornCrash
            | Kind::LostVolume
            | Kind::Stop
            | Kind::RollingRestart
            | Kind::Pause
            | Kind::Reset
            | Kind::DeadReplica
            | Kind::Members
            | Kind::Drift => return Ok(()),
        }
        *self.injected.entry(kind).or_default() += 1;
        cluster.history.note(host, &format!("FAULT {kind:?} {other}"));
        for remedy in remedies {
            let before = self.on_links();
            self.present.push((until, remedy));
            match remedy {
                Remedy::Link(fault) => links::set(&mut cluster.sim, &fault, &before, &self.on_links()),
                Remedy::Room(host, _) => self.set_room(cluster, host),
                Remedy::Disk(host, _) => self.set_disk(cluster, host),
                Remedy::Restart(_) | Remedy::Roll(_) | Remedy::Resume(_) | Remedy::Members => {}
            }
        }
        if kind == Kind::Squeeze {
            cluster.pass(self.chance.ms(SQUEEZE_MS.0, SQUEEZE_MS.1))?;
            let third =
                HOSTS.into_iter().find(|third| *third != host && *third != other).expect("three are more than two");
            let until = cluster.sim.elapsed() + self.chance.ms(BRIEF_MS.0, BRIEF_MS.1);
            if is_up(cluster, third) {
                cluster.crash(third, Loss::Everything);
                self.present.push((until, Remedy::Restart(third)));
            }
        }
        Ok(())
    }
}
