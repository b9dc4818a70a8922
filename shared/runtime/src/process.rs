//! The first and the last thing a program does: read its settings, and say how it ended.

use std::path::Path;
use std::process::ExitCode;

use crate::Exit;
use crate::settings::{Mistakes, Values, file_in};

/// The settings of this process: its environment over the `goldleaves.toml` of its working directory.
///
/// # Errors
/// The file is there but cannot be read.
pub fn values() -> Result<Values, Mistakes> {
    let file = file_in(Path::new("."))?;
    Ok(Values::load(std::env::vars_os(), file.as_deref()))
}

/// Reads a program's settings; every mistake goes to standard error.
///
/// # Errors
/// [`Exit::Settings`] when there is a mistake.
pub fn settings<C>(read: impl FnOnce(&mut Values) -> Option<C>) -> Result<C, Exit> {
    let config = values().and_then(|mut values| {
        let config = read(&mut values);
        values.finish(config)
    });
    config.map_err(|mistakes| {
        say(&mistakes);
        Exit::Settings
    })
}

/// Says on standard error how the program ended, where that is not obvious, and gives the code.
pub fn end(exit: Exit) -> ExitCode {
    match &exit {
        Exit::Done | Exit::Settings => {}
        Exit::Failed(task) => say(&format_args!("stopped: {task} failed")),
        Exit::Unfinished(tasks) => say(&format_args!("stopped before these had finished: {}", tasks.join(", "))),
    }
    exit.into()
}

/// One text for people on standard error, which is where logs go too.
pub fn say(text: &dyn std::fmt::Display) {
    use std::io::Write;

    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// An error and all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
