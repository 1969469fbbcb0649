//! Cleaning up, however the end comes: a shell in a process group of its own waits until its input is closed, which the
//! system does when this process ends, also after Ctrl-C, a panic or kill -9. Then it runs the command.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The shell that waits.
pub(super) struct Watchdog {
    shell: Child,
    input: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts it; `command` is what it runs at the end.
    ///
    /// # Errors
    /// When there is no shell.
    pub(super) fn start(command: &[String]) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"cat >/dev/null; exec "$@""#, "sh"]).args(command).stdin(Stdio::piped()).process_group(0);
        let mut shell = shell.spawn().context("start the shell that cleans up")?;
        let input = shell.stdin.take();
        Ok(Self { shell, input })
    }

    /// Runs the command now and waits for it.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn stop(mut self) -> Result<()> {
        drop(self.input.take());
        let status = self.shell.wait().context("wait for the shell that cleans up")?;
        if !status.success() {
            bail!("cleaning up ended with {status}");
        }
        Ok(())
    }
}
