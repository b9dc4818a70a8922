//! `goldleaves check-config`: every mistake at once, or every setting a program reads, what holds and where it comes from.

use goldleaves_gateway::RouteShown;
use goldleaves_runtime::process::Source;
use goldleaves_runtime::settings::{Mistake, Mistakes, Reading, SettingKind, Values};
use goldleaves_runtime::{Exit, process};
use serde_json::{Value, json};

use crate::cli::{CheckConfigArguments, Program};
use crate::config::Config;
use crate::migrate_config::MigrateConfig;
use crate::stream_room;

/// The findings of a check.
#[derive(Default)]
struct Checked {
    readings: Vec<Reading>,
    warnings: Vec<String>,
    /// For how long the stream's size lasts, where there is a stream.
    room: Option<String>,
    /// The routes of all calls, of programs with a gateway.
    routes: Vec<RouteShown>,
    mistakes: Option<Mistakes>,
}

/// Checks a program's settings and prints what holds, secrets only as set or unset; and of a stream for how long its size
/// lasts.
pub(crate) fn run(arguments: CheckConfigArguments, source: &Source) -> Exit {
    let source = source.clone().or_file(arguments.file);
    let checked = match source.values() {
        Ok(values) => check(arguments.program, values),
        Err(mistakes) => Checked { mistakes: Some(mistakes), ..Checked::default() },
    };
    let answered = if arguments.json {
        process::answer(&format!("{:#}\n", checked.json(arguments.program)))
    } else {
        checked.warnings.iter().for_each(|warning| process::say(&format_args!("warning: {warning}")));
        match &checked.mistakes {
            Some(mistakes) => {
                process::say(mistakes);
                Exit::Settings
            }
            None => process::answer(&checked.text()),
        }
    };
    if checked.mistakes.is_some() && answered == Exit::Done { Exit::Settings } else { answered }
}

fn check(program: Program, mut values: Values) -> Checked {
    let read = match program {
        Program::Goldleaves => Config::read(&mut values).map(|config| {
            let mut routes = config.gateway.route_table();
            // What has no upstream the one process serves by its demo.
            if config.gateway.named_upstreams().is_none() {
                routes.iter_mut().for_each(|row| "the demo upstream".clone_into(&mut row.upstream));
            }
            (config.stream, routes)
        }),
        Program::Gateway => goldleaves_gateway::program::Config::read(&mut values)
            .map(|config| (Some(config.stream().clone()), config.route_table())),
        Program::MeterWorker => goldleaves_meter_worker::program::Config::read(&mut values).map(|_| (None, Vec::new())),
        Program::BillingApi => goldleaves_billing_api::program::Config::read(&mut values).map(|_| (None, Vec::new())),
        Program::Migrate => {
            MigrateConfig::read(&mut values, program).map(|config| (config.stream().cloned(), Vec::new()))
        }
    };
    let (readings, warnings) = (values.readings().cloned().collect(), values.warnings().to_vec());
    match values.finish_strictly(read) {
        Ok((stream, routes)) => {
            let room = stream.map(|stream| stream_room::ask(&stream));
            Checked { readings, warnings, room, routes, mistakes: None }
        }
        Err(mistakes) => Checked { readings, warnings, mistakes: Some(mistakes), ..Checked::default() },
    }
}

impl Checked {
    fn text(&self) -> String {
        let line = |reading: &Reading| {
            let (shown, layer) = (reading.shown.as_deref(), reading.layer.as_deref());
            format!("{} = {}  ({})\n", reading.setting.name, shown.unwrap_or("unset"), layer.unwrap_or("default"))
        };
        let room = self.room.iter().map(|room| format!("# {room}\n"));
        let route = |row: &RouteShown| {
            let RouteShown { path, methods, class, upstream, limits } = row;
            format!("# route {path}  {methods}  {class}  -> {upstream}  ({limits})\n")
        };
        self.readings.iter().map(line).chain(self.routes.iter().map(route)).chain(room).collect()
    }

    fn json(&self, program: Program) -> Value {
        let setting = |reading: &Reading| {
            json!({
                "name": reading.setting.name,
                "key": reading.setting.key,
                "value": reading.shown,
                "source": reading.layer,
                "secret": reading.setting.kind == SettingKind::Secret,
            })
        };
        let route = |row: &RouteShown| {
            let RouteShown { path, methods, class, upstream, limits } = row;
            json!({ "path": path, "methods": methods, "class": class, "upstream": upstream, "limits": limits })
        };
        let mistake = |mistake: &Mistake| json!({ "subject": mistake.subject, "text": mistake.text });
        json!({
            "program": program.name(),
            "valid": self.mistakes.is_none(),
            "settings": self.readings.iter().map(setting).collect::<Vec<_>>(),
            "warnings": self.warnings,
            "stream": self.room,
            "routes": self.routes.iter().map(route).collect::<Vec<_>>(),
            "mistakes": self.mistakes.iter().flat_map(Mistakes::iter).map(mistake).collect::<Vec<_>>(),
        })
    }
}
