//! The fields of HPACK blocks (RFC 7541) as far as it takes to know which of them are pseudo-headers: no name or value is decoded.
//!
//! A field may be named by its place in the dynamic table. Neither Huffman codes nor the lengths of entries matter for
//! that: a place counts from the newest entry, and the h2 crate, which reads the same bytes, closes the connection over a place
//! whose entry was evicted. So the table is one bit for each of the newest entries.

/// The first entries of the static table are the pseudo-headers.
const STATIC_PSEUDO_MAX: u32 = 14;
const STATIC_MAX: u32 = 61;
/// A colon in the code of RFC 7541, Appendix B, which has seven bits.
const HUFFMAN_COLON: u8 = 0x5c;
/// The shift of a number's last byte; the h2 crate refuses longer ones.
const SHIFT_MAX: u32 = 21;

/// The fields of one connection's blocks. They may come in pieces of any length.
#[derive(Debug, Default)]
pub(super) struct Fields {
    at: At,
    table: Table,
}

/// The bytes are no HPACK.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// The dynamic table, newest entry first: its 4,096 bytes hold no more than 128 entries, each of which counts as 32 and more.
#[derive(Debug, Default)]
struct Table(u128);

/// The place that was reached in a field.
#[derive(Debug, Clone, Copy, Default)]
enum At {
    #[default]
    First,
    /// The rest of a number.
    Number {
        of: Number,
        value: u32,
        shift: u32,
    },
    Length(Text),
    Name {
        of: Literal,
        is_huffman: bool,
        left: u32,
    },
    Rest {
        of: Text,
        left: u32,
    },
}

/// A field that is not an entry of a table.
#[derive(Debug, Clone, Copy)]
struct Literal {
    /// It becomes an entry.
    is_kept: bool,
    is_pseudo: bool,
}

#[derive(Debug, Clone, Copy)]
enum Text {
    Name(Literal),
    Value(Literal),
}

/// The meaning of a number.
#[derive(Debug, Clone, Copy)]
enum Number {
    Entry,
    EntryOfName(Literal),
    TableSize,
    Length { of: Text, is_huffman: bool },
}

impl Table {
    fn is_pseudo(&self, place: u32) -> bool {
        match place.checked_sub(STATIC_MAX + 1) {
            None => (1..=STATIC_PSEUDO_MAX).contains(&place),
            Some(dynamic) => self.0.checked_shr(dynamic).unwrap_or(0) & 1 == 1,
        }
    }

    fn keep(&mut self, is_pseudo: bool) {
        self.0 = self.0 << 1 | u128::from(is_pseudo);
    }
}

impl Fields {
    /// A block begins.
    pub(super) const fn begin(&mut self) {
        self.at = At::First;
    }

    /// Takes the next bytes of a block. Returns whether a pseudo-header's name was among them.
    ///
    /// # Errors
    /// They are no HPACK: the connection is lost.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<bool, Broken> {
        let mut found = false;
        while let Some((&byte, after)) = bytes.split_first() {
            if let At::Rest { of, left } = self.at {
                let taken = bytes.len().min(left as usize);
                bytes = bytes.get(taken..).unwrap_or_default();
                self.at = self.rest(of, left - taken as u32);
                continue;
            }
            bytes = after;
            self.at = match self.at {
                At::First => self.first(byte, &mut found),
                At::Number { of, value, shift } => {
                    let value = value + (u32::from(byte & 0x7f) << shift);
                    match byte & 0x80 {
                        0 => self.number(of, value, &mut found),
                        _ if shift < SHIFT_MAX => At::Number { of, value, shift: shift + 7 },
                        _ => return Err(Broken),
                    }
                }
                At::Length(of) => {
                    let is_huffman = byte & 0x80 != 0;
                    self.begun(byte, 0x7f, Number::Length { of, is_huffman }, &mut found)
                }
                At::Name { of, is_huffman, left } => {
                    let is_pseudo = if is_huffman { byte >> 1 == HUFFMAN_COLON } else { byte == b':' };
                    found |= is_pseudo;
                    self.rest(Text::Name(Literal { is_pseudo, ..of }), left - 1)
                }
                rest @ At::Rest { .. } => rest,
            };
        }
        Ok(found)
    }

    fn first(&mut self, byte: u8, found: &mut bool) -> At {
        let literal = |is_kept| Number::EntryOfName(Literal { is_kept, is_pseudo: false });
        let (mask, of) = match byte {
            0x80.. => (0x7f, Number::Entry),
            0x40.. => (0x3f, literal(true)),
            0x20.. => (0x1f, Number::TableSize),
            _ => (0x0f, literal(false)),
        };
        self.begun(byte, mask, of, found)
    }

    /// A number whose first bits are in a byte with other things.
    fn begun(&mut self, byte: u8, mask: u8, of: Number, found: &mut bool) -> At {
        match byte & mask {
            all if all == mask => At::Number { of, value: u32::from(mask), shift: 0 },
            value => self.number(of, u32::from(value), found),
        }
    }

    fn number(&mut self, of: Number, value: u32, found: &mut bool) -> At {
        match (of, value) {
            (Number::Entry, place) => {
                *found |= self.table.is_pseudo(place);
                At::First
            }
            (Number::TableSize, _) => At::First,
            (Number::EntryOfName(of), 0) => At::Length(Text::Name(of)),
            (Number::EntryOfName(of), place) => {
                let is_pseudo = self.table.is_pseudo(place);
                *found |= is_pseudo;
                At::Length(Text::Value(Literal { is_pseudo, ..of }))
            }
            (Number::Length { of: Text::Name(of), is_huffman }, left @ 1..) => At::Name { of, is_huffman, left },
            (Number::Length { of, .. }, left) => self.rest(of, left),
        }
    }

    fn rest(&mut self, of: Text, left: u32) -> At {
        match (of, left) {
            (_, 1..) => At::Rest { of, left },
            (Text::Name(of), 0) => At::Length(Text::Value(of)),
            (Text::Value(of), 0) => {
                if of.is_kept {
                    self.table.keep(of.is_pseudo);
                }
                At::First
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes these blocks, each in pieces of every length; returns which of them have a pseudo-header.
    fn pseudo<const N: usize>(blocks: [&[u8]; N]) -> [bool; N] {
        let whole = taken(blocks, usize::MAX);
        for length in 1..8 {
            assert_eq!(taken(blocks, length), whole, "in pieces of {length}");
        }
        whole
    }

    fn taken<const N: usize>(blocks: [&[u8]; N], length: usize) -> [bool; N] {
        let mut fields = Fields::default();
        blocks.map(|block| {
            fields.begin();
            block.chunks(length.min(block.len().max(1))).fold(false, |found, piece| fields.take(piece).unwrap() | found)
        })
    }

    #[test]
    fn a_pseudo_header_is_told_however_it_is_written() {
        // `:path: /` of the static table, and a value of one's own with that name, kept, not kept, and never to be kept.
        assert_eq!(pseudo([b"\x84", b"\x44\x02/a", b"\x04\x02/a", b"\x14\x02/a"]), [true; 4]);
        // The name in letters, and in Huffman's code: `:path`.
        assert_eq!(pseudo([b"\x00\x05:path\x01/", b"\x40\x84\xb9\x58\xd3\x3f\x01/"]), [true; 2]);
        // Fields: `accept-encoding: gzip, deflate`, `user-agent: curl`, `x: :`, and one with a value of 200 bytes.
        let long = [b"\x40\x01x\x7f\x49".as_slice(), &[b':'; 200]].concat();
        assert_eq!(pseudo([b"\x90", b"\x7a\x04curl", b"\x00\x01x\x01:", &long, b""]), [false; 5]);
    }

    #[test]
    fn a_place_in_the_dynamic_table_counts_from_the_newest_entry() {
        // Kept: `:path: /a`, `x: y`. The newest is 62.
        let kept: &[u8] = b"\x44\x02/a\x40\x01x\x01y";
        assert_eq!(pseudo([kept, b"\xbe", b"\xbf", b"\xbe\xbf"]), [true, false, true, true]);
        // Their names, with other values; the first of them is kept and moves both.
        assert_eq!(pseudo([kept, b"\x7e\x01z", b"\xbf", b"\xc0", b"\x0f\x2f\x01/"]), [true, false, false, true, false]);
        // An entry whose name was one.
        assert_eq!(pseudo([kept, b"\x7f\x00\x01z", b"\xbe"]), [true; 3]);
        // Places beyond 189, and 127, which takes two bytes.
        let many: Vec<u8> = [b"\x44\x01/".as_slice(), &b"\x40\x01x\x01y".repeat(65)].concat();
        assert_eq!(pseudo([&many, b"\xff\x00", b"\xff\xff\x7f"]), [true, true, false]);
    }

    #[test]
    fn a_change_of_the_tables_size_moves_no_entry() {
        assert_eq!(pseudo([b"\x44\x01/", b"\x20\x3f\xe1\x1f\x40\x01x\x01y", b"\xbe"]), [true, false, false]);
    }

    #[test]
    fn a_number_without_an_end_breaks_the_connection() {
        let mut fields = Fields::default();
        assert_eq!(fields.take(b"\xff\xff\xff\xff\x7f"), Ok(false));
        assert_eq!(fields.take(b"\xff\xff\xff\xff\xff"), Err(Broken));
    }
}
