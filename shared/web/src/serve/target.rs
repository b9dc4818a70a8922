//! Percent-encodes what a client of HTTP/1 left unencoded in a request's target, before hyper reads it.
//!
//! Browsers, nginx and Go send and accept quotes, angle brackets and bytes that are no UTF-8 there; `http::Uri` refuses
//! them, and hyper would answer a bare 400. Encoded they mean the same to every upstream. A fragment is no part of a target (RFC 9112, 3.2):
//! `http::Uri` would drop it, so it is made one of the bytes that hyper answers a bare 400 to. Once a client has
//! pipelined requests, its connection is left alone: where the next one begins only hyper knows. h2 has no such place; there the h2
//! crate resets the stream.

use bytes::{BufMut, BytesMut};

/// The place within a request line that a connection has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum RequestLineState {
    /// At its first byte, or at an empty line before it.
    #[default]
    Start,
    Method,
    Path,
    Query,
    /// Behind the target, or in what is no request.
    Behind,
}

/// The reader of a connection's request lines.
#[derive(Debug, Default)]
pub(super) struct TargetReader(RequestLineState);

impl TargetReader {
    /// A new request begins with what is read next.
    pub(super) const fn begin(&mut self) {
        self.0 = RequestLineState::Start;
    }

    /// The bytes as they are to be read; `None` = as they came.
    pub(super) fn encode(&mut self, bytes: &[u8]) -> Option<BytesMut> {
        if self.0 == RequestLineState::Behind {
            return None;
        }
        let mut encoded: Option<BytesMut> = None;
        let mut rest = bytes;
        while self.0 != RequestLineState::Behind {
            let place = self.0;
            let (piece, behind) = self.piece(rest);
            let is_text = std::str::from_utf8(piece).is_ok();
            let refused = |byte: &u8| is_refused(*byte, place, is_text);
            let changed = |byte: &u8| refused(byte) || is_fragment(*byte, place);
            if encoded.is_none() && piece.iter().any(changed) {
                let before = bytes.len() - rest.len();
                encoded = Some(BytesMut::from(bytes.get(..before).unwrap_or_default()));
            }
            if let Some(encoded) = &mut encoded {
                let from = encoded.len();
                put(encoded, piece, refused);
                let fragments = encoded.iter_mut().skip(from).filter(|byte| is_fragment(**byte, place));
                fragments.for_each(|byte| *byte = NO_TARGET);
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        if let Some(encoded) = &mut encoded {
            encoded.put_slice(rest);
        }
        encoded
    }

    /// Takes what belongs to the place and the byte that ends it, and goes to the next place.
    fn piece<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let next = |byte: u8| match (self.0, byte) {
            (RequestLineState::Start, b'\r' | b'\n') => RequestLineState::Start,
            (RequestLineState::Start | RequestLineState::Method, b'A'..=b'Z' | b'a'..=b'z' | b'-') => {
                RequestLineState::Method
            }
            (RequestLineState::Method, b' ') | (RequestLineState::Path, b'!'..=b'>' | b'@'..) => RequestLineState::Path,
            (RequestLineState::Path, b'?') | (RequestLineState::Query, b'!'..) => RequestLineState::Query,
            _ => RequestLineState::Behind,
        };
        let Some(end) = bytes.iter().position(|byte| next(*byte) != self.0) else { return (bytes, &[]) };
        let place = bytes.get(end).map_or(self.0, |byte| next(*byte));
        self.0 = place;
        let (piece, rest) = bytes.split_at(end + 1);
        (piece, rest)
    }
}

/// A byte that `http::Uri` takes nowhere.
const NO_TARGET: u8 = b'<';

/// Returns whether a fragment begins here.
const fn is_fragment(byte: u8, place: RequestLineState) -> bool {
    byte == b'#' && matches!(place, RequestLineState::Path | RequestLineState::Query)
}

/// Returns whether `http::Uri` takes no such byte.
const fn is_refused(byte: u8, place: RequestLineState, is_text: bool) -> bool {
    match place {
        RequestLineState::Query => matches!(byte, b'"' | b'<' | b'>') || (byte >= 0x80 && !is_text),
        RequestLineState::Path => matches!(byte, b'<' | b'>' | b'`' | b'^') || (byte >= 0x80 && !is_text),
        RequestLineState::Start | RequestLineState::Method | RequestLineState::Behind => false,
    }
}

fn put(encoded: &mut BytesMut, piece: &[u8], refused: impl Fn(&u8) -> bool) {
    for byte in piece {
        match refused(byte) {
            true => encoded.put_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]),
            false => encoded.put_u8(*byte),
        }
    }
}

const fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'A' + value - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(pieces: &[&[u8]]) -> Vec<u8> {
        let mut target = TargetReader::default();
        pieces
            .iter()
            .flat_map(|piece| target.encode(piece).map_or_else(|| piece.to_vec(), |new| new.to_vec()))
            .collect()
    }

    #[test]
    fn only_what_would_be_refused_is_encoded_however_it_comes() {
        for (sent, read) in [
            (
                &b"GET /a?q=\"x\"&r=<y> HTTP/1.1\r\nA: \"<>\r\n\r\n"[..],
                &b"GET /a?q=%22x%22&r=%3Cy%3E HTTP/1.1\r\nA: \"<>\r\n\r\n"[..],
            ),
            (b"\r\n\r\nGET /?\xE9 HTTP/1.1\r\n", b"\r\n\r\nGET /?%E9 HTTP/1.1\r\n"),
            (b"PUT /<a>?x?\" HTTP/1.1\r\nB: /?\"\r\n\r\n\"", b"PUT /%3Ca%3E?x?%22 HTTP/1.1\r\nB: /?\"\r\n\r\n\""),
            (b"GET /a\"b?%22 HTTP/1.1\r\n", b"GET /a\"b?%22 HTTP/1.1\r\n"),
            (b"\x16\x03\"<> /?\"", b"\x16\x03\"<> /?\""),
            (b"GET \"\r\nX: ?\"", b"GET \"\r\nX: ?\""),
            (b"GET /a#b HTTP/1.1\r\nX: #\r\n", b"GET /a<b HTTP/1.1\r\nX: #\r\n"),
            (b"GET /a?\"#\" HTTP/1.1\r\n\r\n#", b"GET /a?%22<%22 HTTP/1.1\r\n\r\n#"),
        ] {
            assert_eq!(encoded(&[sent]), read);
            let bytes: Vec<&[u8]> = sent.chunks(1).collect();
            assert_eq!(encoded(&bytes), read, "byte for byte");
        }
    }

    #[test]
    fn a_fragment_is_taken_by_no_parser() {
        for target in ["/a<b", "/a?<", "/a?b<c<", "http://a/x<y", "/<"] {
            assert!(http::Uri::try_from(target).is_err(), "{target}");
        }
    }

    #[test]
    fn utf8_stays_as_it_is() {
        let sent = "GET /ü?q=é HTTP/1.1\r\n".as_bytes();
        assert_eq!(TargetReader::default().encode(sent), None);
        // What is cut within a letter is encoded, which means the same.
        assert_eq!(encoded(&[b"GET /?\xC3", b"\xA9 HTTP/1.1"]), b"GET /?%C3%A9 HTTP/1.1");
    }

    #[test]
    fn every_byte_that_passes_is_taken_by_the_parser() {
        for byte in (b'!'..=u8::MAX).filter(|byte| !matches!(byte, b'#' | b'?' | 0x7F)) {
            for prefix in ["/", "/?"] {
                let line = [b"GET ", prefix.as_bytes(), &[byte], b" "].concat();
                let read = encoded(&[&line]);
                let target = bytes::Bytes::copy_from_slice(read.get(4..read.len() - 1).unwrap());
                assert!(http::Uri::from_maybe_shared(target).is_ok(), "{byte:#x} after {prefix}");
            }
        }
    }
}
