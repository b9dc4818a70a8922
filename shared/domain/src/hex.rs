//! Lower-case hex: digests of 32 bytes, which are also read, and bytes of any length, which are only written.

use std::fmt;

/// Shows a digest as lower-case hex.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8; 32]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        write(self.0, &mut text);
        out.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Returns bytes of any length as lower-case hex.
pub fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [lower_hex(byte >> 4), lower_hex(byte & 15)]).map(char::from).collect()
}

/// Writes two digits per byte, as far as there is room.
pub(crate) fn write(bytes: &[u8], text: &mut [u8]) {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[lower_hex(byte >> 4), lower_hex(byte & 15)]);
    }
}

fn lower_hex(half: u8) -> u8 {
    if half < 10 { b'0' + half } else { b'a' + half - 10 }
}

/// Reads 64 lower-case hex digits; `None` for anything else.
pub(crate) fn parse_32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// The value of one lower-case hex digit.
fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
