//! When settings are read again, and what is said of it: at SIGHUP; when the file has changed, where that is wanted; and when a
//! file that the settings name (a secret, a certificate) holds something else.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant, SystemTime};

use goldleaves_auth::{TokenOptions, TokenVerifier, WallClock};
use goldleaves_runtime::settings::{Again, File, Mistakes, Values};
use goldleaves_runtime::{LogOptions, LogSwitch, Metrics, Shutdown};
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::GatewayConfig;
use crate::snapshot::Reloader;

/// Settings are not read again sooner than this.
const APART: Duration = Duration::from_secs(1);
/// How often the files are looked at that the settings name.
const NAMED_EVERY: Duration = Duration::from_secs(5);

/// The settings of one reading that are not the gateway's alone.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The options that tokens are verified with.
    pub tokens: TokenOptions,
    /// The options of the log.
    pub logs: LogOptions,
    /// The hash of all settings, secrets left out.
    pub sha256: String,
    /// The file that they were read from.
    pub file: Option<File>,
    /// Files that they name, whose content counts.
    pub named: Vec<PathBuf>,
}

impl Taken {
    /// That of settings of which everything was read.
    pub fn of(values: &Values, tokens: TokenOptions, (logs, config): (LogOptions, &GatewayConfig)) -> Self {
        let named = values.secret_files().iter().cloned().chain(config.files()).collect();
        Self { tokens, logs, sha256: values.sha256(), file: values.file().cloned(), named }
    }
}

/// The result of a reading.
#[derive(Debug)]
pub struct Reloaded {
    /// The gateway's settings.
    pub config: GatewayConfig,
    /// The rest.
    pub taken: Taken,
}

/// Reads the settings over this file, as at the start.
pub type ReadAgain = Arc<dyn Fn(Option<File>) -> Result<Reloaded, Mistakes> + Send + Sync>;

/// How settings are read again.
pub struct Reloading {
    /// Opens the file.
    pub again: Again,
    /// Reads the settings.
    pub read: ReadAgain,
    /// Those of the start.
    pub taken: Taken,
    /// How often the file is looked at; `None` = SIGHUP alone counts.
    pub watch_every: Option<Duration>,
    /// Changes the logs.
    pub logs: LogSwitch,
    /// Is told what tokens are verified with from now on.
    pub verifies: Box<dyn Fn(TokenVerifier) + Send + Sync>,
}

impl fmt::Debug for Reloading {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Reloading").field("again", &self.again).finish_non_exhaustive()
    }
}

/// The metrics of reloads.
#[derive(Clone)]
struct Shown {
    results: Family<[(&'static str, &'static str); 1], Counter>,
    stale: Gauge,
    generation: Gauge<i64, AtomicI64>,
    sha256: Arc<Mutex<String>>,
}

impl Shown {
    fn register(metrics: &Metrics, reloader: &Arc<Reloader>, sha256: String) -> Self {
        let help = "Settings that were taken, the first included";
        let stale = "Whether the last reading was refused, or that of the file of settings was: 1 or 0";
        let shown = Self {
            results: metrics.register("config_reloads", "Readings of the settings, by result", Family::default()),
            stale: metrics.register("config_stale", stale, Gauge::default()),
            generation: metrics.register("config_generation", help, Gauge::default()),
            sha256: Arc::new(Mutex::new(sha256)),
        };
        shown.generation.set(1);
        let help = "The settings that are served by, as a hash; gateways that serve by the same have the same";
        metrics.register("config_info", help, Info(Arc::clone(&shown.sha256)));
        let help = "Readings of the settings that calls are served by";
        let snapshots = metrics.register("config_snapshots", help, Gauge::<i64, AtomicI64>::default());
        let reloader = Arc::clone(reloader);
        metrics.before_reading(move || {
            snapshots.set(i64::try_from(reloader.snapshots()).unwrap_or(i64::MAX));
        });
        shown
    }

    fn taken(&self, sha256: &str) {
        self.generation.inc();
        self.results.get_or_create(&[("result", "taken")]).inc();
        sha256.clone_into(&mut self.sha256.lock());
        tracing::info!(sha256, "the settings were read again and are served by from now on");
    }

    fn refused(&self, mistakes: &Mistakes) {
        self.results.get_or_create(&[("result", "refused")]).inc();
        for mistake in mistakes.iter() {
            tracing::error!("{mistake}");
        }
        tracing::error!("the settings have mistakes; those of before stay in force");
    }
}

#[derive(Debug, Clone)]
struct Info(Arc<Mutex<String>>);

impl EncodeMetric for Info {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let sha256 = self.0.lock().clone();
        encoder.encode_family(&[("sha256", sha256.as_str())])?.encode_gauge(&1_i64)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// Why settings are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Hangup,
    File,
    /// The file itself is not taken then: it may be half an edit.
    Named,
}

/// Why a reading was not taken.
struct Refusal {
    mistakes: Mistakes,
    /// The file of settings was another one than that which is served by.
    of_another_file: bool,
}

/// The state of the file of settings when it was read last.
#[derive(Debug, Default)]
struct Standing {
    file_refused: bool,
}

impl Standing {
    /// Returns whether the gateway serves by something else than what is written. A change in a file that the settings
    /// name says nothing of the file of settings, which stays refused until it is read itself.
    fn is_stale_after(&mut self, reason: Reason, refused: Option<&Refusal>) -> bool {
        if reason != Reason::Named {
            self.file_refused = refused.is_some_and(|refusal| refusal.of_another_file);
        }
        refused.is_some() || self.file_refused
    }
}

/// Waits for reasons to read the settings again, for as long as the gateway runs.
pub(crate) async fn watch(
    reloader: Arc<Reloader>,
    reloading: Reloading,
    (metrics, shutdown): (Metrics, Shutdown),
    stop: CancellationToken,
) {
    let shown = Shown::register(&metrics, &reloader, reloading.taken.sha256.clone());
    let mut reader = Reader::new(reloader, reloading);
    let mut standing = Standing::default();
    loop {
        let reason = tokio::select! {
            () = stop.cancelled() => return,
            () = shutdown.hangup() => Reason::Hangup,
            reason = reader.changed() => reason,
        };
        let began = Instant::now();
        let read = reader.read(reason).await;
        if let Ok(read) = &read {
            shown.stale.set(i64::from(standing.is_stale_after(reason, read.as_ref().err())));
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

/// Reads the settings, and knows which it took last.
struct Reader {
    reloader: Arc<Reloader>,
    again: Again,
    read: ReadAgain,
    taken: Taken,
    watch_every: Option<Duration>,
    logs: LogSwitch,
    verifies: Arc<dyn Fn(TokenVerifier) + Send + Sync>,
    file: Seen,
    named: Vec<Seen>,
}

impl Reader {
    fn new(reloader: Arc<Reloader>, reloading: Reloading) -> Self {
        let Reloading { again, read, taken, watch_every, logs, verifies } = reloading;
        let file = Seen::of(again.path());
        let named = taken.named.iter().map(|path| Seen::of(path)).collect();
        Self { reloader, again, read, taken, watch_every, logs, verifies: verifies.into(), file, named }
    }

    /// Resolves when a file is another one than it was, and stays so from one look to the next.
    async fn changed(&mut self) -> Reason {
        let every = self.watch_every.map_or(NAMED_EVERY, |every| every.min(NAMED_EVERY));
        let (mut last_file, mut last_named) = (self.file, self.named.clone());
        let mut named_at = Instant::now() + NAMED_EVERY;
        loop {
            tokio::time::sleep(every).await;
            let Ok(file) = Seen::of_one(self.again.path()).await else { continue };
            if self.watch_every.is_some() && file != self.file && file == last_file && file.0.is_some() {
                return Reason::File;
            }
            last_file = file;
            if named_at > Instant::now() {
                continue;
            }
            named_at = Instant::now() + NAMED_EVERY;
            let Ok(named) = Seen::of_all(self.taken.named.clone()).await else { continue };
            if named != self.named && named == last_named {
                return Reason::Named;
            }
            last_named = named;
        }
    }

    async fn read(&mut self, reason: Reason) -> Result<Result<(), Refusal>, JoinError> {
        match reason {
            Reason::Hangup => tracing::info!("heard SIGHUP: reading the settings again"),
            Reason::File => tracing::info!("the file of settings has changed: reading it again"),
            Reason::Named => tracing::info!("a file that the settings name has changed: reading it again"),
        }
        // What is looked at before it is read is never newer than what was read.
        self.file = Seen::of_one(self.again.path()).await?;
        self.named = Seen::of_all(self.taken.named.clone()).await?;
        let (again, read, before) = (self.again.clone(), Arc::clone(&self.read), self.taken.clone());
        let reloader = Arc::clone(&self.reloader);
        let reloaded = tokio::task::spawn_blocking(move || {
            let file = if reason == Reason::Named { Ok(before.file.clone()) } else { again.settled_file() };
            let refused = |mistakes, of_another_file| Refusal { mistakes, of_another_file };
            let file = file.map_err(|mistakes| refused(mistakes, true))?;
            let of_another_file = file != before.file;
            let refused = |mistakes| refused(mistakes, of_another_file);
            let Reloaded { config, taken } = read(file).map_err(refused)?;
            // Who was known stays known, unless something is verified in another way now.
            let verifier = match taken.tokens == before.tokens {
                true => reloader.verifier(),
                false => TokenVerifier::new(taken.tokens.clone(), WallClock::system()),
            };
            let watch_every = config.watch_every;
            let limits = |error: crate::TooFewDescriptors| Mistakes::one("CONNECTIONS_MAX", error.to_string());
            reloader.reload(&config, verifier.clone()).map_err(|error| refused(limits(error)))?;
            Ok((taken, watch_every, verifier))
        });
        Ok(match reloaded.await? {
            Err(refusal) => Err(refusal),
            Ok((taken, watch_every, verifier)) => {
                self.logs.set(taken.logs);
                (self.verifies)(verifier);
                if self.taken.named != taken.named {
                    self.named = Seen::of_all(taken.named.clone()).await?;
                }
                (self.taken, self.watch_every) = (taken, watch_every);
                Ok(())
            }
        })
    }
}

/// The identity of a file, which tells that it is another one: also through symbolic links, as Kubernetes swaps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen(Option<(u64, u64, SystemTime)>);

impl Seen {
    /// Looks at these files. A folder of another machine may take its time, and nothing else waits for it.
    async fn of_all(paths: Vec<PathBuf>) -> Result<Vec<Self>, JoinError> {
        tokio::task::spawn_blocking(move || paths.iter().map(|path| Self::of(path)).collect()).await
    }

    async fn of_one(path: &Path) -> Result<Self, JoinError> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || Self::of(&path)).await
    }

    fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;

        let metadata = std::fs::metadata(path).ok();
        Self(metadata.and_then(|metadata| Some((metadata.len(), metadata.ino(), metadata.modified().ok()?))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_secret_makes_no_refused_file_good() {
        let mut standing = Standing::default();
        let refused = |of_another_file| Some(Refusal { mistakes: Mistakes::one("A", "is wrong"), of_another_file });
        for (reason, refusal, stale) in [
            (Reason::Named, refused(false), true),
            (Reason::Named, None, false),
            (Reason::File, refused(true), true),
            (Reason::Named, None, true),
            (Reason::Named, refused(false), true),
            (Reason::Named, None, true),
            (Reason::Hangup, None, false),
            (Reason::Hangup, refused(true), true),
            (Reason::File, None, false),
            // A file that the settings name was missing, and they are those that are served by.
            (Reason::Hangup, refused(false), true),
            (Reason::Named, None, false),
        ] {
            assert_eq!(standing.is_stale_after(reason, refusal.as_ref()), stale, "{reason:?}");
        }
    }
}
