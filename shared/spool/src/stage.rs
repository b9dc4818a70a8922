//! The stage: memory of the kernel's that outlives the process and depends on no disk, where appended bytes wait until they
//! are durable in their segment.
//!
//! It is a file on a tmpfs, mapped and shared. A store into it waits for no file system, so neither a disk that is slow nor one
//! that stands still reaches a request; after `kill -9` the next start copies from it what the segments lack
//! (`restore.rs`). A restart of the machine takes it away, as it takes what a disk had not synced. It knows chunks
//! and whole frames, not what is durable or when a chunk is free.
//!
//! ```text
//! 0     magic "GLSTAGE\0", u32 crc32c of the rest, u32 chunk bytes, spool id, epoch
//! 64    u64: records of this epoch that could not be appended
//! 72    u64 LSN: every frame before it is durable in its segment
//! 80    u64: of the first count, what the spool's state file says too
//! 88    u64 inode, u64 nanoseconds of birth: the spool's directory
//! 128   u16 bytes and text: the spool's directory
//! 4096  chunks: u64 LSN of the first frame, u64 0, then frames one behind the other
//! ```

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use uuid::Uuid;

use crate::frame::{FrameHead, u32_at, u64_at, uuid_at};

/// Bytes of a chunk; the largest frame fits twice.
pub(crate) const CHUNK: usize = 160 * 1024;
/// Frames begin here in a chunk.
const CHUNK_HEAD: usize = 16;
/// Chunks begin here in the file.
const CHUNKS: usize = 4096;
const MAGIC: &[u8; 8] = b"GLSTAGE\0";
const HEADER_BYTES: usize = 48;
const UNRECORDED: usize = 64;
const DURABLE: usize = 72;
const UNRECORDED_KEPT: usize = 80;
const IDENTITY: usize = 88;
const DIRECTORY: usize = 128;
const PREFIX: &str = "goldleaves-";
/// The directory of a spool may be away for a moment, as a volume that is not mounted yet is.
const ABANDONED_AFTER: Duration = Duration::from_secs(3_600);
const SUFFIX: &str = ".stage";
/// The number of times a lock is tried that a process on its way out may still hold, and the time between two tries.
const RELEASE_TRIES: u32 = 250;
const RELEASE_PAUSE: Duration = Duration::from_millis(20);

/// Memory that survives the process.
pub trait Stage: Send + Sync {
    /// Its size.
    fn bytes(&self) -> usize;
    /// Copies `bytes` to `offset`. Whatever does not fit is not stored.
    fn store(&self, offset: usize, bytes: &[u8]);
    /// Copies from `offset` on, as much as `into` holds and there is.
    fn load(&self, offset: usize, into: &mut [u8]);
    /// Returns whether the next start would still find it.
    fn is_linked(&self) -> bool;
}

/// A file on a tmpfs.
pub(crate) struct TmpfsStage {
    /// Holds the lock.
    file: File,
    map: MmapRaw,
}

impl TmpfsStage {
    /// Makes one with all its room, locked by this process.
    pub(crate) fn make(path: &Path, bytes: usize) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        if !is_memory(directory)? {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the directory lies on no tmpfs"));
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let made = file.try_lock().map_err(io::Error::from).and_then(|()| {
            // Every page is there from now on: a store can't fail for lack of memory.
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes as u64)?;
            MmapOptions::new().len(bytes).map_raw(&file)
        });
        match made {
            Ok(map) => Ok(Self { file, map }),
            Err(error) => {
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    /// Opens one that a dead process left; `None` when it is no such file, belongs to somebody else or is in use.
    ///
    /// A process that is still on its way out holds the lock for a moment longer than that of the spool: it is waited for.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let Some(file) = Self::open_ours(path)? else { return Ok(None) };
        if !is_released(&file) {
            tracing::warn!(path = %path.display(), "another process uses this stage of the same spool; it is left alone");
            return Ok(None);
        }
        let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        let map = MmapOptions::new().len(bytes).map_raw(&file)?;
        Ok(Some(Self { file, map }))
    }

    /// Opens a file of this user's that is large enough for a stage, without a lock.
    fn open_ours(path: &Path) -> io::Result<Option<File>> {
        let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).write(true).custom_flags(no_follow).open(path)?;
        let meta = file.metadata()?;
        let is_ours =
            meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw() && meta.len() >= CHUNKS as u64;
        Ok(is_ours.then_some(file))
    }

    /// Finds the stages in `directory` whose names begin with `prefix` and whose processes are gone.
    pub(crate) fn find(directory: &Path, prefix: &str) -> io::Result<Vec<(PathBuf, Arc<dyn Stage>)>> {
        let mut found: Vec<(PathBuf, Arc<dyn Stage>)> = Vec::new();
        for path in Self::list(directory, prefix)? {
            if let Ok(Some(stage)) = Self::open(&path) {
                found.push((path, Arc::new(stage)));
            }
        }
        Ok(found)
    }

    /// Opens one to look at it only, with or without a process that uses it.
    pub(crate) fn look(path: &Path) -> io::Result<Self> {
        let file = Self::open_ours(path)?.ok_or(io::ErrorKind::InvalidData)?;
        let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        let map = MmapOptions::new().len(bytes).map_raw(&file)?;
        Ok(Self { file, map })
    }

    fn list(directory: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            paths.extend((name.starts_with(prefix) && name.ends_with(SUFFIX)).then(|| directory.join(name)));
        }
        Ok(paths)
    }

    /// Removes those of spools that are gone: their directories do not exist any more, and that for a while. A directory that
    /// is not here may lie on a volume that is not mounted, or that other processes see at another path: a stage goes only
    /// when everything that it holds is on a disk.
    ///
    /// Those of others are looked at without a lock. With one, a gateway that starts at this moment would take its own stage
    /// for used and lose what it holds.
    pub(crate) fn sweep(directory: &Path) {
        let (mut stages_removed, mut stages_kept) = (0_u64, 0_u64);
        for path in Self::list(directory, PREFIX).unwrap_or_default() {
            let Ok(Some(file)) = Self::open_ours(&path) else { continue };
            if is_abandoned(&file) && file.try_lock().is_ok() {
                if Self::look(&path).is_ok_and(|stage| is_needed(&stage)) {
                    stages_kept += 1;
                    continue;
                }
                tracing::debug!(path = %path.display(), "the spool of this stage no longer exists; it is removed");
                stages_removed += u64::from(std::fs::remove_file(&path).is_ok());
            }
        }
        if stages_removed > 0 {
            tracing::info!(
                stages_removed,
                directory = %directory.display(),
                "the spools of some stages no longer exist; these stages were removed"
            );
        }
        if stages_kept > 0 {
            tracing::warn!(
                stages_kept,
                directory = %directory.display(),
                "some stages hold records that no disk has, and their spools' directories are not here; they stay until a start \
                 with such a directory takes these records"
            );
        }
    }
}

/// Waits until nobody else holds the lock of this file, and takes it; false when somebody keeps it.
fn is_released(file: &File) -> bool {
    (0..RELEASE_TRIES).any(|attempt| {
        if attempt > 0 {
            std::thread::sleep(RELEASE_PAUSE);
        }
        file.try_lock().is_ok()
    })
}

/// Returns whether the directory of a stage's spool is gone, and nothing was stored for a while.
fn is_abandoned(file: &File) -> bool {
    let age = file.metadata().and_then(|meta| meta.modified()).ok().and_then(|modified| modified.elapsed().ok());
    age.is_some_and(|age| age > ABANDONED_AFTER) && directory_of(file).is_some_and(|spool| !spool.exists())
}

/// Returns whether a stage holds what no disk has.
fn is_needed(stage: &TmpfsStage) -> bool {
    let mut header = [0; CHUNKS];
    stage.load(0, &mut header);
    let (counted, kept) = (u64_at(&header, UNRECORDED).unwrap_or(0), u64_at(&header, UNRECORDED_KEPT).unwrap_or(0));
    let durable = u64_at(&header, DURABLE).unwrap_or(0);
    counted > kept || chunks_of(stage).any(|(first, chunk)| first + frames_in(first, &chunk) as u64 > durable)
}

/// The directory of the spool that a stage belongs to.
fn directory_of(stage: &File) -> Option<PathBuf> {
    let mut header = [0; CHUNKS];
    stage.read_exact_at(&mut header, 0).ok()?;
    (header.get(..8)? == MAGIC).then_some(())?;
    let bytes = u16::from_le_bytes(header.get(DIRECTORY..DIRECTORY + 2)?.try_into().ok()?);
    let text = header.get(DIRECTORY + 2..DIRECTORY + 2 + usize::from(bytes))?;
    Some(PathBuf::from(OsStr::from_bytes(text))).filter(|directory| directory.is_absolute())
}

impl Stage for TmpfsStage {
    fn bytes(&self) -> usize {
        self.map.len()
    }

    fn store(&self, offset: usize, bytes: &[u8]) {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.map.len()) {
            return;
        }
        #[expect(unsafe_code, reason = "an append is a copy into memory that outlives the process")]
        // SAFETY: the range lies inside the mapping (checked above), whose pages all exist. No reference into the mapping is
        // ever made; whoever stores and whoever loads the same range hold the same lock (that of the log or of the count).
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(offset), bytes.len());
        }
    }

    fn load(&self, offset: usize, into: &mut [u8]) {
        let count = self.map.len().saturating_sub(offset).min(into.len());
        #[expect(unsafe_code, reason = "the bytes are read as they were stored")]
        // SAFETY: as for `store`.
        unsafe {
            std::ptr::copy_nonoverlapping(self.map.as_ptr().add(offset.min(self.map.len())), into.as_mut_ptr(), count);
        }
    }

    fn is_linked(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() > 0)
    }
}

fn is_memory(directory: &Path) -> io::Result<bool> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let kind = u64::try_from(rustix::fs::statfs(directory)?.f_type).unwrap_or_default();
    Ok(kind == TMPFS || kind == RAMFS)
}

/// Returns what the file of an epoch's stage is called. Stages of one spool begin with [`prefix`].
pub(crate) fn name(spool: Uuid, epoch: Uuid) -> String {
    format!("{}{}{SUFFIX}", prefix(spool), epoch.simple())
}

pub(crate) fn prefix(spool: Uuid) -> String {
    format!("{PREFIX}{}-", spool.simple())
}

// === an open stage ===

/// The chunks of this process's stage. Without a stage there are none.
#[derive(Default)]
pub(crate) struct Chunks {
    stage: Option<Arc<dyn Stage>>,
    /// The last one is used next, so that few pages are ever touched.
    free: Vec<usize>,
    /// The chunks that are kept for settlements, which must not be refused.
    reserve: usize,
}

/// The owner of a stage's bytes.
pub(crate) struct Owner<'a> {
    pub(crate) spool: Uuid,
    pub(crate) epoch: Uuid,
    pub(crate) directory: &'a Path,
    pub(crate) identity: Option<DirectoryIdentity>,
}

/// The identity of a directory, wherever it is mounted, which a copy of it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryIdentity {
    inode: u64,
    born_nanos: u64,
}

impl DirectoryIdentity {
    /// `None` where the file system does not say when a directory was made.
    pub(crate) fn of(directory: &Path) -> Option<Self> {
        use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
        let found = statx(CWD, directory, AtFlags::empty(), StatxFlags::INO | StatxFlags::BTIME).ok()?;
        let born = u64::try_from(found.stx_btime.tv_sec).ok()? * 1_000_000_000 + u64::from(found.stx_btime.tv_nsec);
        (born > 0).then_some(Self { inode: found.stx_ino, born_nanos: born })
    }
}

impl Chunks {
    /// Writes the header and takes everything behind it.
    pub(crate) fn over(stage: Arc<dyn Stage>, of: Owner<'_>) -> Self {
        let mut body = u32::try_from(CHUNK).unwrap_or_default().to_le_bytes().to_vec();
        body.extend_from_slice(of.spool.as_bytes());
        body.extend_from_slice(of.epoch.as_bytes());
        let directory = std::path::absolute(of.directory).unwrap_or_default();
        let text = directory.as_os_str().as_bytes();
        if text.len() < CHUNKS - DIRECTORY - 2 {
            stage.store(DIRECTORY, &u16::try_from(text.len()).unwrap_or_default().to_le_bytes());
            stage.store(DIRECTORY + 2, text);
        }
        if let Some(identity) = of.identity {
            stage.store(IDENTITY, &identity.inode.to_le_bytes());
            stage.store(IDENTITY + 8, &identity.born_nanos.to_le_bytes());
        }
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        header.extend_from_slice(&body);
        stage.store(0, &header);
        let count = stage.bytes().saturating_sub(CHUNKS) / CHUNK;
        Self { stage: Some(stage), free: (0..count).rev().collect(), reserve: (count / 8).max(1) }
    }

    /// Returns whether bytes survive this process at once.
    pub(crate) fn is_staged(&self) -> bool {
        self.stage.is_some()
    }

    /// Returns whether the next start would not find the stage.
    pub(crate) fn is_gone(&self) -> bool {
        self.stage.as_ref().is_some_and(|stage| !stage.is_linked())
    }

    /// Returns whether a record that may be refused would still be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.stage.is_none() || self.free.len() > self.reserve
    }

    pub(crate) fn take(&mut self, first: u64) -> Option<usize> {
        let index = self.free.pop()?;
        let mut head = [0; CHUNK_HEAD];
        if let Some(place) = head.first_chunk_mut() {
            *place = first.to_le_bytes();
        }
        self.store(index, 0, &head);
        Some(index)
    }

    /// Every frame before this is durable in its segment.
    pub(crate) fn note_durable(&self, lsn: u64) {
        if let Some(stage) = &self.stage {
            stage.store(DURABLE, &lsn.to_le_bytes());
        }
    }

    pub(crate) fn give_back(&mut self, index: usize) {
        self.free.push(index);
    }

    /// Stores behind the chunk's head, so `at` counts from its first frame.
    pub(crate) fn put(&self, index: usize, at: usize, bytes: &[u8]) {
        self.store(index, CHUNK_HEAD + at, bytes);
    }

    pub(crate) fn load(&self, index: usize, at: usize, into: &mut [u8]) {
        if let Some(stage) = &self.stage {
            stage.load(CHUNKS + index * CHUNK + CHUNK_HEAD + at, into);
        }
    }

    fn store(&self, index: usize, at: usize, bytes: &[u8]) {
        if let Some(stage) = &self.stage {
            stage.store(CHUNKS + index * CHUNK + at, bytes);
        }
    }
}

/// Bytes of frames that a chunk holds.
pub(crate) const CHUNK_ROOM: usize = CHUNK - CHUNK_HEAD;

/// Keeps the count of what could not be recorded.
pub(crate) fn store_unrecorded(stage: &dyn Stage, count: u64) {
    stage.store(UNRECORDED, &count.to_le_bytes());
}

/// Keeps how much of that count the state file says too.
pub(crate) fn store_unrecorded_kept(stage: &dyn Stage, count: u64) {
    stage.store(UNRECORDED_KEPT, &count.to_le_bytes());
}

/// Bytes of the good frames that a chunk begins with. What lies behind was appended before the chunk was used again, at another
/// place: it says so itself.
pub(crate) fn frames_in(first: u64, frames: &[u8]) -> usize {
    let mut end = 0;
    while let Some(head) = frames.get(end..).and_then(|frame| FrameHead::decode(frame, first + end as u64)) {
        end += usize::try_from(head.frame_bytes()).unwrap_or(frames.len());
    }
    end.min(frames.len())
}

/// The chunks that a stage has room for, one after the other, each as the first frame's LSN and what lies behind it.
fn chunks_of(stage: &dyn Stage) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let count = stage.bytes().saturating_sub(CHUNKS) / CHUNK;
    (0..count).map(move |index| {
        let mut chunk = vec![0; CHUNK];
        stage.load(CHUNKS + index * CHUNK, &mut chunk);
        let first = u64_at(&chunk, 0).unwrap_or(0);
        (first, chunk.split_off(CHUNK_HEAD))
    })
}

// === what a dead process left ===

/// A stage whose process is gone, or that somebody only looks at.
pub(crate) struct Leftover {
    pub(crate) path: PathBuf,
    pub(crate) epoch: Uuid,
    /// Records of that epoch that could not be appended.
    pub(crate) unrecorded: u64,
    /// Every frame before this is durable in its segment; `None` when the program that left it kept no such place.
    pub(crate) durable: Option<u64>,
    /// The identity of the directory of its spool.
    pub(crate) identity: Option<DirectoryIdentity>,
    stage: Arc<dyn Stage>,
}

impl Leftover {
    /// `None` when it is no stage of this spool.
    pub(crate) fn read(path: PathBuf, stage: Arc<dyn Stage>, spool: Uuid) -> Option<Self> {
        let mut header = [0; CHUNKS];
        stage.load(0, &mut header);
        let body = header.get(12..HEADER_BYTES)?;
        let is_ours = header.get(..8)? == MAGIC
            && u32_at(&header, 8)? == crc32c::crc32c(body)
            && u32_at(body, 0)? as usize == CHUNK
            && uuid_at(body, 4)? == spool;
        is_ours.then_some(())?;
        let (epoch, unrecorded) = (uuid_at(body, 20)?, u64_at(&header, UNRECORDED)?);
        let durable = u64_at(&header, DURABLE).filter(|lsn| *lsn > 0);
        let (inode, born_nanos) = (u64_at(&header, IDENTITY)?, u64_at(&header, IDENTITY + 8)?);
        let identity = (born_nanos > 0).then_some(DirectoryIdentity { inode, born_nanos });
        Some(Self { path, epoch, unrecorded, durable, identity, stage })
    }

    /// Returns whether its spool's directory is another one than this, of which this is a copy.
    pub(crate) fn is_of_another(&self, directory: Option<DirectoryIdentity>) -> bool {
        self.identity.zip(directory).is_some_and(|(own, other)| own != other)
    }

    /// The chunks that it has room for, one after the other, each as the first frame's LSN and what lies behind it.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        chunks_of(&*self.stage)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn left_behind(directory: &Path) -> PathBuf {
        let path = directory.join(name(Uuid::now_v7(), Uuid::now_v7()));
        drop(TmpfsStage::make(&path, 2 * CHUNK).unwrap());
        path
    }

    /// Two gateways of one machine are killed together and start together.
    #[test]
    fn a_stage_is_found_while_another_start_looks_around() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        left_behind(directory.path());
        let is_over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    TmpfsStage::sweep(directory.path());
                }
            });
            let lost = (0..2_000).filter(|_| TmpfsStage::find(directory.path(), PREFIX).unwrap().is_empty()).count();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(lost, 0);
        });
    }

    #[test]
    fn a_stage_is_found_once_the_process_that_made_it_is_gone() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = left_behind(directory.path());
        let going = TmpfsStage::open(&path).unwrap().unwrap();
        std::thread::scope(|threads| {
            let found = threads.spawn(|| TmpfsStage::find(directory.path(), PREFIX).unwrap().len());
            std::thread::sleep(Duration::from_millis(60));
            drop(going);
            assert_eq!(found.join().unwrap(), 1);
        });
    }
}
