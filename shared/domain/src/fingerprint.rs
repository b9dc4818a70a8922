//! The digest of a request: the same request sent again has the same fingerprint.
//!
//! It covers user, method, normalised path, query and body, each with its length before it (the body, streamed, comes
//! last), so that no two requests share their bytes. Headers are not in it. The tenant need not be: the repeat rule
//! looks at one tenant at a time.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::hex;
use crate::{NormalPath, UserId};

/// `v1:` and 64 hex digits. Later versions (`v2:…`) are read too: the ledger only ever compares whole fingerprints.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(Arc<str>);

/// A text that is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is v, its version, a colon and 32 to 72 lower-case hex digits")]
pub struct FingerprintError;

impl Fingerprint {
    /// The fingerprint as text, at most 77 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let parts = text.strip_prefix('v').and_then(|rest| rest.split_once(':'));
        let (version, digits) = parts.ok_or(FingerprintError)?;
        let version_legal = (1..=3).contains(&version.len())
            && !version.starts_with('0')
            && version.bytes().all(|byte| byte.is_ascii_digit());
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let digits_legal = (32..=72).contains(&digits.len()) && digits.bytes().all(hex);
        if version_legal && digits_legal { Ok(Self(text.into())) } else { Err(FingerprintError) }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Digests a request while its body streams by. Without [`finish`](Self::finish), which only the whole body allows,
/// there is no fingerprint, and no fingerprint matches nothing.
#[derive(Debug, Clone)]
pub struct FingerprintBuilder {
    digest: Sha256,
}

impl FingerprintBuilder {
    /// Starts with what the request's head says; `query` as it is forwarded, without the `?`.
    pub fn new(user: &UserId, method: &str, path: &NormalPath, query: Option<&str>) -> Self {
        let mut digest = Sha256::new_with_prefix(b"goldleaves.fingerprint.v1\n");
        let mut field = |text: &str| {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        };
        field(user.as_str());
        field(method);
        field(path.as_str());
        // No query and an empty one are two requests; a length no text can have marks the former.
        match query {
            Some(query) => field(query),
            None => digest.update(u64::MAX.to_be_bytes()),
        }
        Self { digest }
    }

    /// Takes the next bytes of the body; how it is cut into pieces changes nothing.
    pub fn body(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// The fingerprint, once the whole body went by.
    pub fn finish(self) -> Fingerprint {
        let digest: [u8; 32] = self.digest.finalize().into();
        let mut text = [0; "v1:".len() + 64];
        let (version, digits) = text.split_at_mut("v1:".len());
        version.copy_from_slice(b"v1:");
        hex::write(&digest, digits);
        // Digits are UTF-8.
        Fingerprint(std::str::from_utf8(&text).unwrap_or_default().into())
    }
}
