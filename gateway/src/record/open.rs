//! Opening the record side: recovery first, then a recorder for the request path and a relay for behind it.

use goldleaves_domain::Timestamp;
use goldleaves_runtime::Metrics;
use goldleaves_spool::{FileSystem, OpenError, Spool, SpoolOptions};
use tracing::{info, warn};

use super::call::Durability;
use super::metrics::RecordMetrics;
use super::recorder::Recorder;
use super::recovery::{self, RecoverError};
use super::relay::Relay;
use super::sealer::{Found, Sealer};
use crate::clock;

/// Where time comes from; tests put their own.
pub type Clock = fn() -> Timestamp;

/// What the record side needs to know.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// Where and how large the spool is.
    pub spool: SpoolOptions,
    /// What a call waits for.
    pub durability: Durability,
    /// Where time comes from.
    pub clock: Clock,
}

impl RecordOptions {
    /// With the machine's clock.
    pub fn new(spool: SpoolOptions, durability: Durability) -> Self {
        Self { spool, durability, clock: clock::now }
    }
}

/// Why the record side could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecordOpenError {
    /// The spool could not be opened.
    #[error("the spool could not be opened")]
    Spool(#[from] OpenError),
    /// What earlier starts left could not be settled.
    #[error("what an earlier start left in the spool could not be settled")]
    Recover(#[from] RecoverError),
}

/// The record side of one gateway.
pub struct RecordSide {
    /// For the request path.
    pub recorder: Recorder,
    /// For a runtime of its own; nothing is handed over before it runs.
    pub relay: Relay,
}

/// Opens the spool, settles durably what earlier starts left open, and only then lets anything be recorded.
///
/// # Errors
/// When the spool cannot be opened, or does not take those settlements.
pub async fn open(
    options: RecordOptions,
    fs: impl FileSystem,
    metrics: &Metrics,
) -> Result<RecordSide, RecordOpenError> {
    let (spool, recovered) = Spool::open(options.spool, fs)?;
    let record_metrics = RecordMetrics::register(metrics, &spool);
    info!(
        spool = %spool.id(), epoch = %spool.epoch(), open_calls = recovered.orphans.len(),
        open_epochs = recovered.epochs.len(), "spool opened"
    );
    if recovered.quarantined > 0 {
        warn!(quarantined = recovered.quarantined, "parts of the spool could not be read and were passed over");
    }
    recovery::settle_orphans(&spool, recovered.orphans, &record_metrics).await?;
    let recorder = Recorder::new(spool.clone(), options.durability, record_metrics.clone());
    let found = Found { dead: recovered.epochs, checkpoint: recovered.memo };
    let sealer = Sealer::new(spool.clone(), found, options.clock, record_metrics.clone());
    let relay = Relay::new(spool, sealer, recorder.clone(), record_metrics);
    Ok(RecordSide { recorder, relay })
}
