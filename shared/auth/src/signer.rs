//! Signs tokens, for development and tests: what comes out is accepted by a verifier with the same options.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use goldleaves_domain::{TenantId, UserId};
use ring::hmac;
use serde_json::{Value, json};

use crate::clock::WallClock;
use crate::settings::{Algorithm, TokenOptions};

/// The claims of a token that is to be made.
#[derive(Debug, Clone)]
pub struct TokenClaims {
    /// `sub`.
    pub user: UserId,
    /// `tenant_id`.
    pub tenant: Option<TenantId>,
    /// `orgs`.
    pub orgs: Vec<TenantId>,
    /// `roles`, as they are written.
    pub roles: Vec<String>,
    /// From now until `exp`.
    pub lifetime: Duration,
}

/// Signs tokens.
pub struct TokenSigner {
    key: hmac::Key,
    algorithm: Algorithm,
    issuer: Option<String>,
    audience: Option<String>,
    clock: WallClock,
}

impl TokenSigner {
    /// Signs by these rules and this clock.
    pub fn new(options: &TokenOptions, clock: WallClock) -> Self {
        Self {
            key: options.algorithm.key(&options.secret),
            algorithm: options.algorithm,
            issuer: options.issuer.clone(),
            audience: options.audience.clone(),
            clock,
        }
    }

    /// Returns a token that says this. `exp` lies on a whole second, at least `lifetime` from now.
    pub fn sign(&self, claims: &TokenClaims) -> String {
        let now = self.clock.seconds();
        let mut document = json!({
            "sub": claims.user.as_str(),
            "iat": whole(now),
            "exp": whole((now + claims.lifetime.as_secs_f64()).ceil()),
        });
        let optional = [
            ("tenant_id", claims.tenant.as_ref().map(|tenant| Value::from(tenant.as_str()))),
            ("orgs", list(claims.orgs.iter().map(TenantId::as_str))),
            ("roles", list(claims.roles.iter().map(String::as_str))),
            ("iss", self.issuer.as_deref().map(Value::from)),
            ("aud", self.audience.as_deref().map(Value::from)),
        ];
        if let Some(object) = document.as_object_mut() {
            object.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        }
        self.sign_json(&document)
    }

    /// A token with any claims.
    fn sign_json(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm.name(), "typ": "JWT"});
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TokenSigner").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a float cast saturates, and a time in seconds fits")]
fn whole(seconds: f64) -> i64 {
    seconds as i64
}

fn list<'a>(texts: impl Iterator<Item = &'a str>) -> Option<Value> {
    let items: Vec<Value> = texts.map(Value::from).collect();
    (!items.is_empty()).then_some(Value::Array(items))
}
