//! Headers that belong to one connection only, both ways (RFC 9110, 7.6.1), and how a body is framed.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::identity;
use crate::names::{
    FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PREFIX, FORWARDED_PROTO, ORGANIZATION_ID, REQUEST_ID, TENANT_ID,
    TRACEPARENT, USER_ID,
};

/// Fields that `Connection` must not name: taking them away would change what a message means.
const NEVER_HOP_BY_HOP: [HeaderName; 5] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, COOKIE, AUTHORIZATION];

/// The headers that the gateway sets for the upstream: the client's own are gone by then, and its `Connection` has no
/// power over these.
pub(crate) const SAID_BY_THE_GATEWAY: [HeaderName; 10] = [
    REQUEST_ID,
    USER_ID,
    TENANT_ID,
    ORGANIZATION_ID,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    FORWARDED_HOST,
    FORWARDED_PREFIX,
    TRACEPARENT,
    VIA,
];

/// Fields that belong to one connection whether `Connection` names them or not. By their text: looking over the few
/// names of a message costs less than to hash each of these and find it missing.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade")
}

/// Fields of a request that end here. `Proxy` is none, but a CGI program takes it for the setting `HTTP_PROXY`
/// (CVE-2016-5385).
fn ends_here(name: &str) -> bool {
    matches!(name, "te" | "expect" | "proxy-authorization" | "proxy") || is_usage(name)
}

/// Fields in which upstream and gateway speak of usage.
fn is_usage(name: &str) -> bool {
    matches!(name, "x-usage-units" | "x-usage-action" | "x-usage-event-id")
}

/// The way the request's body goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// A body of this many bytes.
    Length(u64),
    /// A body in chunks, as many as come.
    Chunked,
}

/// Makes a client's headers those of a request to the upstream: hop-by-hop fields go, `Host` is there, cookie crumbs
/// are joined, the body is framed in exactly one way. `Some` is the protocol the client wants to switch to.
pub(crate) fn outward(
    headers: &mut HeaderMap,
    version: Version,
    framing: Framing,
    authority: Option<&HeaderValue>,
) -> Option<HeaderValue> {
    let upgrade = wanted_upgrade(headers, version);
    let trailers_wanted = names_token(headers, &TE, "trailers");
    remove_named_by_connection(headers, &SAID_BY_THE_GATEWAY);
    remove_where(headers, |name| is_hop_by_hop(name) || ends_here(name));
    if trailers_wanted {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = &upgrade {
        headers.insert(UPGRADE, protocol.clone());
    }
    let connection = match (trailers_wanted, upgrade.is_some()) {
        (true, true) => Some("te, upgrade"),
        (true, false) => Some("te"),
        (false, true) => Some("upgrade"),
        (false, false) => None,
    };
    if let Some(names) = connection {
        headers.insert(CONNECTION, HeaderValue::from_static(names));
    }
    if let Some(authority) = authority
        && !headers.contains_key(HOST)
    {
        headers.insert(HOST, authority.clone());
    }
    if version == Version::HTTP_2 {
        join_cookies(headers);
    }
    frame(headers, framing);
    upgrade
}

/// An answer says two lengths of its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TwoLengths;

/// Makes the upstream's headers those of a response to the client.
///
/// # Errors
/// It says two lengths, which hyper lets pass where no body follows (RFC 9110, 8.6).
pub(crate) fn inward(headers: &mut HeaderMap) -> Result<(), TwoLengths> {
    // Transfer-Encoding wins over Content-Length (RFC 9112, 6.3): kept, it would frame the client's body wrongly.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    } else if list(headers, &CONTENT_LENGTH).nth(1).is_some() {
        let mut lengths = list(headers, &CONTENT_LENGTH);
        let first = lengths.next().unwrap_or_default();
        if lengths.any(|length| length != first) {
            return Err(TwoLengths);
        }
        let length = HeaderValue::from_bytes(first);
        drop(lengths);
        if let Ok(length) = length {
            headers.insert(CONTENT_LENGTH, length);
        }
    }
    remove_named_by_connection(headers, &[]);
    remove_where(headers, |name| is_hop_by_hop(name) || matches!(name, "proxy-authenticate" | "x-usage-event-id"));
    if headers.contains_key(TRAILER) {
        strip_announced_usage(headers);
    }
    Ok(())
}

/// Returns whether a message's body is coded in a way that only this connection knows.
pub(crate) fn has_foreign_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(only), None) => !only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

/// Returns whether a value begins or ends with a blank. In HTTP/1 blanks around a value are none of it; in HTTP/2 a message with
/// such a value is malformed (RFC 9113, 8.2.1).
pub(crate) fn has_blank_ends(headers: &HeaderMap) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    headers.values().map(HeaderValue::as_bytes).any(|value| is_blank(value.first()) || is_blank(value.last()))
}

/// Takes out of a client's trailers what a client must not say.
pub(crate) fn strip_request_trailers(mut trailers: HeaderMap) -> HeaderMap {
    remove_named_by_connection(&mut trailers, &[]);
    remove_where(&mut trailers, is_hop_by_hop);
    for name in [TE, TRAILER, CONTENT_LENGTH, HOST, COOKIE, AUTHORIZATION, REQUEST_ID, TRACEPARENT] {
        trailers.remove(name);
    }
    identity::strip(&mut trailers);
    trailers
}

/// Returns whether a trailer of the upstream ends here: it belongs to one connection, would change how the message is
/// read, or is one that only the gateway sets.
pub(crate) fn is_hop_by_hop_trailer(name: &HeaderName) -> bool {
    is_hop_by_hop(name.as_str()) || is_usage(name.as_str()) || [TE, TRAILER, CONTENT_LENGTH, REQUEST_ID].contains(name)
}

fn frame(headers: &mut HeaderMap, framing: Framing) {
    match framing {
        // A length of 0 says more than none at all, so it stays as it is.
        Framing::None => {}
        Framing::Length(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Framing::Chunked => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// The protocol that a request wants to switch to, where WebSocket is one of those it names: any other could carry requests
/// that nobody meters, and is not passed on (RFC 9110, 7.8: the server chooses).
pub(crate) fn wanted_upgrade(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    if !headers.contains_key(UPGRADE) || version != Version::HTTP_11 || !names_token(headers, &CONNECTION, "upgrade") {
        return None;
    }
    let protocol = list(headers, &UPGRADE).find(|token| token.eq_ignore_ascii_case(b"websocket"))?;
    HeaderValue::from_bytes(protocol).ok()
}

/// The members of a comma-separated field, over all its lines.
pub(crate) fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

fn names_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    list(headers, name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

fn remove_named_by_connection(headers: &mut HeaderMap, kept: &[HeaderName]) {
    let named: Vec<HeaderName> = list(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !NEVER_HOP_BY_HOP.contains(name) && !kept.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Removes the few names that `is_gone` knows.
fn remove_where(headers: &mut HeaderMap, is_gone: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_gone(name.as_str())).cloned() {
        headers.remove(name);
    }
}

/// Clients of HTTP/2 may send a cookie in crumbs; HTTP/1.1 knows one line (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, value);
    }
}

/// Removes what the upstream announces of usage in its trailers: it is not the client's business.
fn strip_announced_usage(headers: &mut HeaderMap) {
    let says_usage = |token: &&[u8]| std::str::from_utf8(token).is_ok_and(|name| is_usage(&name.to_ascii_lowercase()));
    if !list(headers, &TRAILER).any(|token| says_usage(&token)) {
        return;
    }
    let kept: Vec<&[u8]> = list(headers, &TRAILER).filter(|token| !says_usage(token)).collect();
    let kept = HeaderValue::from_bytes(&kept.join(&b", "[..])).ok().filter(|value| !value.is_empty());
    match kept {
        Some(value) => drop(headers.insert(TRAILER, value)),
        None => drop(headers.remove(TRAILER)),
    }
}

/// The media type of a message, without parameters.
fn media_type(headers: &HeaderMap) -> &[u8] {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    media_type(headers).eq_ignore_ascii_case(b"text/event-stream")
}

/// `application/grpc`, `application/grpc+proto`, `application/grpc-web`, ….
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let start = media_type(headers).get(..b"application/grpc".len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
}

/// Returns whether it is gRPC-Web, which browsers speak instead of gRPC over any HTTP.
pub(crate) fn is_grpc_web(headers: &HeaderMap) -> bool {
    let start = media_type(headers).get(..b"application/grpc-web".len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc-web"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn sent(lines: &[(&str, &str)], version: Version, framing: Framing) -> (HeaderMap, Option<HeaderValue>) {
        let mut headers = map(lines);
        let upgrade = outward(&mut headers, version, framing, Some(&HeaderValue::from_static("up:1")));
        (headers, upgrade)
    }

    #[test]
    fn what_connection_names_goes_and_what_frames_stays() {
        let lines = [
            ("host", "a"),
            ("connection", "x-secret, content-length, Host"),
            ("connection", "keep-alive, Authorization"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("authorization", "Bearer t"),
            ("te", "gzip;q=0.5"),
            ("expect", "100-continue"),
            ("content-length", "3"),
        ];
        let (headers, upgrade) = sent(&lines, Version::HTTP_11, Framing::Length(3));
        assert_eq!(headers, map(&[("host", "a"), ("authorization", "Bearer t"), ("content-length", "3")]));
        assert_eq!(upgrade, None);
    }

    #[test]
    fn what_the_gateway_says_is_not_for_connection_to_name() {
        let said = SAID_BY_THE_GATEWAY.map(|name| (name.as_str().to_owned(), "known"));
        let named = said.iter().map(|(name, _)| name.to_ascii_uppercase()).collect::<Vec<_>>().join(", ");
        let mut lines: Vec<(&str, &str)> = said.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        lines.push(("host", "a"));
        let kept = map(&lines);
        lines.extend([("connection", named.as_str()), ("proxy", "http://elsewhere")]);
        assert_eq!(sent(&lines, Version::HTTP_11, Framing::None).0, kept);
    }

    #[test]
    fn trailers_are_asked_for_when_the_client_did() {
        let (headers, _) = sent(&[("host", "a"), ("te", "trailers, deflate")], Version::HTTP_11, Framing::None);
        assert_eq!(headers, map(&[("host", "a"), ("te", "trailers"), ("connection", "te")]));
    }

    #[test]
    fn an_upgrade_needs_connection_and_http_1_1_and_is_to_websocket() {
        let wanted = [("host", "a"), ("connection", "Upgrade"), ("upgrade", "websocket")];
        let (headers, upgrade) = sent(&wanted, Version::HTTP_11, Framing::None);
        assert_eq!(upgrade.unwrap(), "websocket");
        assert_eq!(headers["connection"], "upgrade");
        let several = [("host", "a"), ("connection", "upgrade"), ("upgrade", "x"), ("upgrade", "y/1, WebSocket")];
        let (headers, upgrade) = sent(&several, Version::HTTP_11, Framing::None);
        assert_eq!(headers.get_all("upgrade").iter().collect::<Vec<_>>(), ["WebSocket"]);
        assert_eq!(upgrade.unwrap(), "WebSocket");
        for (lines, version) in [
            (&wanted[..], Version::HTTP_2),
            (&[("host", "a"), ("upgrade", "websocket")][..], Version::HTTP_11),
            (&[("host", "a"), ("connection", "upgrade"), ("upgrade", "x, H2C")][..], Version::HTTP_11),
            (&[("host", "a"), ("connection", "upgrade"), ("upgrade", "tls/1.0")][..], Version::HTTP_11),
        ] {
            let (headers, upgrade) = sent(lines, version, Framing::None);
            assert_eq!((headers.get("upgrade"), upgrade), (None, None));
        }
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let (headers, _) = sent(&[("host", "a"), ("cookie", "a=1"), ("cookie", "b=2")], Version::HTTP_2, Framing::None);
        assert_eq!(headers, map(&[("host", "a"), ("cookie", "a=1; b=2")]));
    }

    #[test]
    fn a_body_of_unknown_length_is_chunked_and_nothing_else() {
        let (headers, _) = sent(&[("content-length", "7")], Version::HTTP_2, Framing::Chunked);
        assert_eq!(headers, map(&[("host", "up:1"), ("transfer-encoding", "chunked")]));
    }

    #[test]
    fn usage_is_neither_the_clients_to_say_nor_to_see() {
        let usage = [("x-usage-units", "9"), ("x-usage-action", "x"), ("x-usage-event-id", "y"), ("host", "a")];
        assert_eq!(sent(&usage, Version::HTTP_11, Framing::None).0, map(&[("host", "a")]));
        let mut headers = map(&[("trailer", "X-Usage-Units, Expires"), ("trailer", "x-usage-action")]);
        inward(&mut headers).unwrap();
        assert_eq!(headers, map(&[("trailer", "Expires")]));
        let mut headers = map(&[("trailer", "X-Usage-Units"), ("x-usage-event-id", "forged")]);
        inward(&mut headers).unwrap();
        assert_eq!(headers, HeaderMap::new());
    }

    #[test]
    fn one_length_frames_an_answer() {
        let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        inward(&mut headers).unwrap();
        assert_eq!(headers, HeaderMap::new());
        for lengths in [&[("content-length", "3"), ("content-length", "4")][..], &[("content-length", "3, 4")]] {
            assert_eq!(inward(&mut map(lengths)), Err(TwoLengths), "{lengths:?}");
        }
        let mut headers = map(&[("content-length", "3"), ("content-length", "3")]);
        inward(&mut headers).unwrap();
        assert_eq!(headers, map(&[("content-length", "3")]));
    }

    #[test]
    fn codings_beside_chunked_are_foreign() {
        for (lines, foreign) in [
            (&[][..], false),
            (&[("transfer-encoding", "Chunked")][..], false),
            (&[("transfer-encoding", "gzip, chunked")][..], true),
            (&[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")][..], true),
        ] {
            assert_eq!(has_foreign_coding(&map(lines)), foreign);
        }
    }
}
