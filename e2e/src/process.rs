//! The kernel's figures of a running process.

use anyhow::{Context as _, Result};

/// The memory a process has to itself, in KiB: pages of files it maps (the spool's segments) are not counted, the kernel
/// takes those back.
///
/// # Errors
/// There is no such process.
pub fn own_memory_kib(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).context("the process's status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    line.trim().trim_end_matches("kB").trim().parse().context("RssAnon")
}
