//! The URL of a database: judged before anybody is asked, and never repeated, because it may hold a password.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use sea_orm::sqlx::ConnectOptions as _;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use crate::error::StoreError;

/// The URL of an SQLite file, whatever characters its path has.
pub fn sqlite_url(path: &Path) -> String {
    const ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');
    format!("sqlite://{}", percent_encoding::utf8_percent_encode(&path.to_string_lossy(), ESCAPED))
}

/// The file named by what follows `sqlite:`; `None` for databases in memory, which the readers would not see.
pub(crate) fn sqlite_path(rest: &str) -> Option<PathBuf> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    (!path.is_empty() && path != ":memory:").then(|| PathBuf::from(path.as_ref()))
}

/// Returns whether an URL is of a database of a kind that can be opened; asks nobody.
///
/// # Errors
/// It is of none, or can't be read. The error repeats nothing of it but the names of parameters.
pub(crate) fn check_url(url: &str) -> Result<(), StoreError> {
    match url.split_once(':') {
        Some(("sqlite", rest)) => sqlite_path(rest).map(drop).ok_or_else(StoreError::unknown_url),
        Some(("postgres" | "postgresql", _)) => PostgresUrl::parse(url).map(drop),
        _ => Err(StoreError::unknown_url()),
    }
}

/// Works like [`check_url`], for production: there a server that is reached over a network is encrypted or is not, but never by
/// what the two happen to agree on.
///
/// # Errors
/// As [`check_url`], or it does not say whether.
pub(crate) fn check_url_in_production(url: &str) -> Result<(), StoreError> {
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => {
            let url = PostgresUrl::parse(url)?;
            let is_network = url.options.get_socket().is_none() && !url.options.get_host().starts_with('/');
            if is_network && !url.says_sslmode { Err(StoreError::Url(NO_SSL_MODE.to_owned())) } else { Ok(()) }
        }
        _ => check_url(url),
    }
}

/// The parameters that a driver may be given.
const PARAMETERS: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
];

/// The parameter that says which server a session may be on.
const SESSION: &str = "target_session_attrs";

/// An URL of PostgreSQL, read.
#[derive(Debug, Clone)]
pub(crate) struct PostgresUrl {
    pub(crate) options: PgConnectOptions,
    /// True if a server that only reads is none.
    pub(crate) must_write: bool,
    /// True if it says what is encrypted.
    says_sslmode: bool,
}

impl PostgresUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        let mistake = |why: &str| StoreError::Url(why.to_owned());
        let authority = text.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(""));
        let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
        if hosts.contains(',') {
            return Err(mistake(SEVERAL_HOSTS));
        }
        let mut url: Url = text.parse().map_err(|_| mistake(UNREADABLE))?;
        if url.fragment().is_some() {
            return Err(mistake(UNREADABLE));
        }
        let (mut must_write, mut says_sslmode) = (false, false);
        let mut kept = Vec::new();
        for (key, value) in url.query_pairs() {
            match (&*key, &*value) {
                (SESSION, "read-write" | "primary") => must_write = true,
                (SESSION, "any") => {}
                (SESSION, _) => {
                    return Err(mistake("has a target_session_attrs that is none of any, read-write, primary"));
                }
                ("host" | "hostaddr", hosts) if hosts.contains(',') => return Err(mistake(SEVERAL_HOSTS)),
                ("sslmode" | "ssl-mode", mode) if mode.parse::<PgSslMode>().is_err() => return Err(mistake(SSL_MODES)),
                ("sslmode" | "ssl-mode", mode) => {
                    says_sslmode = true;
                    kept.push(("sslmode".to_owned(), mode.to_owned()));
                }
                (key, _) if PARAMETERS.contains(&key) || key == "options" || key.starts_with("options[") => {
                    kept.push((key.to_owned(), value.to_string()));
                }
                (key, _) => return Err(StoreError::Url(unknown(key))),
            }
        }
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
        let options = PgConnectOptions::from_str(url.as_str()).map_err(|_| mistake(UNREADABLE))?;
        // A pooler of sessions refuses to be told about digits. No number here is a float.
        let options = options.extra_float_digits(None).disable_statement_logging();
        Ok(Self { options, must_write, says_sslmode })
    }
}

const UNREADABLE: &str = "can't be read: of a user, a password or a database, every character other than letters, digits and \
                          - . _ ~ is written as % and two hex digits, so # is %23, ? is %3F, @ is %40 and / is %2F";
const SEVERAL_HOSTS: &str = "names several hosts, and only one is connected to: name an address that follows the primary, of a \
                             virtual IP, HAProxy or PgBouncer, with target_session_attrs=read-write";
const NO_SSL_MODE: &str = "has no sslmode, which ENVIRONMENT=production has to choose: add ?sslmode=verify-full (encrypted, to the \
                           server that sslrootcert knows), ?sslmode=require (encrypted) or, where the network is yours, \
                           ?sslmode=disable";
const SSL_MODES: &str = "has an sslmode that is none of disable, allow, prefer, require, verify-ca, verify-full";

/// A parameter that nothing here knows. It is named only if it looks like one: it may be the end of a password.
fn unknown(key: &str) -> String {
    const OTHERS: [&str; 12] = [
        "sslpassword",
        "sslcrl",
        "sslcompression",
        "sslnegotiation",
        "channel_binding",
        "connect_timeout",
        "client_encoding",
        "gssencmode",
        "keepalives",
        "tcp_user_timeout",
        "passfile",
        "service",
    ];
    if OTHERS.contains(&key) {
        return format!(
            "has the parameter {key}, which is not supported; there are {} and {SESSION}",
            PARAMETERS.join(", ")
        );
    }
    format!("has a parameter that is not known. It {UNREADABLE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_is_judged_before_anybody_is_asked() {
        for url in [
            "postgresql://user:password@host:5432/database",
            "postgres://host/database",
            "sqlite:///var/lib/goldleaves.db",
            "sqlite://goldleaves.db",
            &sqlite_url(Path::new("data/goldleaves.db")),
        ] {
            check_url(url).unwrap();
        }
        for url in ["mysql://user:hidden@host/database", "host/hidden", "sqlite://", "postgres://host:hidden/database"]
        {
            let error = check_url(url).unwrap_err();
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }

    #[test]
    fn production_chooses_what_is_encrypted() {
        for url in ["postgresql://app:hidden@host/database", "postgresql://127.0.0.1:5432/database?host=other"] {
            check_url(url).unwrap();
            let error = check_url_in_production(url).unwrap_err().to_string();
            assert!(
                error.contains("has no sslmode") && error.contains("require") && !error.contains("hidden"),
                "{error}"
            );
        }
        for url in [
            "postgresql://host/database?sslmode=verify-full",
            "postgresql://host/database?ssl-mode=disable",
            "postgresql:///database?host=/run/postgresql",
            "sqlite:///var/lib/goldleaves.db",
        ] {
            check_url_in_production(url).unwrap();
        }
        assert!(check_url_in_production("mysql://host/database").is_err());
    }

    #[test]
    fn a_mistake_is_named_and_nothing_of_a_secret() {
        for (url, said) in [
            ("postgresql://app:hid#den@host/database", "%23"),
            ("postgresql://app:123?hidden@host:5432/database", "%3F"),
            ("postgresql://app@one:5432,two:5432/database", "several hosts"),
            ("postgresql:///database?host=one,two", "several hosts"),
            ("postgresql://host/database?sslpassword=hidden", "sslpassword"),
            ("postgresql://host/database?sslmode=hidden", "verify-full"),
            ("postgresql://host/database?target_session_attrs=hidden", "read-write"),
            ("postgresql://host/database?connect_timeout=hidden", "connect_timeout"),
        ] {
            let error = check_url(url).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("hid"), "{error}");
        }
        for (url, must_write) in [
            ("postgresql://host/database?target_session_attrs=read-write&sslmode=require", true),
            ("postgresql://host/database?target_session_attrs=any", false),
            ("postgresql://host/database?application_name=a%20b&options=-c%20geqo%3Doff", false),
        ] {
            assert_eq!(PostgresUrl::parse(url).unwrap().must_write, must_write, "{url}");
        }
    }
}
