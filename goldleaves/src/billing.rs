//! `goldleaves billing`: what bills are made by goes from one ledger into another, which then bills the same events the same.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::AsFd as _;

use anyhow::{Context, Result};
use goldleaves_billing::{Billing, BillingError, ImportStep};
use goldleaves_pricing::TimeZone;
use goldleaves_runtime::settings::{Common, Values, parse, table};
use goldleaves_runtime::{Exit, Secret, process};

use crate::cli::BillingCommand;
use crate::{config, prepare};

/// The number of lines that lie between two lines of progress.
const PROGRESS_EVERY: u64 = 10_000;

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct BillingCommandConfig {
    common: Common,
    database_url: Secret,
}

impl BillingCommandConfig {
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
pub(crate) fn run(config: &BillingCommandConfig, command: BillingCommand) -> Exit {
    let _logs = config.common.start_logs();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")
        .and_then(|runtime| {
            runtime.block_on(async {
                let ledger = prepare::open(&config.database_url).await?;
                let billing = Billing::new(ledger.store().clone(), TimeZone::UTC);
                let done = match command {
                    BillingCommand::Export => export(&billing).await,
                    BillingCommand::Import => import(&billing).await,
                };
                ledger.store().close().await;
                done
            })
        });
    match done {
        Ok(()) => Exit::Done,
        Err(error) => {
            process::say(&format_args!("billing: {}", process::chain(error.as_ref())));
            Exit::Failed("billing".to_owned())
        }
    }
}

/// The reason an export broke off.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Billing(#[from] BillingError),
    #[error("standard output can't be written")]
    Output(#[from] std::io::Error),
}

async fn export(billing: &Billing) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let mut lines = 0;
    let count = billing.export(|line| -> Result<(), ExportError> {
        writeln!(out, "{line}")?;
        lines += 1;
        if lines % PROGRESS_EVERY == 0 {
            process::say(&format_args!("billing: {lines} lines"));
        }
        Ok(())
    });
    let count = count.await?;
    out.flush().context("standard output can't be written")?;
    process::say(&format_args!("billing: {count} lines exported"));
    Ok(())
}

async fn import(billing: &Billing) -> Result<()> {
    let mut file = standard_input()?;
    let mut cards_are_in = false;
    let transfer = billing.import(&mut file, |step| match step {
        ImportStep::Read(lines) => say_every(lines, "lines looked at"),
        ImportStep::Cards(cards) => {
            cards_are_in = true;
            for card in &cards.replaced {
                process::say(&format_args!("billing: {card}: gave way, no event was priced by it"));
            }
            process::say(&format_args!("billing: {} rate cards added, now the other rows", cards.added.len()));
        }
        ImportStep::Written(lines) => say_every(lines, "lines written"),
        ImportStep::Again => {}
        ImportStep::Waits(name) => process::say(&format_args!("billing: waits for its event: {name}")),
    });
    let transfer = transfer.await;
    let transfer = transfer.with_context(|| match cards_are_in {
        true => "the rate cards are imported, nothing else is; mend the line and import the same file again",
        false => "nothing was imported",
    })?;
    for table in &transfer.tables {
        process::print(&format!("{}: {} added, {} were there\n", table.table, table.added, table.there))?;
    }
    if transfer.waiting > 0 {
        let waiting = transfer.waiting;
        process::print(&format!("{waiting} corrections wait: import again once their events are there\n"))?;
    }
    Ok(())
}

fn say_every(lines: u64, what: &str) {
    if lines.is_multiple_of(PROGRESS_EVERY) {
        process::say(&format_args!("billing: {lines} {what}"));
    }
}

/// Standard input as a file that can be read twice: itself where it is one, else a copy that goes with the process.
fn standard_input() -> Result<File> {
    let input = std::io::stdin();
    let file = input.as_fd().try_clone_to_owned().context("standard input can't be read")?;
    let mut file = File::from(file);
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(file);
    }
    let mut copy = tempfile::tempfile().context("no copy of standard input can be made")?;
    std::io::copy(&mut file, &mut copy).context("standard input can't be copied")?;
    copy.rewind().context("the copy of standard input can't be read")?;
    Ok(copy)
}
