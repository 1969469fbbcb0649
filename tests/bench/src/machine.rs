//! What the operating system knows: memory and CPU of processes, flushes of a block device, the load.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The unit of CPU times in /proc, on every Linux that there is (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// The block device under a directory, of which the kernel counts the flushes.
#[derive(Clone, Debug)]
pub struct Device {
    major_minor: Option<(u32, u32)>,
}

impl Device {
    /// The one under `directory`; all of the machine together if it lies on none that the kernel counts for.
    pub fn under(directory: &Path) -> Result<Self> {
        let device = fs::metadata(directory).with_context(|| format!("look at {}", directory.display()))?.dev();
        let wanted = (rustix::fs::major(device), rustix::fs::minor(device));
        let counted = diskstats()?.iter().any(|line| (line.major, line.minor) == wanted);
        Ok(Self { major_minor: counted.then_some(wanted) })
    }

    /// How many flushes it has completed since the machine started.
    pub fn flushes(&self) -> Result<u64> {
        let mine = |line: &&Line| self.major_minor.is_none_or(|wanted| wanted == (line.major, line.minor));
        Ok(diskstats()?.iter().filter(mine).map(|line| line.flushes).sum())
    }

    /// Its name.
    pub fn name(&self) -> Result<String> {
        let Some(wanted) = self.major_minor else { return Ok("all block devices".to_owned()) };
        let lines = diskstats()?;
        Ok(lines.into_iter().find(|line| (line.major, line.minor) == wanted).map(|line| line.name).unwrap_or_default())
    }
}

struct Line {
    major: u32,
    minor: u32,
    name: String,
    flushes: u64,
}

fn diskstats() -> Result<Vec<Line>> {
    let text = fs::read_to_string("/proc/diskstats").context("read /proc/diskstats")?;
    Ok(text.lines().filter_map(diskstat).collect())
}

/// One line. The flushes are the 16th number after the name (Documentation/admin-guide/iostats.rst), since Linux 5.5.
fn diskstat(line: &str) -> Option<Line> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Some(Line {
        major: words.first()?.parse().ok()?,
        minor: words.get(1)?.parse().ok()?,
        name: (*words.get(2)?).to_owned(),
        flushes: words.get(18)?.parse().ok()?,
    })
}

/// Resident memory of a process, in MiB.
pub fn rss_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("read of process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process without memory")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("read VmRSS")?;
    Ok(kib / 1024.0)
}

/// CPU time that a process has used.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("read of process {pid}"))?;
    // The name of a program may hold spaces; it ends with the last parenthesis.
    let rest = stat.rsplit_once(')').context("read stat")?.1;
    let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum::<f64>();
    Ok(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

/// Whether a process runs; one that is only waited for does not.
pub fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The process that was started with `argument`.
pub fn process_with(argument: &Path) -> Result<u32> {
    let argument = argument.as_os_str().as_encoded_bytes();
    let entries = fs::read_dir("/proc").context("read /proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let has = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument)
    };
    pids.into_iter().find(has).context("the process is not there")
}

/// The load of the last minute, and on which machine.
pub fn describe() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cpus} cores, loadavg {load}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn flushes_are_read_where_the_kernel_counts_them() {
        let line = " 254       0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17";
        let line = diskstat(line).unwrap();
        assert_eq!((line.major, line.minor, line.name.as_str(), line.flushes), (254, 0, "vda", 16));
        assert!(diskstat("254 0 vda 1 2 3 4 5 6 7 8 9 10 11").is_none(), "a kernel that does not count them");
    }

    #[test]
    fn a_process_has_memory_and_cpu_time() {
        let pid = std::process::id();
        assert!(rss_mib(pid).unwrap() > 0.5);
        assert!(cpu(pid).unwrap() < Duration::from_secs(3_600));
        assert!(runs(pid));
    }
}
