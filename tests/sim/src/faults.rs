//! What goes wrong in a simulated world, one thing after the other and several at a time, as a seed decides. Each is put
//! right again after a while.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use crate::chaos::LOOK;
use crate::cluster::{Cluster, HOSTS, Loss};
use crate::volume::{self, Lack};
use crate::world::Chance;

mod links;

use links::{Fault, Wrong};

/// The longest that one fault lasts.
const LASTS_MS: (u64, u64) = (100, 2_500);
/// The same of a volume that is tight: until what it had prepared is used up.
const TIGHT_MS: (u64, u64) = (1_000, 10_000);
/// Between the beginnings of two.
const PAUSE_MS: (u64, u64) = (50, 1_500);
/// What a tight volume has room for, in quarters of a segment of the log: below this. From two segments down the log is
/// held back; whoever is in the middle of something then finds no room for the rest.
const ROOM_QUARTERS: [u64; 3] = [1, 4, 12];
/// In one run of so many a volume may be lost.
const LOSES_ONE_OF: u64 = 3;
/// How long two are cut off from each other before the third loses power, and for how long it does.
const SQUEEZE_MS: (u64, u64) = (200, 700);
const BRIEF_MS: (u64, u64) = (5, 60);
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
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
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
    ];
}

/// What is to be put right.
#[derive(Clone, Copy, Debug)]
enum Remedy {
    Restart(&'static str),
    Link(Fault),
    Room(&'static str, Lack),
}

/// What goes wrong.
pub struct Faults {
    chance: Chance,
    /// How often each kind was injected.
    pub injected: BTreeMap<Kind, u32>,
    /// Whose volume is lost.
    pub lost: Option<&'static str>,
    may_lose: bool,
    /// What is wrong now, and until when.
    present: Vec<(Duration, Remedy)>,
}

impl Faults {
    /// Those of a seed.
    pub fn of(seed: u64) -> Self {
        let chance = Chance::of(seed, "faults");
        let may_lose = chance.below(LOSES_ONE_OF) == 0;
        Self { chance, injected: BTreeMap::new(), lost: None, may_lose, present: Vec::new() }
    }

    /// Lets things go wrong for so long.
    pub fn happen(&mut self, cluster: &mut Cluster<'_>, time: Duration) -> Result<()> {
        let end = cluster.sim.elapsed() + time;
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
            }
        }
    }

    /// Makes a volume lack what all that is wrong with it says.
    fn set_room(&self, cluster: &Cluster<'_>, host: &str) {
        let of_host = |(_, remedy): &(Duration, Remedy)| match remedy {
            Remedy::Room(of, lack) if *of == host => Some(*lack),
            Remedy::Restart(_) | Remedy::Link(_) | Remedy::Room(..) => None,
        };
        let lacks: Vec<Lack> = self.present.iter().filter_map(of_host).collect();
        volume::lack(&cluster.machine(host).disk, &lacks);
    }

    /// What is wrong with links now.
    fn on_links(&self) -> Vec<Fault> {
        let of_link = |(_, remedy): &(Duration, Remedy)| match remedy {
            Remedy::Link(fault) => Some(*fault),
            Remedy::Restart(_) | Remedy::Room(..) => None,
        };
        self.present.iter().filter_map(of_link).collect()
    }

    fn inject(&mut self, cluster: &mut Cluster<'_>, kind: Kind) -> Result<()> {
        let host = self.chance.one_of(&HOSTS);
        let other = self.chance.one_of(&HOSTS.into_iter().filter(|other| *other != host).collect::<Vec<_>>());
        let loss = Loss::Some(self.chance.number());
        let ms = self.chance.ms(0, 2 * STEP_MS.unsigned_abs()).as_millis() as i64 - STEP_MS;
        let lasts = if kind == Kind::TightDisk { TIGHT_MS } else { LASTS_MS };
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
            Kind::Crash | Kind::TornCrash | Kind::LostVolume => return Ok(()),
        }
        *self.injected.entry(kind).or_default() += 1;
        cluster.history.note(host, &format!("FAULT {kind:?} {other}"));
        for remedy in remedies {
            let before = self.on_links();
            self.present.push((until, remedy));
            match remedy {
                Remedy::Link(fault) => links::set(&mut cluster.sim, &fault, &before, &self.on_links()),
                Remedy::Room(host, _) => self.set_room(cluster, host),
                Remedy::Restart(_) => {}
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
