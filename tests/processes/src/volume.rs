//! Small file systems, which can be full.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

/// What a volume holds: twelve segments of the log.
const MIB: u64 = 192;
/// Set in the program that runs in the namespace.
const INSIDE: &str = "CHAOS_IN_NAMESPACE";
const FILLER: &str = "filler";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs this program once more, in a mount namespace of its own; how that ended. `None` if this is that program.
///
/// # Errors
/// When there can be no such namespace.
pub(crate) fn in_a_namespace_of_its_own() -> Result<Option<ExitCode>> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(None);
    }
    let mut command = Command::new("unshare");
    command.arg("--mount").arg("--propagation=private");
    if is_root() {
        command.env(INSIDE, "ext4");
    } else {
        command.arg("--map-root-user").env(INSIDE, "tmpfs");
    }
    let status = command.arg("--").args(std::env::args_os()).status().context("run unshare (of util-linux)")?;
    Ok(Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

/// A small file system.
pub(crate) struct Volume {
    path: PathBuf,
}

impl Volume {
    /// Makes one and puts it at this path, which does not exist yet.
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub(crate) fn at(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        if std::env::var_os(INSIDE).is_some_and(|kind| kind == "ext4") {
            let image = path.with_extension("ext4");
            File::create(&image).and_then(|file| file.set_len(MIB << 20)).context("make an image")?;
            run(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
            run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path))?;
            // The sidecar refuses a data directory in which there is something that it does not know.
            fs::remove_dir(path.join("lost+found")).context("remove lost+found")?;
        } else {
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={MIB}m"), "tmpfs"]).arg(&path))?;
        }
        Ok(Self { path })
    }

    /// Uses up what is free, to the last byte.
    ///
    /// # Errors
    /// Of the file system, other than want of room.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut file = File::create(self.path.join(FILLER)).context("make the filler")?;
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![1; size];
            loop {
                match file.write_all(&piece).and_then(|()| file.sync_data()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("fill a volume"),
                }
            }
        }
        Ok(())
    }

    /// Gives it back.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn free(&self) -> Result<()> {
        fs::remove_file(self.path.join(FILLER)).context("remove the filler")
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
