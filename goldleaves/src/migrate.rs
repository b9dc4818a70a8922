//! `migrate`: the schema and the rate, up, down, or where they stand.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use goldleaves_billing_api::program;
use goldleaves_gateway::StreamSettings;
use goldleaves_ledger::{Ledger, RateChange, StoreOptions};
use goldleaves_migrations as migrations;
use goldleaves_pricing::Rate;
use goldleaves_runtime::settings::{Common, Values, parse, table};
use goldleaves_runtime::{Exit, Secret, process};
use goldleaves_stream::{CONSUMER, Existence, STREAM};

use crate::cli::{Direction, MigrateArguments, Program};
use crate::{config, prepare};

/// How long JetStream is waited for.
const STREAM_PATIENCE: Duration = Duration::from_secs(60);

/// What `migrate` is told.
#[derive(Debug)]
pub struct MigrateConfig {
    common: Common,
    database_url: Secret,
    rate: Option<Rate>,
    stream: Option<StreamSettings>,
}

impl MigrateConfig {
    /// Reads it; `None` when there was a mistake. The one-process program knows a database when none is named.
    pub fn read(values: &mut Values, program: Program) -> Option<Self> {
        let common = Common::read(values);
        let database_url = match program {
            Program::Goldleaves => {
                let data_dir = values.required(table::DATA_DIR, parse::path);
                config::database_url(values, data_dir.as_deref())
            }
            _ => values.required(table::DATABASE_URL, program::database_url),
        };
        let rate = config::read_rate(values);
        let stream = config::read_stream(values);
        Some(Self { common: common?, database_url: database_url?, rate: rate?, stream: stream? })
    }
}

/// Migrates; progress goes to standard error, the answer to `status` to standard output.
pub fn run(config: &MigrateConfig, arguments: &MigrateArguments) -> Exit {
    let _logs = config.common.start_logs();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")
        .and_then(|runtime| runtime.block_on(migrate(config, arguments)));
    match done {
        Ok(()) => Exit::Done,
        Err(error) => {
            process::say(&format_args!("migrate: {}", process::chain(error.as_ref())));
            Exit::Failed("migrate".to_owned())
        }
    }
}

async fn migrate(config: &MigrateConfig, arguments: &MigrateArguments) -> Result<()> {
    let url = config.database_url.expose();
    let progress = |line: &str| process::say(&format_args!("migrate: {line}"));
    if let Some(line) = prepare::awaited(&config.database_url).await? {
        progress(&line);
    }
    match arguments.direction {
        Direction::Up => {
            migrations::up(url, &progress).await?;
            let ledger = Ledger::connect(url, StoreOptions::default()).await?;
            let change = ledger.apply_rate(config.rate, arguments.leap()).await.context("the price can't be set")?;
            ledger.store().close().await;
            progress(&change.to_string());
            if let Some(stream) = &config.stream {
                declare(stream, &progress).await?;
            }
            ensure!(
                !matches!(change, RateChange::TooFar { .. }),
                "USAGE_RATE_CENTS changes the price by more than a factor of four: give --yes if that is meant, or leave \
                 USAGE_RATE_CENTS unset, which changes no price"
            );
        }
        Direction::Down => migrations::down(url, None, &progress).await?,
        Direction::Status => print_status(&migrations::status(url).await?)?,
    }
    Ok(())
}

/// Stream and consumer. Someone waits for the answer, so that NATS away is an error here, though only after a while.
async fn declare(stream: &StreamSettings, progress: &impl Fn(&str)) -> Result<()> {
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
                return Ok(());
            }
            Err(error) if error.is_transient() && start.elapsed() < STREAM_PATIENCE => {
                progress(&format!("waiting for JetStream: {}", process::chain(&error)));
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

fn print_status(steps: &[migrations::Step]) -> Result<()> {
    let line =
        |step: &migrations::Step| format!("{}  {}\n", if step.applied { "applied" } else { "pending" }, step.name);
    process::print(&steps.iter().map(line).collect::<String>()).context("the answer can't be written")
}
