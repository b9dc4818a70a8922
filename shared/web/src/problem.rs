//! Errors this side makes, as `application/problem+json` (RFC 9457) with the request's id.

use std::borrow::Cow;

use goldleaves_domain::RequestId;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::WebBody;

/// The media type of a problem document.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// One error as the client sees it. `detail` must hold neither tokens nor secrets.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    headers: HeaderMap,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
}

impl Problem {
    /// A problem with this status; `detail` says what went wrong in this case.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), headers: HeaderMap::new() }
    }

    /// 401 with the challenge that RFC 6750 asks for.
    pub fn unauthorized(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
            .header(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
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

    /// What went wrong in this case.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The response, with its document.
    pub fn response(self, request_id: &RequestId) -> Response<WebBody> {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            request_id: request_id.as_str(),
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn is_a_problem_document() {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "slow \"down\"")
            .header(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
        let response = problem.response(&"r-1".parse().unwrap());
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "1");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            document,
            serde_json::json!({"type": "about:blank", "title": "Too Many Requests", "status": 429,
                "detail": "slow \"down\"", "request_id": "r-1"})
        );
    }

    #[test]
    fn unauthorized_challenges() {
        let response = Problem::unauthorized("no token").response(&"r".parse().unwrap());
        assert_eq!(
            (response.status().as_u16(), &response.headers()["www-authenticate"]),
            (401, &"Bearer".parse().unwrap())
        );
    }
}
