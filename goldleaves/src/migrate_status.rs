//! `migrate status`: which steps of the schema are done, what a unit costs, and whether stream and consumer are there. It
//! changes nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use goldleaves_gateway::StreamSettings;
use goldleaves_ledger::{LackingCards, Ledger, StoreOptions};
use goldleaves_migrations as migrations;
use goldleaves_pricing::RateCard;
use goldleaves_runtime::{Exit, process};
use goldleaves_stream::{CONSUMER, STREAM, Topology};
use serde_json::{Value, json};

use crate::cli::OutputForm;
use crate::migrate_config::MigrateConfig;
use crate::recall;

/// The time for which JetStream is waited for.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);

/// Where everything stands.
struct Status {
    steps: Vec<migrations::Step>,
    /// The default card in force, once the schema is up to date.
    card: Option<RateCard>,
    /// The rate cards that usage was priced by and that the ledger does not have.
    lacking: Option<LackingCards>,
    stream: Option<StreamStatus>,
}

/// In a word each.
struct StreamStatus {
    stream: &'static str,
    consumer: &'static str,
    cause: Option<String>,
}

/// Answers on standard output; exit code 1 while steps are pending.
pub(crate) async fn run(config: &MigrateConfig, form: OutputForm) -> Result<Exit> {
    let url = config.database_url.expose();
    let steps = migrations::status(url).await?;
    let pending = steps.iter().filter(|step| !step.applied).count();
    let (card, lacking) = if pending == 0 {
        let options = StoreOptions { create_missing: false, ..StoreOptions::default() };
        let ledger = Ledger::connect(url, options).await?;
        let card = ledger.default_card().await.context("the price can't be read")?;
        recall::all(config, &ledger).await?;
        let lacking = ledger.lacks_cards().await.context("the rate cards can't be compared")?;
        ledger.store().close().await;
        (card, lacking)
    } else {
        (None, None)
    };
    let stream = match &config.stream {
        Some(stream) => Some(ask(stream).await),
        None => None,
    };
    let status = Status { steps, card, lacking, stream };
    let answered = process::answer(&match form {
        OutputForm::Text => status.text(),
        OutputForm::Json => format!("{:#}\n", status.json()),
    });
    Ok(match (answered, pending) {
        (Exit::Done, 1..) => Exit::Pending(format!("{pending} steps of the schema")),
        (answered, _) => answered,
    })
}

async fn ask(settings: &StreamSettings) -> StreamStatus {
    let asking = async {
        let connection = settings.connect("migrate").await.map_err(anyhow::Error::new)?;
        Topology::check(&connection).await.map_err(anyhow::Error::new)
    };
    let of = |stream, consumer, cause| StreamStatus { stream, consumer, cause };
    let word = |there: bool| if there { "there" } else { "missing" };
    match tokio::time::timeout(STREAM_PATIENCE, asking).await {
        Ok(Ok(present)) => of(word(present.stream), word(present.consumer), None),
        Ok(Err(error)) => {
            let wrong =
                error.downcast_ref::<goldleaves_stream::TopologyError>().is_some_and(|error| !error.is_transient());
            let word = if wrong { "wrong" } else { "unknown" };
            of(word, word, Some(format!("{error:#}")))
        }
        Err(_) => of("unknown", "unknown", Some("JetStream does not answer".to_owned())),
    }
}

impl Status {
    fn text(&self) -> String {
        let line =
            |step: &migrations::Step| format!("{}  {}\n", if step.applied { "applied" } else { "pending" }, step.name);
        let mut text: String = self.steps.iter().map(line).collect();
        match &self.card {
            Some(card) => text.push_str(&format!("price    {card}\n")),
            None => text.push_str("price    none that can be read yet: run migrate\n"),
        }
        if let Some(lacking) = &self.lacking {
            text.push_str(&format!("cards    {lacking}: run migrate\n"));
        }
        if let Some(StreamStatus { stream, consumer, cause }) = &self.stream {
            let cause = cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default();
            text.push_str(&format!("stream   {STREAM} {stream}, consumer {CONSUMER} {consumer}{cause}\n"));
        }
        text
    }

    fn json(&self) -> Value {
        let step = |step: &migrations::Step| json!({ "name": step.name, "applied": step.applied });
        let rate = self.card.as_ref().map(|card| {
            json!({
                "version": card.version,
                "pricing": card.pricing.to_json(),
                "effective_from": card.effective_from.to_string(),
                "origin": card.origin.as_str(),
            })
        });
        let stream = self.stream.as_ref().map(|found| {
            json!({
                "name": STREAM,
                "state": found.stream,
                "consumer": { "name": CONSUMER, "state": found.consumer },
                "cause": found.cause,
            })
        });
        json!({
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "pending": self.steps.iter().filter(|step| !step.applied).count(),
            "rate": rate,
            "rate_cards_lacking": self.lacking.as_ref().map_or_else(Vec::new, LackingCards::versions),
            "stream": stream,
        })
    }
}
