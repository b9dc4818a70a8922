//! Verifies bearer tokens: HMAC-signed JWTs (RFC 7515, 7519) under the rules of RFC 8725.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use goldleaves_domain::{Timestamp, TimestampError};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::cache::TokenCache;
use super::claims::{self, Claims, TokenError};
use super::json;
use crate::Principal;

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 8_192;

/// The HMAC a token must be signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

impl Algorithm {
    /// Its name in a token's `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    pub(super) const fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Hs384 => jsonwebtoken::Algorithm::HS384,
            Self::Hs512 => jsonwebtoken::Algorithm::HS512,
        }
    }
}

/// Where the time comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock of one's own, for tests.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// Now in UTC, cut to microseconds.
    ///
    /// # Errors
    /// Outside the years 1 to 9999.
    pub fn timestamp(&self) -> Result<Timestamp, TimestampError> {
        let micros = match self.now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()),
            Err(before) => i64::try_from(before.duration().as_nanos().div_ceil(1_000)).map(|micros| -micros),
        };
        micros.map_err(|_| TimestampError::OutOfRange).and_then(Timestamp::from_unix_micros)
    }

    /// Seconds since 1970; before it, 0.
    pub(super) fn seconds(&self) -> f64 {
        self.now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Clock")
    }
}

/// What tokens are verified and signed with.
#[derive(Clone)]
pub struct TokenOptions {
    /// The shared secret.
    pub secret: Vec<u8>,
    /// The only algorithm that is accepted.
    pub algorithm: Algorithm,
    /// Set = `iss` must equal it.
    pub issuer: Option<String>,
    /// Set = `aud` must hold it.
    pub audience: Option<String>,
    /// How many bytes of verified tokens are remembered; 0 = none.
    pub cache_bytes_max: usize,
}

impl TokenOptions {
    /// HS256, any issuer and audience, 16 MiB of remembered tokens.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self {
            secret: secret.into(),
            algorithm: Algorithm::Hs256,
            issuer: None,
            audience: None,
            cache_bytes_max: 16 << 20,
        }
    }
}

impl fmt::Debug for TokenOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TokenOptions")
            .field("secret", &"[secret]")
            .field("algorithm", &self.algorithm)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("cache_bytes_max", &self.cache_bytes_max)
            .finish()
    }
}

/// Verifies tokens and remembers them. Clones share what is remembered.
#[derive(Clone)]
pub struct TokenVerifier {
    inner: Arc<Inner>,
}

struct Inner {
    key: DecodingKey,
    algorithm: Algorithm,
    issuer: Option<String>,
    audience: Option<String>,
    cache: TokenCache,
    clock: Clock,
}

impl TokenVerifier {
    /// Verifies by these rules and this clock.
    pub fn new(options: TokenOptions, clock: Clock) -> Self {
        let inner = Inner {
            key: DecodingKey::from_secret(&options.secret),
            algorithm: options.algorithm,
            issuer: options.issuer,
            audience: options.audience,
            cache: TokenCache::new(options.cache_bytes_max),
            clock,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whom a request's `Authorization` header speaks for.
    ///
    /// # Errors
    /// There is no valid token: 401.
    pub fn verify(&self, headers: &HeaderMap) -> Result<Arc<Principal>, TokenError> {
        self.verify_token(bearer_token(headers)?)
    }

    /// Whom a token speaks for.
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

impl Inner {
    /// Everything but the clock. Claims are read only once the signature holds.
    fn read(&self, token: &str) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        self.check_header(&part(header)?)?;
        let algorithm = self.algorithm.of_library();
        match jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &self.key, algorithm) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(TokenError::Signature),
        }
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
pub fn bearer_token(headers: &HeaderMap) -> Result<&str, TokenError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(TokenError::Missing)?;
    if values.next().is_some() {
        return Err(TokenError::SeveralHeaders);
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(TokenError::Scheme)?;
    let token = token.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() { Ok(token) } else { Err(TokenError::Scheme) }
}
