//! When settings are read again: at SIGHUP, or when the file has changed, where that is wanted; and what is said of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, SystemTime};

use goldleaves_auth::TokenVerifier;
use goldleaves_runtime::settings::Mistakes;
use goldleaves_runtime::{Metrics, Shutdown};
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

use crate::GatewayConfig;
use crate::snapshot::Reloader;

/// Settings are not read again sooner than this.
const PAUSE: Duration = Duration::from_secs(1);

/// What a reading gives.
#[derive(Debug)]
pub struct Reloaded {
    /// The gateway's settings.
    pub config: GatewayConfig,
    /// What tokens are verified with.
    pub verifier: TokenVerifier,
    /// Of all settings, secrets left out.
    pub sha256: String,
}

/// Reads the settings again, as at the start.
pub type ReadAgain = Arc<dyn Fn() -> Result<Reloaded, Mistakes> + Send + Sync>;

/// How settings are read again.
#[derive(Clone)]
pub struct Reloading {
    /// Reads them.
    pub read: ReadAgain,
    /// The file that is looked at every so often; `None` = SIGHUP alone counts.
    pub watched: Option<(PathBuf, Duration)>,
    /// Of the settings at the start.
    pub sha256: String,
}

impl fmt::Debug for Reloading {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Reloading").field("watched", &self.watched).finish_non_exhaustive()
    }
}

/// What is shown of reloads.
#[derive(Clone)]
struct Shown {
    results: Family<[(&'static str, &'static str); 1], Counter>,
    stale: Gauge,
    generation: Gauge<i64, AtomicI64>,
    sha256: Arc<Mutex<String>>,
}

impl Shown {
    fn register(metrics: &Metrics, reloader: &Arc<Reloader>, sha256: String) -> Self {
        let shown = Self {
            results: metrics.register("config_reloads", "Readings of the settings, by result", Family::default()),
            stale: metrics.register("config_stale", "Whether the last reading was refused: 1 or 0", Gauge::default()),
            generation: metrics.register(
                "config_generation",
                "Settings that were taken, the first included",
                Gauge::default(),
            ),
            sha256: Arc::new(Mutex::new(sha256)),
        };
        shown.generation.set(1);
        let help = "The settings that are served by, as a hash; equal gateways have equal ones";
        metrics.register("config_info", help, Info(Arc::clone(&shown.sha256)));
        let help = "Readings of the settings that calls are served by";
        let snapshots = metrics.register("config_snapshots", help, Gauge::<i64, AtomicI64>::default());
        let reloader = Arc::clone(reloader);
        metrics.before_reading(move || {
            snapshots.set(i64::try_from(reloader.snapshots()).unwrap_or(i64::MAX));
        });
        shown
    }

    fn result(&self, result: &'static str) {
        self.results.get_or_create(&[("result", result)]).inc();
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

/// Waits for reasons to read the settings again, for as long as the gateway runs.
pub(crate) async fn watch(
    reloader: Arc<Reloader>,
    reloading: Reloading,
    (metrics, shutdown): (Metrics, Shutdown),
    stop: CancellationToken,
) {
    let shown = Shown::register(&metrics, &reloader, reloading.sha256.clone());
    let mut file = reloading.watched.as_ref().map(|(path, _)| Seen::of(path));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = shutdown.hangup() => tracing::info!("heard SIGHUP: reading the settings again"),
            () = changed(reloading.watched.as_ref(), &mut file) => tracing::info!("the settings file has changed: reading it again"),
        }
        let (read, taken) = (Arc::clone(&reloading.read), Arc::clone(&reloader));
        let reloaded = tokio::task::spawn_blocking(move || {
            let Reloaded { config, verifier, sha256 } = read()?;
            taken.reload(&config, verifier);
            Ok::<_, Mistakes>(sha256)
        });
        match reloaded.await {
            Ok(Ok(sha256)) => {
                shown.stale.set(0);
                shown.generation.inc();
                shown.result("taken");
                tracing::info!(sha256, "the settings were read again and are served by from now on");
                *shown.sha256.lock() = sha256;
            }
            Ok(Err(mistakes)) => {
                shown.stale.set(1);
                shown.result("refused");
                for mistake in mistakes.iter() {
                    tracing::error!("{mistake}");
                }
                tracing::error!("the settings have mistakes; those of before stay in force");
            }
            Err(fault) => tracing::error!(%fault, "reading the settings ran into a fault"),
        }
        // Reasons that come meanwhile are one reason.
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// What tells that a file is another one: also through symbolic links, as Kubernetes swaps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen(Option<(u64, u64, SystemTime)>);

impl Seen {
    fn of(path: &PathBuf) -> Self {
        use std::os::unix::fs::MetadataExt as _;

        let metadata = std::fs::metadata(path).ok();
        Self(metadata.and_then(|metadata| Some((metadata.len(), metadata.ino(), metadata.modified().ok()?))))
    }
}

/// Resolves when the file is another one than it was, and stays so from one look to the next.
async fn changed(watched: Option<&(PathBuf, Duration)>, seen: &mut Option<Seen>) {
    let (Some((path, every)), Some(seen)) = (watched, seen) else { return std::future::pending().await };
    let mut last = *seen;
    loop {
        tokio::time::sleep(*every).await;
        let now = Seen::of(path);
        if now != *seen && now == last && now.0.is_some() {
            *seen = now;
            return;
        }
        last = now;
    }
}
