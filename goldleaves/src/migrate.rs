//! `migrate`: the schema and the price, up, a step down, or where they stand.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use goldleaves_gateway::StreamSettings;
use goldleaves_ledger::{Ledger, LedgerError, RateChange, StoreOptions};
use goldleaves_migrations as migrations;
use goldleaves_runtime::settings::Environment;
use goldleaves_runtime::{Exit, process};
use goldleaves_stream::{CONSUMER, Existence, STREAM};

use crate::cli::{CardsDirection, MigrateArguments};
use crate::migrate_config::MigrateConfig;
use crate::{migrate_status, prepare, recall, stream_room};

/// The time for which JetStream is waited for.
const STREAM_PATIENCE: Duration = Duration::from_secs(60);

/// Migrates; progress goes to standard error, the answer to `status` to standard output.
pub fn run(config: &MigrateConfig, arguments: &MigrateArguments) -> Exit {
    let _logs = config.common.start_logs();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")
        .and_then(|runtime| runtime.block_on(migrate(config, arguments)));
    match done {
        Ok(exit) => exit,
        Err(error) => {
            process::say(&format_args!("migrate: {error:#}"));
            Exit::Failed("migrate".to_owned())
        }
    }
}

fn progress(line: &str) {
    process::say(&format_args!("migrate: {line}"));
}

async fn migrate(config: &MigrateConfig, arguments: &MigrateArguments) -> Result<Exit> {
    if let Some(line) = prepare::awaited(&config.database_url).await? {
        progress(&line);
    }
    match arguments.direction {
        CardsDirection::Up => up(config, arguments).await,
        CardsDirection::Down => down(config, arguments.yes_drop).await,
        CardsDirection::Status => migrate_status::run(config, arguments.form()).await,
    }
}

async fn up(config: &MigrateConfig, arguments: &MigrateArguments) -> Result<Exit> {
    let url = config.database_url.expose();
    migrations::up(url, &progress).await?;
    let ledger = Ledger::connect(url, StoreOptions::default()).await?;
    recall::all(config, &ledger).await?;
    let brought_back = match ledger.bring_back_cards().await {
        Ok(imported) => Ok(!imported.added.is_empty()),
        Err(LedgerError::CardsWentBack(lacking)) => Err(lacking),
        Err(error) => return Err(error).context("the rate cards can't be compared"),
    };
    let change = match brought_back {
        Ok(_) => Some(ledger.apply_rate(config.rate, arguments.leap()).await.context("the price can't be set")?),
        Err(_) => None,
    };
    ledger.store().close().await;
    progress(&change.as_ref().map_or_else(|| "the price is left alone".to_owned(), RateChange::to_string));
    if let Some(stream) = &config.stream {
        declare(stream).await?;
    }
    let came_back = brought_back.map_err(|lacking| {
        anyhow!(
            "{lacking}. No price was set, and nothing is priced: restore another backup, or import the cards with goldleaves \
             rate-cards import, and run migrate again"
        )
    })?;
    // The setting may be older than what came back, as where a ledger is made anew: then it is said, and no more.
    ensure!(
        came_back || !matches!(change, Some(RateChange::TooFar { .. })),
        "USAGE_RATE_CENTS changes the price by more than a factor of four: give --yes if that is meant, or leave \
         USAGE_RATE_CENTS unset, which changes no price"
    );
    Ok(Exit::Done)
}

/// One step back. What that destroys is said first, and is destroyed only for who repeats the number; in production nothing
/// is taken back for who does not.
async fn down(config: &MigrateConfig, agreed: Option<u64>) -> Result<Exit> {
    let url = config.database_url.expose();
    let Some((step, losses)) = migrations::losses(url).await? else {
        progress("there is no step to take back");
        return Ok(Exit::Done);
    };
    let rows = losses.rows();
    match rows {
        0 => progress(&format!("taking {step} back destroys no row")),
        _ => progress(&format!("taking {step} back destroys {rows} rows: {losses}")),
    }
    let in_production = config.common.environment == Environment::Production;
    match agreed {
        None if in_production => bail!("in production nothing is taken back without --yes-drop {rows}"),
        None if rows > 0 => bail!("nothing was taken back: give --yes-drop {rows} if these rows may go"),
        Some(agreed) if agreed != rows => {
            bail!("nothing was taken back: --yes-drop {agreed} is not the number of rows that would go, {rows}")
        }
        _ => migrations::down(url, rows, &progress).await?,
    }
    Ok(Exit::Done)
}

/// Stream and consumer. Someone waits for the answer, so that NATS away is an error here, though only after a while.
async fn declare(stream: &StreamSettings) -> Result<()> {
    let connection = stream.connect("migrate").await?;
    let start = Instant::now();
    loop {
        match stream.topology().declare(&connection).await {
            Ok(declared) => {
                progress(&format!(
                    "stream {STREAM}: {}, consumer {CONSUMER}: {}",
                    word(declared.stream),
                    word(declared.consumer)
                ));
                progress(&stream_room::say(stream, &connection).await);
                return Ok(());
            }
            Err(error) if error.is_transient() && start.elapsed() < STREAM_PATIENCE => {
                progress(&format!("waiting for JetStream: {:#}", anyhow::Error::new(error)));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error).context("the stream can't be declared"),
        }
    }
}

const fn word(existence: Existence) -> &'static str {
    match existence {
        Existence::Created => "made",
        Existence::Found => "there",
    }
}
