//! Rate cards in a file beside a ledger, so that a ledger which is restored from an older backup gets those back that it
//! lacks. Its lines are those of [`write_rate_cards`], so that a person can import it as well.
//!
//! It is there whole or not at all: a new text takes the place of the old one only once it is on the disk. What this does
//! not do: it knows no ledger, and joins nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use goldleaves_pricing::RateCard;

use crate::text::{RateCardsError, read_rate_cards, write_rate_cards};

/// The mode of the file: prices are for their owner, as the ledger beside it is.
const PRIVATE: u32 = 0o600;

/// A file of rate cards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardsFile(PathBuf);

/// The reason a file of rate cards can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CardsFileError {
    /// It can't be read.
    #[error("{} can't be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It was altered, or copied in part.
    #[error(
        "{} holds no rate cards that can be used: put an export of them in its place, or remove it if the ledger has them all",
        .0.display()
    )]
    Torn(PathBuf, #[source] RateCardsError),
    /// The disk is full, or the folder may not be written.
    #[error("{} can't be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

impl CardsFile {
    /// The file of a folder of data.
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("rate-cards.jsonl"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads it; there are no cards where there is no file.
    ///
    /// # Errors
    /// It can't be read, or is not whole.
    pub fn read(&self) -> Result<Vec<RateCard>, CardsFileError> {
        match std::fs::read(&self.0) {
            Ok(bytes) => read_rate_cards(&String::from_utf8_lossy(&bytes))
                .map_err(|error| CardsFileError::Torn(self.0.clone(), error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(CardsFileError::Read(self.0.clone(), error)),
        }
    }

    /// Writes these cards in place of those that it holds. When this returns, they are on the disk.
    ///
    /// # Errors
    /// The file system refuses; then it holds what it held before.
    pub fn write(&self, cards: &[RateCard]) -> Result<(), CardsFileError> {
        self.replace(&write_rate_cards(cards)).map_err(|error| CardsFileError::Write(self.0.clone(), error))
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let new = self.0.with_extension("jsonl.new");
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(&new);
        let written = written.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        if let Err(error) = written.and_then(|()| std::fs::rename(&new, &self.0)) {
            // Room that a full disk may need.
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        // The name is in the folder, which has to reach the disk as well.
        self.0.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARDS: &str = r#"{"version":1,"card":"default","cents_per_unit":"25","effective_from":"0001-01-01T00:00:00.000000Z"}
{"version":2,"card":"default","cents_per_unit":"50","effective_from":"2026-03-03T10:11:12.131415Z"}
"#;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = folder();
        let file = CardsFile::of(folder.path());
        assert_eq!(file.read().unwrap(), []);
        let cards = read_rate_cards(CARDS).unwrap();
        for cards in [&cards[..1], &cards[..]] {
            file.write(cards).unwrap();
            assert_eq!(file.read().unwrap(), cards);
        }
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), CARDS, "a person can import it");
        assert_eq!(file.path().metadata().unwrap().permissions().mode() & 0o777, PRIVATE);
        let names: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["rate-cards.jsonl"], "nothing else is left");
    }

    #[test]
    fn a_part_of_a_file_is_not_taken_for_it() {
        let folder = folder();
        let file = CardsFile::of(folder.path());
        let lines = CARDS.lines().next().unwrap().len() + 1;
        // Cut between two lines it is a whole file of fewer cards, which only an older one would be.
        for end in (0..CARDS.len() - 1).filter(|end| *end != lines && *end != lines - 1) {
            std::fs::write(file.path(), CARDS.get(..end).unwrap()).unwrap();
            let error = file.read().unwrap_err();
            assert!(matches!(error, CardsFileError::Torn(..)), "{end}: {error}");
            assert!(error.to_string().contains("rate-cards.jsonl holds no rate cards"), "{error}");
        }
    }

    #[test]
    fn what_can_not_be_written_leaves_what_was_there() {
        let folder = folder();
        let file = CardsFile::of(folder.path());
        let cards = read_rate_cards(CARDS).unwrap();
        file.write(&cards[..1]).unwrap();
        std::fs::create_dir(folder.path().join("rate-cards.jsonl.new")).unwrap();
        let error = file.write(&cards).unwrap_err();
        assert!(error.to_string().ends_with("rate-cards.jsonl can't be written"), "{error}");
        assert_eq!(file.read().unwrap(), &cards[..1]);
    }
}
