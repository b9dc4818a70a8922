//! The gateway's own errors as gRPC clients read them: 200 without a body, and what went wrong in `grpc-status`.

use std::fmt::Write as _;

use goldleaves_web::WebBody;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::error::{GatewayError, HttpStatus};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The answer; `headers` are those that outer layers added.
pub(super) fn answer(error: &GatewayError, headers: HeaderMap) -> Response<WebBody> {
    let mut response = Response::new(WebBody::empty());
    response.extensions_mut().insert(HttpStatus(error.status()));
    let own = response.headers_mut();
    own.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    own.insert(GRPC_STATUS, HeaderValue::from(code(error.status())));
    if let Ok(message) = HeaderValue::from_str(&escaped(&format!("{}: {error}", error.code().as_str()))) {
        own.insert(GRPC_MESSAGE, message);
    }
    if let Some(seconds) = error.retry_after_seconds() {
        own.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    own.extend(headers);
    response
}

/// The code of a status, by its number.
const fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 3,
        401 => 16,
        403 => 7,
        404 | 405 | 501 => 12,
        408 | 504 => 4,
        413 | 429 | 431 => 8,
        500 => 13,
        502 | 503 => 14,
        _ => 2,
    }
}

/// Percent-encoded where it is not visible ASCII (gRPC over HTTP/2, "Responses").
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_code() {
        for (status, expected) in [
            (400, 3),
            (401, 16),
            (403, 7),
            (404, 12),
            (405, 12),
            (408, 4),
            (504, 4),
            (413, 8),
            (431, 8),
            (429, 8),
            (500, 13),
            (501, 12),
            (502, 14),
            (503, 14),
            (417, 2),
        ] {
            assert_eq!(code(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
        assert_eq!(escaped("a b%\u{e9}\n"), "a b%25%C3%A9%0A");
    }

    #[test]
    fn the_answer_is_200_and_says_the_rest_in_fields() {
        let response = answer(&GatewayError::ConcurrencyLimited, HeaderMap::new());
        let said = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!((response.status(), HttpStatus::of(&response)), (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS));
        assert_eq!((said("grpc-status"), said("content-type"), said("retry-after")), ("8", "application/grpc", "1"));
        assert!(said("grpc-message").starts_with("concurrency_limited: "));
    }
}
