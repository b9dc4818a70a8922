//! The parts of a head that are read alike wherever calls go past hyper: towards the client and towards the upstream. A head that
//! leaves a question is refused here, and is hyper's; what else makes one, each side knows.

use bytes::Bytes;
use http::header::{CONNECTION, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use httparse::Header;

/// The most fields of a head, as many as `Folds` leaves as they are.
pub const SHORT_FIELDS_MAX: usize = 64;

/// Returns the fields that were parsed of these bytes, where none concerns the connection or another framing than by length, and
/// none is among `refused`. The map has room for `more` others: one that grows is copied.
pub fn short_fields(read: &Bytes, fields: &[Header<'_>], more: usize, refused: &[HeaderName]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len() + more);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let is_another = match name {
            CONNECTION => !field.value.eq_ignore_ascii_case(b"keep-alive"),
            TRANSFER_ENCODING | TRAILER | UPGRADE => true,
            _ => refused.contains(&name),
        };
        if is_another {
            return None;
        }
        headers.append(name, HeaderValue::from_maybe_shared(read.slice_ref(field.value)).ok()?);
    }
    Some(headers)
}

/// Returns the length that a `Content-Length` says, in digits alone.
pub fn said_length(value: &HeaderValue) -> Option<usize> {
    let is_digits = !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    value.to_str().ok().filter(|_| is_digits)?.parse().ok()
}

/// Returns whether an answer of this status has a body, to whatever but HEAD it answers.
pub fn has_body(status: StatusCode) -> bool {
    !status.is_informational() && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
