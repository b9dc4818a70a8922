//! Serves the short calls of an HTTP/1 connection past hyper: requests without a body whose answers are whole when they are made.
//!
//! Most calls are such, and hyper's way for them is long. Here a head is read in one piece, the service is asked, and the answer
//! is written in one piece. Whatever leaves a question becomes hyper's, with the connection, and stays so: a head that is
//! malformed, in several pieces or followed by more, a body either way, an upgrade, a client that says something or leaves while
//! its answer is made. hyper then reads the head anew, and gets the call that is under way or the answer that is there. So there
//! is one reading of what is framed in any other way.

use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use httparse::{Header, ParserConfig, Status};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::Service;

use super::io::WriteStall;
use super::linger::poll_close;
use super::service::Given;
use super::{Closing, Held};
use crate::body::whole;
use crate::{Alarm, SHORT_FIELDS_MAX, WebBody, has_body, said_length, short_fields};

/// The longest head or body that is read or written here.
const SHORT_BYTES: usize = 8 << 10;
/// Room for fields that a gateway adds to a head: a map that grows is copied.
const FIELDS_MORE: usize = 16;
/// The most that an answer's first line and the fields that are added to it have.
const ADDED_BYTES: usize = 160;

/// A connection, and where its exchange stands.
pub(super) struct Short<S: Service<Request<WebBody>>> {
    stream: TcpStream,
    held: Held,
    service: S,
    /// The call under way; one place for all calls of the connection.
    call: Pin<Box<Option<S::Future>>>,
    /// The answer that hyper is to write.
    answer: Option<S::Response>,
    /// The bytes that were read and are not answered.
    head: Bytes,
    /// The rest of the answer that is being written.
    unsent: Bytes,
    is_own: bool,
    /// The time for which a client may say nothing.
    silence_max: Duration,
    /// When a client that says nothing is let go.
    silent_until: Instant,
    alarm: Alarm,
    stall: WriteStall,
    closing: Closing,
    date: Date,
}

/// The state in which a connection left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// It is over.
    Closed,
    /// It goes on with hyper.
    ToHyper,
    /// It is over once the answer is written.
    Writing,
}

/// The parts that hyper goes on with.
pub(super) struct Rest<S: Service<Request<WebBody>>> {
    pub(super) read: BytesMut,
    pub(super) stream: TcpStream,
    pub(super) held: Held,
    pub(super) service: S,
    pub(super) given: Option<Given<S>>,
    /// When a head that is not whole is given up.
    pub(super) silent_until: Instant,
}

/// The way a connection is served.
pub(super) struct Rules {
    pub(super) silence_max: Duration,
    pub(super) write_timeout: Duration,
    pub(super) closing: Closing,
}

impl<S, B> Short<S>
where
    S: Service<Request<WebBody>, Response = Response<B>, Error = Infallible>,
    B: 'static,
{
    /// A connection of which this was read.
    pub(super) fn new(read: BytesMut, stream: TcpStream, service: S, held: Held, rules: Rules) -> Self {
        Self {
            stream,
            held,
            service,
            call: Box::pin(None),
            answer: None,
            head: read.freeze(),
            unsent: Bytes::new(),
            is_own: false,
            silence_max: rules.silence_max,
            silent_until: Instant::now() + rules.silence_max,
            alarm: Alarm::default(),
            stall: WriteStall::new(rules.write_timeout),
            closing: rules.closing,
            date: Date::default(),
        }
    }

    /// Serves for as long as calls are short. May be dropped at any time, and goes on where it was.
    pub(super) async fn run(&mut self) -> Left {
        loop {
            if self.head.is_empty() && !std::future::poll_fn(|cx| self.poll_head(cx)).await {
                return Left::Closed;
            }
            let Some(request) = parsed(&self.head) else { return Left::ToHyper };
            // Nobody need be woken: what is not ready is left to hyper.
            if self.service.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending() {
                return Left::ToHyper;
            }
            // No call is begun for a client that has left already, and one that sends more is hyper's too.
            if std::future::poll_fn(|cx| Poll::Ready(self.stream.poll_read_ready(cx).is_ready())).await {
                return Left::ToHyper;
            }
            let call = self.service.call(request);
            self.call.set(Some(call));
            let Some(answer) = std::future::poll_fn(|cx| self.poll_call(cx)).await else { return Left::ToHyper };
            self.call.set(None);
            if let Some(answer) = self.take(answer) {
                self.answer = Some(answer);
                return Left::ToHyper;
            }
            self.head = Bytes::new();
            if self.written().await.is_err() {
                return Left::Closed;
            }
            self.silent_until = Instant::now() + self.silence_max;
        }
    }

    /// Writes what is left of an answer.
    async fn written(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_write(cx)).await
    }

    /// Writes what is left of an answer and closes in stages: a client that goes on sending must not lose it.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.written().await?;
        let mut linger = None;
        std::future::poll_fn(|cx| poll_close(&mut self.stream, &mut linger, false, cx)).await
    }

    /// The server was asked to stop: whoever asked for nothing is closed.
    pub(super) fn stop(&self) -> Left {
        match (self.unsent.is_empty(), self.head.is_empty()) {
            (false, _) => Left::Writing,
            (true, true) => Left::Closed,
            (true, false) => Left::ToHyper,
        }
    }

    /// Gives hyper what it goes on with.
    pub(super) fn into_rest(self) -> Rest<S> {
        let given = match (self.answer, self.call) {
            (Some(answer), _) => Some(Given::Answer { answer: Some(answer) }),
            (None, call) if call.is_some() => Some(Given::Call { call }),
            (None, _) => None,
        };
        let read = BytesMut::from(&self.head[..]);
        Rest {
            read,
            stream: self.stream,
            held: self.held,
            service: self.service,
            given,
            silent_until: self.silent_until,
        }
    }

    /// Reads what comes next, once; false = nothing will.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut room = [MaybeUninit::uninit(); SHORT_BYTES];
        let mut into = ReadBuf::uninit(&mut room);
        match Pin::new(&mut self.stream).poll_read(cx, &mut into) {
            Poll::Ready(Ok(())) if !into.filled().is_empty() => {
                self.head = Bytes::copy_from_slice(into.filled());
                Poll::Ready(true)
            }
            Poll::Ready(_) => Poll::Ready(false),
            Poll::Pending if self.alarm.passed(self.silent_until, cx) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Waits for the answer; `None` = the client said something or left meanwhile.
    fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<Option<Response<B>>> {
        if let Some(call) = self.call.as_mut().as_pin_mut()
            && let Poll::Ready(answered) = call.poll(cx)
        {
            return match answered {
                Ok(answer) => Poll::Ready(Some(answer)),
                Err(never) => match never {},
            };
        }
        if self.stream.poll_read_ready(cx).is_ready() { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Takes an answer to be written; gives it back where that is hyper's to do.
    fn take(&mut self, answer: Response<B>) -> Option<Response<B>> {
        if self.closing.is_set() || !answer.extensions().is_empty() {
            return Some(answer);
        }
        let Some((body, is_own)) = whole(answer.body()) else { return Some(answer) };
        let Some(bytes) = written(answer.status(), answer.headers(), body, &mut self.date) else { return Some(answer) };
        (self.unsent, self.is_own) = (bytes, is_own);
        None
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.unsent);
            let written = ready!(self.stall.watch(cx, written, self.is_own))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            drop(self.unsent.split_to(written));
        }
        self.unsent = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

/// The request, where these bytes are one, whole, with nothing behind it, without a body, and nothing that concerns the
/// connection.
fn parsed(read: &Bytes) -> Option<Request<WebBody>> {
    let mut fields = [MaybeUninit::<Header<'_>>::uninit(); SHORT_FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let config = ParserConfig::default();
    let Ok(Status::Complete(bytes)) = config.parse_request_with_uninit_headers(&mut parsed, read, &mut fields) else {
        return None;
    };
    let (method, target) = (parsed.method?, parsed.path?);
    if bytes != read.len() || parsed.version != Some(1) || !target.bytes().all(is_plain) || !target.starts_with('/') {
        return None;
    }
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    // Nothing follows an answer to HEAD, whatever length it says; CONNECT and TRACE are no calls.
    if matches!(method, Method::HEAD | Method::CONNECT | Method::TRACE) {
        return None;
    }
    let mut request = Request::new(WebBody::empty());
    *request.headers_mut() = short_fields(read, parsed.headers, FIELDS_MORE, &[CONTENT_LENGTH, EXPECT])?;
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_maybe_shared(read.slice_ref(target.as_bytes())).ok()?;
    Some(request)
}

/// Bytes of a target that no one encodes, and that are no fragment.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~')
}

/// An answer, byte for byte as hyper writes it; `None` = it is hyper's to write.
fn written(status: StatusCode, headers: &HeaderMap, body: &Bytes, date: &mut Date) -> Option<Bytes> {
    let reason = status.canonical_reason().filter(|_| has_body(status))?;
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    if fields > SHORT_BYTES || body.len() > SHORT_BYTES {
        return None;
    }
    let mut answer = Vec::with_capacity(fields + body.len() + ADDED_BYTES);
    for word in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        answer.extend_from_slice(word.as_bytes());
    }
    let (mut lengths, mut is_dated) = (0, false);
    for (name, value) in headers {
        match *name {
            CONNECTION | TRANSFER_ENCODING | TRAILER | UPGRADE => return None,
            CONTENT_LENGTH if lengths > 0 || said_length(value) != Some(body.len()) => return None,
            CONTENT_LENGTH => lengths += 1,
            DATE => is_dated = true,
            _ => {}
        }
        put(&mut answer, [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    if lengths == 0 {
        put(&mut answer, [b"content-length: ", body.len().to_string().as_bytes(), b"\r\n", b""]);
    }
    if !is_dated {
        put(&mut answer, [b"date: ", date.text().as_bytes(), b"\r\n", b""]);
    }
    put(&mut answer, [b"\r\n", body, b"", b""]);
    Some(answer.into())
}

fn put(into: &mut Vec<u8>, pieces: [&[u8]; 4]) {
    for piece in pieces {
        into.extend_from_slice(piece);
    }
}

/// The time of day as it is written into answers, made anew each second.
#[derive(Debug, Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn text(&mut self) -> &str {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second || self.text.is_empty() {
            (self.second, self.text) = (second, httpdate::fmt_http_date(now));
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn answer(status: u16, fields: &[(&'static str, &str)], body: &WebBody) -> Response<WebBody> {
        let (bytes, is_own) = whole(body).map(|(bytes, is_own)| (bytes.clone(), is_own)).unwrap();
        let body = if is_own { WebBody::full(bytes) } else { WebBody::passed(bytes) };
        let mut answer = Response::new(body);
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            answer.headers_mut().append(*name, value.parse().unwrap());
        }
        answer
    }

    /// Returns what hyper writes, without the time.
    async fn by_hyper(answer: Response<WebBody>) -> String {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let cell = parking_lot::Mutex::new(Some(answer));
        let service = service_fn(move |_: Request<Incoming>| {
            let answer = cell.lock().take().unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(http1::Builder::new().half_close(true).serve_connection(TokioIo::new(ours), service));
        theirs.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).await.unwrap();
        undated(&bytes)
    }

    fn undated(bytes: &[u8]) -> String {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.contains("date: "), "{text}");
        text.lines().filter(|line| !line.ends_with(" GMT")).map(|line| format!("{line}\n")).collect()
    }

    #[tokio::test]
    async fn an_answer_is_what_hyper_writes() {
        for (status, fields, body) in [
            (200, &[("x-a", "1"), ("content-length", "3"), ("x-b", ""), ("x-a", "2")][..], WebBody::full("abc")),
            (404, &[("content-type", "text/plain")], WebBody::full("abcd")),
            (503, &[("retry-after", "1"), ("set-cookie", "a"), ("set-cookie", "b")], WebBody::passed("x".into())),
        ] {
            let sent = answer(status, fields, &body);
            let (bytes, _) = whole(sent.body()).unwrap();
            let ours = written(sent.status(), sent.headers(), bytes, &mut Date::default()).unwrap();
            assert_eq!(undated(&ours), by_hyper(answer(status, fields, &body)).await, "{status}");
        }
    }

    #[test]
    fn an_answer_that_frames_otherwise_is_hypers() {
        for (status, name, value) in [
            (200, "connection", "close"),
            (200, "transfer-encoding", "chunked"),
            (200, "trailer", "x"),
            (200, "content-length", "4"),
            (200, "content-length", "+3"),
            (204, "x-a", "1"),
            (304, "x-a", "1"),
            (101, "upgrade", "x"),
            (299, "x-a", "1"),
        ] {
            let sent = answer(status, &[(name, value)], &WebBody::full("abc"));
            let (bytes, _) = whole(sent.body()).unwrap();
            let ours = written(sent.status(), sent.headers(), bytes, &mut Date::default());
            assert_eq!(ours, None, "{status} {name}: {value}");
        }
        assert!(whole(&WebBody::empty()).is_none());
        assert!(whole(&WebBody::boxed(WebBody::full("abc"))).is_none());
    }

    #[test]
    fn a_whole_request_without_a_body_is_taken() {
        let head = "DELETE /a/%20?b=[1]&c HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nX-A: 1\r\nx-a: 2\r\n\r\n";
        let request = parsed(&Bytes::from_static(head.as_bytes())).unwrap();
        assert_eq!(request.method().as_str(), "DELETE");
        assert_eq!(request.uri().to_string(), "/a/%20?b=[1]&c".to_owned());
        assert_eq!(request.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn any_other_request_is_hypers() {
        let many: String = (0..=SHORT_FIELDS_MAX).map(|number| format!("x{number}: v\r\n")).collect();
        for sent in [
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nG",
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\"a\" HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\u{16}\u{3}\r\n\r\n",
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
        ] {
            assert!(parsed(&Bytes::from(sent.to_owned())).is_none(), "{sent:?}");
        }
    }
}
