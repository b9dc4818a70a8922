//! A segment: one file that holds the LSNs from `base` to `base + capacity`, and its header, kept twice.
//!
//! Knows how a segment is created, recognised and read; not when one is full or may go.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::frame::{u32_at, u64_at, uuid_at};
use crate::fs::{FileSystem, OpenMode, SpoolFile, read_patiently};
use crate::stage_note::{NOTE_AT, NOTE_BYTES, StageNote};

/// Frames begin here; before lie two copies of the header, a page each.
pub(crate) const DATA: u64 = 2 * PAGE;
pub(crate) const PAGE: u64 = 4096;
/// The format this program writes and the newest it reads.
///
/// 2 lists open intents by their places (`OPEN IDS`) where 1 copied them.
pub(crate) const FORMAT: u32 = 2;
const MAGIC: &[u8; 8] = b"GLSPOOL\0";
const HEADER_BYTES: usize = 80;
const SUFFIX: &str = ".seg";

/// The words of a segment about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) spool: Uuid,
    pub(crate) epoch: Uuid,
    pub(crate) base: u64,
    pub(crate) capacity: u64,
    pub(crate) number: u64,
    pub(crate) created_unix_secs: u64,
}

/// The first pages of a file, as they turned out to be.
pub(crate) enum FileHead {
    Header(Header),
    Newer(u32),
    /// A damaged file of so many bytes.
    Damaged(u64),
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(HEADER_BYTES);
        body.extend_from_slice(&FORMAT.to_le_bytes());
        body.extend_from_slice(self.spool.as_bytes());
        body.extend_from_slice(self.epoch.as_bytes());
        for field in [self.base, self.capacity, self.number, self.created_unix_secs] {
            body.extend_from_slice(&field.to_le_bytes());
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    fn decode(bytes: &[u8]) -> FileHead {
        Self::parse(bytes).unwrap_or(FileHead::Damaged(bytes.len() as u64))
    }

    fn parse(bytes: &[u8]) -> Option<FileHead> {
        let body = bytes.get(12..HEADER_BYTES)?;
        if bytes.get(..8)? != MAGIC {
            return None;
        }
        let format = u32_at(body, 0)?;
        if format > FORMAT {
            return Some(FileHead::Newer(format));
        }
        (crc32c::crc32c(body) == u32_at(bytes, 8)?).then_some(())?;
        Some(FileHead::Header(Self {
            spool: uuid_at(body, 4)?,
            epoch: uuid_at(body, 20)?,
            base: u64_at(body, 36)?,
            capacity: u64_at(body, 44)?,
            number: u64_at(body, 52)?,
            created_unix_secs: u64_at(body, 60)?,
        }))
    }
}

/// An open segment, as the writer, readers and the keeper share it.
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn SpoolFile>,
    /// LSN after the last byte that may hold a frame.
    end: AtomicU64,
    /// Length of the file.
    bytes: AtomicU64,
    /// The number of relayed records the log held before this segment (for counts only).
    pub(crate) relayed_before: AtomicU64,
    /// Where the log ended when no open intent's payload lay here any more; 0 = one may.
    pub(crate) left_at: AtomicU64,
    /// When the next segment took over.
    sealed: OnceLock<SealTime>,
    /// Zeros were written up to this offset, or need not be.
    pub(crate) filled: AtomicU64,
    /// Held while zeros are written ahead of the first frame; `true` once frames are written and no zeros may follow.
    filling: Mutex<bool>,
}

/// When a segment took its last frame, in times that no change of the clock touches.
#[derive(Debug, Clone, Copy)]
enum SealTime {
    /// In this process.
    At(Instant),
    /// By an earlier process, which wrote records for so long afterwards.
    Before { opened: Instant, older: Duration },
}

impl Segment {
    /// Creates the file with all its room and both headers, durably.
    pub(crate) fn create(
        fs: &dyn FileSystem,
        directory: &Path,
        header: Header,
        staged: Option<&StageNote>,
    ) -> io::Result<Self> {
        let path = path_of(directory, header.number);
        let file = fs.open(&path, OpenMode::Create)?;
        let written = file.allocate(header.capacity).and_then(|()| {
            write_headers(&*file, &header, staged)?;
            fs.sync_dir(directory)
        });
        if let Err(error) = written {
            // Its room is wanted back; if even that fails, recovery removes a segment without frames.
            let _ = fs.remove(&path);
            return Err(error);
        }
        Ok(Self::new(header, path, file, header.capacity))
    }

    /// Works like [`Segment::create`], from the file of a segment that is gone for good, whose room it takes over. At no moment does
    /// the file say that it holds what it does not.
    pub(crate) fn reuse(
        fs: &dyn FileSystem,
        old: &Self,
        header: Header,
        staged: Option<&StageNote>,
    ) -> io::Result<Self> {
        let directory = old.path.parent().unwrap_or(Path::new("."));
        let path = path_of(directory, header.number);
        old.file.clear(header.capacity)?;
        old.file.sync_data()?;
        fs.rename(&old.path, &path)?;
        let written = fs.sync_dir(directory).and_then(|()| write_headers(&*old.file, &header, staged));
        if let Err(error) = written {
            let _ = fs.remove(&path);
            return Err(error);
        }
        Ok(Self::new(header, path, Arc::clone(&old.file), header.capacity))
    }

    fn new(header: Header, path: PathBuf, file: Arc<dyn SpoolFile>, bytes: u64) -> Self {
        Self {
            header,
            path,
            file,
            end: AtomicU64::new(header.base + bytes.min(header.capacity)),
            bytes: AtomicU64::new(bytes),
            relayed_before: AtomicU64::new(0),
            left_at: AtomicU64::new(0),
            sealed: OnceLock::new(),
            filled: AtomicU64::new(0),
            filling: Mutex::new(false),
        }
    }

    /// Opens a file and reads its header.
    pub(crate) fn open(fs: &dyn FileSystem, path: &Path, mode: OpenMode) -> io::Result<Result<Self, FileHead>> {
        let file = fs.open(path, mode)?;
        let bytes = file.length()?;
        let mut newest = FileHead::Damaged(bytes);
        let mut unread = None;
        for offset in [0, PAGE] {
            let mut buffer = [0; HEADER_BYTES];
            if let Err(error) = read_patiently(&*file, offset, &mut buffer) {
                unread = Some(error);
                continue;
            }
            match Header::decode(&buffer) {
                FileHead::Header(header) => return Ok(Ok(Self::new(header, path.to_owned(), file, bytes))),
                FileHead::Newer(format) => newest = FileHead::Newer(format),
                FileHead::Damaged(_) => {}
            }
        }
        unread.map_or(Ok(Err(newest)), Err)
    }

    /// The stage that its epoch was appended through, as it says.
    pub(crate) fn stage_note(&self) -> Option<StageNote> {
        [0, PAGE].into_iter().find_map(|page| {
            let mut bytes = [0; NOTE_BYTES];
            read_patiently(&*self.file, page + NOTE_AT, &mut bytes).ok()?;
            StageNote::decode(&bytes)
        })
    }

    /// From now on it says that its epoch needs no stage.
    pub(crate) fn forget_stage(&self) -> io::Result<()> {
        [0, PAGE].into_iter().try_for_each(|page| self.file.write_at(page + NOTE_AT, &[0; NOTE_BYTES]))
    }

    /// The same segment as a file says it that has more in it.
    pub(crate) fn over(&self, file: Arc<dyn SpoolFile>, end: u64) -> Self {
        let bytes = self.bytes().max(self.offset(end));
        Self::new(self.header, self.path.clone(), file, bytes)
    }

    pub(crate) fn is_name(name: &str) -> bool {
        name.ends_with(SUFFIX)
    }

    /// The number in a file name, also of a file whose header is damaged.
    pub(crate) fn number_of(name: &str) -> Option<u64> {
        u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()
    }

    /// LSN of the first frame.
    pub(crate) fn first(&self) -> u64 {
        self.header.base + DATA
    }

    /// No frame of this segment can lie at or after this LSN.
    pub(crate) fn limit(&self) -> u64 {
        self.header.base + self.header.capacity
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn set_end(&self, lsn: u64) {
        self.end.store(lsn, Ordering::Release);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn covers(&self, lsn: u64) -> bool {
        self.first() <= lsn && lsn < self.end()
    }

    pub(crate) fn offset(&self, lsn: u64) -> u64 {
        lsn.saturating_sub(self.header.base)
    }

    // === age ===

    /// The next segment takes over.
    pub(crate) fn seal(&self) {
        let _ = self.sealed.set(SealTime::At(Instant::now()));
    }

    /// An earlier process sealed it, so long before the last record that it wrote.
    pub(crate) fn was_sealed(&self, older: Duration) {
        let _ = self.sealed.set(SealTime::Before { opened: Instant::now(), older });
    }

    /// Seals it like the segment that it is written anew in place of.
    pub(crate) fn seal_as(&self, other: &Self) {
        if let Some(sealed) = other.sealed.get() {
            let _ = self.sealed.set(*sealed);
        }
    }

    /// For how long the log has gone on without it. What the clock says at the moment has no part in it: a clock that leaps
    /// would let everything go that is retained.
    pub(crate) fn age(&self) -> Duration {
        match self.sealed.get() {
            None => Duration::ZERO,
            Some(SealTime::At(at)) => at.elapsed(),
            Some(SealTime::Before { opened, older }) => opened.elapsed() + *older,
        }
    }

    // === bytes ===

    /// Writes zeros into the room that no frame has yet, from `offset` on, so that later syncs need not change what the file
    /// system knows of it. `false` when frames are being written.
    pub(crate) fn fill(&self, offset: u64, bytes: usize) -> io::Result<bool> {
        let taken = self.filling.lock();
        if *taken {
            return Ok(false);
        }
        self.file.write_at(offset, &vec![0; bytes])?;
        Ok(true)
    }

    /// Writes frames.
    pub(crate) fn write(&self, lsn: u64, frames: &[u8]) -> io::Result<()> {
        *self.filling.lock() = true;
        self.file.write_at(self.offset(lsn), frames)
    }

    /// Frames were written up to here, perhaps behind the file's end.
    pub(crate) fn lengthen(&self, end: u64) {
        self.end.fetch_max(end, Ordering::AcqRel);
        self.bytes.fetch_max(self.offset(end), Ordering::Relaxed);
    }

    /// Cuts what lies behind the last frame.
    pub(crate) fn trim(&self) -> io::Result<()> {
        let used = self.offset(self.end());
        if used < self.bytes() {
            self.file.truncate(used)?;
            self.bytes.store(used, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}{SUFFIX}"))
}

fn write_headers(file: &dyn SpoolFile, header: &Header, staged: Option<&StageNote>) -> io::Result<()> {
    let mut bytes = header.encode();
    if let Some(note) = staged {
        bytes.resize(NOTE_AT as usize, 0);
        bytes.extend_from_slice(&note.encode());
    }
    file.write_at(0, &bytes)?;
    file.write_at(PAGE, &bytes)?;
    file.sync_data()
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("header", &self.header).field("end", &self.end()).finish_non_exhaustive()
    }
}
