//! The API's own documentation: the OpenAPI document and a page that shows it. Nothing comes from another host.

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

const PAGE: &str = include_str!("../../assets/docs.html");
/// The page's own script and style, and the document beside it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";

/// The OpenAPI document.
pub(crate) async fn openapi(document: Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json")], document).into_response()
}

pub(crate) async fn page() -> Response {
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, PAGE_POLICY)], PAGE).into_response()
}
