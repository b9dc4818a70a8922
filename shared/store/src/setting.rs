//! The setting `DATABASE_URL`, as every program reads it.

use goldleaves_runtime::Secret;
use goldleaves_runtime::settings::Environment;

use crate::error::StoreError;
use crate::url::{check_url, check_url_in_production};

/// Reads the URL of a database that there is a ledger for.
///
/// # Errors
/// It is of none, or does not say in production what is encrypted.
pub fn database_url(text: &str, environment: Option<Environment>) -> Result<Secret, StoreError> {
    match environment {
        Some(Environment::Production) => check_url_in_production(text)?,
        _ => check_url(text)?,
    }
    Ok(Secret::new(text.to_owned()))
}
