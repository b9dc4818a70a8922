//! Which schema the ledger needs. A test keeps the list equal to that of `goldleaves-migrations`.

use crate::dialect::read;
use crate::rows::Params;
use crate::{Ledger, LedgerError};

/// Every step of the schema that this crate was written for, in order.
pub(crate) const STEPS: [&str; 1] = ["m20261124_000001_usage_ledger"];

impl Ledger {
    /// Whether the database has the schema this program was written for.
    ///
    /// # Errors
    /// [`LedgerError::SchemaMissing`] or [`LedgerError::SchemaNewer`]; any other error says that it could not be found out.
    pub async fn check_schema(&self) -> Result<(), LedgerError> {
        let table = match self.dialect() {
            crate::dialect::Dialect::Postgres => "SELECT to_regclass('seaql_migrations')::text AS name",
            crate::dialect::Dialect::Sqlite => {
                "SELECT (SELECT name FROM sqlite_schema WHERE name = 'seaql_migrations') AS name"
            }
        };
        let table = self.read(table, Params::default()).await?;
        let has_table = match table.first() {
            Some(row) => read::<Option<String>>(row, "name")?.is_some(),
            None => false,
        };
        let mut applied = Vec::new();
        if has_table {
            for row in self.read("SELECT version FROM seaql_migrations ORDER BY version", Params::default()).await? {
                applied.push(read::<String>(&row, "version")?);
            }
        }
        if let Some(step) = STEPS.into_iter().find(|step| !applied.iter().any(|applied| applied == step)) {
            return Err(LedgerError::SchemaMissing { step });
        }
        match applied.into_iter().find(|step| !STEPS.contains(&step.as_str())) {
            Some(step) => Err(LedgerError::SchemaNewer { step }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_needed_schema_is_what_the_migrations_make() {
        assert_eq!(goldleaves_testkit::migrations::names(), super::STEPS);
    }
}
