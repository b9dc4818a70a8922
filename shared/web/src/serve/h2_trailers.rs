//! The trailers of HTTP/2 requests, before the h2 crate reads them: pseudo-headers there make a request malformed (RFC 9113, 8.1).
//!
//! The crate takes them out without a word, so that such a request looks whole. Here the frames are followed as they are read, and
//! in front of such trailers stands what the crate refuses: an empty block of fields that does not end its stream. So this
//! stream is reset, and no other. Nothing else is judged here, and no other byte is changed or added.

use bytes::BytesMut;

use super::hpack::Fields;

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
/// The longest frame that a client may send, as it is told.
pub(super) const FRAME_BYTES_MAX: u32 = 16 << 10;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// The frames of one client.
#[derive(Debug)]
pub(super) struct Trailers {
    place: Place,
    head: [u8; HEAD_BYTES],
    block: Block,
    fields: Fields,
    /// The newest stream.
    newest: u32,
    /// The bytes that were read and not passed on: the beginning of a frame's head, or trailers that are not judged yet.
    held: BytesMut,
    held_max: usize,
}

/// The place that was reached in what the client sends.
#[derive(Debug, Clone, Copy)]
enum Place {
    Preface {
        left: usize,
    },
    Head {
        got: usize,
    },
    Padding {
        left: usize,
        priority: usize,
    },
    Priority {
        left: usize,
        then: Lengths,
    },
    Fields(Lengths),
    Skipped {
        left: usize,
    },
    /// The client broke a rule in a way that ends the connection.
    Broken,
}

/// The bytes of a frame that are fields, and those behind them.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    fields: usize,
    padding: usize,
}

/// A block of fields, which may take several frames.
#[derive(Debug, Default)]
struct Block {
    stream: u32,
    /// More frames of it are to come.
    is_open: bool,
    /// It is the second one of its stream, and was neither refused nor passed on.
    is_unjudged: bool,
}

/// The results of one read; places count from the first byte that is held.
#[derive(Debug, Default)]
struct Turn {
    at: usize,
    /// Where the bytes begin that are not passed on yet.
    hold: Option<usize>,
    /// The streams to be reset, and where.
    refused: Vec<(usize, u32)>,
}

impl Trailers {
    /// Trailers may have so many bytes.
    pub(super) fn new(held_max: usize) -> Self {
        Self {
            place: Place::Preface { left: PREFACE_BYTES },
            head: [0; HEAD_BYTES],
            block: Block::default(),
            fields: Fields::default(),
            newest: 0,
            held: BytesMut::new(),
            held_max,
        }
    }

    /// Returns the bytes that are to be read in place of these, if others.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<BytesMut> {
        let held = self.held.len();
        let mut turn = Turn { at: held, hold: (held > 0).then_some(0), refused: Vec::new() };
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest, &mut turn).max(1);
            turn.at += taken;
            rest = rest.get(taken..).unwrap_or_default();
        }
        if let Place::Broken = self.place {
            turn.hold = None;
        } else if turn.hold.is_some_and(|from| turn.at - from > self.held_max) {
            self.refuse(&mut turn);
        }
        if held == 0 && turn.hold.is_none() && turn.refused.is_empty() {
            return None;
        }
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        self.held = all.split_off(turn.hold.unwrap_or(all.len()));
        for (place, stream) in turn.refused.into_iter().rev() {
            let behind = all.split_off(place);
            all.extend_from_slice(&unended(stream));
            all.unsplit(behind);
        }
        Some(all)
    }

    /// Takes bytes of one kind; returns how many.
    fn step(&mut self, bytes: &[u8], turn: &mut Turn) -> usize {
        match self.place {
            Place::Preface { left } => {
                let taken = left.min(bytes.len());
                self.place = if taken < left { Place::Preface { left: left - taken } } else { Place::Head { got: 0 } };
                taken
            }
            Place::Head { got } => self.head(bytes, got, turn),
            Place::Padding { left, priority } => {
                let padding = bytes.first().copied().map_or(0, usize::from);
                let fields = left.checked_sub(1 + priority + padding);
                self.place = fields.map_or(Place::Broken, |fields| {
                    let then = Lengths { fields, padding };
                    if priority > 0 { Place::Priority { left: priority, then } } else { Place::Fields(then) }
                });
                self.settle(turn);
                1
            }
            Place::Priority { left, then } => {
                let taken = left.min(bytes.len());
                self.place =
                    if taken < left { Place::Priority { left: left - taken, then } } else { Place::Fields(then) };
                self.settle(turn);
                taken
            }
            Place::Fields(lengths) => self.some_fields(bytes, lengths, turn),
            Place::Skipped { left } => {
                let taken = left.min(bytes.len());
                self.place = Place::Skipped { left: left - taken };
                self.settle(turn);
                taken
            }
            Place::Broken => bytes.len(),
        }
    }

    fn head(&mut self, bytes: &[u8], got: usize, turn: &mut Turn) -> usize {
        if got == 0 && turn.hold.is_none() {
            turn.hold = Some(turn.at);
        }
        let mut taken = 0;
        for (place, byte) in self.head.iter_mut().skip(got).zip(bytes) {
            *place = *byte;
            taken += 1;
        }
        if got + taken < HEAD_BYTES {
            self.place = Place::Head { got: got + taken };
            return taken;
        }
        self.place = self.frame();
        if !self.block.is_unjudged {
            turn.hold = None;
        }
        self.settle(turn);
        taken
    }

    /// The place behind the head of a frame.
    fn frame(&mut self) -> Place {
        let [long, middle, short, kind, flags, first, second, third, fourth] = self.head;
        let stream = u32::from_be_bytes([first & 0x7f, second, third, fourth]);
        let length = u32::from_be_bytes([0, long, middle, short]);
        let left = length as usize;
        let has = |flag| flags & flag != 0;
        match kind {
            _ if length > FRAME_BYTES_MAX => Place::Broken,
            HEADERS if !self.block.is_open => {
                let is_unjudged = stream <= self.newest;
                self.newest = self.newest.max(stream);
                self.block = Block { stream, is_open: !has(END_HEADERS), is_unjudged };
                self.fields.begin();
                let priority = if has(PRIORITY) { PRIORITY_BYTES } else { 0 };
                match left.checked_sub(priority) {
                    _ if has(PADDED) && left > 0 => Place::Padding { left, priority },
                    Some(fields) if !has(PADDED) && priority > 0 => {
                        Place::Priority { left: priority, then: Lengths { fields, padding: 0 } }
                    }
                    Some(fields) if !has(PADDED) => Place::Fields(Lengths { fields, padding: 0 }),
                    _ => Place::Broken,
                }
            }
            CONTINUATION if self.block.is_open && self.block.stream == stream => {
                self.block.is_open = !has(END_HEADERS);
                Place::Fields(Lengths { fields: left, padding: 0 })
            }
            _ if self.block.is_open => Place::Broken,
            _ => Place::Skipped { left },
        }
    }

    fn some_fields(&mut self, bytes: &[u8], lengths: Lengths, turn: &mut Turn) -> usize {
        let taken = lengths.fields.min(bytes.len());
        self.place = Place::Fields(Lengths { fields: lengths.fields - taken, ..lengths });
        match self.fields.take(bytes.get(..taken).unwrap_or_default()) {
            Ok(true) if self.block.is_unjudged => self.refuse(turn),
            Ok(_) => {}
            Err(_) => self.place = Place::Broken,
        }
        self.settle(turn);
        taken
    }

    /// Leaves places of which nothing is left.
    fn settle(&mut self, turn: &mut Turn) {
        if let Place::Fields(Lengths { fields: 0, padding }) = self.place {
            if !self.block.is_open && std::mem::take(&mut self.block.is_unjudged) {
                turn.hold = None;
            }
            self.place = Place::Skipped { left: padding };
        }
        if let Place::Skipped { left: 0 } = self.place {
            self.place = Place::Head { got: 0 };
        }
    }

    /// The crate shall reset the stream whose trailers are held.
    fn refuse(&mut self, turn: &mut Turn) {
        self.block.is_unjudged = false;
        if let Some(from) = turn.hold.take() {
            turn.refused.push((from, self.block.stream));
        }
    }
}

/// An empty block of fields that does not end its stream.
fn unended(stream: u32) -> [u8; HEAD_BYTES] {
    let [first, second, third, fourth] = stream.to_be_bytes();
    [0, 0, 0, HEADERS, END_HEADERS, first, second, third, fourth]
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD_MAX: usize = 64;
    /// `GET http://a/` of the static table, and a field that stays in the dynamic one.
    const GET: &[u8] = b"\x82\x86\x84\x41\x01a\x40\x01x\x01y";
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, stream: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[0, length[0], length[1], kind, flags, 0, 0, 0, stream], content].concat()
    }

    /// Returns what is read of these frames, in pieces of every length.
    fn read(frames: &[Vec<u8>]) -> Vec<u8> {
        let sent = [PREFACE, &frames.concat()].concat();
        let whole = in_pieces(&sent, sent.len());
        for length in 1..40 {
            assert_eq!(in_pieces(&sent, length), whole, "in pieces of {length}");
        }
        whole[PREFACE.len()..].to_vec()
    }

    fn in_pieces(sent: &[u8], length: usize) -> Vec<u8> {
        let mut trailers = Trailers::new(HELD_MAX);
        let mut read = Vec::new();
        for piece in sent.chunks(length) {
            match trailers.read(piece) {
                Some(other) => read.extend(other),
                None => read.extend(piece),
            }
        }
        assert!(trailers.held.len() <= HELD_MAX);
        read
    }

    #[test]
    fn what_is_whole_is_read_as_it_was_sent() {
        let padded = [&[3][..], GET, &[0; 3]].concat();
        let both = [&[3, 0, 0, 0, 0, 9], GET, &[0; 3]].concat();
        let sent = [
            frame(4, 0, 0, b"\0\x04\0\0\x20\0"),
            frame(HEADERS, PADDED | END_HEADERS, 1, &padded),
            frame(HEADERS, PADDED | PRIORITY | END_HEADERS, 3, &both),
            frame(HEADERS, 0, 5, &GET[..3]),
            frame(CONTINUATION, 0, 5, b""),
            frame(CONTINUATION, END_HEADERS, 5, &GET[3..]),
            frame(0, 0, 1, &[b':'; 300]),
            frame(HEADERS, 1 | PADDED | END_HEADERS, 1, b"\x02\xbe\0\0"),
            frame(HEADERS, 1, 3, b"\x00\x01x"),
            frame(CONTINUATION, END_HEADERS, 3, b"\x01:"),
            frame(HEADERS, 1 | END_HEADERS, 5, b""),
            frame(6, 0, 0, &[0; 8]),
        ];
        assert_eq!(read(&sent), sent.concat());
    }

    #[test]
    fn trailers_with_a_pseudo_header_follow_what_resets_their_stream() {
        let heads = [1, 3, 5].map(|stream| frame(HEADERS, END_HEADERS, stream, GET));
        let ends = |stream, block: &[u8]| frame(HEADERS, 1 | END_HEADERS, stream, block);
        let data = frame(0, 0, 5, b"data");
        // The newest entries: `x`, and before it the authority.
        let open = [frame(HEADERS, 1, 3, b"\xbe"), frame(CONTINUATION, END_HEADERS, 3, b"\xbf\xbe")].concat();
        let sent = [heads.concat(), ends(1, b"\x84"), data.clone(), open.clone(), ends(5, b"\xbe")];
        let refused = |stream| frame(HEADERS, END_HEADERS, stream, b"");
        let expected = [heads.concat(), refused(1), ends(1, b"\x84"), data, refused(3), open, ends(5, b"\xbe")];
        assert_eq!(read(&sent), expected.concat());
    }

    #[test]
    fn trailers_without_an_end_are_refused_before_they_take_much_memory() {
        let head = frame(HEADERS, END_HEADERS, 1, GET);
        let field = [&b"\x00\x01x\x64"[..], &[b'y'; 100]].concat();
        let open = [frame(HEADERS, 1, 1, &field), frame(CONTINUATION, 0, 1, &field)].concat();
        let expected = [head.clone(), frame(HEADERS, END_HEADERS, 1, b""), open.clone()].concat();
        assert_eq!(read(&[head, open]), expected);
    }

    #[test]
    fn what_ends_the_connection_is_the_crates() {
        let head = frame(HEADERS, END_HEADERS, 1, GET);
        for broken in [
            b"\xff\xff\xff\x01\x05\0\0\0\x01\x84".to_vec(),
            frame(HEADERS, 1 | END_HEADERS | PADDED, 1, b"\x09\x84"),
            frame(HEADERS, 1 | END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\x84"),
            [frame(HEADERS, 1, 1, b"\xbe"), frame(0, 1, 1, b"\x84")].concat(),
        ] {
            let sent = [head.clone(), broken];
            assert_eq!(read(&sent), sent.concat());
        }
    }
}
