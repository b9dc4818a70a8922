//! The rate cards that a ledger is compared with before a command sets a price or records: those that usage was priced by, as the
//! one process keeps them in `DATA_DIR` and workers note them beside the consumer. It prices nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use goldleaves_gateway::StreamSettings;
use goldleaves_ledger::{CardsFile, Ledger, RememberedCards};
use goldleaves_runtime::process;
use goldleaves_stream::{Connection, Footing};

use crate::migrate_config::MigrateConfig;

/// The longest time that JetStream is waited for.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);

/// Recalls what the one process keeps in its folder.
///
/// # Errors
/// The file is there and can't be used.
pub(crate) async fn kept(ledger: &Ledger, data_dir: &Path) -> Result<()> {
    let file = CardsFile::of(data_dir);
    let cards = tokio::task::spawn_blocking(move || file.read()).await??;
    ledger.recall(&cards.into_iter().collect());
    Ok(())
}

/// Recalls what workers noted.
///
/// # Errors
/// JetStream can't be asked, or the note can't be read.
pub(crate) async fn noted(ledger: &Ledger, connection: &Connection) -> Result<()> {
    let Some(note) = Footing::read(connection).await?.and_then(|footing| footing.note) else { return Ok(()) };
    let cards = RememberedCards::of_note(&note).map_err(|cause| anyhow!(cause));
    ledger.recall(&cards.context("what is noted about rate cards beside the consumer meter can't be read")?);
    Ok(())
}

/// Recalls for `migrate` by which rate cards usage was priced. A stream that can't be asked now keeps no price from being set:
/// workers look before they price, and a card that priced nothing gives way.
///
/// # Errors
/// The file in `DATA_DIR` is there and can't be used.
pub(crate) async fn all(config: &MigrateConfig, ledger: &Ledger) -> Result<()> {
    if let Some(data_dir) = &config.data_dir {
        kept(ledger, data_dir).await?;
    }
    if let Some(stream) = &config.stream
        && let Err(error) = noted_in(ledger, stream).await
    {
        let cause = process::chain(error.as_ref());
        process::say(&format_args!(
            "migrate: by which rate cards workers priced can't be read now, so they are not compared: {cause}"
        ));
    }
    Ok(())
}

/// Works like [`noted`], and does not wait long.
async fn noted_in(ledger: &Ledger, stream: &StreamSettings) -> Result<()> {
    let asking = async { noted(ledger, &stream.connect("migrate").await?).await };
    tokio::time::timeout(STREAM_PATIENCE, asking).await.unwrap_or_else(|_| Err(anyhow!("JetStream does not answer")))
}
