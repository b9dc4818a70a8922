//! The signature of a webhook, checked before anything of its body is looked at, and what of the body counts as a hint.

use std::fmt;
use std::str::FromStr;

use goldleaves_runtime::Secret;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;

/// The distance from now at which a signature's time may lie, in seconds.
const TOLERANCE_SECS: u64 = 300;
/// The most signatures of a header that are looked at.
const SIGNATURES_MAX: usize = 16;

/// `STRIPE_WEBHOOK_SECRET`: one secret, and while it is rolled a second one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(Vec<Secret>);

/// The reason a text holds no secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one or more signing secrets such as whsec_…, separated by commas")]
pub struct SecretsError;

/// The reason a webhook is not from Stripe, or not of now. The caller is told nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No header, or one that has no time or no signature.
    #[error("no signature")]
    Missing,
    /// No signature is made with one of the secrets.
    #[error("a signature that no secret made")]
    Forged,
    /// A right signature of another time.
    #[error("a signature that is too old or of the future")]
    OutOfTime,
}

/// The work that a webhook may start: read-backs and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The event's id.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// The identifier of the thing that it is about.
    pub related_id: Option<String>,
}

#[derive(Deserialize)]
struct Notice {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    /// The subject. Other events may have anything here.
    #[serde(default)]
    related_object: Value,
}

impl Secrets {
    /// Checks the `Stripe-Signature` of a body at this moment, in seconds since 1970.
    ///
    /// # Errors
    /// None of its signatures is made with one of the secrets, or its time is another.
    pub fn check(&self, header: &str, body: &[u8], now: i64) -> Result<(), SignatureError> {
        let (mut time, mut signatures) = (None, Vec::new());
        for part in header.split(',') {
            match part.trim().split_once('=') {
                Some(("t", text)) if time.is_none() => time = Some(text),
                Some(("t", _)) => return Err(SignatureError::Missing),
                Some(("v1", text)) if signatures.len() < SIGNATURES_MAX => signatures.extend(bytes_of(text)),
                _ => {}
            }
        }
        let text = time.ok_or(SignatureError::Missing)?;
        let moment: i64 = text.parse().map_err(|_| SignatureError::Missing)?;
        if signatures.is_empty() {
            return Err(SignatureError::Missing);
        }
        let is_made_by = |secret: &Secret, signature: &[u8; 32]| {
            let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.expose().as_bytes()) else {
                return false;
            };
            mac.update(text.as_bytes());
            mac.update(b".");
            mac.update(body);
            mac.verify_slice(signature).is_ok()
        };
        if !self.0.iter().any(|secret| signatures.iter().any(|signature| is_made_by(secret, signature))) {
            return Err(SignatureError::Forged);
        }
        if moment.abs_diff(now) > TOLERANCE_SECS {
            return Err(SignatureError::OutOfTime);
        }
        Ok(())
    }
}

/// The bytes of a signature in hexadecimal.
fn bytes_of(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl FromStr for Secrets {
    type Err = SecretsError;

    fn from_str(text: &str) -> Result<Self, SecretsError> {
        let secrets: Vec<_> = text.split(',').map(|secret| secret.trim().to_owned()).collect();
        if secrets.iter().any(|secret| secret.is_empty() || secret.chars().any(char::is_whitespace)) {
            return Err(SecretsError);
        }
        Ok(Self(secrets.into_iter().map(Secret::new).collect()))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Secrets({})", self.0.len())
    }
}

impl Hint {
    /// Reads a body whose signature was checked.
    ///
    /// # Errors
    /// It is no event.
    pub fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        let Notice { id, kind, related_object } = serde_json::from_slice(body)?;
        let related_id = related_object.get("id").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { id, kind, related_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"{\"id\":\"evt_1\"}";

    fn sign(secret: &str, time: i64, body: &[u8]) -> String {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{time}.").as_bytes());
        mac.update(body);
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn only_a_secret_s_own_signature_of_now_is_right() {
        let secrets: Secrets = "whsec_new, whsec_old".parse().unwrap();
        let (new, old, other) = (sign("whsec_new", 1000, BODY), sign("whsec_old", 1000, BODY), sign("x", 1000, BODY));
        for header in [
            format!("t=1000,v1={new}"),
            format!("t=1000,v1={old}"),
            format!("t=1000, v1={other}, v1={old}, v0=abc"),
            format!("v1={new},t=1000"),
        ] {
            assert_eq!(secrets.check(&header, BODY, 1300), Ok(()), "{header}");
            assert_eq!(secrets.check(&header, BODY, 700), Ok(()), "{header}");
            assert_eq!(secrets.check(&header, BODY, 1301), Err(SignatureError::OutOfTime), "{header}");
            assert_eq!(secrets.check(&header, BODY, 699), Err(SignatureError::OutOfTime), "{header}");
            assert_eq!(secrets.check(&header, b"{}", 1000), Err(SignatureError::Forged), "{header}");
        }
        for (header, error) in [
            (format!("t=1000,v1={other}"), SignatureError::Forged),
            (format!("t=1001,v1={new}"), SignatureError::Forged),
            (format!("t=1000,v0={new}"), SignatureError::Missing),
            (format!("v1={new}"), SignatureError::Missing),
            (format!("t=1000,t=1000,v1={new}"), SignatureError::Missing),
            ("t=1000,v1=zz".to_owned(), SignatureError::Missing),
            (String::new(), SignatureError::Missing),
        ] {
            assert_eq!(secrets.check(&header, BODY, 1000), Err(error), "{header}");
        }
    }

    #[test]
    fn secrets_are_one_or_more() {
        for text in ["", ",", "a,", "a b"] {
            assert!(text.parse::<Secrets>().is_err(), "{text:?}");
        }
    }
}
