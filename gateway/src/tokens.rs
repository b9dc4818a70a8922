//! From the settings of tokens to what verifies them.

use goldleaves_runtime::settings::{JwtAlgorithm, JwtSettings};
use goldleaves_web::{Algorithm, TokenOptions};

/// What tokens are verified with.
pub(crate) fn token_options(jwt: &JwtSettings) -> TokenOptions {
    let secret = jwt.secret.as_ref().map(|secret| secret.expose()).unwrap_or_default();
    TokenOptions {
        algorithm: match jwt.algorithm {
            JwtAlgorithm::Hs256 => Algorithm::Hs256,
            JwtAlgorithm::Hs384 => Algorithm::Hs384,
            JwtAlgorithm::Hs512 => Algorithm::Hs512,
        },
        issuer: jwt.issuer.clone(),
        audience: jwt.audience.clone(),
        ..TokenOptions::new(secret)
    }
}
