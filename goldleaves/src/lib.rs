//! Wiring and commands: the one-process program and `migrate`. It has no logic of its own.

pub mod cli;
pub mod config;
pub mod migrate;

mod banner;
mod broker;
mod check_config;
mod demo;
mod prepare;
mod rate_cards;
mod replay;
mod run;
mod secret;
mod spool_status;
mod token;

use anyhow::Result;
use goldleaves_runtime::settings::{parse, table};
use goldleaves_runtime::{Exit, process};

use crate::cli::{Arguments, Command, Program, SpoolCommand};
use crate::config::{Config, TokenConfig};
use crate::migrate::MigrateConfig;

/// Does what the command line says.
pub fn main(arguments: Arguments) -> Exit {
    let done = match arguments.command {
        None => process::settings(Config::read).map(run::run),
        Some(Command::Token(arguments)) => {
            process::settings(TokenConfig::read).map(|config| print_token(&config, &arguments))
        }
        Some(Command::Migrate(arguments)) => {
            process::settings(|values| MigrateConfig::read(values, Program::Goldleaves))
                .map(|config| migrate::run(&config, arguments.direction))
        }
        Some(Command::Replay(arguments)) => {
            process::settings(replay::ReplayConfig::read).map(|config| replay::run(&config, arguments))
        }
        Some(Command::RateCards { command }) => {
            process::settings(rate_cards::RateCardsConfig::read).map(|config| rate_cards::run(&config, command))
        }
        Some(Command::CheckConfig { program }) => Ok(check_config::run(program)),
        Some(Command::Spool { command: SpoolCommand::Status }) => {
            process::settings(|values| values.required(table::DATA_DIR, parse::path))
                .map(|data_dir| spool_status::run(&data_dir))
        }
    };
    done.unwrap_or_else(|exit| exit)
}

fn print_token(config: &TokenConfig, arguments: &cli::TokenArguments) -> Exit {
    let signed = secret::token_options(&config.jwt, &config.data_dir)
        .and_then(|options| token::sign(&options, arguments, config.jwt.lifetime))
        .and_then(print_line);
    match signed {
        Ok(()) => Exit::Done,
        Err(error) => {
            process::say(&format_args!("token: {error:#}"));
            Exit::Failed("token".to_owned())
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn print_line(line: String) -> Result<()> {
    println!("{line}");
    Ok(())
}
