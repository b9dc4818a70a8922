//! The one normalised path that is matched, metered and forwarded.
//!
//! An upstream that decodes, merges or resolves a path must not see another resource than the one that was billed. So
//! the path is brought into one form before anything looks at it, and what different servers are known to read
//! differently is refused. Nothing here knows routes, and nothing here decodes twice: `%252e` is the text `%2e`.

use std::fmt;

/// A path in its one form: starts with `/`, ASCII, without `.` or empty segments (a trailing `/` is kept), unreserved
/// characters bare, every other escape in upper-case hex. `normalise(normalise(x)) == normalise(x)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NormalPath(String);

/// The reason a path has no single meaning. Each is the client's mistake, 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathError {
    /// Does not start with `/`.
    #[error("the path must start with /")]
    NotAbsolute,
    /// A `..` segment, escaped or not, with or without `;parameters`.
    #[error("the path must not have a .. segment")]
    ParentSegment,
    /// A `.` segment with `;parameters`: some servers remove it, some do not.
    #[error("the path must not have a . segment with parameters")]
    DotParameters,
    /// `%2f`: some servers split there, some do not.
    #[error("the path must not have an escaped slash (%2f)")]
    EncodedSlash,
    /// A backslash, escaped or not: some servers split there.
    #[error("the path must not have a backslash (\\ or %5c)")]
    Backslash,
    /// NUL or another control character, escaped or not.
    #[error("the path must not have control characters")]
    Control,
    /// A `%` without two hex digits.
    #[error("the path has a % without two hex digits")]
    BadEscape,
    /// Escapes that are no UTF-8, overlong forms among them.
    #[error("the path's escapes are not UTF-8")]
    NotUtf8,
}

impl NormalPath {
    /// Brings a request's path (without query) into its one form.
    ///
    /// # Errors
    /// When servers may read the path differently, or it is no path.
    pub fn normalise(raw: &str) -> Result<Self, PathError> {
        let relative = raw.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
        let mut path = String::with_capacity(raw.len() + 1);
        let mut ends_with_slash = true;
        for segment in relative.split('/') {
            let plain = segment.bytes().all(is_allowed);
            ends_with_slash = if plain {
                !is_name(segment)?
            } else {
                let decoded = decode(segment)?;
                check_characters(&decoded)?;
                !is_name(&decoded)?
            };
            if ends_with_slash {
                continue;
            }
            path.push('/');
            if plain {
                path.push_str(segment);
            } else {
                push_normal(segment, &mut path);
            }
        }
        if ends_with_slash {
            path.push('/');
        }
        Ok(Self(path))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments between slashes, still escaped; none for `/`, and no empty one for a trailing slash.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }
}

impl fmt::Display for NormalPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Refuses characters of a decoded segment that servers take for something else. None of them may stand bare.
fn check_characters(decoded: &str) -> Result<(), PathError> {
    for char in decoded.chars() {
        match char {
            '/' => return Err(PathError::EncodedSlash),
            '\\' => return Err(PathError::Backslash),
            char if char.is_control() => return Err(PathError::Control),
            _ => {}
        }
    }
    Ok(())
}

/// Returns whether a decoded segment is kept (`true`) or, being empty or `.`, dropped.
fn is_name(decoded: &str) -> Result<bool, PathError> {
    if !decoded.starts_with('.') {
        return Ok(!decoded.is_empty());
    }
    let (name, has_parameters) = decoded.split_once(';').map_or((decoded, false), |(name, _)| (name, true));
    match name {
        ".." => Err(PathError::ParentSegment),
        "." if has_parameters => Err(PathError::DotParameters),
        "." => Ok(false),
        _ => Ok(!decoded.is_empty()),
    }
}

/// Returns what a segment says once its escapes are read.
fn decode(segment: &str) -> Result<String, PathError> {
    let mut decoded = Vec::with_capacity(segment.len());
    for piece in Pieces(segment.as_bytes()) {
        decoded.push(match piece.ok_or(PathError::BadEscape)? {
            Piece::Raw(byte) | Piece::Escaped(byte) => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| PathError::NotUtf8)
}

/// Appends a segment that could be decoded, in its one form.
fn push_normal(segment: &str, path: &mut String) {
    for piece in Pieces(segment.as_bytes()).flatten() {
        match piece {
            Piece::Raw(byte) if is_allowed(byte) => path.push(char::from(byte)),
            Piece::Escaped(byte) if is_unreserved(byte) => path.push(char::from(byte)),
            Piece::Raw(byte) | Piece::Escaped(byte) => {
                path.push('%');
                path.extend([byte >> 4, byte & 15].map(|half| char::from(upper_hex(half))));
            }
        }
    }
}

/// Returns whether an escaped segment, decoded and in lower case, says `name`, which is in lower case. Allocates nothing.
pub(crate) fn says(segment: &str, name: &[u8]) -> bool {
    if !segment.contains('%') {
        return segment.as_bytes().eq_ignore_ascii_case(name);
    }
    let decoded = Pieces(segment.as_bytes()).map(|piece| match piece {
        Some(Piece::Raw(byte) | Piece::Escaped(byte)) => Some(byte.to_ascii_lowercase()),
        None => None,
    });
    decoded.eq(name.iter().copied().map(Some))
}

/// Returns what an escaped segment says; a bad escape, which a normalised segment has not, says nothing.
pub(crate) fn decoded(segment: &str) -> Vec<u8> {
    let pieces = Pieces(segment.as_bytes()).flatten();
    pieces.map(|(Piece::Raw(byte) | Piece::Escaped(byte))| byte).collect()
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Returns what may stand bare in a segment: RFC 3986, 3.3, `pchar` without escapes.
fn is_allowed(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'!' | b'$' | b'&'..=b',' | b';' | b'=' | b':' | b'@')
}

fn upper_hex(half: u8) -> u8 {
    if half < 10 { b'0' + half } else { b'A' + half - 10 }
}

/// One byte of a segment and how it was written.
enum Piece {
    Raw(u8),
    Escaped(u8),
}

/// The bytes of a segment; `None` for a bad escape.
struct Pieces<'a>(&'a [u8]);

impl Iterator for Pieces<'_> {
    type Item = Option<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let (piece, rest) = match self.0 {
            [] => return None,
            [b'%', high, low, rest @ ..] => (escaped(*high, *low), rest),
            [b'%', rest @ ..] => (None, rest),
            [byte, rest @ ..] => (Some(Piece::Raw(*byte)), rest),
        };
        self.0 = rest;
        Some(piece)
    }
}

fn escaped(high: u8, low: u8) -> Option<Piece> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(Piece::Escaped(value(high)? << 4 | value(low)?))
}
