//! When settings are read again, and what is said of it: at SIGHUP; when the file has changed, where that is wanted; and when a
//! file that the settings name (a secret, a certificate) holds something else. What is done with them, each program says.

mod seen;
mod shown;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::settings::{Again, File, Mistakes, Setting, Values, parse, table};
use crate::shutdown::Shutdown;
use crate::telemetry::{LogOptions, LogSwitch};
use seen::SeenFile;
use shown::ReloadsShown;

/// Settings are not read again sooner than this.
const APART: Duration = Duration::from_secs(1);
/// The interval at which the files are looked at that the settings name.
const NAMED_EVERY: Duration = Duration::from_secs(5);
/// A reading that takes longer is spoken of: a disk of another machine may not answer.
const LONG: Duration = Duration::from_secs(10);

/// The settings of one reading that count in every program.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The options of the log.
    pub logs: LogOptions,
    /// `CONFIG_WATCH_SECS`; `None` = SIGHUP alone counts.
    pub watch_every: Option<Duration>,
    /// The hash of all settings, secrets left out.
    pub sha256: String,
    /// The file that they were read from.
    pub file: Option<File>,
    /// Files that they name, whose content counts.
    pub named: Vec<PathBuf>,
}

impl Taken {
    /// The record of settings of which everything was read, and of files that they name besides secrets.
    pub fn of(
        values: &Values,
        logs: LogOptions,
        watch_every: Option<Duration>,
        files: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        let named = values.secret_files().iter().cloned().chain(files).collect();
        Self { logs, watch_every, sha256: values.sha256(), file: values.file().cloned(), named }
    }
}

/// `CONFIG_WATCH_SECS`. The outer `None` is a mistake, already noted; the inner one = SIGHUP alone counts.
pub fn read_watch(values: &mut Values) -> Option<Option<Duration>> {
    let every = values.required(table::CONFIG_WATCH_SECS, parse::seconds_or_zero)?;
    Some(Some(every).filter(|every| !every.is_zero()))
}

/// Returns whether a setting that every program may change while it runs: its logs, and when settings are read again.
pub fn is_of_all(setting: &Setting) -> bool {
    [table::LOG_LEVEL, table::LOG_FORMAT, table::DEBUG, table::CONFIG_WATCH_SECS].contains(setting)
}

/// Reads the settings over this file, as at the start, and serves by them from then on; with a mistake nothing changes.
pub type Take = Box<dyn FnMut(Option<File>) -> Result<Taken, Mistakes> + Send>;

/// The way settings are read again.
pub struct Reloads {
    /// Opens the file.
    pub again: Again,
    /// Reads the settings.
    pub take: Take,
    /// The settings of the start.
    pub taken: Taken,
    /// Changes the logs.
    pub logs: LogSwitch,
}

impl fmt::Debug for Reloads {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Reloads").field("again", &self.again).finish_non_exhaustive()
    }
}

/// The reason settings are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReloadReason {
    Hangup,
    File,
    /// The file itself is not taken then: it may be half an edit.
    Named,
}

/// The reason a reading was not taken.
struct ReloadRefusal {
    mistakes: Mistakes,
    /// The file of settings was another one than that which is served by.
    of_another_file: bool,
}

/// The state of the file of settings when it was read last.
#[derive(Debug, Default)]
struct FileStanding {
    file_refused: bool,
}

impl FileStanding {
    /// Returns whether the program serves by something else than what is written. A change in a file that the settings name
    /// says nothing of the file of settings, which stays refused until it is read itself.
    fn is_stale_after(&mut self, reason: ReloadReason, refused: Option<&ReloadRefusal>) -> bool {
        if reason != ReloadReason::Named {
            self.file_refused = refused.is_some_and(|refusal| refusal.of_another_file);
        }
        refused.is_some() || self.file_refused
    }
}

impl Reloads {
    /// Waits for reasons to read the settings again, until the program stops.
    pub async fn watch(self, metrics: Metrics, shutdown: Shutdown, stop: CancellationToken) {
        let shown = ReloadsShown::register(&metrics, self.taken.sha256.clone());
        let mut reader = SettingsReader::new(self);
        let mut standing = FileStanding::default();
        loop {
            let reason = tokio::select! {
                () = stop.cancelled() => return,
                () = shutdown.hangup() => ReloadReason::Hangup,
                reason = reader.changed() => reason,
            };
            let began = Instant::now();
            let read = spoken_of(reader.read(reason), &shown).await;
            if let Ok(read) = &read {
                shown.stale(standing.is_stale_after(reason, read.as_ref().err()));
            }
            match read {
                Ok(Ok(())) => shown.taken(&reader.taken.sha256),
                Ok(Err(refusal)) => shown.refused(&refusal.mistakes),
                Err(fault) => {
                    tracing::error!(%fault, "reading the settings ran into a fault; those of before stay in force")
                }
            }
            // Reasons that come meanwhile are one reason.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(APART.saturating_sub(began.elapsed())) => {}
            }
        }
    }
}

/// Says so when a reading takes long.
async fn spoken_of<T>(reading: impl Future<Output = T>, shown: &ReloadsShown) -> T {
    let mut reading = std::pin::pin!(reading);
    tokio::select! {
        read = &mut reading => return read,
        () = tokio::time::sleep(LONG) => {}
    }
    shown.stale(true);
    tracing::warn!("reading the settings takes longer than {LONG:?}; those of before stay in force meanwhile");
    reading.await
}

/// Reads the settings, and knows which it took last.
struct SettingsReader {
    again: Again,
    take: Arc<Mutex<Take>>,
    taken: Taken,
    logs: LogSwitch,
    file: SeenFile,
    named: Vec<SeenFile>,
}

impl SettingsReader {
    fn new(Reloads { again, take, taken, logs }: Reloads) -> Self {
        let file = SeenFile::of(again.path());
        let named = taken.named.iter().map(|path| SeenFile::of(path)).collect();
        Self { again, take: Arc::new(Mutex::new(take)), taken, logs, file, named }
    }

    /// Resolves when a file is another one than it was, and stays so from one look to the next.
    async fn changed(&mut self) -> ReloadReason {
        let watch_every = self.taken.watch_every;
        let every = watch_every.map_or(NAMED_EVERY, |every| every.min(NAMED_EVERY));
        let (mut last_file, mut last_named) = (self.file, self.named.clone());
        let mut named_at = Instant::now() + NAMED_EVERY;
        loop {
            tokio::time::sleep(every).await;
            let Ok(file) = SeenFile::of_one(self.again.path()).await else { continue };
            if watch_every.is_some() && file != self.file && file == last_file && file.is_there() {
                return ReloadReason::File;
            }
            last_file = file;
            if named_at > Instant::now() {
                continue;
            }
            named_at = Instant::now() + NAMED_EVERY;
            let Ok(named) = SeenFile::of_all(self.taken.named.clone()).await else { continue };
            if named != self.named && named == last_named {
                return ReloadReason::Named;
            }
            last_named = named;
        }
    }

    async fn read(&mut self, reason: ReloadReason) -> Result<Result<(), ReloadRefusal>, JoinError> {
        match reason {
            ReloadReason::Hangup => tracing::info!("heard SIGHUP: reading the settings again"),
            ReloadReason::File => tracing::info!("the file of settings has changed: reading it again"),
            ReloadReason::Named => tracing::info!("a file that the settings name has changed: reading it again"),
        }
        // What is looked at before it is read is never newer than what was read.
        self.file = SeenFile::of_one(self.again.path()).await?;
        self.named = SeenFile::of_all(self.taken.named.clone()).await?;
        let (again, take, before) = (self.again.clone(), Arc::clone(&self.take), self.taken.file.clone());
        let taken = tokio::task::spawn_blocking(move || {
            let file = if reason == ReloadReason::Named { Ok(before.clone()) } else { again.settled_file() };
            let file = file.map_err(|mistakes| ReloadRefusal { mistakes, of_another_file: true })?;
            let of_another_file = file != before;
            take.lock()(file).map_err(|mistakes| ReloadRefusal { mistakes, of_another_file })
        });
        Ok(match taken.await? {
            Err(refusal) => Err(refusal),
            Ok(taken) => {
                self.logs.set(taken.logs);
                if self.taken.named != taken.named {
                    self.named = SeenFile::of_all(taken.named.clone()).await?;
                }
                self.taken = taken;
                Ok(())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_secret_makes_no_refused_file_good() {
        let mut standing = FileStanding::default();
        let refused =
            |of_another_file| Some(ReloadRefusal { mistakes: Mistakes::one("A", "is wrong"), of_another_file });
        for (reason, refusal, stale) in [
            (ReloadReason::Named, refused(false), true),
            (ReloadReason::Named, None, false),
            (ReloadReason::File, refused(true), true),
            (ReloadReason::Named, None, true),
            (ReloadReason::Named, refused(false), true),
            (ReloadReason::Named, None, true),
            (ReloadReason::Hangup, None, false),
            (ReloadReason::Hangup, refused(true), true),
            (ReloadReason::File, None, false),
            // A file that the settings name was missing, and they are those that are served by.
            (ReloadReason::Hangup, refused(false), true),
            (ReloadReason::Named, None, false),
        ] {
            assert_eq!(standing.is_stale_after(reason, refusal.as_ref()), stale, "{reason:?}");
        }
    }
}
