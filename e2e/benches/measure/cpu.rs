//! CPU time and memory of a process, from what the kernel keeps of each of its threads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Nanoseconds of CPU by the name of the thread.
pub(crate) type Used = BTreeMap<String, u64>;

/// Returns what each thread of a process has used so far. Threads that ended are not in it: servers keep theirs.
pub(crate) fn used(process: u32) -> Result<Used> {
    let mut used = Used::new();
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("reading a process's threads")? {
        let folder = thread.context("a thread")?.path();
        // A thread may end between the two reads.
        let (Some(name), Some(nanos)) = (read(&folder, "comm"), read(&folder, "schedstat")) else { continue };
        let nanos: u64 = nanos.split(' ').next().unwrap_or_default().parse().context("schedstat")?;
        *used.entry(name).or_default() += nanos;
    }
    Ok(used)
}

/// Returns what was used between two readings, in nanoseconds, by thread name.
pub(crate) fn between(before: &Used, after: &Used) -> Used {
    let since =
        |(name, nanos): (&String, &u64)| (name.clone(), nanos.saturating_sub(before.get(name).copied().unwrap_or(0)));
    after.iter().map(since).collect()
}

/// The memory that is a process's own, in MiB: its proportional set size, which shares what several processes map.
pub(crate) fn own_mib(process: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).context("reading a process's memory")?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).context("no Pss")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no Pss")?.parse().context("Pss")?;
    Ok(kib / 1024.0)
}

/// Keeps this thread, and what it starts, on one core.
pub(crate) fn pin_to(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).context("choosing a core")
}

fn read(folder: &Path, file: &str) -> Option<String> {
    fs::read_to_string(folder.join(file)).ok().map(|text| text.trim_end().to_owned())
}
