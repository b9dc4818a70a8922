//! The first and the last thing a program does: read its settings, and say how it ended.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Command};

use crate::arguments::{self, Program};
use crate::exit::Exit;
use crate::files::Pipes;
use crate::settings::{Again, CONFIG_FILE, FILE_NAME, File, Mistakes, Values};
use crate::signals;
pub use crate::terminal::{answer, print, say, show};

/// The time for which threads are waited for in the end that wait for a disk that stands still.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// A program that takes no arguments of its own, from the first thing it does to the last: its command line, its settings,
/// its work, its exit code.
pub fn main<C>(
    program: Program,
    read: impl FnOnce(&mut Values) -> Option<C>,
    run: impl FnOnce(&C) -> Exit,
) -> ExitCode {
    let done =
        begin(program.command()).and_then(|matches| Source::of(&matches).settings(read)).map(|config| run(&config));
    end(done.unwrap_or_else(|exit| exit))
}

/// The first thing a program does: from here on no signal ends it that it does not know, and its command line is read.
///
/// # Errors
/// As [`arguments::parse`].
pub fn begin(command: Command) -> Result<ArgMatches, Exit> {
    signals::survive();
    // A heap of few MiB would be held in pages of 2 MiB, mostly empty: twice the memory for no time that could be measured. Kernels
    // that know no such pages refuse, and need no telling.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    arguments::parse(command, std::env::args_os())
}

/// Where the settings of this process come from: its environment, over one file.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file that an argument names.
    file: Option<PathBuf>,
}

impl Source {
    /// The environment, over the file that an argument or `CONFIG_FILE` names, else `./goldleaves.toml`.
    pub fn of(matches: &ArgMatches) -> Self {
        Self { file: arguments::config_file(matches) }
    }

    /// The same with another file, if one is named.
    #[must_use]
    pub fn or_file(mut self, file: Option<PathBuf>) -> Self {
        self.file = file.or(self.file);
        self
    }

    /// The settings themselves.
    ///
    /// # Errors
    /// The file can't be read, or is named and not there.
    pub fn values(&self) -> Result<Values, Mistakes> {
        let file = self.open(Pipes::ReadOnce)?;
        Ok(self.load(file))
    }

    fn load(&self, file: Option<File>) -> Values {
        let (open, load) = (self.clone(), self.clone());
        let again = Again::new(self.path(), move || open.open(Pipes::Drained), move |file| load.load(file));
        Values::load_file(std::env::vars_os(), file).read_again_by(again)
    }

    /// An argument may name a pipe, such as a shell makes of `<(…)`. A variable, which children inherit, names a file.
    fn open(&self, pipes: Pipes) -> Result<Option<File>, Mistakes> {
        match (&self.file, variable()) {
            (Some(file), _) => File::named("--config", file, pipes).map(Some),
            (None, Some(file)) => File::named(CONFIG_FILE, &file, Pipes::Refused).map(Some),
            (None, None) => File::in_folder(Path::new(".")),
        }
    }

    fn path(&self) -> PathBuf {
        self.file.clone().or_else(variable).unwrap_or_else(|| PathBuf::from(FILE_NAME))
    }

    /// Reads a program's settings; every mistake goes to standard error.
    ///
    /// # Errors
    /// [`Exit::Settings`] when there is a mistake.
    pub fn settings<C>(&self, read: impl FnOnce(&mut Values) -> Option<C>) -> Result<C, Exit> {
        let config = self.values().and_then(|mut values| {
            let config = read(&mut values);
            values.finish(config)
        });
        config.map_err(|mistakes| {
            say(&mistakes);
            Exit::Settings
        })
    }
}

/// The file that `CONFIG_FILE` names.
fn variable() -> Option<PathBuf> {
    std::env::var_os(CONFIG_FILE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Runs a service on a runtime of its own, until it was told to stop. What keeps it from starting goes to standard error.
pub fn serve<E>(name: &str, service: impl Future<Output = Result<Exit, E>>) -> Exit
where
    E: AsRef<dyn Error>,
{
    let why =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()
        {
            Ok(runtime) => {
                let served = runtime.block_on(service);
                runtime.shutdown_timeout(LEFT_BEHIND);
                match served {
                    Ok(exit) => return exit,
                    Err(error) => chain(error.as_ref()),
                }
            }
            Err(error) => format!("the runtime can't be started: {error}"),
        };
    say(&format_args!("{name} can't start: {why}"));
    Exit::Failed("start".to_owned())
}

/// Says on standard error how the program ended, where that is not obvious, and gives the code.
pub fn end(exit: Exit) -> ExitCode {
    match &exit {
        Exit::Done | Exit::Usage | Exit::Settings => {}
        Exit::Failed(task) => say(&format_args!("stopped: {task} failed")),
        Exit::Pending(what) => say(&format_args!("still to be done: {what}")),
        Exit::Unfinished(tasks) => say(&format_args!("stopped before these had finished: {}", tasks.join(", "))),
    }
    exit.into()
}

/// An error and all its causes in one line. A cause that an error's own words hold already, as many libraries' do, is not
/// said again.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !last.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
            last = words;
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// An error of many libraries: its words end with those of its cause, which it names as its source as well.
    #[derive(Debug, thiserror::Error)]
    #[error("connecting: {0}")]
    struct Repeats(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("the database did not do it")]
    struct Plain(#[source] Repeats);

    #[test]
    fn each_cause_is_said_once() {
        let refused = io::Error::other("refused");
        let text = chain(&Plain(Repeats(refused)));
        assert_eq!(text, "the database did not do it: connecting: refused");
    }
}
