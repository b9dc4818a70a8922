//! A child process that dies with the test: killed on drop, and by the kernel when the test's process goes first.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// A running child process. Signals go to its own id, never to a name or a group.
#[derive(Debug)]
pub struct Child {
    inner: std::process::Child,
    name: String,
}

impl Child {
    /// Starts a process. It must be started from a thread that lives as long as it may: the kernel ends it with that
    /// thread. The thread of a test and a runtime's workers do, a blocking pool's do not.
    ///
    /// # Errors
    /// The program does not start.
    pub fn spawn(mut command: Command, name: &str) -> Result<Self> {
        die_with_parent(&mut command);
        let inner = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { inner, name: name.to_owned() })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// Returns whether it still runs; the status it ended with otherwise.
    ///
    /// # Errors
    /// It can't be waited for.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.inner.try_wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} has ended with {status}", self.name);
        }
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// `kill -9`, and waits until the process is gone.
    ///
    /// # Errors
    /// It can't be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.inner.kill().with_context(|| format!("killing {}", self.name))?;
        self.inner.wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {} s", self.name, limit.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A process that has ended already answers with an error, and is then only to be reaped.
        self.inner.kill().ok();
        self.inner.wait().ok();
    }
}

/// Asks the kernel to kill the child when the thread that starts it is gone, so that an aborted test leaves nothing.
#[expect(
    unsafe_code,
    reason = "pre_exec is unsafe: what runs between fork and exec must be async-signal-safe, prctl is"
)]
pub(crate) fn die_with_parent(command: &mut Command) {
    let ask = || set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from);
    // SAFETY: one prctl call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(ask) };
}

/// Waits until `probe` finds what it looks for; asks every few milliseconds.
///
/// # Errors
/// Nothing was found after `limit`; the text says what was waited for.
pub async fn wait_for<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
