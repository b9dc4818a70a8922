//! `goldleaves token`: a token for development, signed with the server's own secret.

use std::time::Duration;

use crate::cli::TokenArguments;
use goldleaves_auth::{TokenClaims, TokenOptions, TokenSigner, WallClock};

/// Returns a token for the user whom the arguments name.
pub(crate) fn sign(options: &TokenOptions, arguments: &TokenArguments, default_lifetime: Duration) -> String {
    let lifetime =
        arguments.ttl_minutes.map_or(default_lifetime, |minutes| Duration::from_secs(u64::from(minutes) * 60));
    let claims = TokenClaims {
        user: arguments.user.clone(),
        tenant: Some(arguments.tenant.clone()),
        orgs: Vec::new(),
        roles: arguments.roles.clone(),
        lifetime,
    };
    TokenSigner::new(options, WallClock::system()).sign(&claims)
}
