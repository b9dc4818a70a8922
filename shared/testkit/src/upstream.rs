//! A fake upstream over bare TCP that writes down every request it served, and answers as a test wants: whole, in chunks,
//! dripping, broken off, or never.
//!
//! Real applications (`httpbin`, `nginx`) show that proxying is right; this one shows what happens when it goes wrong.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::http1::{BodyFraming, Http1Body, Http1Head, MessageReader};

/// A request as the upstream saw it.
#[derive(Debug, Clone)]
pub struct Received {
    /// Request line and headers.
    pub head: Http1Head,
    /// The body; not `complete` when the sender broke off.
    pub body: Http1Body,
}

impl Received {
    /// The method.
    pub fn method(&self) -> &str {
        self.head.word(0)
    }

    /// Path and query as they came.
    pub fn target(&self) -> &str {
        self.head.word(1)
    }

    /// The `X-Request-ID` that came with it.
    pub fn request_id(&self) -> Option<&str> {
        self.head.header("x-request-id")
    }
}

/// The answer of the upstream.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    trailers: Vec<(String, String)>,
    payload: Payload,
    /// Slept before the head.
    delay: Duration,
    /// Slept between two pieces of a body.
    pause: Duration,
}

#[derive(Debug, Clone)]
enum Payload {
    /// `Content-Length` and these bytes.
    Length(Vec<u8>),
    /// Chunks.
    Chunked(Vec<Vec<u8>>),
    /// A body that breaks off: framing for more than what is sent, then the connection is closed.
    Broken { length: Option<u64>, sent: Vec<u8> },
    /// No body by rule (HEAD, 204, 304): the head alone.
    HeadOnly,
    /// These bytes on the wire, then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing, ever; the connection stays open.
    Silence,
}

impl Answer {
    /// A whole answer with a `Content-Length`.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::of(Payload::Length(body.into()))
    }

    /// A whole chunked answer.
    pub fn chunked(chunks: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::of(Payload::Chunked(chunks.into_iter().collect()))
    }

    /// A body of announced length that breaks off.
    pub fn cut_short(length: u64, sent: impl Into<Vec<u8>>) -> Self {
        Self::of(Payload::Broken { length: Some(length), sent: sent.into() })
    }

    /// A chunked body that breaks off.
    pub fn cut_chunked(sent: impl Into<Vec<u8>>) -> Self {
        Self::of(Payload::Broken { length: None, sent: sent.into() })
    }

    /// A head alone: what HEAD, 204 and 304 get.
    pub fn head_only(status: u16) -> Self {
        Self::of(Payload::HeadOnly).status(status)
    }

    /// Any bytes, then the end of the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::of(Payload::Raw(bytes.into()))
    }

    /// No answer at all.
    pub fn silence() -> Self {
        Self::of(Payload::Silence)
    }

    fn of(payload: Payload) -> Self {
        let (delay, pause) = (Duration::ZERO, Duration::ZERO);
        Self { status: 200, headers: Vec::new(), trailers: Vec::new(), payload, delay, pause }
    }

    /// Another status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a trailer field (chunked answers).
    #[must_use]
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits before the head.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits between two pieces of the body.
    #[must_use]
    pub fn dripping(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
}

type Handler = dyn Fn(&Received) -> Answer + Send + Sync;

/// The running upstream. It ends with the value.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    served: Arc<Mutex<Vec<Received>>>,
    /// A clone for each open connection, and this one.
    open: Arc<()>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Upstream {
    /// Starts on a free port. Every request is written down before `handler` is asked for its answer.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start(handler: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Result<Self> {
        Self::start_inner(Record::default(), Arc::new(handler)).await
    }

    /// Works like [`Self::start`]; of each request only its id is kept, for runs of many.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start_keeping_ids(handler: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Result<Self> {
        Self::start_inner(Record { ids_only: true, ..Record::default() }, Arc::new(handler)).await
    }

    /// The same at an address.
    pub(crate) async fn start_keeping_ids_at(
        address: SocketAddr,
        handler: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).await.context("binding the upstream")?;
        Self::serve_at(listener, Record { ids_only: true, ..Record::default() }, Arc::new(handler))
    }

    /// Works like [`Self::start`] over TLS.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start_secure(
        tls: Arc<rustls::ServerConfig>,
        handler: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start_inner(Record { tls: Some(TlsAcceptor::from(tls)), ..Record::default() }, Arc::new(handler)).await
    }

    async fn start_inner(record: Record, handler: Arc<Handler>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the upstream")?;
        Self::serve_at(listener, record, handler)
    }

    fn serve_at(listener: TcpListener, record: Record, handler: Arc<Handler>) -> Result<Self> {
        let address = listener.local_addr().context("the upstream's address")?;
        let served = Arc::clone(&record.served);
        let open = Arc::new(());
        let counted = Arc::downgrade(&open);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (record, handler, counted) = (record.clone(), Arc::clone(&handler), counted.upgrade());
                // A connection that breaks is what some tests are about; it ends alone.
                tokio::spawn(async move {
                    let _counted = counted;
                    stream.set_nodelay(true).ok()?;
                    match record.tls.clone() {
                        None => serve(stream, &record, &*handler).await.ok(),
                        Some(tls) => serve(tls.accept(stream).await.ok()?, &record, &*handler).await.ok(),
                    }
                });
            }
        });
        Ok(Self { address, served, open, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The connections that are open, of those that were accepted.
    pub(crate) fn open_connections(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// Every request so far.
    pub fn served(&self) -> Vec<Received> {
        lock(&self.served).clone()
    }

    /// The `X-Request-ID` of every request so far.
    pub fn request_ids(&self) -> Vec<String> {
        lock(&self.served).iter().filter_map(|received| Some(received.request_id()?.to_owned())).collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Clone, Default)]
struct Record {
    served: Arc<Mutex<Vec<Received>>>,
    ids_only: bool,
    tls: Option<TlsAcceptor>,
}

impl Record {
    fn add(&self, received: &Received) {
        let mut kept = received.clone();
        if self.ids_only {
            kept.head.headers.retain(|(name, _)| name.eq_ignore_ascii_case("x-request-id"));
            kept.head.headers.shrink_to_fit();
            kept.body = Http1Body::default();
        }
        lock(&self.served).push(kept);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve<S: AsyncRead + AsyncWrite>(stream: S, record: &Record, handler: &Handler) -> Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut reader = MessageReader::new(read);
    while let Some(head) = reader.head().await? {
        if head.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.context("100")?;
        }
        let body = reader.body(head.framing()?.unwrap_or(BodyFraming::None)).await?;
        reader.take_wire();
        let received = Received { head, body };
        record.add(&received);
        let answer = handler(&received);
        tokio::time::sleep(answer.delay).await;
        if !answer.write(&mut write, received.method() == "HEAD").await? {
            return Ok(());
        }
    }
    Ok(())
}

impl Answer {
    /// Sends the answer; whether the connection may serve another request.
    async fn write(&self, to: &mut (impl AsyncWrite + Unpin), head_asked: bool) -> Result<bool> {
        let (framing, pieces) = match &self.payload {
            Payload::Silence => {
                std::future::pending::<()>().await;
                return Ok(false);
            }
            Payload::Raw(bytes) => {
                to.write_all(bytes).await.context("sending")?;
                return Ok(false);
            }
            Payload::HeadOnly => (None, Vec::new()),
            Payload::Length(bytes) => (Some(length_field(bytes.len())), vec![bytes.clone()]),
            Payload::Chunked(chunks) => (Some(chunked_field()), chunks.iter().map(|chunk| in_chunk(chunk)).collect()),
            Payload::Broken { length: Some(length), sent } => (Some(length_field(length)), vec![sent.clone()]),
            Payload::Broken { length: None, sent } => (Some(chunked_field()), vec![in_chunk(sent)]),
        };
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in self.headers.iter().chain(framing.iter()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        // What is there at once goes out at once, as most servers do it.
        if let (Payload::Length(bytes), false) = (&self.payload, head_asked) {
            to.write_all(&[head.as_bytes(), bytes].concat()).await.context("sending an answer")?;
            tokio::time::sleep(self.pause).await;
            return Ok(true);
        }
        to.write_all(head.as_bytes()).await.context("sending a head")?;
        if head_asked {
            return Ok(true);
        }
        for piece in &pieces {
            to.write_all(piece).await.context("sending a body")?;
            to.flush().await.context("sending a body")?;
            tokio::time::sleep(self.pause).await;
        }
        if let Payload::Chunked(_) = self.payload {
            let fields: String = self.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            to.write_all(format!("0\r\n{fields}\r\n").as_bytes()).await.context("sending the end")?;
        }
        Ok(!matches!(self.payload, Payload::Broken { .. }))
    }
}

fn length_field(length: impl ToString) -> (String, String) {
    ("Content-Length".to_owned(), length.to_string())
}

fn chunked_field() -> (String, String) {
    ("Transfer-Encoding".to_owned(), "chunked".to_owned())
}

fn in_chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn reason(status: u16) -> &'static str {
    let status = hyper::StatusCode::from_u16(status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or("Status")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Connection, Request};

    #[tokio::test]
    async fn it_answers_as_told_and_writes_down_what_it_served() {
        let upstream = Upstream::start(|received| match received.target() {
            "/chunks" => Answer::chunked([b"ab".to_vec(), b"c".to_vec()]).trailer("X-T", "1"),
            "/cut" => Answer::cut_short(10, "abc"),
            "/none" => Answer::head_only(204),
            _ => Answer::ok(received.body.bytes.clone()).header("X-Seen", received.method()),
        })
        .await
        .unwrap();
        let mut connection = Connection::open(upstream.address()).await.unwrap();
        let echo = Request::post("/echo", "hello").header("X-Request-ID", "one");
        let response = connection.ask(&echo).await.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.text().as_str(), "hello");
        assert_eq!(response.header("x-seen"), Some("POST"));
        let upload = Request::new("PUT", "/echo").chunked([b"12".to_vec(), b"3".to_vec()]);
        assert_eq!(connection.ask(&upload).await.unwrap().text(), "123");
        assert_eq!(connection.ask(&Request::get("/none")).await.unwrap().status, 204);
        let response = connection.ask(&Request::get("/chunks")).await.unwrap();
        assert_eq!(response.text().as_str(), "abc");
        assert_eq!(response.body.trailers.len(), 1);
        let response = connection.ask(&Request::get("/cut")).await.unwrap();
        assert_eq!(response.text().as_str(), "abc");
        assert!(!response.body.complete);
        assert_eq!(upstream.served().len(), 5);
        assert_eq!(upstream.request_ids(), ["one"]);
    }
}
