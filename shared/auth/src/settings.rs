//! The settings of tokens, and what is verified and signed with them.

use std::fmt;
use std::time::Duration;

use goldleaves_runtime::Secret;
use goldleaves_runtime::settings::{Environment, Invalid, Values, parse, secret_fault, table};
use ring::hmac;

/// The fewest bytes a secret must have in production.
const SECRET_BYTES_MIN: usize = 32;

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

    /// Returns the key that a secret makes for it.
    pub(crate) fn key(self, secret: &[u8]) -> hmac::Key {
        let algorithm = match self {
            Self::Hs256 => hmac::HMAC_SHA256,
            Self::Hs384 => hmac::HMAC_SHA384,
            Self::Hs512 => hmac::HMAC_SHA512,
        };
        hmac::Key::new(algorithm, secret)
    }
}

/// The options by which tokens are verified and signed.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenOptions {
    /// The shared secret.
    pub secret: Vec<u8>,
    /// The only algorithm that is accepted.
    pub algorithm: Algorithm,
    /// Set = `iss` must equal it.
    pub issuer: Option<String>,
    /// Set = `aud` must hold it.
    pub audience: Option<String>,
    /// The number of bytes of verified tokens that are remembered; 0 = none.
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

/// Says whether a program can do without `JWT_SECRET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretNeed {
    /// It must be set.
    Required,
    /// Outside production the program makes one when it is unset.
    Generated,
}

/// The settings of tokens.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// `JWT_SECRET`; `None` only with [`SecretNeed::Generated`] outside production.
    pub secret: Option<Secret>,
    /// `JWT_ALGORITHM`.
    pub algorithm: Algorithm,
    /// `JWT_EXPIRATION_MINUTES`: how long a token made here lives.
    pub lifetime: Duration,
    /// `JWT_ISSUER`.
    pub issuer: Option<String>,
    /// `JWT_AUDIENCE`.
    pub audience: Option<String>,
}

impl JwtSettings {
    /// Reads them. `environment` = `None` (it was wrong itself) is not held against the secret.
    pub fn read(values: &mut Values, environment: Option<Environment>, need: SecretNeed) -> Option<Self> {
        let secret = values.optional(table::JWT_SECRET, parse::secret);
        let production = environment == Some(Environment::Production);
        if let Some(secret) = &secret {
            check_secret(values, secret.as_ref(), SecretPlace { production, need });
        }
        let algorithm = values.required(table::JWT_ALGORITHM, algorithm);
        let minutes = values.required(table::JWT_EXPIRATION_MINUTES, parse::whole(1..=5_256_000_u32));
        let issuer = values.optional(table::JWT_ISSUER, parse::text);
        let audience = values.optional(table::JWT_AUDIENCE, parse::text);
        Some(Self {
            secret: secret?,
            algorithm: algorithm?,
            lifetime: Duration::from_secs(u64::from(minutes?) * 60),
            issuer: issuer?,
            audience: audience?,
        })
    }

    /// Returns what tokens are verified with.
    pub fn token_options(&self) -> TokenOptions {
        let secret = self.secret.as_ref().map(|secret| secret.expose()).unwrap_or_default();
        TokenOptions {
            algorithm: self.algorithm,
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            ..TokenOptions::new(secret)
        }
    }
}

/// Where a secret is used, and whether the program can do without one.
#[derive(Debug, Clone, Copy)]
struct SecretPlace {
    production: bool,
    need: SecretNeed,
}

fn check_secret(values: &mut Values, secret: Option<&Secret>, place: SecretPlace) {
    let Some(secret) = secret.map(Secret::expose) else {
        if place.production || place.need == SecretNeed::Required {
            values.mistake(table::JWT_SECRET, "is missing");
        }
        return;
    };
    // The same secret without it, in another program, is another secret.
    if secret.trim() != secret {
        values.mistake(table::JWT_SECRET, "begins or ends with a blank or a line break");
    }
    if !place.production {
        return;
    }
    if let Some(fault) = secret_fault(secret) {
        values.mistake(table::JWT_SECRET, fault);
    } else if secret.len() < SECRET_BYTES_MIN {
        values.mistake(table::JWT_SECRET, &format!("has fewer than {SECRET_BYTES_MIN} bytes"));
    }
}

fn algorithm(text: &str) -> Result<Algorithm, Invalid> {
    match text.trim().to_ascii_uppercase().as_str() {
        "HS256" => Ok(Algorithm::Hs256),
        "HS384" => Ok(Algorithm::Hs384),
        "HS512" => Ok(Algorithm::Hs512),
        _ => Err(Invalid::new("is not supported")),
    }
}
