//! Bearer tokens: verified with every rule, remembered for as long as they are good, and signed for development.

mod cache;
mod claims;
mod json;
mod signer;
mod verifier;

#[cfg(test)]
mod tests;

pub use claims::TokenError;
pub use signer::{SignError, TokenClaims, TokenSigner};
pub use verifier::{Algorithm, Clock, TokenOptions, TokenVerifier, bearer_token};
