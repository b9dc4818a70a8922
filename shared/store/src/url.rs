//! The URL of a database: judged before anybody is asked, and never repeated, because it may hold a password.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use sea_orm::sqlx::postgres::PgConnectOptions;

use crate::StoreError;

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

/// Whether an URL is of a database of a kind that can be opened; asks nobody.
///
/// # Errors
/// It is of none, or can't be read. The error repeats nothing of it.
pub fn check_url(url: &str) -> Result<(), StoreError> {
    match url.split_once(':') {
        Some(("sqlite", rest)) => sqlite_path(rest).map(drop).ok_or(StoreError::Url(None)),
        Some(("postgres" | "postgresql", _)) => {
            PgConnectOptions::from_str(url).map(drop).map_err(|error| StoreError::Url(Some(Box::new(error))))
        }
        _ => Err(StoreError::Url(None)),
    }
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
}
