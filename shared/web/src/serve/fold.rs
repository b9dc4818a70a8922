//! Lets a head of many fields through a parser that has room for few.
//!
//! hyper keeps room for as many fields as it is told to take, and writes all of that room for each head that it reads: for 384 fields
//! 24 KiB a head, which is more than the first cache of a core, however few fields there are. Told nothing it takes 100 and writes
//! nothing. So it is told nothing, and the fields of a head beyond the first are read as the value of one field, which becomes them
//! again once the head is parsed. Fields that say how a message is framed are never folded, and neither is what is no field: hyper
//! judges these as ever. Once a client has pipelined requests, its connection is left alone, as in `target.rs`.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut, BytesMut};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::SHORT_FIELDS_MAX;
use crate::exchange::RequestBody;

/// The lines of a head that are left as they are. What may not be folded has the rest of hyper's room.
const LINES_PLAIN: usize = SHORT_FIELDS_MAX;
/// A longer line is not waited for, and from there on nothing is folded: a head with such a line and more than 100 in all is refused.
const LINE_BYTES_MAX: usize = 32 << 10;
/// Stands between two folded fields.
const BETWEEN: u8 = b'\t';
/// Stands, with a digit behind it, for a byte that has another meaning. Both are rare in fields.
const ESCAPE: u8 = 0xFF;

/// Names the field that holds those of the last head that were folded, if any were. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Folded(Arc<FoldInner>);

#[derive(Debug, Default)]
struct FoldInner {
    any: AtomicBool,
    /// Random, so that nobody else can say it.
    name: OnceLock<HeaderName>,
}

impl Folded {
    fn name(&self) -> &HeaderName {
        self.0.any.store(true, Ordering::Relaxed);
        self.0.name.get_or_init(|| {
            let name = format!("x-folded-{}", Uuid::new_v4().simple());
            // Letters, digits and hyphens make a name.
            HeaderName::from_bytes(name.as_bytes()).unwrap_or(HeaderName::from_static("x-folded"))
        })
    }

    /// Gives a parsed head its fields back.
    pub fn unfold(&self, headers: &mut HeaderMap) {
        if self.0.any.load(Ordering::Relaxed) && self.0.any.swap(false, Ordering::Relaxed) {
            self.unfold_all(headers);
        }
    }

    fn unfold_all(&self, headers: &mut HeaderMap) {
        let name = self.name().clone();
        self.0.any.store(false, Ordering::Relaxed);
        let folded: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
        headers.remove(name);
        for field in folded.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == BETWEEN)) {
            let field = unescaped(field);
            let Some((name, value)) = split(&field) else { continue };
            let Ok(name) = HeaderName::from_bytes(name) else { continue };
            let Ok(value) = HeaderValue::from_bytes(value.trim_ascii()) else { continue };
            // There is no room for more than 24,000 fields, and none is needed to see that these are too many.
            if headers.try_append(name, value).is_err() {
                return;
            }
        }
    }
}

/// The place within a line that a connection has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum FieldLineState {
    #[default]
    Empty,
    /// A carriage return and nothing else.
    Return,
    Text,
}

/// The reader of one connection's heads.
#[derive(Debug)]
pub struct Folds {
    folded: Folded,
    fields_max: usize,
    /// Lines of this head that have ended.
    lines: usize,
    line: FieldLineState,
    /// The beginning of the head: a status says whether another one follows.
    start: Vec<u8>,
    /// The beginning of a line that may be folded.
    held: Vec<u8>,
    /// The last line handed on is a folded one, and has no end yet.
    is_open: bool,
    is_behind: bool,
    /// The bytes behind this head so far, and the last four of them.
    behind: u64,
    tail: [u8; 4],
}

impl Folds {
    /// Folds heads of up to so many fields.
    pub fn new(folded: Folded, fields_max: usize) -> Self {
        Self {
            folded,
            fields_max,
            lines: 0,
            line: FieldLineState::Empty,
            start: Vec::new(),
            held: Vec::new(),
            is_open: false,
            is_behind: false,
            behind: 0,
            tail: [0; 4],
        }
    }

    /// A new head begins with what is read next.
    pub fn begin(&mut self) {
        (self.lines, self.line, self.is_open, self.is_behind) = (0, FieldLineState::Empty, false, false);
        (self.behind, self.tail) = (0, [0; 4]);
        self.start.clear();
        self.held.clear();
    }

    /// Returns whether nothing came behind a request but its body. A body in chunks ends with an empty line; what hyper would wait
    /// for the rest of does not.
    pub(super) fn ended_with(&self, body: RequestBody) -> bool {
        self.is_behind
            && match body {
                RequestBody::Bytes(bytes) => self.behind == bytes,
                RequestBody::Chunks => self.tail == *b"\r\n\r\n",
            }
    }

    /// Counts what is behind the head.
    fn pass_body(&mut self, bytes: &[u8]) {
        self.behind += bytes.len() as u64;
        match bytes.last_chunk() {
            Some(tail) => self.tail = *tail,
            None => {
                self.tail.rotate_left(bytes.len());
                let kept = self.tail.len() - bytes.len();
                self.tail.iter_mut().skip(kept).zip(bytes).for_each(|(place, byte)| *place = *byte);
            }
        }
    }

    /// The bytes as they are to be parsed; `None` = as they came. They may be none where a line is waited for.
    pub fn read(&mut self, bytes: &[u8]) -> Option<BytesMut> {
        let behind = if self.is_behind { Some(bytes) } else { self.behind_short(bytes) };
        if let Some(behind) = behind {
            self.is_behind = true;
            self.pass_body(behind);
            return None;
        }
        let mut rest = bytes;
        let mut read: Option<BytesMut> = None;
        while !self.is_behind && !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).map(|at| at + 1);
            let (piece, behind) = rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or((rest, &[]));
            if self.lines < LINES_PLAIN {
                self.pass(piece, end.is_some());
                read.iter_mut().for_each(|read| read.put_slice(piece));
            } else {
                let before = bytes.len() - rest.len();
                let read = read.get_or_insert_with(|| BytesMut::from(bytes.get(..before).unwrap_or_default()));
                self.fold(piece, end.is_some(), read);
            }
            rest = behind;
        }
        if let Some(read) = &mut read {
            read.put_slice(rest);
        }
        if self.is_behind {
            self.pass_body(rest);
        }
        read
    }

    /// Returns what is behind a whole head of few lines, as almost all are, which needs no closer look; `None`: there is none.
    fn behind_short<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let begins = self.lines == 0 && self.line == FieldLineState::Empty && self.start.is_empty();
        if !begins || matches!(bytes.first(), Some(b'\r' | b'\n')) || bytes.starts_with(INTERIM) {
            return None;
        }
        let behind = |at: usize| match bytes.get(at + 1..) {
            Some([b'\n', behind @ ..] | [b'\r', b'\n', behind @ ..]) => Some(behind),
            _ => None,
        };
        memchr::memchr_iter(b'\n', bytes).take(LINES_PLAIN).find_map(behind)
    }

    /// Counts what is handed on as it came.
    fn pass(&mut self, piece: &[u8], is_whole: bool) {
        if self.lines == 0 && self.start.len() < STATUS.len() {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            let missing = STATUS.len() - self.start.len();
            self.start.extend_from_slice(text.get(..missing).unwrap_or(text));
        }
        self.line = match (self.line, piece) {
            (FieldLineState::Empty | FieldLineState::Return, b"\n") | (FieldLineState::Empty, b"\r\n") => {
                return self.end_of_head();
            }
            (FieldLineState::Empty, b"\r") => FieldLineState::Return,
            _ if is_whole => {
                self.lines += 1;
                FieldLineState::Empty
            }
            _ => FieldLineState::Text,
        };
    }

    fn fold(&mut self, piece: &[u8], is_whole: bool, read: &mut BytesMut) {
        self.held.extend_from_slice(piece);
        if self.held.len() > LINE_BYTES_MAX {
            self.is_behind = true;
        } else if !is_whole {
            return;
        }
        let held = std::mem::take(&mut self.held);
        let text = held.strip_suffix(b"\n").map(|text| text.strip_suffix(b"\r").unwrap_or(text)).unwrap_or(&held);
        self.lines += 1;
        if !self.is_behind && self.lines <= self.fields_max && is_foldable(text) {
            match std::mem::replace(&mut self.is_open, true) {
                true => read.put_u8(BETWEEN),
                false => {
                    read.put_slice(self.folded.name().as_str().as_bytes());
                    read.put_u8(b':');
                }
            }
            put_escaped(read, text);
            return;
        }
        if std::mem::take(&mut self.is_open) {
            read.put_slice(b"\r\n");
        }
        read.put_slice(&held);
        if text.is_empty() {
            self.end_of_head();
        }
    }

    fn end_of_head(&mut self) {
        // Empty lines before a head are none of it, and behind an interim head comes another one.
        let goes_on = self.lines == 0 || (self.start.starts_with(INTERIM) && self.start != STATUS);
        self.begin();
        self.is_behind = !goes_on;
    }
}

/// The beginning of the head of an interim answer, in every version of HTTP/1 that has one.
const INTERIM: &[u8] = b"HTTP/1.1 1";
/// The interim status that ends HTTP on a connection.
const STATUS: &[u8] = b"HTTP/1.1 101";

/// Fields by which a message is framed or a connection is led: the parser must see them.
const FRAMING: [&[u8]; 9] = [
    b"connection",
    b"content-length",
    b"expect",
    b"host",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"transfer-encoding",
    b"upgrade",
];

/// Returns whether a line is a field that means nothing to the parser, and one that it would take.
fn is_foldable(line: &[u8]) -> bool {
    let Some((name, value)) = split(line) else { return false };
    let is_name = !name.is_empty() && name.iter().all(|byte| is_token(*byte));
    let is_value = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..));
    is_name && is_value && !FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing))
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
    Some((name, value.get(1..)?))
}

/// The letters of a name (RFC 9110, 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

fn put_escaped(into: &mut BytesMut, text: &[u8]) {
    for byte in text {
        match *byte {
            ESCAPE => into.put_slice(&[ESCAPE, b'1']),
            BETWEEN => into.put_slice(&[ESCAPE, b'0']),
            byte => into.put_u8(byte),
        }
    }
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.iter().copied();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            ESCAPE if bytes.next() == Some(b'0') => BETWEEN,
            byte => byte,
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields that a parser with room for 100 finds in a head that comes in pieces of so many bytes, and what is behind it.
    fn parsed(folds: &mut Folds, sent: &[u8], size: usize) -> (HeaderMap, Vec<u8>) {
        let read: Vec<u8> = sent
            .chunks(size)
            .flat_map(|part| folds.read(part).map_or_else(|| part.to_vec(), |new| new.to_vec()))
            .collect();
        let end = read.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let lines = read[..end - 4].split(|byte| *byte == b'\n').skip(1);
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = split(line.strip_suffix(b"\r").unwrap_or(line)).unwrap();
            headers.append(HeaderName::from_bytes(name).unwrap(), HeaderValue::from_bytes(value.trim_ascii()).unwrap());
        }
        assert!(headers.len() <= 100, "hyper has no room for {}", headers.len());
        folds.folded.unfold(&mut headers);
        (headers, read[end..].to_vec())
    }

    fn head(fields: &[(String, Vec<u8>)]) -> Vec<u8> {
        let line = |(name, value): &(String, Vec<u8>)| [name.as_bytes(), b": ", value, b"\r\n"].concat();
        [b"POST / HTTP/1.1\r\n".to_vec(), fields.iter().flat_map(line).collect(), b"\r\n".to_vec()].concat()
    }

    #[test]
    fn every_field_comes_through_in_order_however_it_comes() {
        let value = |index: usize| match index % 5 {
            0 => b"a\tb".to_vec(),
            1 => vec![0xFF, b'0', 0x80],
            2 => Vec::new(),
            3 => b"x: y, \xFF1".to_vec(),
            _ => index.to_string().into_bytes(),
        };
        let fields: Vec<(String, Vec<u8>)> =
            (0..300).map(|index| (format!("X-Field-{}", index % 150), value(index))).collect();
        let mut wanted = HeaderMap::new();
        for (name, value) in &fields {
            wanted.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        let body = b"a: b\nc: d\r\n\r\n";
        for size in [1, 2, 7, 100, 100_000] {
            let mut folds = Folds::new(Folded::default(), 384);
            for _ in 0..2 {
                let (found, behind) = parsed(&mut folds, &[head(&fields), body.to_vec()].concat(), size);
                assert_eq!(found, wanted, "{size}");
                assert_eq!(behind, body, "what is behind a head stays as it is");
                folds.begin();
            }
        }
    }

    #[test]
    fn a_head_of_few_fields_stays_as_it_is() {
        let fields: Vec<(String, Vec<u8>)> = (0..60).map(|index| (format!("x{index}"), b"v".to_vec())).collect();
        let mut folds = Folds::new(Folded::default(), 384);
        assert_eq!(folds.read(&head(&fields)), None);
        assert_eq!(folds.read(&b"\n".repeat(500)), None);
    }

    #[test]
    fn what_frames_a_message_and_what_is_no_field_is_left_to_the_parser() {
        let many = (0..100).map(|index| format!("x{index}: v\r\n")).collect::<String>();
        for line in [
            "Content-Length: 5",
            "transfer-encoding: chunked",
            "CONNECTION: close",
            "Expect: 100-continue",
            "Upgrade: websocket",
            " folded: long ago",
            "no field",
            "na me: v",
            "name : v",
            ": v",
            "bad: a\u{1}b",
            "bad: a\rb",
        ] {
            let mut folds = Folds::new(Folded::default(), 384);
            let read = folds.read(format!("GET / HTTP/1.1\r\n{many}{line}\r\nlast: v\r\n\r\n").as_bytes()).unwrap();
            let text = String::from_utf8(read.to_vec()).unwrap();
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}");
            assert!(text.ends_with("last: v\r\n\r\n"), "{text}");
        }
    }

    #[test]
    fn an_interim_head_is_followed_by_another_and_a_switch_is_not() {
        let many = |first: &str| {
            let fields = (0..200).map(|index| format!("x{index}: v\r\n")).collect::<String>();
            format!("{first}\r\n{fields}\r\n").into_bytes()
        };
        let early = [b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n".to_vec(), many("HTTP/1.1 200 OK")].concat();
        let switch = [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\n\r\n".to_vec(), many("x")].concat();
        for size in [1, 50, 100_000] {
            let fold = |sent: &[u8]| {
                let mut folds = Folds::new(Folded::default(), 384);
                sent.chunks(size).any(|part| folds.read(part).is_some())
            };
            assert!(fold(&early) && !fold(&switch), "{size}");
        }
    }

    #[test]
    fn heads_that_come_together_lose_nothing() {
        let many = |first: &str, value: &str| {
            let fields = (0..200).map(|index| format!("x{index}: {value}\r\n")).collect::<String>();
            format!("{first}\r\n{fields}\r\n")
        };
        let sent = many("HTTP/1.1 103 Early Hints", "early") + &many("HTTP/1.1 200 OK", "late") + "a: body\r\n";
        for size in [1, 7, 50, 1_000, 100_000] {
            let folded = Folded::default();
            let mut folds = Folds::new(folded.clone(), 384);
            let pieces = sent.as_bytes().chunks(size);
            let read: Vec<u8> = pieces.flat_map(|part| folds.read(part).map_or(part.to_vec(), Vec::from)).collect();
            let read = String::from_utf8(read).unwrap();
            assert_eq!(read.matches(folded.name().as_str()).count(), 2, "each has its own");
            let unfolded = read.replace(&format!("{}:", folded.name()), "").replace('\t', "\r\n");
            assert!(unfolded == sent, "{size}");
        }
    }

    #[test]
    fn what_is_behind_a_request_is_compared_with_its_body() {
        let (plain, chunked) = (RequestBody::Bytes, RequestBody::Chunks);
        let many = "x: v\r\n".repeat(200);
        for head in ["GET / HTTP/1.1\r\n\r\n".to_owned(), format!("\r\nPUT / HTTP/1.1\r\n{many}\r\n")] {
            for (behind, body, is_all) in [
                ("", plain(0), true),
                ("12345", plain(5), true),
                ("12345GET / HTTP/1.1\r\n", plain(5), false),
                ("1234", plain(5), false),
                ("5\r\n12345\r\n0\r\n\r\n", chunked, true),
                ("0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n", chunked, false),
                ("0\r\n\r\nG", chunked, false),
            ] {
                for size in [1, 3, 100_000] {
                    let mut folds = Folds::new(Folded::default(), 384);
                    for part in format!("{head}{behind}").as_bytes().chunks(size) {
                        folds.read(part);
                    }
                    assert_eq!(folds.ended_with(body), is_all, "{behind:?} in pieces of {size}");
                }
            }
        }
    }

    #[test]
    fn too_many_fields_are_too_many_for_the_parser() {
        let fields: Vec<(String, Vec<u8>)> = (0..1_000).map(|index| (format!("x{index}"), b"v".to_vec())).collect();
        let read = Folds::new(Folded::default(), 384).read(&head(&fields)).unwrap();
        assert!(read.windows(2).filter(|two| two == b"\r\n").count() > 500);
        let endless =
            [b"GET / HTTP/1.1\r\n".to_vec(), b"x: v\r\n".repeat(100), vec![b'x'; 2 * LINE_BYTES_MAX]].concat();
        let mut folds = Folds::new(Folded::default(), 384);
        let read: usize = endless.chunks(1_000).map(|part| folds.read(part).map_or(part.len(), |new| new.len())).sum();
        assert!(read > LINE_BYTES_MAX && folds.held.is_empty(), "no endless line is waited for");
    }
}
