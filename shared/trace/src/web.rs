//! The attributes of spans of HTTP calls, in the words of the semantic conventions.

use goldleaves_domain::TraceContext;
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};

use crate::OpenSpan;

/// A constant, because a name in a text is parsed each time that it is looked up.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The client's span, when it sent exactly one `traceparent` and it is valid.
pub fn parent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    only.to_str().ok()?.parse().ok()
}

/// Describes a request by its method and version.
pub fn say_request(span: &mut OpenSpan, method: &Method, version: Version) {
    span.set("http.request.method", known(method).unwrap_or("_OTHER"));
    span.set("url.scheme", "http");
    let version = match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    span.set("network.protocol.version", version);
}

/// Notes how a call was answered. What is a server's fault is an error; to who called, a client's fault is one too.
pub fn say_status(span: &mut OpenSpan, status: StatusCode) {
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() || (span.is_client() && status.is_client_error()) {
        span.fail(status.as_str().to_owned());
    }
}

/// The method in a span's name. A client can make methods up, and names are to be few.
pub fn method_word(method: &Method) -> &'static str {
    known(method).unwrap_or("HTTP")
}

fn known(method: &Method) -> Option<&'static str> {
    const KNOWN: [(Method, &str); 9] = [
        (Method::GET, "GET"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
        (Method::DELETE, "DELETE"),
        (Method::HEAD, "HEAD"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::TRACE, "TRACE"),
        (Method::CONNECT, "CONNECT"),
    ];
    KNOWN.iter().find(|(known, _)| known == method).map(|(_, name)| *name)
}
