//! Wiring and commands: the one-process program and `migrate`. It has no logic of its own.

pub mod cli;
pub mod config;
pub mod migrate;
pub mod migrate_config;

mod again;
mod banner;
mod billing;
mod broker;
mod check_config;
mod demo;
mod migrate_status;
mod prepare;
mod rate_cards;
mod recall;
mod replay;
mod run;
mod secret;
mod spool_relay;
mod spool_resend;
mod spool_status;
mod stream_room;
mod token;

use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use goldleaves_auth::Role;
use goldleaves_runtime::process::Source;
use goldleaves_runtime::settings::{parse, table};
use goldleaves_runtime::{Exit, process};

use crate::cli::{Arguments, Command, Program, SpoolCommand};
use crate::config::{Config, TokenConfig};
use crate::migrate_config::MigrateConfig;

/// Does what the command line says.
pub fn main() -> Exit {
    let begun = process::begin(Arguments::command()).and_then(|matches| {
        let arguments = Arguments::from_arg_matches(&matches).map_err(|error| {
            process::say(&error);
            Exit::Usage
        });
        Ok((Source::of(&matches), arguments?))
    });
    let done = begun.and_then(|(source, arguments)| match arguments.command {
        None => source.settings(Config::read).map(|config| run::run(config, arguments.banner())),
        Some(command) => run_command(command, &source),
    });
    done.unwrap_or_else(|exit| exit)
}

fn run_command(command: Command, source: &Source) -> Result<Exit, Exit> {
    match command {
        Command::Token(arguments) => source.settings(TokenConfig::read).map(|config| print_token(&config, &arguments)),
        Command::Migrate(arguments) => source
            .settings(|values| MigrateConfig::read(values, Program::Goldleaves))
            .map(|config| migrate::run(&config, &arguments)),
        Command::Replay(arguments) => {
            source.settings(replay::ReplayConfig::read).map(|config| replay::run(&config, arguments))
        }
        Command::RateCards { command } => {
            source.settings(rate_cards::RateCardsConfig::read).map(|config| rate_cards::run(&config, command))
        }
        Command::Billing { command } => {
            source.settings(billing::BillingCommandConfig::read).map(|config| billing::run(&config, command))
        }
        Command::CheckConfig(arguments) => Ok(check_config::run(arguments, source)),
        Command::Spool { command: SpoolCommand::Relay { timeout_secs } } => source
            .settings(spool_relay::RelayConfig::read)
            .map(|config| spool_relay::run(&config, Duration::from_secs(timeout_secs))),
        Command::Spool { command } => {
            source.settings(|values| values.required(table::DATA_DIR, parse::path)).map(|data_dir| match command {
                SpoolCommand::Resend { since } => spool_resend::run(&data_dir, since),
                SpoolCommand::Status | SpoolCommand::Relay { .. } => spool_status::run(&data_dir),
            })
        }
    }
}

fn print_token(config: &TokenConfig, arguments: &cli::TokenArguments) -> Exit {
    config.warnings.iter().for_each(|warning| process::say(&format_args!("token: {warning}")));
    for role in arguments.roles.iter().filter(|role| Role::from_name(role).is_none()) {
        process::say(&format_args!(
            "token: the role {role:?} is in the token and gives no right here: Goldleaves knows admin, billing:read and \
             billing:write"
        ));
    }
    let signed = secret::token_options(&config.jwt, &config.data_dir).map(|(options, made)| {
        if let Some(file) = made {
            process::say(&format_args!(
                "token: JWT_SECRET is unset, and DATA_DIR had no secret yet: made one in {}. A server with another \
                 DATA_DIR, or with a JWT_SECRET of its own, refuses this token",
                file.display()
            ));
        }
        token::sign(&options, arguments, config.jwt.lifetime)
    });
    match signed {
        Ok(token) => process::answer(&format!("{token}\n")),
        Err(error) => {
            process::say(&format_args!("token: {}", process::chain(error.as_ref())));
            Exit::Failed("token".to_owned())
        }
    }
}
