//! The state file: spool id, cursor with its memo and its past, floor, checkpoint, and the count of what could not be
//! recorded, per epoch.
//!
//! Two pages, each a whole state with a generation and a checksum. A write goes to the page that is *not* the last one
//! synced, so that no power cut can take both. The file exists with all its room from the first start on: counting what
//! could not be recorded never needs room. It holds nothing that the segments could not do without: when both pages are
//! gone, everything retained is sent again, which the receivers of records bear.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::frame::{u32_at, u64_at, uuid_at};
use crate::fs::{FileSystem, OpenMode, SpoolFile, read_patiently};
use crate::past::Past;
use crate::segment::PAGE;

const MAGIC: &[u8; 8] = b"GLSTATE\0";
const NAME: &str = "state";
const NAME_NEW: &str = "state.new";
const UNRECORDED_MAX: usize = 100;
/// Largest memo of [`crate::Spool::advance_with`].
pub const MEMO_BYTES_MAX: usize = 1_600;
/// Where the memo lies in the body: its length (`u16`), then its bytes.
const MEMO: usize = 56 + UNRECORDED_MAX * 24;
/// Where the cursor's past lies in the body. All zeros: written by a program that kept none.
const PAST: usize = MEMO + 2 + MEMO_BYTES_MAX;
const PAGE_BYTES: usize = 4096;

/// The content of the state file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpoolState {
    pub(crate) spool: Uuid,
    /// Every relayed record before this LSN was acknowledged.
    pub(crate) cursor: u64,
    /// The memo that the reader's owner wants to have at the next start, as of the cursor.
    pub(crate) memo: Bytes,
    /// Where the cursor was some minutes ago.
    pub(crate) past: Past,
    /// Segments wholly before this LSN were deleted, or are about to be.
    pub(crate) floor: u64,
    /// From here on recovery must read; all before is durable and its open intents are carried at this LSN.
    pub(crate) checkpoint: u64,
    /// Records that could not be appended, by epoch.
    pub(crate) unrecorded: Vec<(Uuid, u64)>,
}

impl SpoolState {
    pub(crate) fn new(spool: Uuid) -> Self {
        Self {
            spool,
            cursor: 0,
            memo: Bytes::new(),
            past: Past::default(),
            floor: 0,
            checkpoint: 0,
            unrecorded: Vec::new(),
        }
    }

    /// Counts only grow. Whether this one did.
    pub(crate) fn set_unrecorded(&mut self, epoch: Uuid, count: u64) -> bool {
        let room = self.unrecorded.len() < UNRECORDED_MAX;
        match self.unrecorded.iter_mut().find(|(of, _)| *of == epoch) {
            Some((_, known)) if *known < count => *known = count,
            None if count > 0 && room => self.unrecorded.push((epoch, count)),
            None if count > 0 => {
                tracing::error!(%epoch, "more epochs with unrecorded records than can be kept");
                return false;
            }
            _ => return false,
        }
        true
    }

    fn encode(&self, generation: u64) -> Vec<u8> {
        let mut body = generation.to_le_bytes().to_vec();
        body.extend_from_slice(self.spool.as_bytes());
        for field in [self.cursor, self.floor, self.checkpoint, self.unrecorded.len() as u64] {
            body.extend_from_slice(&field.to_le_bytes());
        }
        for (epoch, count) in &self.unrecorded {
            body.extend_from_slice(epoch.as_bytes());
            body.extend_from_slice(&count.to_le_bytes());
        }
        body.resize(MEMO, 0);
        let memo = self.memo.get(..MEMO_BYTES_MAX).unwrap_or(&self.memo);
        body.extend_from_slice(&u16::try_from(memo.len()).unwrap_or_default().to_le_bytes());
        body.extend_from_slice(memo);
        body.resize(PAST, 0);
        body.extend_from_slice(&self.past.encode());
        body.resize(PAGE_BYTES - 12, 0);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<(u64, Self)> {
        let body = bytes.get(12..PAGE_BYTES)?;
        (bytes.get(..8)? == MAGIC && crc32c::crc32c(body) == u32_at(bytes, 8)?).then_some(())?;
        let count = usize::try_from(u64_at(body, 48)?).ok().filter(|count| *count <= UNRECORDED_MAX)?;
        let unrecorded = (0..count)
            .map(|index| Some((uuid_at(body, 56 + index * 24)?, u64_at(body, 72 + index * 24)?)))
            .collect::<Option<Vec<_>>>()?;
        let cursor = u64_at(body, 24)?;
        let memo_bytes = u16::from_le_bytes(body.get(MEMO..MEMO + 2)?.try_into().ok()?);
        let state = Self {
            spool: uuid_at(body, 8)?,
            cursor,
            memo: Bytes::copy_from_slice(body.get(MEMO + 2..MEMO + 2 + usize::from(memo_bytes))?),
            past: Past::decode(body.get(PAST..)?).unwrap_or_else(|| Past::at(cursor, 0)),
            floor: u64_at(body, 32)?,
            checkpoint: u64_at(body, 40)?,
            unrecorded,
        };
        Some((u64_at(body, 0)?, state))
    }
}

/// Reads the newest readable state of a directory.
pub(crate) fn read(fs: &dyn FileSystem, directory: &Path) -> io::Result<Option<SpoolState>> {
    let file = match fs.open(&directory.join(NAME), OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(newest(&*file).map(|found| found.state))
}

struct NewestPage {
    page: u64,
    generation: u64,
    state: SpoolState,
}

fn newest(file: &dyn SpoolFile) -> Option<NewestPage> {
    let mut best: Option<NewestPage> = None;
    for page in 0..2 {
        let mut buffer = [0; PAGE_BYTES];
        if read_patiently(file, page * PAGE, &mut buffer).is_err() {
            continue;
        }
        if let Some((generation, state)) = SpoolState::decode(&buffer)
            && best.as_ref().is_none_or(|best| best.generation < generation)
        {
            best = Some(NewestPage { page, generation, state });
        }
    }
    best
}

/// The open state file.
pub(crate) struct StateFile {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    file: Arc<dyn SpoolFile>,
    generation: u64,
    synced_page: u64,
    dirty: bool,
    state: SpoolState,
}

impl StateFile {
    /// Opens the file, or makes one that holds `fallback` when there is none that can be read.
    pub(crate) fn open(fs: Arc<dyn FileSystem>, directory: &Path, fallback: SpoolState) -> io::Result<Self> {
        if let Ok(file) = fs.open(&directory.join(NAME), OpenMode::Write)
            && let Some(found) = newest(&*file)
        {
            let NewestPage { page, generation, state } = found;
            return Ok(Self {
                fs,
                directory: directory.to_owned(),
                file,
                generation,
                synced_page: page,
                dirty: true,
                state,
            });
        }
        let file = create(&*fs, directory, &fallback, 1)?;
        let directory = directory.to_owned();
        Ok(Self { fs, directory, file, generation: 1, synced_page: 0, dirty: false, state: fallback })
    }

    pub(crate) fn state(&self) -> &SpoolState {
        &self.state
    }

    /// Takes back a floor that could not be persisted.
    pub(crate) fn set_floor(&mut self, floor: u64) {
        self.state.floor = floor;
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Returns whether the count of an epoch's unrecorded is what was written last.
    pub(crate) fn holds_unrecorded(&self, epoch: Uuid, count: u64) -> bool {
        let found = self.state.unrecorded.iter().find(|(of, _)| *of == epoch);
        found.map_or(0, |(_, count)| *count) == count
    }

    /// Takes over what a stage knows better.
    pub(crate) fn count_at_least(&mut self, epoch: Uuid, count: u64) {
        if self.state.set_unrecorded(epoch, count) {
            self.dirty = true;
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.generation += 1;
        self.file.write_at((1 - self.synced_page) * PAGE, &self.state.encode(self.generation))
    }

    /// A whole new file in place of one whose writes or syncs failed: such a file is never synced again.
    fn replace(&mut self) -> io::Result<()> {
        self.generation += 1;
        self.file = create(&*self.fs, &self.directory, &self.state, self.generation)?;
        self.synced_page = 0;
        self.dirty = false;
        Ok(())
    }
}

fn create(
    fs: &dyn FileSystem,
    directory: &Path,
    state: &SpoolState,
    generation: u64,
) -> io::Result<Arc<dyn SpoolFile>> {
    let new = directory.join(NAME_NEW);
    match fs.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = fs.open(&new, OpenMode::Create)?;
    file.allocate(2 * PAGE)?;
    file.write_at(0, &state.encode(generation))?;
    file.sync_data()?;
    fs.rename(&new, &directory.join(NAME))?;
    fs.sync_dir(directory)?;
    Ok(file)
}

/// Applies a change and makes the whole state durable. The lock is not held while the disk works.
pub(crate) fn persist(shared: &Mutex<StateFile>, change: impl FnOnce(&mut SpoolState)) -> io::Result<()> {
    let (file, page) = {
        let mut state = shared.lock();
        change(&mut state.state);
        state.dirty = true;
        if state.write().is_err() {
            return state.replace();
        }
        state.dirty = false;
        (Arc::clone(&state.file), 1 - state.synced_page)
    };
    let synced = file.sync_data();
    let mut state = shared.lock();
    match synced {
        Ok(()) => {
            state.synced_page = page;
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, "the spool's state file could not be synced; it is written anew");
            state.dirty = true;
            state.replace()
        }
    }
}
