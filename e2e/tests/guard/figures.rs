//! The figures that were written down, and what they hold for: the same profile, compiler, valgrind and kind of processor. What
//! another compiler makes is another program, of which they say nothing.

use std::path::Path;
use std::process::Command;

use goldleaves_testkit::program::built;
use goldleaves_toolbox::Toolbox;

const FIGURES: &str = include_str!("figures.txt");

/// The profile that the programs were built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Debug,
    Release,
}

impl Profile {
    pub(crate) fn of_the_programs() -> Self {
        let said = said(&built("gateway").unwrap(), &["--version"]);
        if said.contains("debug") { Self::Debug } else { Self::Release }
    }

    /// Returns the number of times each scenario is counted, unless `GOLDLEAVES_GUARD_ROUNDS` says it.
    pub(crate) fn rounds(self) -> usize {
        let by_default = match self {
            Self::Debug => 1,
            Self::Release => 2,
        };
        std::env::var("GOLDLEAVES_GUARD_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(by_default)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }

    /// Returns the excess over its figure that a request may cost, in parts of a thousand. A debug build pays for each
    /// function that code is cut into, which a released one does not: its count finds what is much dearer, and no more.
    const fn more_per_mille(self) -> u64 {
        match self {
            Self::Debug => 50,
            Self::Release => 5,
        }
    }
}

/// Fails when a request costs more than is written down for these programs; says so where nothing is.
pub(crate) fn hold_against(profile: Profile, cost: u64) {
    let made_by = format!("{}, {}", profile.name(), made_by());
    let figure = FIGURES.lines().find_map(|line| line.strip_prefix(&made_by)?.strip_prefix(": ")?.parse::<u64>().ok());
    let Some(figure) = figure else {
        println!("no figure is written down for `{made_by}`: {cost} would be it; nothing was compared");
        return;
    };
    assert!(
        cost * 1_000 <= figure * (1_000 + profile.more_per_mille()),
        "a request costs {cost} instructions, and {figure} are written down; where that is meant, \
         write `{made_by}: {cost}` into e2e/tests/guard/figures.txt"
    );
    println!("{cost} instructions, of {figure} that are written down for `{made_by}`");
}

/// Returns what the count depends on besides our code, in words.
fn made_by() -> String {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let rustc = said(Path::new(&compiler), &["--version"]);
    let valgrind = said(&Toolbox::of_target().valgrind().unwrap(), &["--version"]);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let wide = if cpu.contains(" avx2") { " with avx2" } else { "" };
    format!("{rustc}, {valgrind}, {}{wide}", std::env::consts::ARCH)
}

fn said(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
