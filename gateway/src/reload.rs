//! The gateway's part in reading settings again: everything new is built, and then served by.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use goldleaves_auth::{TokenOptions, TokenVerifier, WallClock};
use goldleaves_runtime::reload::{Reloads, Taken as TakenByAll};
use goldleaves_runtime::settings::{Again, File, Mistakes, Values};
use goldleaves_runtime::{LogOptions, LogSwitch, Metrics};
use prometheus_client::metrics::gauge::Gauge;

use crate::GatewayConfig;
use crate::descriptors::TooFewDescriptors;
use crate::snapshot::Reloader;

/// The settings of one reading that are not the gateway's alone.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The options that tokens are verified with.
    pub tokens: TokenOptions,
    /// The part that counts in every program.
    pub by_all: TakenByAll,
}

impl Taken {
    /// The record of settings of which everything was read.
    pub fn of(values: &Values, tokens: TokenOptions, logs: LogOptions, config: &GatewayConfig) -> Self {
        Self { tokens, by_all: TakenByAll::of(values, logs, config.watch_every, config.files()) }
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
pub type ReadAgain = Box<dyn Fn(Option<File>) -> Result<Reloaded, Mistakes> + Send>;

/// The way settings are read again.
pub struct Reloading {
    /// Opens the file.
    pub again: Again,
    /// Reads the settings.
    pub read: ReadAgain,
    /// The settings of the start.
    pub taken: Taken,
    /// Changes the logs.
    pub logs: LogSwitch,
    /// Is told what tokens are verified with from now on.
    pub verifies: Box<dyn Fn(TokenVerifier) + Send>,
}

impl fmt::Debug for Reloading {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Reloading").field("again", &self.again).finish_non_exhaustive()
    }
}

impl Reloading {
    /// Returns how a running gateway takes them.
    pub(crate) fn of(self, reloader: Arc<Reloader>) -> Reloads {
        let Self { again, read, taken: Taken { mut tokens, by_all }, logs, verifies } = self;
        let take = move |file: Option<File>| {
            let Reloaded { config, taken } = read(file)?;
            // Who was known stays known, unless something is verified in another way now.
            let verifier = match taken.tokens == tokens {
                true => reloader.verifier(),
                false => TokenVerifier::new(taken.tokens.clone(), WallClock::system()),
            };
            let limits = |error: TooFewDescriptors| Mistakes::one("CONNECTIONS_MAX", error.to_string());
            reloader.reload(&config, verifier.clone()).map_err(limits)?;
            verifies(verifier);
            tokens = taken.tokens;
            Ok(taken.by_all)
        };
        Reloads { again, take: Box::new(take), taken: by_all, logs }
    }
}

/// Shows how many readings calls are served by.
pub(crate) fn show_snapshots(metrics: &Metrics, reloader: &Arc<Reloader>) {
    let help = "Readings of the settings that calls are served by";
    let snapshots = metrics.register("config_snapshots", help, Gauge::<i64, AtomicI64>::default());
    let reloader = Arc::clone(reloader);
    metrics.before_reading(move || {
        snapshots.set(i64::try_from(reloader.snapshots()).unwrap_or(i64::MAX));
    });
}
