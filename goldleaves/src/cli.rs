//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use goldleaves_domain::{TenantId, UserId};

/// Goldleaves: an API gateway that meters what it serves, and a ledger that bills it.
///
/// Without a command it runs everything in one process: gateway, meter and billing API, with SQLite and a local spool
/// under DATA_DIR. Settings are environment variables or keys of goldleaves.toml.
#[derive(Debug, Parser)]
#[command(name = "goldleaves", version)]
pub struct Arguments {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of running.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a signed token for development, alone on standard output
    Token(TokenArguments),
    /// Make the schema and the rate version (and, with NATS_URL, the stream); or undo, or say where it stands
    Migrate(MigrateArguments),
    /// Report every mistake in the settings at once, or say what they are
    CheckConfig {
        /// The program whose settings are checked
        #[arg(long, value_enum, default_value_t = Program::Goldleaves)]
        program: Program,
    },
    /// Look at the spool in DATA_DIR
    Spool {
        /// What to do with it
        #[command(subcommand)]
        command: SpoolCommand,
    },
}

/// What can be done with a spool from outside.
#[derive(Debug, Subcommand)]
pub enum SpoolCommand {
    /// Say what it holds, also while a program uses it
    Status,
}

/// Whom a token is for.
#[derive(Debug, clap::Args)]
pub struct TokenArguments {
    /// The tenant whose usage it is
    #[arg(long)]
    pub tenant: TenantId,
    /// The user who calls
    #[arg(long)]
    pub user: UserId,
    /// A role: admin, billing:read, billing:write; may be given several times
    #[arg(long = "role")]
    pub roles: Vec<String>,
    /// How long it is valid [default: JWT_EXPIRATION_MINUTES]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=5_256_000))]
    pub ttl_minutes: Option<u32>,
}

/// Which way to migrate.
#[derive(Debug, clap::Args)]
pub struct MigrateArguments {
    /// Which way
    #[arg(value_enum, default_value_t = Direction::Up)]
    pub direction: Direction,
}

/// Which way to migrate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// Make what is missing
    Up,
    /// Undo the whole schema, with all that is in it
    Down,
    /// Say which steps are done
    Status,
}

/// The programs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// Everything in one process
    Goldleaves,
    /// The gateway alone
    Gateway,
    /// The meter alone
    MeterWorker,
    /// The billing API alone
    BillingApi,
    /// The program that makes the schema
    Migrate,
}
