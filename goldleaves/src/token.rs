//! `goldleaves token`: a token for development, signed with the server's own secret.

use std::time::Duration;

use anyhow::Result;

use crate::cli::TokenArguments;
use goldleaves_auth::{TokenClaims, TokenOptions, TokenSigner, WallClock};

/// A token for whom the arguments name.
///
/// # Errors
/// The cryptography refused the secret.
pub(crate) fn sign(options: &TokenOptions, arguments: &TokenArguments, default_lifetime: Duration) -> Result<String> {
    let lifetime =
        arguments.ttl_minutes.map_or(default_lifetime, |minutes| Duration::from_secs(u64::from(minutes) * 60));
    let claims = TokenClaims {
        user: arguments.user.clone(),
        tenant: Some(arguments.tenant.clone()),
        orgs: Vec::new(),
        roles: arguments.roles.clone(),
        lifetime,
    };
    Ok(TokenSigner::new(options, WallClock::system()).sign(&claims)?)
}
