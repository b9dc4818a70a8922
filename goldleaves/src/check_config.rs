//! `goldleaves check-config`: every mistake at once, or every setting a program reads and where it comes from.

use goldleaves_runtime::settings::{Mistakes, Reading, Values};
use goldleaves_runtime::{Exit, process};

use crate::cli::Program;
use crate::config::Config;
use crate::migrate::MigrateConfig;

/// Checks a program's settings and prints what they are, secrets hidden.
pub(crate) fn run(program: Program) -> Exit {
    match process::values().and_then(|values| check(program, values)) {
        Ok(readings) => {
            print(&readings);
            Exit::Done
        }
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

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn print(readings: &[Reading]) {
    for reading in readings {
        let (shown, layer) = (reading.shown.as_deref(), reading.layer.as_deref());
        println!("{} = {}  ({})", reading.setting.name, shown.unwrap_or("unset"), layer.unwrap_or("default"));
    }
}
