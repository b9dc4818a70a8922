//! The command line that all programs have in common: `--help`, `--version`, `--config FILE`, and an answer to anything
//! unknown that names the nearest known argument.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};

use crate::exit::Exit;
use crate::settings::edit_distance;
use crate::terminal;

/// The version of this build and the commit it was made from, as `--version` says it.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("GOLDLEAVES_COMMIT"), env!("GOLDLEAVES_PROFILE"), ")");
/// The commit this build was made from, `unknown` outside a checkout.
pub(crate) const COMMIT: &str = env!("GOLDLEAVES_COMMIT");

const CONFIG: &str = "config";

/// A program that takes no arguments of its own.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// The purpose of the program, in one line.
    pub about: &'static str,
}

impl Program {
    /// Its command line: what all programs have in common is added by [`parse`].
    pub fn command(self) -> Command {
        let more = "Settings are environment variables, or keys of goldleaves.toml in the working directory.\n\
                    `goldleaves check-config --program NAME` says what a program reads; docs/SETTINGS.md lists them all.";
        Command::new(self.name).about(self.about).after_help(more)
    }
}

/// Returns what the command line says. Help, the version and mistakes are printed here.
///
/// # Errors
/// [`Exit::Done`] after help or the version, [`Exit::Usage`] after a mistake.
pub fn parse(command: Command, line: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, Exit> {
    let command = with_common(command);
    let line: Vec<OsString> = line.into_iter().collect();
    command.clone().try_get_matches_from(&line).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            terminal::answer(&format!("{}\n", error.render().to_string().trim_end()))
        }
        _ => {
            terminal::say(&mistake(&command, &line, &error));
            Exit::Usage
        }
    })
}

/// The file that `--config` names.
pub(crate) fn config_file(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<PathBuf>(CONFIG).cloned()
}

fn with_common(command: Command) -> Command {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(ValueParser::path_buf())
        .global(true)
        .help("Read this file instead of ./goldleaves.toml (also: the variable CONFIG_FILE)");
    command.version(VERSION).propagate_version(true).arg(config)
}

/// Returns what is wrong with a command line.
fn mistake(command: &Command, line: &[OsString], error: &clap::Error) -> String {
    let unknown = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].into_iter().find_map(|kind| {
        match (error.kind(), error.get(kind)) {
            (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, Some(ContextValue::String(word))) => Some(word),
            _ => None,
        }
    });
    let Some(unknown) = unknown else { return error.render().to_string().trim_end().to_owned() };
    let (path, known) = known(command.clone(), line);
    // `--verison=x` and `--verison` are the same mistake.
    let typed = unknown.split_once('=').map_or(unknown.as_str(), |(name, _)| name);
    let nearest = known.iter().min_by_key(|word| edit_distance(typed, word)).map_or("--help", String::as_str);
    format!(
        "{path}: unknown argument {unknown:?}; the nearest known one is {nearest}\n{path} --help says what there is"
    )
}

/// The command that the line was in, and every word that it knows there.
fn known(mut command: Command, line: &[OsString]) -> (String, Vec<String>) {
    command.build();
    let (mut at, mut path) = (&command, command.get_name().to_owned());
    for word in line.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(inner) = at.find_subcommand(word) {
            at = inner;
            path = format!("{path} {word}");
        }
    }
    let options = at.get_opts().chain(at.get_arguments().filter(|argument| !argument.get_action().takes_values()));
    let options = options.filter_map(|option| option.get_long()).map(|long| format!("--{long}"));
    let words = at.get_subcommands().map(|inner| inner.get_name().to_owned());
    (path, words.chain(options).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<OsString> {
        std::iter::once("tool").chain(words.iter().copied()).map(OsString::from).collect()
    }

    fn tool() -> Command {
        let role = Arg::new("role").long("role");
        Command::new("tool").subcommand(Command::new("token").arg(role)).subcommand(Command::new("migrate"))
    }

    fn said(command: &Command, words: &[&str]) -> String {
        let (command, line) = (with_common(command.clone()), line(words));
        let error = command.clone().try_get_matches_from(&line).unwrap_err();
        mistake(&command, &line, &error)
    }

    #[test]
    fn the_nearest_known_word_is_named() {
        let plain = Program { name: "tool", about: "does" }.command();
        for (words, nearest) in [
            (&["--verison"][..], "--version"),
            (&["--verison=1"], "--version"),
            (&["--conf", "x"], "--config"),
            (&["--hlep"], "--help"),
            (&["-x"], "--"),
            (&["anything"], "--"),
        ] {
            let said = said(&plain, words);
            assert!(
                said.starts_with("tool: unknown argument ") && said.contains(&format!("one is {nearest}")),
                "{said}"
            );
        }
        for (words, nearest) in [
            (&["tokn"][..], "token"),
            (&["--config", "f", "migrat"], "migrate"),
            (&["token", "--rule", "x"], "--role"),
            (&["token", "--confg", "x"], "--config"),
        ] {
            let said = said(&tool(), words);
            assert!(said.contains(&format!("the nearest known one is {nearest}\n")), "{said}");
        }
    }

    #[test]
    fn the_file_is_taken_before_and_behind_a_command() {
        for words in [&["--config", "/a", "token"][..], &["token", "--config=/a"]] {
            let matches = parse(tool(), line(words)).unwrap();
            assert_eq!(config_file(&matches), Some(PathBuf::from("/a")), "{words:?}");
        }
        assert_eq!(config_file(&parse(tool(), line(&["token"])).unwrap()), None);
    }

    #[test]
    fn mistakes_end_with_the_code_of_wrong_usage() {
        for words in [&["--unknown"][..], &["token", "--role"], &["--config"], &["--config", "a", "--config", "b"]] {
            assert_eq!(parse(tool(), line(words)).unwrap_err(), Exit::Usage, "{words:?}");
        }
        assert_eq!(Exit::Usage.code(), 64);
    }
}
