//! `goldleaves rate-cards`: the rates go from one ledger into another, which then bills the same events the same.

use std::io::Read as _;

use anyhow::{Context, Result};
use goldleaves_ledger::{read_rate_cards, write_rate_cards};
use goldleaves_runtime::settings::{Common, Values, parse, table};
use goldleaves_runtime::{Exit, Secret, process};

use crate::cli::RateCardsCommand;
use crate::{config, prepare};

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct RateCardsConfig {
    common: Common,
    database_url: Secret,
}

impl RateCardsConfig {
    /// Reads it; `None` when there was a mistake, which `values` holds then.
    pub(crate) fn read(values: &mut Values) -> Option<Self> {
        let common = Common::read(values);
        let environment = common.as_ref().map(|common| common.environment);
        let data_dir = values.required(table::DATA_DIR, parse::path);
        let database_url = config::database_url(values, data_dir.as_deref(), environment);
        Some(Self { common: common?, database_url: database_url? })
    }
}

/// Exports to standard output, or imports from standard input.
pub(crate) fn run(config: &RateCardsConfig, command: RateCardsCommand) -> Exit {
    let _logs = config.common.start_logs();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")
        .and_then(|runtime| {
            runtime.block_on(async {
                match command {
                    RateCardsCommand::Export => export(&config.database_url).await,
                    RateCardsCommand::Import => import(&config.database_url).await,
                }
            })
        });
    match done {
        Ok(()) => Exit::Done,
        Err(error) => {
            process::say(&format_args!("rate-cards: {}", process::chain(error.as_ref())));
            Exit::Failed("rate-cards".to_owned())
        }
    }
}

async fn export(database_url: &Secret) -> Result<()> {
    let ledger = prepare::open(database_url).await?;
    let cards = ledger.rate_cards().await?;
    ledger.store().close().await;
    anyhow::ensure!(!cards.is_empty(), "the ledger has no rate card yet: run migrate");
    Ok(process::print(&format!("{}\n", write_rate_cards(&cards).trim_end()))?)
}

async fn import(database_url: &Secret) -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input can't be read")?;
    let cards = read_rate_cards(&text).context("standard input holds no rate cards that can be used")?;
    let ledger = prepare::open(database_url).await?;
    let imported = ledger.import_rate_cards(&cards).await.context("nothing was imported")?;
    ledger.store().close().await;
    for card in &imported.replaced {
        process::say(&format_args!("rate-cards: {card}: gave way, no event was priced by it"));
    }
    for card in &imported.added {
        process::say(&format_args!("rate-cards: {card}: added"));
    }
    let (added, there) = (imported.added.len(), imported.there.len());
    Ok(process::print(&format!("{added} cards added, {there} were there\n"))?)
}
