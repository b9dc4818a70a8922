//! Verifies bearer tokens: HMAC-signed JWTs (RFC 7515, 7519) under the rules of RFC 8725.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac;
use serde_json::{Map, Value};

use crate::cache::TokenCache;
use crate::claims::{self, Claims, TokenError};
use crate::clock::WallClock;
use crate::json;
use crate::principal::Principal;
use crate::settings::{Algorithm, TokenOptions};

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 8_192;

/// Verifies tokens and remembers them. Clones share what is remembered.
#[derive(Clone)]
pub struct TokenVerifier {
    inner: Arc<VerifierInner>,
}

struct VerifierInner {
    key: hmac::Key,
    algorithm: Algorithm,
    issuer: Option<String>,
    audience: Option<String>,
    cache: TokenCache,
    clock: WallClock,
}

impl TokenVerifier {
    /// Verifies by these rules and this clock.
    pub fn new(options: TokenOptions, clock: WallClock) -> Self {
        let inner = VerifierInner {
            key: options.algorithm.key(&options.secret),
            algorithm: options.algorithm,
            issuer: options.issuer,
            audience: options.audience,
            cache: TokenCache::new(options.cache_bytes_max),
            clock,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the principal that a request's `Authorization` header speaks for.
    ///
    /// # Errors
    /// There is no valid token: 401.
    pub fn verify(&self, headers: &HeaderMap) -> Result<Arc<Principal>, TokenError> {
        self.verify_token(bearer_token(headers)?)
    }

    /// Returns the principal that a token speaks for.
    ///
    /// # Errors
    /// It is not valid: 401.
    pub fn verify_token(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let now = self.inner.clock.seconds();
        if let Some(known) = self.inner.cache.get(token, now) {
            return known;
        }
        let claims = self.inner.read(token)?;
        claims.window.check(now)?;
        let principal = Arc::new(claims.principal);
        self.inner.cache.put(token, &principal, claims.window);
        Ok(principal)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.inner.cache.len()
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TokenVerifier").field("algorithm", &self.inner.algorithm).finish_non_exhaustive()
    }
}

impl VerifierInner {
    /// Everything but the clock. Claims are read only once the signature holds.
    fn read(&self, token: &str) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        self.check_header(&part(header)?)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Signature)?;
        hmac::verify(&self.key, signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
        let claims = part(claims)?;
        if let Some(issuer) = &self.issuer {
            claims::check_issuer(&claims, issuer)?;
        }
        if let Some(audience) = &self.audience {
            claims::check_audience(&claims, audience)?;
        }
        Claims::read(&claims)
    }

    /// The algorithm must be the configured one, and nothing may change how the token is to be read (RFC 7515, 4.1.11;
    /// RFC 7797).
    fn check_header(&self, header: &Map<String, Value>) -> Result<(), TokenError> {
        if header.get("alg").and_then(Value::as_str) != Some(self.algorithm.name()) {
            return Err(TokenError::Algorithm);
        }
        let changed = header.contains_key("crit")
            || header.contains_key("zip")
            || header.contains_key("enc")
            || header.get("b64").is_some_and(|b64| b64 != &Value::Bool(true))
            || header.get("typ").is_some_and(|typ| !typ.is_string());
        if changed { Err(TokenError::Header) } else { Ok(()) }
    }
}

/// One part of a token: base64url without padding, a JSON object.
fn part(text: &str) -> Result<Map<String, Value>, TokenError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)?;
    json::object(&bytes).ok_or(TokenError::Malformed)
}

/// The token of the one `Authorization: Bearer` header.
///
/// # Errors
/// No such header, more than one, or another scheme.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Result<&str, TokenError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(TokenError::Missing)?;
    if values.next().is_some() {
        return Err(TokenError::SeveralHeaders);
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(TokenError::Scheme)?;
    let token = token.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() { Ok(token) } else { Err(TokenError::Scheme) }
}
