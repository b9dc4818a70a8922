//! The exchange of a request without a body for an answer that comes in one piece, past hyper.
//!
//! Most calls are such, and hyper's way for them is long: a channel to the connection, four polls of it, a copy of the request in
//! case that it must be sent again. Here the head is written and what comes is read, once. Only an answer that leaves no
//! question is taken: anything else becomes hyper's, which finds its request sent and the bytes unread, and judges both as ever.
//! So there is one reading of what is framed in any other way, broken off or malformed.

use std::mem::MaybeUninit;
use std::task::Poll;

use bytes::Bytes;
use goldleaves_web::{SHORT_FIELDS_MAX, has_body, said_length, short_fields};
use http::header::{CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use httparse::{Header, ParserConfig, Status};
use tokio::time::Instant;

use super::connection::Connection;
use super::upload::Upload;

/// The longest head that is sent so: it fits into any socket's buffer.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// The bytes that a request line and the end of a head have beside their words.
const LINE_BYTES: usize = 16;
/// Room for what the gateway adds to an answer.
const FIELDS_MORE: usize = 4;

/// The end of an exchange.
pub(crate) enum Short {
    /// The whole answer.
    Answered(Response<Bytes>),
    /// It goes on with hyper, which is to be given the same request; some of it may be with the upstream already.
    Long { is_sent: bool },
    /// The upstream said nothing until the deadline.
    Silent,
}

/// The head of a request that may be sent so, for what is known of it before an answer came.
pub(crate) fn short_head(request: &Request<Upload>) -> Option<Vec<u8>> {
    if is_short(request) { written(request) } else { None }
}

fn is_short(request: &Request<Upload>) -> bool {
    // Nothing follows an answer to HEAD, whatever length it says. An answer to CONNECT or to an upgrade is no HTTP.
    let is_other =
        [Method::HEAD, Method::CONNECT].contains(request.method()) || request.headers().contains_key(UPGRADE);
    request.body().is_none() && !is_other && request.uri().authority().is_none()
}

/// Sends a request and waits for an answer, or for a reason to leave both to hyper.
pub(crate) async fn short(connection: &mut Connection, head: Vec<u8>, deadline: Instant) -> Short {
    let Some(io) = connection.past_hyper().cloned() else { return Short::Long { is_sent: false } };
    // What came since the connection was chosen answers nothing that was asked: hyper finds it, before it sends.
    if !std::future::poll_fn(|cx| Poll::Ready(io.is_quiet(cx))).await {
        return Short::Long { is_sent: false };
    }
    let mut is_sent = false;
    let read = std::future::poll_fn(|cx| {
        if !is_sent && !io.send(&head, cx) {
            return Poll::Ready(Some(Bytes::new()));
        }
        is_sent = true;
        match io.poll_short(cx) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending if connection.waited_until(deadline, cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    let Some(read) = read.await else { return Short::Silent };
    match whole(&read) {
        Some(response) => {
            io.answered();
            Short::Answered(response)
        }
        None => {
            io.unread(read);
            Short::Long { is_sent: true }
        }
    }
}

/// The head of a request, byte for byte as hyper writes it; `None` = it is long.
fn written(request: &Request<Upload>) -> Option<Vec<u8>> {
    let target = request.uri().path_and_query()?.as_str();
    let method = request.method().as_str();
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let bytes = method.len() + target.len() + LINE_BYTES + fields.sum::<usize>();
    if bytes > HEAD_BYTES_MAX {
        return None;
    }
    let mut head = Vec::with_capacity(bytes);
    for word in [method, " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(word.as_bytes());
    }
    for (name, value) in request.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

/// The answer, where these bytes are one, whole, framed by its length, and on a connection that goes on.
fn whole(read: &Bytes) -> Option<Response<Bytes>> {
    let mut fields = [MaybeUninit::<Header<'_>>::uninit(); SHORT_FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let Ok(Status::Complete(head_bytes)) = config.parse_response_with_uninit_headers(&mut parsed, read, &mut fields)
    else {
        return None;
    };
    let status = StatusCode::from_u16(parsed.code?).ok()?;
    if !has_body(status) || parsed.version != Some(1) || parsed.reason != status.canonical_reason() {
        return None;
    }
    let body = read.slice(head_bytes..);
    let headers = short_fields(read, parsed.headers, FIELDS_MORE, &[])?;
    if only_length(&headers)? != body.len() {
        return None;
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Some(response)
}

/// The length, where one is said and no other.
fn only_length(headers: &HeaderMap) -> Option<usize> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (length, None) = (lengths.next()?, lengths.next()) else { return None };
    said_length(length)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use goldleaves_web::Buffers;
    use http::HeaderValue;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::super::pool::PoolOptions;
    use super::super::slots::Slots;
    use super::super::wire::Wire;
    use super::*;

    fn request(method: &str, target: &str, fields: &[(&'static str, &str)]) -> Request<Upload> {
        let mut request = Request::new(Upload::empty());
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = target.parse().unwrap();
        for (name, value) in fields {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request
    }

    /// Returns what hyper writes for it.
    async fn by_hyper(request: Request<Upload>) -> Vec<u8> {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
        let sent = async move {
            let answer = sender.send_request(request);
            tokio::join!(connection, answer)
        };
        let read = async move {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\n") {
                assert!(theirs.read_buf(&mut bytes).await.unwrap() > 0);
            }
            bytes
        };
        tokio::join!(sent, read).1
    }

    #[tokio::test]
    async fn a_head_is_what_hyper_writes() {
        for (method, target, fields) in [
            ("GET", "/", &[("host", "a")][..]),
            ("POST", "/a/b?c=%20&d", &[("host", "a:1"), ("content-length", "0"), ("x-empty", "")]),
            ("REPORT", "/x", &[("x-twice", "1"), ("host", "a"), ("x-twice", "2"), ("te", "trailers")]),
        ] {
            let head = written(&request(method, target, fields)).unwrap();
            assert_eq!(head, by_hyper(request(method, target, fields)).await, "{method} {target}");
        }
    }

    #[test]
    fn a_long_head_is_left_to_hyper() {
        let long = "x".repeat(HEAD_BYTES_MAX);
        assert!(written(&request("GET", "/", &[("host", "a"), ("x-long", &long)])).is_none());
    }

    #[test]
    fn what_may_be_answered_without_a_body_or_with_another_protocol_is_not_tried() {
        assert!(is_short(&request("DELETE", "/", &[])));
        for (method, target, fields) in [
            ("HEAD", "/", &[][..]),
            ("CONNECT", "a:1", &[]),
            ("GET", "/", &[("upgrade", "websocket")]),
            ("GET", "http://a/", &[]),
        ] {
            assert!(!is_short(&request(method, target, fields)), "{method} {target}");
        }
    }

    /// A call waits for its record between the look at its connection and its request.
    #[tokio::test]
    async fn what_came_before_a_request_was_sent_is_no_answer_to_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let options = PoolOptions { idle_timeout: Duration::from_secs(60), header_fields_max: 256 };
        let slot = Slots::new(1).take().unwrap();
        let mut connection = Connection::open(Wire::Unix(ours), &options, slot, Buffers::default()).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        theirs.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad").await.unwrap();
        let io = connection.past_hyper().unwrap().clone();
        std::future::poll_fn(|cx| if io.is_quiet(cx) { Poll::Pending } else { Poll::Ready(()) }).await;
        let head = written(&request("GET", "/", &[("host", "a")])).unwrap();
        assert!(matches!(short(&mut connection, head, deadline).await, Short::Long { is_sent: false }));
        drop((connection, io));
        let mut sent = Vec::new();
        // What was sent would come first; the end is a reset, as nobody has read the other's bytes.
        let _ = theirs.read_to_end(&mut sent).await;
        assert!(sent.is_empty(), "{sent:?}");
    }

    #[test]
    fn a_whole_answer_of_a_length_is_taken() {
        let sent =
            "HTTP/1.1 404 Not Found\r\nX-A: 1\r\nConnection: Keep-Alive\r\nContent-Length: 3\r\nx-a: \u{e9}\r\n\r\nabc";
        let response = whole(&Bytes::from(sent)).unwrap();
        assert_eq!((response.status().as_u16(), &response.body()[..]), (404, &b"abc"[..]));
        let values: Vec<&[u8]> = response.headers().get_all("x-a").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(values, [&b"1"[..], "\u{e9}".as_bytes()]);
        let empty = whole(&Bytes::from_static(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"));
        assert!(empty.unwrap().body().is_empty());
    }

    #[test]
    fn any_other_answer_is_hypers() {
        let many: String = (0..=SHORT_FIELDS_MAX).map(|number| format!("x{number}: v\r\n")).collect();
        for sent in [
            "",
            "HTTP/1.1 200 O",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd",
            "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTrailer: x\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive, x-a\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nUpgrade: h2c\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Folded: a\r\n b\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc",
            "SSH-2.0-x\r\n",
            &format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{many}\r\nabc"),
        ] {
            assert!(whole(&Bytes::from(sent.to_owned())).is_none(), "{sent:?}");
        }
    }
}
