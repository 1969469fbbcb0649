//! What can be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use coterie_core::config::builder;

use crate::results::Op;
use crate::system::System;

/// Puts the same load on Coterie and on etcd, in alternating rounds, and compares them.
#[derive(Parser)]
#[command(name = "coterie-bench", version)]
pub struct Options {
    /// Rounds; each starts both systems afresh, and the median counts.
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// How long each load is measured, after one second that is not.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Measures this alone; may be given more than once.
    #[arg(long)]
    pub only: Vec<Only>,
    /// Measures loads with so many in flight alone; may be given more than once.
    #[arg(long)]
    pub in_flight: Vec<usize>,
    /// Which system.
    #[arg(long, default_value = "both")]
    pub system: Which,
    /// Whether peers speak mTLS.
    #[arg(long, default_value = "both")]
    pub tls: Tls,
    /// Which timers the members of Coterie have; etcd has its own.
    #[arg(long, default_value = "normal")]
    pub timing: Timing,
    /// How many leaders are killed, and how many are stopped.
    #[arg(long, default_value_t = 20)]
    pub failovers: u32,
    /// Decides keys and values.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// One short round without TLS, for development: its numbers mean little.
    #[arg(long)]
    pub quick: bool,
    /// The coterie-sidecar program, a release build. Default: the one beside this program.
    #[arg(long)]
    pub sidecar: Option<PathBuf>,
    /// The etcd program. Default: built from its Go module into the cache directory.
    #[arg(long)]
    pub etcd: Option<PathBuf>,
    /// Where results go, and the members' data meanwhile: on the disk that is to be measured.
    #[arg(long, default_value = "target/bench")]
    pub directory: PathBuf,
}

/// One or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// etcd alone.
    Etcd,
    /// Coterie alone.
    Coterie,
    /// Both, alternating.
    Both,
}

/// How peers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tls {
    /// With mTLS.
    On,
    /// Plain.
    Off,
    /// Plain, then with mTLS.
    Both,
}

/// Timers, as in the members' configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Timing {
    /// What a file without the key has.
    Normal,
    /// For machines that nothing else keeps busy.
    Fast,
}

impl From<Timing> for builder::Timing {
    fn from(timing: Timing) -> Self {
        match timing {
            Timing::Normal => Self::Normal,
            Timing::Fast => Self::Fast,
        }
    }
}

/// A thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Only {
    /// Durable writes.
    Write,
    /// Linearizable reads.
    ReadLinearizable,
    /// Leased reads.
    ReadLeased,
    /// Watchers.
    WatchFanout,
    /// Locks.
    LockCycle,
    /// Kills of the leader.
    Failover,
    /// Stops of the leader.
    Handover,
    /// Memory and CPU without load.
    Idle,
    /// Memory over ten minutes of writes and five without any; only when it is asked for, and then alone.
    Memory,
}

impl Options {
    /// With what `--quick` says.
    #[must_use]
    pub fn resolved(self) -> Self {
        if !self.quick {
            return self;
        }
        let tls = if self.tls == Tls::Both { Tls::Off } else { self.tls };
        Self { rounds: 1, seconds: self.seconds.min(1.5), failovers: self.failovers.min(3), tls, ..self }
    }

    /// How long a load is measured.
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.max(0.1))
    }

    /// Not measured, before each load.
    pub fn warm_up(&self) -> Duration {
        Duration::from_millis(if self.quick { 300 } else { 1_000 })
    }

    /// How long nothing happens before an idle member is looked at, and while it is.
    pub fn idle(&self) -> Duration {
        Duration::from_secs(if self.quick { 3 } else { 10 })
    }

    /// How long members write before they are idle for half as long, where memory is measured.
    pub fn memory_load(&self) -> Duration {
        Duration::from_secs(if self.quick { 20 } else { 600 })
    }

    /// The systems of a round; they take turns at being first.
    pub fn systems(&self, round: u32) -> Vec<System> {
        match self.system {
            Which::Etcd => vec![System::Etcd],
            Which::Coterie => vec![System::Coterie],
            Which::Both if round.is_multiple_of(2) => vec![System::Etcd, System::Coterie],
            Which::Both => vec![System::Coterie, System::Etcd],
        }
    }

    /// The kinds of connections between peers.
    pub fn peer_tls(&self) -> &'static [bool] {
        match self.tls {
            Tls::Off => &[false],
            Tls::On => &[true],
            Tls::Both => &[false, true],
        }
    }

    /// Whether this is to be measured.
    pub fn wants(&self, only: Only) -> bool {
        (self.only.is_empty() && only != Only::Memory) || self.only.contains(&only)
    }

    /// Whether this load is to be measured.
    pub fn wants_load(&self, op: Op, in_flight: usize) -> bool {
        (self.in_flight.is_empty() || self.in_flight.contains(&in_flight))
            && self.wants(match op {
                Op::Write => Only::Write,
                Op::ReadLinearizable => Only::ReadLinearizable,
                Op::ReadLeased => Only::ReadLeased,
                Op::WatchFanout => Only::WatchFanout,
                Op::LockCycle => Only::LockCycle,
            })
    }
}
