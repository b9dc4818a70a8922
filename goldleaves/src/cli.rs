//! The command line.

use std::fmt::Display;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum};
use goldleaves_domain::{TenantId, Timestamp, UserId};
use goldleaves_ledger::Leap;
use goldleaves_stream::Position;

/// Goldleaves: an API gateway that meters what it serves, and a ledger that bills it.
///
/// Without a command it runs everything in one process: gateway, meter and billing API, with SQLite and a local spool
/// under DATA_DIR. Settings are environment variables or keys of goldleaves.toml.
#[derive(Debug, Parser)]
#[command(name = "goldleaves")]
pub struct Arguments {
    /// Print addresses, a sample token and curl lines on standard output, also where that is no terminal
    #[arg(long)]
    pub banner: bool,
    /// The command to run instead of the service.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Arguments {
    /// Returns whether somebody is to be shown addresses and lines to paste: a token belongs on a screen, not into whatever keeps
    /// what a service prints.
    pub fn banner(&self) -> BannerSwitch {
        if self.banner || std::io::stdout().is_terminal() { BannerSwitch::Shown } else { BannerSwitch::Hidden }
    }
}

/// Says whether addresses, a token and lines to paste are printed at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BannerSwitch {
    /// Printed.
    Shown,
    /// Not printed; the log has the addresses.
    Hidden,
}

/// The commands beside the service.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a signed token for development, alone on standard output
    Token(TokenArguments),
    /// Make the schema and the rate version (and, with NATS_URL, the stream); or undo, or say where it stands
    Migrate(MigrateArguments),
    /// Report every mistake in the settings at once, or say what they are
    CheckConfig(CheckConfigArguments),
    /// Record again what the stream holds between two places; what the ledger has changes nothing
    Replay(ReplayArguments),
    /// Export rate cards from a ledger, or import them before it is built again from the stream
    RateCards {
        /// The direction
        #[command(subcommand)]
        command: RateCardsCommand,
    },
    /// Take what bills are made by out of a ledger, or into one: cards, corrections, periods, zones, rows for Stripe
    Billing {
        /// The direction
        #[command(subcommand)]
        command: BillingCommand,
    },
    /// Look at the spool in DATA_DIR
    Spool {
        /// The work to do with it
        #[command(subcommand)]
        command: SpoolCommand,
    },
}

/// The program whose settings are checked.
#[derive(Debug, clap::Args)]
pub struct CheckConfigArguments {
    /// The program whose settings are checked
    #[arg(long, value_enum, default_value_t = Program::Goldleaves)]
    pub program: Program,
    /// The file of settings, as --config names it
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// Answer with one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The part of the stream that is replayed.
///
/// A place is one of: a sequence of the stream (120000), an RFC 3339 time (2026-01-31T12:00:00Z), a date (2026-01-31: its
/// first moment in UTC), or the word `first`. Times are those of storing in the stream, never before the call itself.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(
    about = "Record again what the stream USAGE holds between two places",
    long_about = "Record again what the stream USAGE holds between two places, into the database of DATABASE_URL.\n\n\
        A place is one of: a sequence of the stream (120000), an RFC 3339 time (2026-01-31T12:00:00Z), a date (2026-01-31, \
        its first moment in UTC), or the word first (the oldest message there is). Times are those of storing in the \
        stream, which is never before the call itself.\n\n\
        Events that the ledger has change nothing, for ever: a replay may be repeated, broken off with Ctrl-C (it says \
        where to go on) and run beside workers. It reads through a consumer of its own, which takes a NATS login that may \
        make one."
)]
pub struct ReplayArguments {
    /// The first message: a sequence, a time, a date, or `first`
    #[arg(long, value_name = "PLACE", allow_negative_numbers = true)]
    pub from: Position,
    /// The last message: a sequence (included), or a time or date (what was stored before it) [default: the last message
    /// at the start]
    #[arg(long, value_name = "PLACE", allow_negative_numbers = true)]
    pub to: Option<Position>,
    /// Read everything and say what is there, but record nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The commands for rate cards.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum RateCardsCommand {
    /// Print every version on standard output, one JSON object per line
    Export,
    /// Read what export printed from standard input; what contradicts cards that were used is refused
    Import,
}

/// The commands for what bills are made by.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum BillingCommand {
    /// Print every row on standard output, one JSON object per line
    Export,
    /// Read what export, or rate-cards export, printed from standard input; what contradicts a row that is there is refused
    Import,
}

/// The commands for a spool from outside.
#[derive(Debug, Subcommand)]
pub enum SpoolCommand {
    /// Say what it holds, also while a program uses it
    Status,
    /// Hand over what a stopped program left, and end: exit code 0 when nothing is left, 75 otherwise
    Relay {
        /// The longest time that it may take
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        timeout_secs: u64,
    },
    /// Hand over again what was confirmed and is still retained; what the ledger has changes nothing
    Resend {
        /// Only what was recorded at this time or later: RFC 3339 (2026-01-31T12:00:00Z), or a date (its first moment in UTC)
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
    },
}

/// The subject of a token.
#[derive(Debug, clap::Args)]
pub struct TokenArguments {
    /// The tenant whose usage it is
    #[arg(long, value_parser = name::<TenantId>)]
    pub tenant: TenantId,
    /// The user who calls
    #[arg(long, value_parser = name::<UserId>)]
    pub user: UserId,
    /// A role: admin, billing:read, billing:write; may be given several times
    #[arg(long = "role")]
    pub roles: Vec<String>,
    /// The lifetime of the token [default: JWT_EXPIRATION_MINUTES]
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=5_256_000))]
    pub ttl_minutes: Option<u32>,
}

/// A name that the gateway takes from a token.
fn name<T>(text: &str) -> Result<T, String>
where
    T: FromStr,
    T::Err: Display,
{
    if text.trim() != text {
        return Err(format!("a name has no blanks at either end: {:?} would be right", text.trim()));
    }
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// The direction of the migration.
#[derive(Debug, clap::Args)]
pub struct MigrateArguments {
    /// The direction
    #[arg(value_enum, default_value_t = CardsDirection::Up)]
    pub direction: CardsDirection,
    /// Change the price also by more than a factor of four
    #[arg(long)]
    pub yes: bool,
    /// With down: destroy so many rows, as it just said
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub yes_drop: Option<u64>,
    /// With status: answer with one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The form in which a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputForm {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl MigrateArguments {
    /// Returns the form in which `status` answers.
    pub const fn form(&self) -> OutputForm {
        if self.json { OutputForm::Json } else { OutputForm::Text }
    }

    /// Returns the bounds within which the price may change.
    pub const fn leap(&self) -> Leap {
        if self.yes { Leap::Allowed } else { Leap::Refused }
    }
}

/// The direction of the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CardsDirection {
    /// Make what is missing
    Up,
    /// Take one step of the schema back; what that destroys is said first, and goes with --yes-drop alone
    Down,
    /// Say which steps are done, what the price is, and whether the stream is there; exit code 1 while steps are pending
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

impl Program {
    /// Its name, as it is typed.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_only_for_names_that_the_gateway_takes() {
        let parsed = |tenant, user| {
            Arguments::try_parse_from(["goldleaves", "token", "--tenant", tenant, "--user", user])
                .map_err(|error| error.to_string())
        };
        assert!(parsed("acme & sons", "ada").is_ok());
        for (tenant, user) in [(" acme", "ada"), ("acme\u{a0}", "ada"), ("acme", "ada ")] {
            let error = parsed(tenant, user).unwrap_err();
            let right = if user == "ada" { "\"acme\" would be right" } else { "\"ada\" would be right" };
            assert!(error.contains("no blanks at either end") && error.contains(right), "{error}");
        }
        assert!(parsed("", "ada").is_err() && parsed("acme", "a\nb").is_err());
    }

    #[test]
    fn a_number_below_zero_is_a_wrong_value_and_no_unknown_argument() {
        for line in [
            "migrate down --yes-drop -5",
            "replay --from -1",
            "replay --from first --to -1",
            "spool relay --timeout-secs -1",
            "token --tenant acme --user ada --ttl-minutes -1",
        ] {
            let (value, argument) = (line.rsplit(' ').next().unwrap(), line.rsplit(' ').nth(1).unwrap());
            let words = std::iter::once("goldleaves").chain(line.split(' '));
            let said = Arguments::try_parse_from(words).unwrap_err().to_string();
            assert!(said.contains(&format!("invalid value '{value}' for '{argument}")), "{line}: {said}");
        }
    }
}
