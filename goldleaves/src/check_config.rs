//! `goldleaves check-config`: every mistake at once, or every setting a program reads and where it comes from.

use goldleaves_runtime::process::Source;
use goldleaves_runtime::settings::{Mistakes, Reading, Values};
use goldleaves_runtime::{Exit, process};

use crate::cli::{CheckConfigArguments, Program};
use crate::config::Config;
use crate::migrate::MigrateConfig;

/// Checks a program's settings and prints what they are, secrets hidden.
pub(crate) fn run(arguments: CheckConfigArguments, source: &Source) -> Exit {
    let source = source.clone().or_file(arguments.file);
    match source.values().and_then(|values| check(arguments.program, values)) {
        Ok(readings) => process::answer(&text(&readings)),
        Err(mistakes) => {
            process::say(&mistakes);
            Exit::Settings
        }
    }
}

fn check(program: Program, mut values: Values) -> Result<Vec<Reading>, Mistakes> {
    let read = match program {
        Program::Goldleaves => Config::read(&mut values).map(drop),
        Program::Gateway => goldleaves_gateway::program::Config::read(&mut values).map(drop),
        Program::MeterWorker => goldleaves_meter_worker::program::Config::read(&mut values).map(drop),
        Program::BillingApi => goldleaves_billing_api::program::Config::read(&mut values).map(drop),
        Program::Migrate => MigrateConfig::read(&mut values, program).map(drop),
    };
    let readings = values.readings().cloned().collect();
    values.finish(read).map(|()| readings)
}

fn text(readings: &[Reading]) -> String {
    let line = |reading: &Reading| {
        let (shown, layer) = (reading.shown.as_deref(), reading.layer.as_deref());
        format!("{} = {}  ({})\n", reading.setting.name, shown.unwrap_or("unset"), layer.unwrap_or("default"))
    };
    readings.iter().map(line).collect()
}
