//! `goldleaves spool relay`: hands over what a stopped program left in its spool, for the end of a unit or of a node. It takes
//! the spool's lock, settles what nobody saw end, seals, and ends when the spool is empty or the time is up.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use goldleaves_gateway::StreamSettings;
use goldleaves_record::{self as record, RecordOptions};
use goldleaves_runtime::settings::{Common, Values, parse, table};
use goldleaves_runtime::{Exit, Metrics, process};
use goldleaves_spool::RealFileSystem;
use tokio_util::sync::CancellationToken;

use crate::spool_status::missing;

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct RelayConfig {
    common: Common,
    record: RecordOptions,
    data_dir: PathBuf,
    stream: StreamSettings,
}

impl RelayConfig {
    /// Reads it; `None` when there was a mistake, which `values` holds then.
    ///
    /// Without a stream it is one: events would go to a ledger of this folder, which nobody may ever read, and be counted as
    /// handed over.
    pub(crate) fn read(values: &mut Values) -> Option<Self> {
        let common = Common::read(values);
        let record = RecordOptions::read(values);
        let data_dir = values.required(table::DATA_DIR, parse::path);
        let stream = match values.is_set(table::NATS_URL) {
            true => StreamSettings::read(values),
            false => {
                let text = "is missing, and spool relay hands over to a stream alone (the one process without one hands over what \
                            is in its spool at its next start)";
                values.mistake(table::NATS_URL, text);
                None
            }
        };
        Some(Self { common: common?, record: record?, data_dir: data_dir?, stream: stream? })
    }
}

/// Relays for at most so long.
pub(crate) fn run(config: &RelayConfig, within: Duration) -> Exit {
    if let Some(none) = missing(&config.data_dir) {
        return process::answer(&none);
    }
    let logs = config.common.start_logs();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let left =
        runtime.context("the runtime can't be started").and_then(|runtime| runtime.block_on(relay(config, within)));
    drop(logs);
    match left {
        Ok(0) => process::answer("the spool is empty: everything was handed over\n"),
        Ok(records) => Exit::Unfinished(vec![format!("relay: {records} records are left in the spool")]),
        Err(error) => {
            process::say(&format_args!("spool relay: {}", process::chain(error.as_ref())));
            Exit::Failed("spool relay".to_owned())
        }
    }
}

async fn relay(config: &RelayConfig, within: Duration) -> Result<u64> {
    let metrics = Metrics::new();
    let side = record::open(config.record.clone(), RealFileSystem, &metrics).await.context("DATA_DIR")?;
    let connection = config.stream.connect("spool-relay").await?;
    let publisher = config.stream.publisher(connection, &metrics);
    // Nothing more comes: it is asked to stop from the first moment, and hands over what there is.
    let stop = CancellationToken::new();
    stop.cancel();
    Ok(side.relay.run(publisher, stop, within).await)
}
