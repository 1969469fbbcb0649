//! One etcd process. It ends when this program does, however that ends: its guard, a shell, reads a pipe that only this
//! program holds.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::machine;

/// `$1`: its log; then the program with its arguments. Prints the process's number.
const GUARD: &str = r#"
trap '' INT TERM HUP
log=$1; shift
(trap - INT TERM HUP; exec "$@") >>"$log" 2>&1 </dev/null & pid=$!
echo $pid
read -r _
kill -9 $pid 2>/dev/null
"#;
const STOP_GRACE: Duration = Duration::from_secs(30);

/// It is killed when this is dropped.
pub(super) struct Process {
    guard: Child,
    pid: u32,
}

impl Process {
    pub(super) fn spawn(program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "etcd-guard"]).arg(log).arg(program).args(arguments);
        // etcd takes every option from ETCD_… as well.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD_")) {
            command.env_remove(name);
        }
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut guard = command.spawn().context("start sh")?;
        let mut line = String::new();
        let output = guard.stdout.take().context("the guard's output")?;
        BufReader::new(output).read_line(&mut line).context("read the number of etcd's process")?;
        let pid = line.trim().parse().context("read the number of etcd's process")?;
        Ok(Self { guard, pid })
    }

    pub(super) fn id(&self) -> u32 {
        self.pid
    }

    pub(super) async fn kill(self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.gone().await
    }

    /// SIGTERM, and SIGKILL after a long time.
    pub(super) async fn stop(self) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.gone().await
    }

    async fn gone(&self) -> Result<()> {
        let begun = Instant::now();
        while machine::runs(self.pid) {
            if begun.elapsed() > STOP_GRACE {
                self.signal(Signal::KILL)?;
            }
            // waits for a condition
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// The guard has not waited for it, so the number is still its own.
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process without a number")?;
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).context("signal etcd"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // Nothing to do about a guard that cannot be waited for: it ends by itself.
        let _ = self.guard.wait();
    }
}
