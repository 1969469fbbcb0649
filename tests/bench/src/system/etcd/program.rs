//! The etcd program: built once from its Go module, through the Go module proxy and its checksum database, into the user's
//! cache directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The newest stable release when this was written.
pub const VERSION: &str = "3.7.3";
const MODULE: &str = "go.etcd.io/etcd/server/v3";

/// Where it is; builds it if it is not there.
pub fn find(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return if path.is_file() { Ok(path.to_owned()) } else { bail!("there is no {}", path.display()) };
    }
    let folder = cache()?.join(format!("etcd-{VERSION}"));
    let program = folder.join("etcd");
    if !program.is_file() {
        eprintln!("building etcd {VERSION} from its Go module (once, about 2 minutes) …");
        build(&folder, &program)?;
    }
    Ok(program)
}

fn cache() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
    Ok(base.context("there is no place for a cache: set HOME or XDG_CACHE_HOME")?.join("coterie-bench"))
}

fn build(folder: &Path, program: &Path) -> Result<()> {
    let sources = folder.join("build");
    std::fs::create_dir_all(&sources).with_context(|| format!("make {}", sources.display()))?;
    std::fs::write(sources.join("go.mod"), format!("module bench\n\ngo 1.25.0\n\ntool {MODULE}\n"))
        .context("write go.mod")?;
    go(&sources, &["get", &format!("{MODULE}@v{VERSION}")])?;
    // Moved when it is whole, so that a build that was interrupted leaves no program.
    let unfinished = sources.join("etcd");
    let output = unfinished.to_string_lossy().into_owned();
    go(&sources, &["build", "-trimpath", "-ldflags", "-s -w", "-o", &output, MODULE])?;
    std::fs::rename(&unfinished, program).context("move etcd to its place")
}

fn go(directory: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("go");
    command.args(arguments).current_dir(directory).env("GOWORK", "off").stdin(Stdio::null());
    let output = command
        .output()
        .context("run go; it is needed to build etcd: https://go.dev/dl, or name an etcd with --etcd")?;
    if output.status.success() {
        return Ok(());
    }
    bail!("go {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())
}
