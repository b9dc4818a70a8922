//! The words of a segment about the stage that its epoch is appended through: where it lies, and since which start of the
//! machine.
//!
//! A start with another folder of stages finds by them what the last one left, and a look from outside what is not in a
//! segment yet. A stage that was there and is not, though the machine was not started again, took calls with it: without these
//! words nobody would know. They lie behind a segment's header, in both copies; an epoch without a stage, or one that was
//! closed in good order, has a segment without.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::frame::{u32_at, uuid_at};

/// Where they lie in a header's page, on a sector of their own.
pub(crate) const NOTE_AT: u64 = 1024;
/// Their bytes, the last of them zeros.
pub(crate) const NOTE_BYTES: usize = 512;
const MAGIC: &[u8; 8] = b"GLSTGAT\0";
const PATH: usize = 30;

/// The stage of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StageNote {
    /// The start of the machine that the stage belongs to: it does not outlive that.
    pub(crate) boot: Uuid,
    pub(crate) path: PathBuf,
}

impl StageNote {
    /// `None` when the path is too long to be written down.
    pub(crate) fn of(boot: Uuid, path: &Path) -> Option<Self> {
        let path = std::path::absolute(path).ok()?;
        (path.as_os_str().len() <= NOTE_BYTES - PATH).then_some(Self { boot, path })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let text = self.path.as_os_str().as_bytes();
        let mut body = self.boot.as_bytes().to_vec();
        body.extend_from_slice(&u16::try_from(text.len()).unwrap_or_default().to_le_bytes());
        body.extend_from_slice(text);
        body.resize(NOTE_BYTES - 12, 0);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let body = bytes.get(12..NOTE_BYTES)?;
        (bytes.get(..8)? == MAGIC && crc32c::crc32c(body) == u32_at(bytes, 8)?).then_some(())?;
        let count = u16::from_le_bytes(bytes.get(PATH - 2..PATH)?.try_into().ok()?);
        let text = bytes.get(PATH..PATH + usize::from(count))?;
        Some(Self { boot: uuid_at(body, 0)?, path: PathBuf::from(OsStr::from_bytes(text)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_not_when_it_is_damaged() {
        let note = StageNote::of(Uuid::now_v7(), Path::new("/dev/shm/goldleaves-1-2.stage")).unwrap();
        let mut bytes = note.encode();
        assert_eq!(bytes.len(), NOTE_BYTES);
        assert_eq!(StageNote::decode(&bytes), Some(note));
        bytes[40] ^= 1;
        assert_eq!(StageNote::decode(&bytes), None);
        assert_eq!(StageNote::decode(&[0; NOTE_BYTES]), None);
        assert_eq!(StageNote::of(Uuid::nil(), Path::new(&"/long".repeat(100))), None);
    }
}
