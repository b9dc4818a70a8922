//! Program versions, read from what a program prints about itself.

use std::fmt;
use std::path::Path;
use std::process::Command;

/// A version's first two numbers; the others decide nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// A version to compare with.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Runs `program argument` and reads the first version in what it prints. None: it does not run, or prints none.
    pub(crate) fn of_program(program: &Path, argument: &str) -> Option<Self> {
        let output = Command::new(program).arg(argument).output().ok()?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Self::first_in(&text)
    }

    /// The first `N.N` in a text; a number alone (`15beta1`) counts as `N.0` only when no `N.N` follows.
    fn first_in(text: &str) -> Option<Self> {
        let words = || text.split(|c: char| !(c.is_ascii_digit() || c == '.')).filter(|word| !word.is_empty());
        let pair = words().find_map(|word| {
            let mut numbers = word.split('.').map(str::parse::<u32>);
            let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
            Some(Self { major, minor })
        });
        pair.or_else(|| words().find_map(|word| Some(Self { major: word.parse().ok()?, minor: 0 })))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn reads_what_the_programs_print() {
        let read = |text| Version::first_in(text);
        assert_eq!(read("nats-server: v2.15.1\n"), Some(Version::new(2, 15)));
        assert_eq!(read("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(Version::new(15, 18)));
        assert_eq!(read("postgres (PostgreSQL) 19beta1"), Some(Version::new(19, 0)));
        assert_eq!(read("nginx version: nginx/1.22.1"), Some(Version::new(1, 22)));
        assert_eq!(read("no number"), None);
        assert!(Version::new(2, 9) < Version::new(2, 10));
    }
}
