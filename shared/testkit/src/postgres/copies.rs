//! Others that hold the data of a PostgreSQL: a copy of some moment, as a snapshot of its disk would be, and a standby that
//! follows it until it takes its place.

use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Pid;
use sea_orm::{ConnectionTrait as _, Statement};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{PORTS_TRIED, Postgres, START_SECS_MAX, free_port, home};
use crate::child::wait_for;
use crate::lent_disk::LentDisk;

/// The time that a standby may take to have what its primary has.
const CATCH_UP: std::time::Duration = std::time::Duration::from_secs(START_SECS_MAX);

impl Postgres {
    /// Copies all data of the running server as it is at this moment; [`Self::restore`] puts it back.
    ///
    /// # Errors
    /// It does not run, or the data can't be copied.
    pub fn copy_at_this_moment(&self) -> Result<TempDir> {
        let copy = tempfile::tempdir().context("a directory for the copy")?;
        self.pause()?;
        let copied = copy_data(&self.directory.path().join("data"), copy.path());
        self.resume()?;
        copied.map(|()| copy)
    }

    /// Puts a copy in the place of the data of a server that was killed.
    ///
    /// # Errors
    /// It runs, or the data can't be copied.
    pub fn restore(&mut self, copy: &TempDir) -> Result<()> {
        ensure!(self.keeper.is_none(), "kill the server before its data is replaced");
        let data = self.directory.path().join("data");
        std::fs::remove_dir_all(&data).context("removing the data")?;
        copy_data(&copy.path().join("data"), self.directory.path())
    }

    /// A standby of this server that receives what it writes through `port`, and has what there is now.
    ///
    /// # Errors
    /// The base backup fails, or it does not come up.
    pub async fn standby(&self, port: u16) -> Result<Self> {
        let (directory, owner) = home()?;
        // It has the databases of its primary, whose names are not to be given once more.
        let databases = AtomicU32::new(self.databases.load(Ordering::Relaxed));
        let (programs, template) = (self.programs.clone(), OnceCell::new_with(self.template.get().copied()));
        let mut standby = Self { keeper: None, programs, disk: None, directory, port: 0, owner, databases, template };
        if let Some(disk) = &self.disk {
            standby.lend_disk(disk.mib())?;
        }
        // On the `PATH` there may be links to some of the programs only.
        let program = self.programs.join("initdb").canonicalize().context("PostgreSQL's programs")?;
        let mut copying = standby.command(&program.with_file_name("pg_basebackup"));
        copying.args(["-h", "127.0.0.1", "-U", "goldleaves", "-X", "stream", "-c", "fast", "-R", "-N", "-p"]);
        let copied = copying.arg(port.to_string()).arg("-D").arg(standby.directory.path().join("data")).output()?;
        ensure!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        for _ in 0..PORTS_TRIED {
            standby.port = free_port()?;
            if standby.launch().await? {
                standby.catch_up(self).await?;
                return Ok(standby);
            }
        }
        bail!("the standby does not come up: {}", standby.log())
    }

    /// The disk of its own that all of it is on.
    pub fn disk(&self) -> Option<&LentDisk> {
        self.disk.as_ref()
    }

    /// Puts a server that has no data yet on a disk of its own.
    pub(super) fn lend_disk(&mut self, mib: u32) -> Result<()> {
        let disk = LentDisk::mount(self.directory.path(), mib)?;
        if let Some((user, group)) = self.owner {
            chown(self.directory.path(), Some(user), Some(group))?;
        }
        self.disk = Some(disk);
        Ok(())
    }

    /// Starts a server again that gave up, as one does whose disk is full; one that runs is left alone.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn revive(&mut self) -> Result<()> {
        if self.text("SELECT 'up' AS found").await.is_ok() {
            return Ok(());
        }
        let works_here = |pid: Pid| {
            let cwd = std::fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
            cwd.is_ok_and(|cwd| cwd == self.directory.path().join("data"))
        };
        if self.postmaster().is_ok_and(works_here) {
            self.kill()?;
        }
        self.dismiss_keeper(b"keep");
        self.restart().await
    }

    /// Waits until this standby has what its primary has written by now.
    async fn catch_up(&self, primary: &Self) -> Result<()> {
        let written = primary.text("SELECT pg_current_wal_lsn()::text AS found").await?;
        let has_it = format!("SELECT (pg_last_wal_replay_lsn() >= '{written}'::pg_lsn)::text AS found");
        wait_for("the standby", CATCH_UP, async || Ok((self.text(&has_it).await? == "true").then_some(()))).await
    }

    /// Makes a standby take writes. What it has not received by now it never has.
    ///
    /// # Errors
    /// It does not.
    pub async fn promote(&self) -> Result<()> {
        let promoted = self.text("SELECT pg_promote(true, 60)::text AS found").await?;
        ensure!(promoted == "true", "the standby does not take over: {}", self.log());
        Ok(())
    }

    async fn text(&self, sql: &str) -> Result<String> {
        let connection = self.connect("postgres").await?;
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let row = connection.query_one_raw(statement).await.with_context(|| sql.to_owned())?.context("no row")?;
        let text = row.try_get("", "found").with_context(|| sql.to_owned());
        connection.close().await?;
        text
    }
}

/// Copies a folder into another one, with its owners and its rights.
fn copy_data(from: &Path, to: &Path) -> Result<()> {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).output().context("running cp")?;
    ensure!(done.status.success(), "copying the data: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
