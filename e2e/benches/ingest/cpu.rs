//! CPU time of processes, as the kernel counts it in ticks.

use std::fs;
use std::iter::Sum;
use std::ops::{Add, Sub};

use anyhow::{Context as _, Result};
use goldleaves_testkit::postgres::Postgres;

/// CPU time, in ticks of a hundredth of a second.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu(u64);

impl Cpu {
    /// Returns the time that a process has used, its threads included.
    pub(crate) fn of(process: u32) -> Result<Self> {
        let fields = stat(process).with_context(|| format!("the CPU time of process {process}"))?;
        Ok(Self(fields.get(11..13).context("no times")?.iter().sum()))
    }

    /// Returns the time that all processes of a database server have used, those that ended included.
    pub(crate) fn of_children(postgres: &Postgres) -> Result<Self> {
        let file = postgres.directory().join("data/postmaster.pid");
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let main: u32 = text.lines().next().context("no process in postmaster.pid")?.trim().parse()?;
        let fields = stat(main).context("the CPU time of PostgreSQL")?;
        // Its own, and that of children it has waited for.
        let mut sum = Self(fields.get(11..15).context("no times")?.iter().sum());
        for entry in fs::read_dir("/proc").context("reading /proc")? {
            let name = entry?.file_name();
            let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // Processes end at any time.
            let Some(fields) = stat(process) else { continue };
            if fields.get(1).copied() == Some(main.into()) {
                sum = sum + Self(fields.get(11..13).unwrap_or_default().iter().sum());
            }
        }
        Ok(sum)
    }

    /// Microseconds for each of so many.
    pub(crate) fn micros_each(self, count: usize) -> f64 {
        self.0 as f64 * 1e4 / count as f64
    }
}

/// The numbers behind the name of a process: its state counts as 0, then its parent and so on.
fn stat(process: u32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect())
}

impl Add for Cpu {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Cpu {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}
