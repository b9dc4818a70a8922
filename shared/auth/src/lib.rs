//! Authentication and permissions: tokens, the keys they are signed with, and the principal that a valid one makes.
//!
//! It serves nothing and asks nobody: a token is judged by its bytes, the secret and the clock alone.

mod cache;
mod claims;
mod clock;
mod json;
mod principal;
mod settings;
mod signer;
mod verifier;

#[cfg(test)]
mod tests;

pub use claims::TokenError;
pub use clock::WallClock;
pub use principal::{Principal, Role, TenantChoiceError, WireNames, wire_value};
pub use settings::{Algorithm, JwtSettings, SecretNeed, TokenOptions};
pub use signer::{TokenClaims, TokenSigner};
pub use verifier::TokenVerifier;
