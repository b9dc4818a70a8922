//! A small HTTP client: HTTP/1.1 byte by byte, so that a test knows the moment the last one came, and h2 through hyper.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::http1::{BodyFraming, Http1Body, Http1Head, MessageReader};

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Payload,
}

#[derive(Debug, Clone)]
enum Payload {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

/// A response, as far as it came.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// First line and headers.
    pub head: Http1Head,
    /// The way the body's end was announced.
    pub framing: BodyFraming,
    /// The body; `complete` says whether its end was seen.
    pub body: Http1Body,
    /// The exact bytes.
    pub wire: Vec<u8>,
}

impl Request {
    /// A request without body.
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Payload::None }
    }

    /// A GET.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST with a body of known length.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Payload::Length(body.into()), ..Self::new("POST", target) }
    }

    /// A PUT with a body of known length.
    pub fn put(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Payload::Length(body.into()), ..Self::new("PUT", target) }
    }

    /// A request whose body is sent in these chunks.
    #[must_use]
    pub fn chunked(mut self, chunks: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.body = Payload::Chunked(chunks.into_iter().collect());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds `Authorization: Bearer`.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Returns what the path and query are.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The bytes of an HTTP/1.1 request; `host` is used unless the request names one.
    pub fn wire(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut body = Vec::new();
        match &self.body {
            Payload::None => {}
            Payload::Length(bytes) => {
                head.push_str(&format!("Content-Length: {}\r\n", bytes.len()));
                body.extend_from_slice(bytes);
            }
            Payload::Chunked(chunks) => {
                head.push_str("Transfer-Encoding: chunked\r\n");
                for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                    body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    body.extend_from_slice(chunk);
                    body.extend_from_slice(b"\r\n");
                }
                body.extend_from_slice(b"0\r\n\r\n");
            }
        }
        [head.into_bytes(), b"\r\n".to_vec(), body].concat()
    }

    /// Sends it on a connection of its own and reads the whole response.
    ///
    /// # Errors
    /// No connection, or no whole response.
    pub async fn send(&self, address: SocketAddr) -> Result<Response> {
        let mut connection = Connection::open(address).await?;
        let response = connection.ask(self).await?;
        ensure!(response.body.complete, "{} {}: the response broke off", self.method, self.target);
        Ok(response)
    }

    /// Sends it with prior-knowledge h2 on a connection of its own and reads the whole response. It has no wire bytes and
    /// its framing says nothing; header names are in lower case.
    ///
    /// # Errors
    /// No connection, or no whole response.
    pub async fn send_h2(&self, address: SocketAddr) -> Result<Response> {
        let stream = TcpStream::connect(address).await.context("connecting")?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.context("the h2 handshake")?;
        let driver = tokio::spawn(connection);
        let mut request = hyper::Request::builder().method(self.method.as_str());
        request = request.uri(format!("http://{address}{}", self.target));
        for (name, value) in &self.headers {
            request = request.header(name.as_str(), value.as_str());
        }
        let body = match &self.body {
            Payload::None => Vec::new(),
            Payload::Length(bytes) => bytes.clone(),
            Payload::Chunked(chunks) => chunks.concat(),
        };
        let request = request.body(Full::new(Bytes::from(body))).context("an h2 request")?;
        let response = sender.send_request(request).await.context("the h2 response")?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.context("the h2 body")?;
        driver.abort();
        let trailers = body.trailers().map(fields).unwrap_or_default();
        let head =
            Http1Head { start: format!("{:?} {}", parts.version, parts.status), headers: fields(&parts.headers) };
        let body = Http1Body { bytes: body.to_bytes().to_vec(), trailers, complete: true };
        Ok(Response { status: parts.status.as_u16(), head, framing: BodyFraming::Close, body, wire: Vec::new() })
    }
}

fn fields(headers: &hyper::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

impl Response {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.bytes).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body.bytes).with_context(|| format!("JSON: {:?}", self.text()))
    }
}

/// An HTTP/1.1 connection that keeps what it reads.
#[derive(Debug)]
pub struct Connection {
    reader: MessageReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    host: String,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true).context("TCP_NODELAY")?;
        let (read, writer) = stream.into_split();
        Ok(Self { reader: MessageReader::new(read), writer, host: address.to_string() })
    }

    /// Sends a request and reads what comes back, whole or broken off.
    ///
    /// # Errors
    /// The connection ends before a whole head.
    pub async fn ask(&mut self, request: &Request) -> Result<Response> {
        let wire = request.wire(&self.host);
        self.write(&wire).await?;
        self.read(&request.method).await
    }

    /// Sends bytes, whatever they are.
    ///
    /// # Errors
    /// The other side has closed.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).await.context("sending")
    }

    /// Sends no more; the other side sees the end.
    ///
    /// # Errors
    /// The other side has closed.
    pub async fn finish_writing(&mut self) -> Result<()> {
        self.writer.shutdown().await.context("closing the sending side")
    }

    /// Reads a final response to a request of this method. It returns with the response's last byte, not later.
    ///
    /// # Errors
    /// The connection ends before a whole head.
    pub async fn read(&mut self, method: &str) -> Result<Response> {
        let head = self.read_head().await?;
        let framing = response_framing(&head, method)?;
        let body = self.reader.body(framing).await?;
        Ok(Response { status: status(&head)?, framing, body, wire: self.reader.take_wire(), head })
    }

    /// Reads the head of a final response, and no more; interim ones are passed over.
    ///
    /// # Errors
    /// The connection ends before a whole head.
    pub async fn read_head(&mut self) -> Result<Http1Head> {
        loop {
            let head = self.reader.head().await?.context("the connection ended before a response")?;
            if status(&head)? >= 200 || status(&head)? == 101 {
                return Ok(head);
            }
        }
    }
}

fn status(head: &Http1Head) -> Result<u16> {
    head.word(1).parse().with_context(|| format!("a status line: {:?}", head.start))
}

fn response_framing(head: &Http1Head, method: &str) -> Result<BodyFraming> {
    let status = status(head)?;
    if method == "HEAD" || status == 204 || status == 304 || status < 200 {
        return Ok(BodyFraming::None);
    }
    Ok(head.framing()?.unwrap_or(BodyFraming::Close))
}
