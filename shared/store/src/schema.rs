//! The steps of the schema that a database has, beside those that a program was written for.

use crate::dialect::{Dialect, read};
use crate::rows::Params;
use crate::{Store, StoreError};

impl Store {
    /// Returns whether the database has the schema of these steps, in their order. Steps beyond them are no mistake if a program that
    /// knows these goes on beside them, as `schema_steps` says.
    ///
    /// # Errors
    /// [`StoreError::SchemaMissing`] or [`StoreError::SchemaNewer`]; any other error says that it could not be found out.
    pub async fn check_schema(&self, steps: &[&'static str]) -> Result<(), StoreError> {
        let table = match self.dialect() {
            Dialect::Postgres => "SELECT to_regclass('seaql_migrations')::text AS name",
            Dialect::Sqlite => "SELECT (SELECT name FROM sqlite_schema WHERE name = 'seaql_migrations') AS name",
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
        if let Some(step) = steps.iter().copied().find(|step| !applied.iter().any(|applied| applied == step)) {
            return Err(StoreError::SchemaMissing { step });
        }
        applied.retain(|step| !steps.contains(&step.as_str()));
        for step in applied {
            if !self.leaves_running(steps, &step).await? {
                return Err(StoreError::SchemaNewer { step });
            }
        }
        Ok(())
    }

    /// Returns whether a step that is not among these only adds to them. The step itself says so, by naming the oldest step whose
    /// programs may go on.
    async fn leaves_running(&self, steps: &[&str], step: &str) -> Result<bool, StoreError> {
        let mut params = Params::default();
        let step = params.bind(step);
        let sql = format!("SELECT compatible_since FROM schema_steps WHERE step = {step}");
        let since = self.read(&sql, params).await?;
        let since = since.first().map(|row| read::<String>(row, "compatible_since")).transpose()?;
        Ok(since.is_some_and(|since| steps.contains(&since.as_str())))
    }
}
