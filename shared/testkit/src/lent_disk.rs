//! A file system of its own for a server: an ext4 in a file, mounted where everybody sees it, which a test fills and empties.
//!
//! It takes the right to mount. However the test ends, a process of its own lets the disk go. Programs of ours have one in memory
//! ([`crate::disk`]), which takes no such right.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::FallocateFlags;

use crate::scratch::Scratch;

/// The bytes that a disk gives away at once when it is filled.
const PIECE: u64 = 16 << 20;

/// The file system. It is let go with the value.
#[derive(Debug)]
pub struct LentDisk {
    folder: PathBuf,
    mib: u32,
    _scratch: Scratch,
}

impl LentDisk {
    /// Makes one of so many MiB and mounts it on a folder.
    ///
    /// # Errors
    /// It can't be made or mounted.
    pub fn mount(folder: &Path, mib: u32) -> Result<Self> {
        let scratch = Scratch::new("lent-disk")?;
        let image = scratch.join("image");
        std::fs::File::create(&image)?.set_len(u64::from(mib) << 20)?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image.display().to_string()])?;
        std::fs::create_dir_all(folder).context("the folder of the disk")?;
        let disk = Self { folder: folder.to_owned(), mib, _scratch: scratch };
        run("mount", &["-o", "loop", &image.display().to_string(), &disk.name()])?;
        disk.watch()?;
        Ok(disk)
    }

    /// Its size.
    pub const fn mib(&self) -> u32 {
        self.mib
    }

    /// Takes every byte that is left, until [`Self::make_room`].
    ///
    /// # Errors
    /// The file that takes it can't be made.
    pub fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.filler()).context("filling the disk")?;
        // Most of it at once, and what is left, less than such a piece, by writing.
        let mut length = 0;
        while rustix::fs::fallocate(&file, FallocateFlags::empty(), length, PIECE).is_ok() {
            length += PIECE;
        }
        file.seek(SeekFrom::Start(length)).context("filling the disk")?;
        for length in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; length]).is_ok() {}
        }
        Ok(())
    }

    /// Gives back what [`Self::fill`] took.
    ///
    /// # Errors
    /// It was not filled.
    pub fn make_room(&self) -> Result<()> {
        std::fs::remove_file(self.filler()).context("making room on the disk")
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    fn name(&self) -> String {
        self.folder.display().to_string()
    }

    /// Lets it go when this process is gone.
    fn watch(&self) -> Result<()> {
        let wait = "while kill -0 $1 2>/dev/null && mountpoint -q \"$0\"; do sleep 1; done; umount -l \"$0\"";
        let mut watch = Command::new("setsid");
        watch.args(["sh", "-c", wait, &self.name(), &std::process::id().to_string()]);
        watch.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        watch.spawn().context("the watch over the disk")?;
        Ok(())
    }
}

impl Drop for LentDisk {
    fn drop(&mut self) {
        // The watch lets it go where this fails.
        let _ = run("umount", &["-l", &self.name()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let ran = Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    ensure!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr).trim());
    Ok(())
}
