//! Running programs and reading what they print.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs the command, with `input` on its standard input, and gives its standard output.
///
/// # Errors
/// When it cannot be started or exits with another code than 0: the command line and what it wrote to standard error.
pub(crate) fn run(command: &mut Command, input: Option<&str>) -> Result<String> {
    let output = output(command, input)?;
    if !output.status.success() {
        bail!("{} ended with {}: {}", line(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs the command and gives everything, also when it fails.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn output(command: &mut Command, input: Option<&str>) -> Result<Output> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {}", line(command)))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that refuses its input early closes the pipe; what it says about that is in its output.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().with_context(|| format!("wait for {}", line(command)))
}

/// Whether a program of this name is on the PATH.
pub(crate) fn is_there(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}
