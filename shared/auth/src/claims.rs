//! The rules for a token's claims, and the principal that they make.

use std::str::FromStr;

use goldleaves_domain::TenantId;
use serde_json::{Map, Value};

use crate::principal::{Principal, Role, WireNames};

/// The reason a request has no valid token. None of the texts repeats anything of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No `Authorization` header.
    #[error("a bearer token is required")]
    Missing,
    /// More than one `Authorization` header.
    #[error("the Authorization header must be given once")]
    SeveralHeaders,
    /// A WebSocket brings one in `Sec-WebSocket-Protocol`, and another there or in `Authorization`.
    #[error("the token must be given once, as a subprotocol or in the Authorization header")]
    Twice,
    /// Not `Bearer <token>`.
    #[error("the Authorization header must be `Bearer <token>`")]
    Scheme,
    /// Over 8 KiB.
    #[error("the token has more than 8192 bytes")]
    TooLong,
    /// Not three base64url parts holding JSON objects without duplicate keys.
    #[error("the token is not a signed JWT")]
    Malformed,
    /// Signed with another algorithm than the configured one, or with none.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// A header parameter that changes what the token means.
    #[error("the token's header asks for something that is not supported")]
    Header,
    /// The signature does not match.
    #[error("the token's signature is not valid")]
    Signature,
    /// A claim that must be there is not.
    #[error("the token lacks the claim `{0}`")]
    Lacks(&'static str),
    /// A claim has the wrong type.
    #[error("the token's claim `{0}` has the wrong type")]
    Type(&'static str),
    /// A tenant or user that is empty, too long, has control characters, or begins or ends with a blank.
    #[error("the token's claim `{0}` must have 1 to 255 characters, no control characters and no blanks at either end")]
    Name(&'static str),
    /// A number that readers of JSON do not read alike (RFC 8259, 6), and no time that anybody means.
    #[error("the token's claim `{0}` is no time: a number of seconds up to 2^53 is expected")]
    Range(&'static str),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    TooEarly,
    /// `iss` is another.
    #[error("the token's issuer is not accepted")]
    Issuer,
    /// `aud` is another.
    #[error("the token's audience is not accepted")]
    Audience,
}

/// The claims that were read from a token: from when until when it is good, and for whom.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Claims {
    pub(super) principal: Principal,
    pub(super) window: TimeWindow,
}

/// The most seconds before or after 1970 that a token may say: whole numbers beyond are not exact everywhere.
const SECONDS_MAX: f64 = 9_007_199_254_740_991.0;

/// The time a token is good in, in seconds since 1970. Numbers as JSON has them, with places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TimeWindow {
    not_before: f64,
    expires: f64,
}

impl TimeWindow {
    /// Good from `nbf` on, and before `exp`: not at it any more (RFC 7519, 4.1.4).
    pub(super) fn check(&self, now: f64) -> Result<(), TokenError> {
        if now >= self.expires {
            return Err(TokenError::Expired);
        }
        if now < self.not_before {
            return Err(TokenError::TooEarly);
        }
        Ok(())
    }

    /// Never good again.
    pub(super) fn is_over(&self, now: f64) -> bool {
        now >= self.expires
    }
}

impl Claims {
    /// Reads the claims. A claim that is `null` counts as absent.
    pub(super) fn read(claims: &Map<String, Value>) -> Result<Self, TokenError> {
        let expires = seconds(claims, "exp")?.ok_or(TokenError::Lacks("exp"))?;
        let not_before = seconds(claims, "nbf")?.unwrap_or(f64::NEG_INFINITY);
        let user = text(claims, "sub")?.ok_or(TokenError::Lacks("sub"))?;
        let user = name(user, "sub")?;
        let orgs = tenants(claims, "orgs")?;
        let mut tenant = None;
        for claim in ["tenant_id", "organization_id", "org_id"] {
            let named = text(claims, claim)?;
            if tenant.is_none() {
                tenant = named.map(|text| name(text, claim)).transpose()?;
            }
        }
        if tenant.is_none() && orgs.len() == 1 {
            tenant = orgs.first().cloned();
        }
        let roles = roles(claims);
        let wire = WireNames::of(&user, tenant.as_ref());
        let principal = Principal { user, tenant, orgs, roles, expires, wire };
        Ok(Self { principal, window: TimeWindow { not_before, expires } })
    }
}

/// Returns whether `iss` is the wanted one.
pub(super) fn check_issuer(claims: &Map<String, Value>, wanted: &str) -> Result<(), TokenError> {
    match text(claims, "iss")? {
        Some(issuer) if issuer == wanted => Ok(()),
        Some(_) => Err(TokenError::Issuer),
        None => Err(TokenError::Lacks("iss")),
    }
}

/// Returns whether `aud`, a text or a list of texts, holds the wanted one.
pub(super) fn check_audience(claims: &Map<String, Value>, wanted: &str) -> Result<(), TokenError> {
    let found = match present(claims, "aud") {
        None => return Err(TokenError::Lacks("aud")),
        Some(Value::String(one)) => one == wanted,
        Some(_) => texts(claims, "aud")?.contains(&wanted),
    };
    if found { Ok(()) } else { Err(TokenError::Audience) }
}

fn present<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).filter(|value| !value.is_null())
}

fn text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, TokenError> {
    present(claims, name).map(|value| value.as_str().ok_or(TokenError::Type(name))).transpose()
}

/// The seconds of `exp` or `nbf`.
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, TokenError> {
    let Some(value) = present(claims, name) else { return Ok(None) };
    let seconds = value.as_f64().ok_or(TokenError::Type(name))?;
    if seconds.abs() > SECONDS_MAX { Err(TokenError::Range(name)) } else { Ok(Some(seconds)) }
}

/// The roles of `roles`, and `admin` for the boolean `is_admin: true`. What is of another type grants nothing, and takes
/// nothing away: a token is good or not by who it speaks for.
fn roles(claims: &Map<String, Value>) -> Vec<Role> {
    let named = claims.get("roles").and_then(Value::as_array).into_iter().flatten();
    let mut roles: Vec<Role> = named.filter_map(Value::as_str).filter_map(Role::from_name).collect();
    if claims.get("is_admin") == Some(&Value::Bool(true)) && !roles.contains(&Role::Admin) {
        roles.push(Role::Admin);
    }
    roles
}

fn texts<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<Vec<&'a str>, TokenError> {
    let Some(value) = present(claims, name) else {
        return Ok(Vec::new());
    };
    let items = value.as_array().ok_or(TokenError::Type(name))?;
    items.iter().map(|item| item.as_str().ok_or(TokenError::Type(name))).collect()
}

/// A tenant or user. With a blank at either end it would be billed as one name and read as another: most servers cut
/// blanks off a header's value. The ledger's own type stays as wide as what earlier events hold.
fn name<T: FromStr>(text: &str, claim: &'static str) -> Result<T, TokenError> {
    let parsed = if text.trim() == text { text.parse().ok() } else { None };
    parsed.ok_or(TokenError::Name(claim))
}

/// A list of tenants, each once.
fn tenants(claims: &Map<String, Value>, claim: &'static str) -> Result<Vec<TenantId>, TokenError> {
    let mut list: Vec<TenantId> = Vec::new();
    for text in texts(claims, claim)? {
        let tenant = name(text, claim)?;
        if !list.contains(&tenant) {
            list.push(tenant);
        }
    }
    Ok(list)
}
