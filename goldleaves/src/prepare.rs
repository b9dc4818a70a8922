//! Makes the ledger ready: the schema, then the rate. Doing it again changes nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use goldleaves_ledger::{Leap, Ledger, LedgerError, RateChange, StoreError, StoreOptions, is_of_the_disk};
use goldleaves_migrations as migrations;
use goldleaves_pricing::Rate;
use goldleaves_runtime::{OnCancel, OnFailure, Secret, Stage, Supervisor, TaskRule, process};

use crate::config::Config;

/// A database that takes longer to answer is said to be waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Prepares SQLite before anything is served. Another database may be away, SQLite's disk full, and rate cards that usage was
/// priced by may be lacking, which is no reason not to start: it is prepared in the background, again and again until that
/// works, and events wait in the spool.
///
/// # Errors
/// SQLite can't be prepared, and not for want of room or of rate cards; a database server refuses the login.
pub(crate) async fn spawn(supervisor: &mut Supervisor, config: &Config, ledger: &Ledger) -> Result<()> {
    let (url, rate) = (config.database_url.clone(), config.rate);
    if url.expose().starts_with("sqlite:") && ledger.store().is_connected() {
        match prepare(&url, rate, ledger).await {
            Err(error) if is_of_the_disk(error.as_ref()) || is_of_the_cards(&error) => {}
            prepared => return prepared,
        }
    }
    match ledger.store().reach().await {
        Err(error @ (StoreError::Refused { .. } | StoreError::Pooled)) => return Err(error.into()),
        Err(error) => {
            tracing::warn!(
                cause = process::chain(&error),
                "the database is away; events wait in the spool until it is there"
            );
        }
        Ok(()) => {}
    }
    let rule = TaskRule {
        name: "prepare-ledger",
        stage: Stage::Sink,
        on_cancel: OnCancel::Abort,
        on_failure: OnFailure::Restart,
    };
    let ledger = ledger.clone();
    supervisor.spawn(rule, move |stop| {
        let (url, ledger) = (url.clone(), ledger.clone());
        async move {
            prepare(&url, rate, &ledger).await.map_err(|error| process::chain(error.as_ref()))?;
            tracing::info!("the database is there");
            stop.cancelled().await;
            Ok::<_, String>(())
        }
    });
    Ok(())
}

/// Returns whether a person has to bring rate cards back, or to make room for them, before anything is priced.
fn is_of_the_cards(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<LedgerError>(), Some(LedgerError::CardsWentBack(_) | LedgerError::CardsNotKept(_)))
}

/// Schema, rate cards that went back with a restored ledger, and price, in this order: a price that is set before would take the
/// place of a card that usage was priced by.
async fn prepare(url: &Secret, rate: Option<Rate>, ledger: &Ledger) -> Result<()> {
    migrations::up(url.expose(), &|line| tracing::debug!("migrate: {line}"))
        .await
        .context("the schema can't be made")?;
    ledger.check_cards().await?;
    said(&ledger.apply_rate(rate, Leap::Refused).await.context("the price can't be set")?);
    Ok(())
}

/// Logs what became of the price. A start never changes it by more than a factor of four: it goes on with the old one.
fn said(change: &RateChange) {
    match change {
        RateChange::TooFar { .. } => {
            tracing::error!("{change}; goes on with the price in force, goldleaves migrate --yes changes it");
        }
        _ => tracing::info!("{change}"),
    }
}

/// Returns the reason a database server can't be reached now, as a line for who waits for it: what comes next tries for
/// a minute without a word. `None`: it can be, or says itself why not.
///
/// # Errors
/// The server refuses the login.
pub(crate) async fn awaited(url: &Secret) -> Result<Option<String>> {
    if url.expose().starts_with("sqlite:") {
        return Ok(None);
    }
    let options = StoreOptions { ping_timeout: ANSWER_WITHIN, ..StoreOptions::default() };
    let ledger = Ledger::connect(url.expose(), options).await?;
    match ledger.store().reach().await {
        Err(error @ (StoreError::Refused { .. } | StoreError::Pooled)) => Err(error.into()),
        Err(error) => Ok(Some(format!("waiting for the database: {}", process::chain(&error)))),
        Ok(()) => Ok(None),
    }
}

/// A ledger that is there and has the schema, for commands that make neither.
///
/// # Errors
/// It is away, not migrated, or missing.
pub(crate) async fn open(url: &Secret) -> Result<Ledger> {
    let options = StoreOptions { create_missing: false, ..StoreOptions::default() };
    let ledger = Ledger::connect(url.expose(), options).await?;
    ledger.check_schema().await?;
    Ok(ledger)
}
