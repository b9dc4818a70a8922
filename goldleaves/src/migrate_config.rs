//! The settings of `migrate`, which its read-only form reads as well.

use std::path::PathBuf;

use goldleaves_gateway::StreamSettings;
use goldleaves_pricing::Rate;
use goldleaves_runtime::Secret;
use goldleaves_runtime::settings::{Common, Values, parse, table};

use crate::cli::Program;
use crate::config;

/// The settings of `migrate`.
#[derive(Debug)]
pub struct MigrateConfig {
    pub(crate) common: Common,
    pub(crate) database_url: Secret,
    /// Where the one process keeps by which rate cards it priced.
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) rate: Option<Rate>,
    pub(crate) stream: Option<StreamSettings>,
}

impl MigrateConfig {
    /// Reads it; `None` when there was a mistake. The one-process program knows a database when none is named.
    pub fn read(values: &mut Values, program: Program) -> Option<Self> {
        let common = Common::read(values);
        let environment = common.as_ref().map(|common| common.environment);
        let (data_dir, database_url) = match program {
            Program::Goldleaves => {
                let data_dir = values.required(table::DATA_DIR, parse::path);
                let database_url = config::database_url(values, data_dir.as_deref(), environment);
                (data_dir, database_url)
            }
            _ => {
                let url = |text: &str| goldleaves_ledger::database_url(text, environment);
                (None, values.required_discreet(table::DATABASE_URL, url))
            }
        };
        let rate = config::read_rate(values);
        let stream = config::read_stream(values);
        Some(Self { common: common?, database_url: database_url?, data_dir, rate: rate?, stream: stream? })
    }

    /// The stream that is made.
    pub(crate) const fn stream(&self) -> Option<&StreamSettings> {
        self.stream.as_ref()
    }
}
