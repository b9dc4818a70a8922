//! Errors this side makes, as `application/problem+json` (RFC 9457) with the request's id.

use std::borrow::Cow;

use goldleaves_auth::TokenError;
use goldleaves_domain::RequestId;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{ProblemCode, WebBody};

/// The media type of a problem document.
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// One error as the client sees it. `detail` must hold neither tokens nor secrets.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: ProblemCode,
    detail: Cow<'static, str>,
    members: Map<String, Value>,
    headers: HeaderMap,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    request_id: &'a str,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

impl Problem {
    /// A problem with this status; `code` says for programs and `detail` for people what went wrong in this case.
    pub fn new(status: StatusCode, code: ProblemCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into(), members: Map::new(), headers: HeaderMap::new() }
    }

    /// 401 with the challenge of RFC 6750, section 3.
    pub fn unauthorized(error: TokenError) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ProblemCode::of_token(error), error.to_string())
            .header(http::header::WWW_AUTHENTICATE, challenge(error))
    }

    /// Adds a member to the document, such as the choices there are.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns what went wrong, as one word.
    pub const fn code(&self) -> ProblemCode {
        self.code
    }

    /// Returns what went wrong in this case.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The response, with its document.
    pub fn response(self, request_id: &RequestId) -> Response<WebBody> {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code.as_str(),
            detail: &self.detail,
            request_id: request_id.as_str(),
            members: &self.members,
        };
        // Texts and a number always serialise.
        let text = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(WebBody::full(text));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl ProblemCode {
    /// The word for programs: three are enough to know what to do next (log in, renew, look into it).
    pub const fn of_token(error: TokenError) -> Self {
        match error {
            TokenError::Missing => Self::TokenMissing,
            TokenError::Expired => Self::TokenExpired,
            _ => Self::TokenInvalid,
        }
    }
}

/// The challenge: a request without any token only learns that one is needed (RFC 6750, 3.1), all others what was wrong.
fn challenge(error: TokenError) -> HeaderValue {
    let word = match error {
        TokenError::Missing => return HeaderValue::from_static("Bearer"),
        TokenError::SeveralHeaders | TokenError::Twice | TokenError::Scheme => "invalid_request",
        _ => "invalid_token",
    };
    // None of the texts holds a quote or anything but visible ASCII and blanks.
    let text = format!("Bearer error=\"{word}\", error_description=\"{error}\"");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer error=\"invalid_token\""))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn is_a_problem_document() {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, ProblemCode::RateLimited, "slow \"down\"")
            .header(http::header::RETRY_AFTER, HeaderValue::from_static("1"))
            .member("choices", vec!["a", "b"]);
        let response = problem.response(&"r-1".parse().unwrap());
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "1");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            document,
            serde_json::json!({"type": "about:blank", "title": "Too Many Requests", "status": 429,
                "code": "rate_limited", "detail": "slow \"down\"", "request_id": "r-1", "choices": ["a", "b"]})
        );
    }

    #[test]
    fn unauthorized_challenges() {
        let expired = "Bearer error=\"invalid_token\", error_description=\"the token has expired\"";
        let scheme = "Bearer error=\"invalid_request\", \
                      error_description=\"the Authorization header must be `Bearer <token>`\"";
        for (error, code, challenge) in [
            (TokenError::Missing, "token_missing", "Bearer"),
            (TokenError::Expired, "token_expired", expired),
            (TokenError::Scheme, "token_invalid", scheme),
        ] {
            let problem = Problem::unauthorized(error);
            assert_eq!(problem.code().as_str(), code);
            let response = problem.response(&"r".parse().unwrap());
            assert_eq!(response.status(), 401);
            assert_eq!(response.headers()["www-authenticate"], challenge);
        }
    }
}
