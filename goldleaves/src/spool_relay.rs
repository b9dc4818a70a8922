//! `goldleaves spool relay`: hands over what a stopped program left in its spool, for the end of a unit or of a node. It takes
//! the spool's lock, settles what nobody saw end, seals, and ends when the spool is empty or the time is up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use goldleaves_domain::Publisher;
use goldleaves_gateway::StreamSettings;
use goldleaves_ledger::{Ledger, StoreOptions};
use goldleaves_meter_worker::Meter;
use goldleaves_record::{self as record, RecordOptions};
use goldleaves_runtime::settings::{Common, Values, parse, table};
use goldleaves_runtime::{Exit, Metrics, Secret, process};
use goldleaves_spool::RealFileSystem;
use tokio_util::sync::CancellationToken;

use crate::config::{database_url, read_stream};
use crate::spool_status::missing;

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct RelayConfig {
    common: Common,
    record: RecordOptions,
    data_dir: PathBuf,
    stream: Option<StreamSettings>,
    /// Read only where there is no stream: the ledger takes the events itself.
    database_url: Option<Secret>,
}

impl RelayConfig {
    /// Reads it; `None` when there was a mistake, which `values` holds then.
    pub(crate) fn read(values: &mut Values) -> Option<Self> {
        let common = Common::read(values);
        let record = RecordOptions::read(values);
        let data_dir = values.required(table::DATA_DIR, parse::path);
        let stream = read_stream(values)?;
        let environment = common.as_ref().map(|common| common.environment);
        let database_url = match &stream {
            Some(_) => None,
            None => Some(database_url(values, data_dir.as_deref(), environment)?),
        };
        Some(Self { common: common?, record: record?, data_dir: data_dir?, stream, database_url })
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
    let publisher: Arc<dyn Publisher> = match (&config.stream, &config.database_url) {
        (Some(stream), _) => {
            let connection = stream.connect("spool-relay").await?;
            stream.publisher(connection)
        }
        (None, url) => {
            let url = url.as_ref().map(Secret::expose).unwrap_or_default();
            let ledger = Ledger::connect(url, StoreOptions::default()).await?;
            Arc::new(Meter::new(ledger, &metrics))
        }
    };
    // Nothing more comes: it is asked to stop from the first moment, and hands over what there is.
    let stop = CancellationToken::new();
    stop.cancel();
    Ok(side.relay.run(publisher, stop, within).await)
}
