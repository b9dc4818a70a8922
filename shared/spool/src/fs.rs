//! The file system as the spool sees it: the one seam through which tests inject faults and power cuts.
//!
//! Nothing here knows records or segments. [`RealFileSystem`] is Linux. Files are read and written by calls that answer with an
//! error: nothing of a disk is ever mapped, so that a file cut by somebody else, a file system that copies on write or one that
//! lies behind a network can refuse, but never kill the process.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use crate::stage::{DirectoryIdentity, Stage, TmpfsStage};

/// The way [`FileSystem::open`] opens a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, only to be read.
    Read,
    /// An existing file, to be read and written.
    Write,
    /// A file that must not exist yet, to be read and written.
    Create,
}

/// Everything the spool asks of a file system.
pub trait FileSystem: Send + Sync + 'static {
    /// Makes a directory, which only its owner may enter, and what is missing above it.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in any order.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Opens or creates a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn SpoolFile>>;
    /// Renames a file over another in the same directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
    /// Takes the exclusive lock of a directory without waiting; `WouldBlock` when another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Makes memory of so many bytes that outlives the process, under a name that must not exist yet.
    ///
    /// # Errors
    /// When there is no such memory.
    fn make_stage(&self, path: &Path, bytes: usize) -> io::Result<Arc<dyn Stage>> {
        Ok(Arc::new(TmpfsStage::make(path, bytes)?))
    }
    /// The stages in a directory whose names begin with `prefix` and whose processes are gone.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn find_stages(&self, directory: &Path, prefix: &str) -> io::Result<Vec<(PathBuf, Arc<dyn Stage>)>> {
        TmpfsStage::find(directory, prefix)
    }
    /// Removes stages whose spools are gone, so that they do not hold memory for ever.
    fn sweep_stages(&self, directory: &Path) {
        TmpfsStage::sweep(directory);
    }
    /// A stage for onlookers, also one that its process still uses.
    ///
    /// # Errors
    /// When there is none at this path that can be read.
    fn open_stage(&self, path: &Path) -> io::Result<Arc<dyn Stage>> {
        Ok(Arc::new(TmpfsStage::look(path)?))
    }
    /// The identity of a directory, which a copy of it does not have; `None` where nothing tells them apart.
    fn identity(&self, directory: &Path) -> Option<DirectoryIdentity> {
        DirectoryIdentity::of(directory)
    }
    /// The start of the machine, which no stage outlives.
    fn boot(&self) -> Uuid {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().parse().unwrap_or_default()
    }
    /// Removes a stage.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove_stage(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

/// One open file.
pub trait SpoolFile: Send + Sync {
    /// The length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Reads into `buffer`, returns how many bytes there were before the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all bytes.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Sets the length to `bytes`, all of them zeros with room on the device. Writes as little as the file system allows.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Works like [`SpoolFile::allocate`] for a file that holds something, whose room is used again.
    ///
    /// # Errors
    /// When the file system refuses, or has no way that is cheaper than another file.
    fn clear(&self, bytes: u64) -> io::Result<()> {
        let _ = bytes;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Cuts the file.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Makes what was written durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
}

const READ_ATTEMPTS: u32 = 3;

/// Reads, and tries again when that fails: at recovery a passing error must not be taken for a lost page.
pub(crate) fn read_patiently(file: &dyn SpoolFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = file.read_at(offset, buffer);
    for _ in 1..READ_ATTEMPTS {
        if read.is_ok() {
            break;
        }
        read = file.read_at(offset, buffer);
    }
    read
}

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFileSystem;

/// The page cache keeps a file in pieces as large as the writes that made it, and writing to a piece again may write out the
/// whole of it: after larger writes than this a sync writes out far more than was appended.
pub(crate) const ZEROS: usize = 32 * 1024;

/// Records say who called when: they are their owner's to read.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Takes away what others than the owner may do, where an earlier version, or a copy, left it to them.
fn close_to_others(found: &Metadata, mode: u32, set: impl FnOnce(Permissions) -> io::Result<()>) -> io::Result<()> {
    match found.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => set(Permissions::from_mode(mode)),
    }
}

impl FileSystem for RealFileSystem {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            created => return created,
        }
        close_to_others(&std::fs::metadata(path)?, DIRECTORY_MODE, |mode| std::fs::set_permissions(path, mode))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn SpoolFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::Create).mode(FILE_MODE);
        let file = options.open(path)?;
        if mode != OpenMode::Read {
            close_to_others(&file.metadata()?, FILE_MODE, |mode| file.set_permissions(mode))?;
        }
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        close_to_others(&file.metadata()?, FILE_MODE, |mode| file.set_permissions(mode))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl SpoolFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        let zeros = vec![0_u8; ZEROS];
        let mut offset = 0;
        while offset < bytes {
            let count = usize::try_from(bytes - offset).unwrap_or(ZEROS).min(ZEROS);
            self.file.write_all_at(zeros.get(..count).unwrap_or_default(), offset)?;
            offset += count as u64;
        }
        Ok(())
    }

    fn clear(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        Ok(rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::ZERO_RANGE, 0, bytes)?)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
