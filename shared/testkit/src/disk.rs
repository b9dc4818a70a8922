//! A small file system in memory that lasts as long as the value, whatever becomes of the programs that use it. It can be
//! filled, and a test reaches its files.
//!
//! It takes util-linux' `unshare` and `nsenter`, and a kernel that lets this user have a mount namespace.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::child::{Child, wait_for};

/// The time that mounting may take.
const MOUNT_MAX: Duration = Duration::from_secs(30);

/// The file system. It ends with the value.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// Makes one of so many MiB, which is at `folder` for the programs that are started on it.
    ///
    /// # Errors
    /// It can't be mounted.
    pub async fn mount(folder: &Path, mib: u32) -> Result<Self> {
        std::fs::create_dir_all(folder).context("making the folder of the small disk")?;
        let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
        let script =
            format!("mount -t tmpfs -o size={mib}m tmpfs \"$0\" && touch \"$0/mounted\" && exec sleep infinity");
        let mut command = Command::new("unshare");
        command.args([namespaces, "sh", "-c", &script]).arg(folder).stdin(Stdio::null());
        let disk = Self { holder: Child::spawn(command, "the small disk")?, folder: folder.to_path_buf() };
        let mounted = disk.path().join("mounted");
        wait_for("the small disk", MOUNT_MAX, async || Ok(mounted.exists().then_some(()))).await?;
        std::fs::remove_file(mounted).context("the mark of the small disk")?;
        Ok(disk)
    }

    /// The path by which this process reaches it.
    pub fn path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.strip_prefix("/").unwrap_or(&self.folder))
    }

    /// The command that starts another one on it.
    pub(crate) fn enter(&self) -> Vec<String> {
        let mut words = vec!["nsenter".to_owned(), format!("--target={}", self.holder.id()), "--mount".to_owned()];
        if !rustix::process::geteuid().is_root() {
            words.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        words
    }

    /// Takes every byte that is left, until [`Self::make_room`].
    ///
    /// # Errors
    /// The file that takes it can't be made.
    pub fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.filler()).context("filling the small disk")?;
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
        std::fs::remove_file(self.filler()).context("making room on the small disk")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}
