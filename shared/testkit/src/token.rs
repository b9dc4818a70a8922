//! Tokens for tests, signed by the public library alone, so that a mistake of our own signer can't hide itself.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value, json};

/// The claims of a token.
#[derive(Debug, Clone)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// A user of a tenant; valid for a day, which no soak outlasts.
    pub fn new(tenant: &str, user: &str) -> Self {
        let claims = Self(Map::new()).with("sub", json!(user)).with("tenant_id", json!(tenant));
        claims.with("exp", json!(now_secs() + 86_400))
    }

    /// Sets a claim of any name and type, right or wrong.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// Adds a role.
    #[must_use]
    pub fn role(mut self, role: &str) -> Self {
        let roles = self.0.entry("roles").or_insert_with(|| json!([]));
        if let Value::Array(roles) = roles {
            roles.push(json!(role));
        }
        self
    }

    /// Signs with HS256.
    ///
    /// # Errors
    /// The library refuses the claims.
    pub fn sign(&self, secret: &str) -> Result<String> {
        self.sign_with(secret, Algorithm::HS256)
    }

    /// Signs with another HMAC.
    ///
    /// # Errors
    /// The library refuses the claims or the algorithm.
    pub(crate) fn sign_with(&self, secret: &str, algorithm: Algorithm) -> Result<String> {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::new(algorithm), &self.0, &key).context("signing a token")
    }
}

/// Seconds since 1970.
pub fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
