//! The settings that every program reads: the environment, logs, and how a stop goes.

use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::Identity;
use tracing_subscriber::{Layer, Registry};

use super::parse::{self, Invalid};
use super::{Values, table};
use crate::telemetry::{self, LogFormat, LogOptions, Logs, TryInitError};

/// The kind of place that the program runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Anywhere but production.
    Development,
    /// Where customers are.
    Production,
}

/// The settings that every program reads.
#[derive(Debug, Clone)]
pub struct Common {
    /// `ENVIRONMENT`.
    pub environment: Environment,
    /// `LOG_LEVEL`, `LOG_FORMAT` and `DEBUG`.
    pub logs: LogOptions,
    /// `SHUTDOWN_GRACE_SECS`: how long what is in flight may go on once a stop was asked for.
    pub shutdown_grace: Duration,
    /// `DRAIN_DELAY_SECS`: how long calls are still accepted once a stop was asked for and readiness says so.
    pub drain_delay: Duration,
    /// The settings that are probably not meant as they are; see [`Values::warnings`].
    pub warnings: Vec<String>,
}

impl Common {
    /// Reads them.
    pub fn read(values: &mut Values) -> Option<Self> {
        let environment = values.required(table::ENVIRONMENT, Environment::parse);
        let debug = values.required(table::DEBUG, parse::boolean);
        let level = values.required(table::LOG_LEVEL, log_level);
        let format = values.required(table::LOG_FORMAT, log_format);
        let shutdown_grace = values.required(table::SHUTDOWN_GRACE_SECS, parse::seconds_or_zero);
        let drain_delay = values.required(table::DRAIN_DELAY_SECS, parse::seconds_or_zero);
        let level = if debug? { level?.max(LevelFilter::DEBUG) } else { level? };
        let logs = LogOptions { level, format: format? };
        let warnings = values.warnings().to_vec();
        Some(Self {
            environment: environment?,
            logs,
            shutdown_grace: shutdown_grace?,
            drain_delay: drain_delay?,
            warnings,
        })
    }

    /// Starts the logs, whose first lines are the warnings. Keep what is returned until the very end.
    ///
    /// # Errors
    /// Something else already takes the logs.
    pub fn start_logs(&self) -> Result<Logs, TryInitError> {
        self.start_logs_beside(Identity::new())
    }

    /// Works like [`Common::start_logs`], with another layer beside that of the logs.
    ///
    /// # Errors
    /// Something else already takes the logs.
    pub fn start_logs_beside<L>(&self, layer: L) -> Result<Logs, TryInitError>
    where
        L: Layer<Registry> + Send + Sync + 'static,
    {
        let logs = telemetry::init(self.logs, layer)?;
        self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(logs)
    }

    /// `ENABLE_DOCS`: true, in production false. A mistake in it is noted also when the rest could not be read.
    pub fn read_enable_docs(common: Option<&Self>, values: &mut Values) -> Option<bool> {
        let set = values.optional(table::ENABLE_DOCS, parse::boolean)?;
        let docs = set.or_else(|| common.map(|common| common.environment == Environment::Development))?;
        values.stands_for(table::ENABLE_DOCS, &docs);
        Some(docs)
    }
}

impl Environment {
    fn parse(text: &str) -> Result<Self, Invalid> {
        match text.trim().to_ascii_lowercase().as_str() {
            "production" => Ok(Self::Production),
            "development" | "local" | "test" | "testing" | "ci" | "staging" => Ok(Self::Development),
            _ => Err(Invalid::new("is no environment")),
        }
    }
}

fn log_level(text: &str) -> Result<LevelFilter, Invalid> {
    match text.trim().to_ascii_lowercase().as_str() {
        "trace" => Ok(LevelFilter::TRACE),
        "debug" => Ok(LevelFilter::DEBUG),
        "info" => Ok(LevelFilter::INFO),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "error" | "critical" => Ok(LevelFilter::ERROR),
        "off" => Ok(LevelFilter::OFF),
        _ => Err(Invalid::new("is no level")),
    }
}

fn log_format(text: &str) -> Result<LogFormat, Invalid> {
    match text.trim().to_ascii_lowercase().as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Invalid::new("is no format")),
    }
}
