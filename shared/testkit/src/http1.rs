//! HTTP/1.1 as bytes: heads and bodies read by the rules of RFC 9112 and no library, so that what a test sees is what was
//! on the wire. Shared by the client and the fake upstream.

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest head that is read.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// The mark by which the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body by rule (HEAD, 1xx, 204, 304), or a request without one.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The connection's end.
    Close,
}

/// A request's or a response's first line and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http1Head {
    /// The request line or the status line, without its end.
    pub start: String,
    /// In their order, names as written.
    pub headers: Vec<(String, String)>,
}

/// A body, as far as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http1Body {
    /// The bytes of the body, without framing.
    pub bytes: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// True if its end was seen.
    pub complete: bool,
}

impl Http1Head {
    /// The only or first value of a header, by any spelling of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_all(name).next()
    }

    /// Every value of a header.
    pub fn header_all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let named = self.headers.iter().filter(move |(header, _)| header.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// The n-th word of the first line.
    pub fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or_default()
    }

    /// The framing that a sender's headers announce; a response without any ends with its connection.
    ///
    /// # Errors
    /// Both framings at once, or a length that is none.
    pub fn framing(&self) -> Result<Option<BodyFraming>> {
        let chunked = self.header_all("transfer-encoding").any(|value| value.eq_ignore_ascii_case("chunked"));
        let lengths: Vec<&str> = self.header_all("content-length").collect();
        match (chunked, lengths.as_slice()) {
            (true, []) => Ok(Some(BodyFraming::Chunked)),
            (false, []) => Ok(None),
            (false, [length]) => Ok(Some(BodyFraming::Length(length.parse().context("Content-Length")?))),
            _ => bail!("two framings at once: {:?}", self.headers),
        }
    }
}

/// Reads messages from a connection, one after the other.
#[derive(Debug)]
pub struct MessageReader<S> {
    stream: S,
    /// Read from the stream, not yet taken.
    buffer: Vec<u8>,
    /// Everything taken so far; [`Self::take_wire`] empties it.
    wire: Vec<u8>,
}

impl<S: AsyncRead + Unpin> MessageReader<S> {
    /// A reader at the start of a message.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), wire: Vec::new() }
    }

    /// The exact bytes of what was read since the last call.
    pub(crate) fn take_wire(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.wire)
    }

    /// The next head; none when the connection ends before its first byte.
    ///
    /// # Errors
    /// The connection ends inside the head, or what comes is no head.
    pub async fn head(&mut self) -> Result<Option<Http1Head>> {
        let mut searched = 0_usize;
        let end = loop {
            if let Some(at) = find(self.buffer.get(searched..).unwrap_or_default(), b"\r\n\r\n") {
                break searched + at + 4;
            }
            searched = self.buffer.len().saturating_sub(3);
            if self.buffer.len() > HEAD_BYTES_MAX {
                bail!("a head of more than {HEAD_BYTES_MAX} bytes");
            }
            match (self.fill().await?, self.buffer.is_empty()) {
                (0, true) => return Ok(None),
                (0, false) => bail!("the connection ended inside a head: {:?}", String::from_utf8_lossy(&self.buffer)),
                _ => {}
            }
        };
        let head = self.take(end);
        let text = String::from_utf8_lossy(&head);
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines.map(field).collect::<Result<_>>()?;
        Ok(Some(Http1Head { start, headers }))
    }

    /// The body of this framing. A body that breaks off is no error: it is not `complete`.
    ///
    /// # Errors
    /// Chunks that are none.
    pub async fn body(&mut self, framing: BodyFraming) -> Result<Http1Body> {
        let mut body = Http1Body::default();
        match framing {
            BodyFraming::None => body.complete = true,
            BodyFraming::Length(length) => {
                let length = usize::try_from(length).context("Content-Length")?;
                body.complete = self.fill_to(length).await;
                let length = length.min(self.buffer.len());
                body.bytes = self.take(length);
            }
            BodyFraming::Close => {
                while self.fill().await.unwrap_or(0) > 0 {}
                body.bytes = self.take(self.buffer.len());
                body.complete = true;
            }
            BodyFraming::Chunked => self.chunks(&mut body).await?,
        }
        Ok(body)
    }

    async fn chunks(&mut self, body: &mut Http1Body) -> Result<()> {
        while let Some(line) = self.line().await {
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16).with_context(|| format!("a chunk's length: {line:?}"))?;
            if length == 0 {
                return self.trailers(body).await;
            }
            let whole = self.fill_to(length + 2).await;
            let length = length.min(self.buffer.len());
            body.bytes.extend(self.take(length));
            if !whole {
                return Ok(());
            }
            self.take(2);
        }
        Ok(())
    }

    async fn trailers(&mut self, body: &mut Http1Body) -> Result<()> {
        while let Some(line) = self.line().await {
            if line.is_empty() {
                body.complete = true;
                return Ok(());
            }
            body.trailers.push(field(&line)?);
        }
        Ok(())
    }

    /// A line without its end; none when the connection ends first.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = self.take(at + 2);
                return Some(String::from_utf8_lossy(line.get(..at)?).into_owned());
            }
            if self.fill().await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Returns whether the buffer now holds at least so many bytes.
    async fn fill_to(&mut self, length: usize) -> bool {
        while self.buffer.len() < length {
            if self.fill().await.unwrap_or(0) == 0 {
                return false;
            }
        }
        true
    }

    async fn fill(&mut self) -> Result<usize> {
        self.stream.read_buf(&mut self.buffer).await.context("reading")
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let taken: Vec<u8> = self.buffer.drain(..length.min(self.buffer.len())).collect();
        self.wire.extend_from_slice(&taken);
        taken
    }
}

fn field(line: &str) -> Result<(String, String)> {
    let (name, value) = line.split_once(':').with_context(|| format!("a header field: {line:?}"))?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_read_one_after_the_other() {
        let wire =
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut"
                .as_slice();
        let mut reader = MessageReader::new(wire);
        let mut bodies = Vec::new();
        while let Some(head) = reader.head().await.unwrap() {
            assert_eq!(head.word(1), "200");
            assert_eq!(head.headers.len(), 1);
            bodies.push(reader.body(head.framing().unwrap().unwrap()).await.unwrap());
        }
        let body = |bytes: &[u8], complete| Http1Body { bytes: bytes.to_vec(), trailers: Vec::new(), complete };
        let trailers = vec![("X-T".to_owned(), "1".to_owned())];
        assert_eq!(bodies, [body(b"ab", true), Http1Body { trailers, ..body(b"abc", true) }, body(b"cut", false)]);
        assert_eq!(reader.take_wire(), wire);
    }

    #[tokio::test]
    async fn two_framings_are_refused() {
        let wire = b"POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
        let head = MessageReader::new(wire).head().await.unwrap().unwrap();
        assert!(head.framing().is_err());
    }
}
