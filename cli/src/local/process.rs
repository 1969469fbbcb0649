//! One sidecar process.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::reaper::Reaper;
use super::{Error, Seat};

const PROGRAM: &str = "coterie-sidecar";

/// A process that runs or has ended; waited for by whoever stops it.
pub(super) struct Process {
    child: Child,
    seat: Arc<Seat>,
    reaper: Arc<Reaper>,
}

impl Process {
    pub(super) fn spawn(sidecar: &Path, seat: Arc<Seat>, reaper: Arc<Reaper>) -> Result<Self, Error> {
        let failed = |source| Error::Process { what: "start", member: seat.name.clone(), source };
        let log = OpenOptions::new().create(true).append(true).open(seat.log_file()).map_err(failed)?;
        let log_of_errors = log.try_clone().map_err(failed)?;
        let mut command = Command::new(sidecar);
        command.arg("run").arg("--config").arg(seat.config_file());
        // The file alone says how it runs, whatever this process was told.
        let said = std::env::vars_os().map(|(name, _)| name);
        for name in said.filter(|name| name.to_string_lossy().starts_with("COTERIE_") && name != "COTERIE_LOG") {
            command.env_remove(name);
        }
        // A group of its own, so that Ctrl-C in a terminal reaches the launcher alone, which then stops it in order.
        command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(log_of_errors);
        let child = command.spawn().map_err(failed)?;
        reaper.add(child.id());
        Ok(Self { child, seat, reaper })
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let pid = Pid::from_child(&self.child);
        match kill_process(pid, signal) {
            // Not yet waited for, so the number is still its own: it has only ended by itself.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(source) => Err(self.failed("signal", source.into())),
        }
    }

    /// How it ended; `None` while it runs.
    pub(super) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub(super) fn kill(mut self) -> Result<(), Error> {
        self.child.kill().map_err(|source| self.failed("kill", source))?;
        self.wait().map(|_| ())
    }

    /// SIGTERM, and SIGKILL after `grace`.
    pub(super) async fn stop(mut self, grace: Duration) -> Result<ExitStatus, Error> {
        self.signal(Signal::CONT)?;
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        while self.exit_status().is_none() {
            if begun.elapsed() >= grace {
                self.child.kill().map_err(|source| self.failed("kill", source))?;
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.wait()
    }

    fn wait(&mut self) -> Result<ExitStatus, Error> {
        let status = self.child.wait().map_err(|source| self.failed("wait for", source))?;
        self.reaper.remove(self.child.id());
        Ok(status)
    }

    fn failed(&self, what: &'static str, source: io::Error) -> Error {
        Error::Process { what, member: self.seat.name.clone(), source }
    }
}

/// The program to run: the one that is named, else the one beside this program (for a test, in the directory above), else
/// the one in PATH.
pub(super) fn find_sidecar(named: Option<&Path>) -> Result<PathBuf, Error> {
    let named = named.map(Path::to_owned).or_else(|| std::env::var_os("COTERIE_SIDECAR").map(PathBuf::from));
    let beside = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    if let Some(path) = named {
        return if path.is_file() { Ok(path) } else { Err(Error::Sidecar { beside: path }) };
    }
    let near = [Some(beside.as_path()), beside.parent()];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = near.into_iter().flatten().map(Path::to_owned).chain(std::env::split_paths(&path));
    let mut candidates = directories.map(|directory| directory.join(PROGRAM));
    candidates.find(|path| path.is_file()).ok_or_else(|| Error::Sidecar { beside: beside.clone() })
}
