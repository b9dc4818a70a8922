//! Decodes what a secret may be the encoding of: hex, base64 or base64url, with or without padding, also one in another.
//!
//! An encoding hides a well-known phrase from the eye and from no one who guesses. It judges nothing itself.

use base64::Engine;
use base64::alphabet::{self, Alphabet};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The mark that Laravel sets before a key.
const MARK: &str = "base64:";
/// The number of encodings that may lie in each other.
const DEPTH: usize = 3;

/// Everything that the text may be the encoding of. Random text of the right letters decodes as well, to random bytes.
pub(super) fn decodings(text: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut outer = vec![text.to_vec()];
    for _ in 0..DEPTH {
        outer = outer.iter().flat_map(|text| decoded_once(text)).collect();
        found.extend(outer.iter().cloned());
    }
    found
}

fn decoded_once(text: &[u8]) -> Vec<Vec<u8>> {
    let Ok(text) = std::str::from_utf8(text) else { return Vec::new() };
    let text = text.trim();
    let text = text.strip_prefix(MARK).unwrap_or(text);
    [hex(text), base64(text, &alphabet::STANDARD), base64(text, &alphabet::URL_SAFE)]
        .into_iter()
        .flatten()
        .filter(|bytes| !bytes.is_empty())
        .collect()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let halves: Vec<u32> = text.chars().map(|letter| letter.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, rest) = halves.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().filter_map(|[high, low]| u8::try_from(high * 16 + low).ok()).collect())
}

fn base64(text: &str, alphabet: &Alphabet) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, lenient).decode(text).ok()
}
