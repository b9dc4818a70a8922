//! The errors of a database, and whether the same call may succeed later.

use std::error::Error;
use std::io;

use sea_orm::{DbErr, RuntimeErr, SqlxError};

/// The reason the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not an URL of SQLite or PostgreSQL. The URL itself may hold a password and is never printed.
    #[error("the database URL {0}")]
    Url(String),
    /// The SQLite file or its directory can't be made.
    #[error("the database file {path} can't be opened")]
    File {
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// The server is there and refuses the login, or has no such database.
    #[error("the database server refuses DATABASE_URL: {said} ({code})")]
    Refused {
        /// The server's own words: they name the role or the database, never the password.
        said: String,
        /// SQLSTATE.
        code: String,
    },
    /// A pooler is in between, and a session is not a connection's own.
    #[error(
        "DATABASE_URL leads to a pooler that gives every transaction another session: let it pool sessions (PgBouncer: \
         pool_mode = session), or name the server itself"
    )]
    Pooled,
    /// The database lacks a step of the schema.
    #[error("the database lacks the schema of {step}: run migrate")]
    SchemaMissing {
        /// The first step it lacks.
        step: &'static str,
    },
    /// The database has a step that this program does not know.
    #[error("the database has the schema of {step}, made by a newer program")]
    SchemaNewer {
        /// The step.
        step: String,
    },
    /// Nothing is written yet: whether the schema is this program's is still to be seen.
    #[error("the schema of the database has not been seen yet")]
    SchemaUnseen,
    /// A stored row can't be read back: somebody else changed it.
    #[error("a stored row can't be read: {what}")]
    Unreadable {
        /// The column, and why.
        what: String,
    },
    /// The database took longer than allowed; whether it did the work is unknown.
    #[error("the database did not answer in time")]
    TimedOut,
    /// The database refused or is away.
    #[error("the database did not do it")]
    Database(#[from] DbErr),
}

impl StoreError {
    /// The error and its causes in one line. A cause that an error's own words end with, as those of database libraries do,
    /// is not said again.
    pub fn in_full(&self) -> String {
        let (mut text, mut last) = (self.to_string(), self.to_string());
        let mut cause = self.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !last.ends_with(&words) {
                text = format!("{text}: {words}");
                last = words;
            }
            cause = error.source();
        }
        text
    }

    /// Returns whether the same call may succeed later. When not, something in what was handed over, or in how the program is
    /// set up, is wrong.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut | Self::Pooled | Self::SchemaUnseen => true,
            Self::Database(error) => !is_about_the_data(error),
            Self::Url(_)
            | Self::File { .. }
            | Self::Refused { .. }
            | Self::SchemaMissing { .. }
            | Self::SchemaNewer { .. }
            | Self::Unreadable { .. } => false,
        }
    }

    /// An URL of no database that is known here.
    pub(crate) fn unknown_url() -> Self {
        let text = "is none of postgresql://user:password@host:port/database and sqlite:///path/to/file";
        Self::Url(text.to_owned())
    }

    /// Returns whether the connection it came over must not be used again: nothing came in time, the connection broke, or it leads
    /// to a server that only reads or ends.
    pub(crate) fn is_of_the_connection(&self) -> bool {
        let Some(error) = self.sqlx() else { return matches!(self, Self::TimedOut) };
        match error {
            SqlxError::Database(error) => error.code().is_some_and(|code| is_connection_code(&code)),
            SqlxError::Io(_) | SqlxError::Tls(_) | SqlxError::Protocol(_) | SqlxError::WorkerCrashed => true,
            _ => false,
        }
    }

    /// Returns whether a lock was waited for longer than everybody else should wait behind who waits.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        self.sqlx()
            .and_then(SqlxError::as_database_error)
            .and_then(|error| error.code())
            .is_some_and(|code| code == "55P03")
    }

    fn sqlx(&self) -> Option<&SqlxError> {
        let Self::Database(
            DbErr::Conn(RuntimeErr::SqlxError(error))
            | DbErr::Exec(RuntimeErr::SqlxError(error))
            | DbErr::Query(RuntimeErr::SqlxError(error)),
        ) = self
        else {
            return None;
        };
        Some(error.as_ref())
    }

    /// The same, named if it comes from a pooler that shares sessions out.
    pub(crate) fn named(self) -> Self {
        if self.sqlx().is_some_and(is_of_shared_sessions) { Self::Pooled } else { self }
    }

    /// Returns what became of an attempt to connect.
    pub(crate) fn of_the_login(error: SqlxError) -> Self {
        let said =
            error.as_database_error().map(|error| (error.code().unwrap_or_default().into_owned(), error.message()));
        match said {
            // Of a pooler it is the answer to `options` in the URL.
            Some((code, said)) if is_login_code(&code) || said.contains("unsupported startup parameter") => {
                Self::Refused { said: said.to_owned(), code }
            }
            _ => Self::Database(away(error)),
        }
    }

    /// A column of a stored row that can't be read, and why.
    pub fn unreadable(column: &str, error: impl std::fmt::Display) -> Self {
        Self::Unreadable { what: format!("{column}: {error}") }
    }
}

/// Returns whether a full or broken disk under SQLite is among an error's causes: it may be better later, without anybody changing
/// anything here.
pub fn is_of_the_disk(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source()).any(|cause| {
        let sqlite = match cause.downcast_ref::<RuntimeErr>() {
            Some(RuntimeErr::SqlxError(error)) => Some(error.as_ref()),
            _ => cause.downcast_ref::<SqlxError>(),
        };
        let code = sqlite.and_then(SqlxError::as_database_error).and_then(|error| error.code());
        code.is_some_and(|code| is_disk_code(&code)) || cause.downcast_ref::<io::Error>().is_some_and(is_full)
    })
}

/// Returns whether the file system has no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// SQLite: input/output error and full disk, in the low byte of the extended code.
fn is_disk_code(code: &str) -> bool {
    code.len() != 5 && code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 10 | 13))
}

/// PostgreSQL: a server that only reads, one that ends or starts, and the class connection exception.
fn is_connection_code(code: &str) -> bool {
    code.len() == 5 && (matches!(code, "25006" | "57P01" | "57P02" | "57P03") || code.starts_with("08"))
}

/// PostgreSQL: the class invalid authorization, and a database that does not exist.
fn is_login_code(code: &str) -> bool {
    code.starts_with("28") || code == "3D000"
}

/// Returns whether a database refused values. Everything else (away, full, read-only, a deadlock, a missing table) has nothing
/// to do with what a batch holds, so nothing is set aside for it.
fn is_about_the_data(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return false;
    };
    match error.as_ref() {
        SqlxError::Encode(_) => true,
        SqlxError::Database(error) => error.code().is_some_and(|code| is_data_code(&code)),
        _ => false,
    }
}

/// The codes that say of a value by itself that no ledger holds it: too long, out of range, a time that is none, a
/// character that is none, a text that is none of its type, too large for an index. A constraint is not among them:
/// somebody made it, or a partition is missing, and the next row will be refused as well.
const DATA_CODES: [&str; 9] = ["22001", "22003", "22007", "22008", "22021", "22P02", "22P03", "22P05", "54000"];

/// PostgreSQL: [`DATA_CODES`]. SQLite: too big and mismatch, in the low byte of the extended code.
fn is_data_code(code: &str) -> bool {
    if code.len() == 5 {
        return DATA_CODES.contains(&code);
    }
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 18 | 20))
}

/// A connection that is not there, or not there any more.
pub(crate) fn away(error: SqlxError) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}

/// Returns whether an error says that a session is not a connection's own: a prepared statement is there that the driver did not
/// prepare, or not there that it did; or PgBouncer lets no transaction last for more than a statement.
pub(crate) fn is_of_shared_sessions(error: &SqlxError) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    let code = error.code().unwrap_or_default();
    matches!(&*code, "42P05" | "26000") || error.message().contains("statement pooling mode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refused_values_are_about_the_data() {
        for code in DATA_CODES.into_iter().chain(["18", "20"]) {
            assert!(is_data_code(code), "{code}");
        }
        for code in [
            "08006", "22012", "22023", "23502", "23505", "23514", "40001", "40P01", "42804", "53100", "54001", "57P01",
            "57014", "25006", "42P01", "5", "261", "10", "13", "8", "19", "275", "1555", "2067", "1811", "25",
        ] {
            assert!(!is_data_code(code), "{code}");
        }
    }

    #[test]
    fn what_leads_to_no_server_that_writes_is_of_the_connection() {
        for code in ["25006", "57P01", "57P02", "57P03", "08006", "08P01"] {
            assert!(is_connection_code(code), "{code}");
        }
        for code in ["57014", "40001", "40P01", "55P03", "53300", "25001", "23505", "8", "1032"] {
            assert!(!is_connection_code(code), "{code}");
        }
        assert!(StoreError::TimedOut.is_of_the_connection());
    }

    #[test]
    fn only_login_and_database_are_of_the_login() {
        for code in ["28000", "28P01", "3D000"] {
            assert!(is_login_code(code), "{code}");
        }
        // Starting, stopping, and too many connections pass by themselves.
        for code in ["57P03", "57P01", "53300", "08006", "3F000", "42501"] {
            assert!(!is_login_code(code), "{code}");
        }
    }

    #[test]
    fn only_the_disk_is_of_the_disk() {
        for code in ["10", "13", "778", "4874"] {
            assert!(is_disk_code(code), "{code}");
        }
        for code in ["1", "5", "8", "11", "14", "19", "26", "53100", "58030"] {
            assert!(!is_disk_code(code), "{code}");
        }
        let file = |kind: io::ErrorKind| StoreError::File { path: "/data".to_owned(), source: kind.into() };
        assert!(is_of_the_disk(&file(io::ErrorKind::StorageFull)));
        assert!(!is_of_the_disk(&file(io::ErrorKind::PermissionDenied)));
    }
}
