//! The mistakes in the settings, all of them, in words that name the variable and say what would be right.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The variable, or for what the file alone gets wrong the file's name.
    pub subject: String,
    /// The mistake, and what would be right. Never holds a secret.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.subject, self.text)
    }
}

/// Every mistake that was found; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// `None` when there is no mistake.
    pub(crate) fn new(mistakes: Vec<Mistake>) -> Option<Self> {
        (!mistakes.is_empty()).then_some(Self(mistakes))
    }

    /// One mistake by itself, for what is found outside the settings (a file that cannot be read).
    pub fn one(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self(vec![Mistake { subject: subject.into(), text: text.into() }])
    }

    /// The mistakes in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => out.write_str("a setting is wrong:")?,
            count => write!(out, "{count} settings are wrong:")?,
        }
        self.0.iter().try_for_each(|mistake| write!(out, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}
