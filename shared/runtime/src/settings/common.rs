//! The settings that several programs read: the environment, logs, and what tokens are verified with.

use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::parse::{self, Invalid};
use super::{Values, table, well_known};
use crate::Secret;
use crate::telemetry::{self, LogFormat, LogOptions, Logs, TryInitError};

/// The fewest bytes a secret must have in production.
const SECRET_BYTES_MIN: usize = 32;
/// Which kind of place the program runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Anywhere but production.
    Development,
    /// Where customers are.
    Production,
}

/// What every program reads.
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
    /// What is probably not meant as it is; see [`Values::warnings`].
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
        let logs = telemetry::init(self.logs)?;
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

/// The HMAC that tokens are signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

/// Whether a program can do without `JWT_SECRET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretNeed {
    /// It must be set.
    Required,
    /// Outside production the program makes one when it is unset.
    Generated,
}

/// What tokens are verified and signed with.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// `JWT_SECRET`; `None` only with [`SecretNeed::Generated`] outside production.
    pub secret: Option<Secret>,
    /// `JWT_ALGORITHM`.
    pub algorithm: JwtAlgorithm,
    /// `JWT_EXPIRATION_MINUTES`: how long a token made here lives.
    pub lifetime: Duration,
    /// `JWT_ISSUER`.
    pub issuer: Option<String>,
    /// `JWT_AUDIENCE`.
    pub audience: Option<String>,
}

impl JwtSettings {
    /// Reads them. `environment` = `None` (it was wrong itself) is not held against the secret.
    pub fn read(values: &mut Values, environment: Option<Environment>, need: SecretNeed) -> Option<Self> {
        let secret = values.optional(table::JWT_SECRET, parse::secret);
        let production = environment == Some(Environment::Production);
        if let Some(secret) = &secret {
            check_secret(values, secret.as_ref(), (production, need));
        }
        let algorithm = values.required(table::JWT_ALGORITHM, algorithm);
        let minutes = values.required(table::JWT_EXPIRATION_MINUTES, parse::whole(1..=5_256_000_u32));
        let issuer = values.optional(table::JWT_ISSUER, parse::text);
        let audience = values.optional(table::JWT_AUDIENCE, parse::text);
        Some(Self {
            secret: secret?,
            algorithm: algorithm?,
            lifetime: Duration::from_secs(u64::from(minutes?) * 60),
            issuer: issuer?,
            audience: audience?,
        })
    }
}

fn check_secret(values: &mut Values, secret: Option<&Secret>, (production, need): (bool, SecretNeed)) {
    let Some(secret) = secret.map(Secret::expose) else {
        if production || need == SecretNeed::Required {
            values.mistake(table::JWT_SECRET, "is missing");
        }
        return;
    };
    // The same secret without it, in another program, is another secret.
    if secret.trim() != secret {
        values.mistake(table::JWT_SECRET, "begins or ends with a blank or a line break");
    }
    if !production {
        return;
    }
    if let Some(fault) = well_known::fault(secret) {
        values.mistake(table::JWT_SECRET, fault);
    } else if secret.len() < SECRET_BYTES_MIN {
        values.mistake(table::JWT_SECRET, &format!("has fewer than {SECRET_BYTES_MIN} bytes"));
    }
}

fn algorithm(text: &str) -> Result<JwtAlgorithm, Invalid> {
    match text.trim().to_ascii_uppercase().as_str() {
        "HS256" => Ok(JwtAlgorithm::Hs256),
        "HS384" => Ok(JwtAlgorithm::Hs384),
        "HS512" => Ok(JwtAlgorithm::Hs512),
        _ => Err(Invalid::new("is not supported")),
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
