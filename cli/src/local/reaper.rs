//! Ends what a local cluster started when the process that started it is gone, however it went.
//!
//! A small shell process reads a pipe whose other end only this process holds. It learns which processes run, and when the
//! pipe ends it kills those that are left and removes the temporary directory. That works on every Unix, also when this
//! process is killed, and does not depend on which of its threads started what.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;

use super::{Error, locked};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=" "
while read -r op pid; do
  case $op in
    +) pids="$pids$pid " ;;
    -) pids="${pids%% $pid *} ${pids#* $pid }" ;;
  esac
done
for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
if [ -n "$1" ]; then
  n=0
  while [ -e "$1" ] && [ $n -lt 50 ]; do rm -rf -- "$1" 2>/dev/null; n=$((n + 1)); [ -e "$1" ] && sleep 0.1; done
fi
"#;

/// The shell process.
pub(super) struct Reaper {
    pipe: Mutex<Option<ChildStdin>>,
    child: Mutex<Child>,
}

impl Reaper {
    /// Starts it; it removes `directory` at the end.
    pub(super) fn start(directory: Option<&Path>) -> Result<Self, Error> {
        let failed =
            |source| Error::Process { what: "start sh to clean up after", member: "the cluster".into(), source };
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "coterie-reaper"]).args(directory);
        // A group of its own, so that Ctrl-C in a terminal does not reach it.
        let spawned =
            command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = spawned.map_err(failed)?;
        Ok(Self { pipe: Mutex::new(child.stdin.take()), child: Mutex::new(child) })
    }

    /// To be killed if this process ends.
    pub(super) fn add(&self, pid: u32) {
        self.tell(&format!("+ {pid}\n"));
    }

    /// No more: it is gone, and its number may become someone else's.
    pub(super) fn remove(&self, pid: u32) {
        self.tell(&format!("- {pid}\n"));
    }

    fn tell(&self, line: &str) {
        if let Some(pipe) = locked(&self.pipe).as_mut() {
            // If the reaper itself was killed, dropping the cluster still cleans up.
            let _ = pipe.write_all(line.as_bytes());
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        locked(&self.pipe).take();
        let _ = locked(&self.child).wait();
    }
}
