//! The memo in the cursor's own page: what the receiver confirmed last, and what the seals need.
//!
//! A memo is a version, the receipt's length and bytes, and the seal book's checkpoint. One without a receipt is the
//! checkpoint alone, which begins with a version of its own and is what earlier programs wrote.

use bytes::Bytes;
use goldleaves_domain::RECEIPT_BYTES_MAX;
use goldleaves_spool::MEMO_BYTES_MAX;

/// Another first byte than any checkpoint's.
const VERSION: u8 = 0x80;
const HEAD_BYTES: usize = 2;

/// The parts of a memo.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Memo {
    /// The publisher's words.
    pub(super) receipt: Bytes,
    /// The seal book's.
    pub(super) checkpoint: Bytes,
}

impl Memo {
    /// Reads one; whatever it is, the parts of it that are none are told by those who read them.
    pub(super) fn read(bytes: &Bytes) -> Self {
        let length = match **bytes {
            [VERSION, length, ..] => usize::from(length),
            _ => return Self { receipt: Bytes::new(), checkpoint: bytes.clone() },
        };
        let rest = bytes.slice(HEAD_BYTES..);
        let middle = length.min(rest.len());
        Self { receipt: rest.slice(..middle), checkpoint: rest.slice(middle..) }
    }

    /// Writes one. `checkpoint` is told how many bytes are left for it.
    pub(super) fn write(receipt: &[u8], checkpoint: impl FnOnce(usize) -> Vec<u8>) -> Vec<u8> {
        let length = match u8::try_from(receipt.len()) {
            Ok(length) if length > 0 && receipt.len() <= RECEIPT_BYTES_MAX => length,
            _ => return checkpoint(MEMO_BYTES_MAX),
        };
        let mut bytes = vec![VERSION, length];
        bytes.extend_from_slice(receipt);
        bytes.extend(checkpoint(MEMO_BYTES_MAX - bytes.len()));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_come_back_and_what_earlier_programs_wrote_is_the_checkpoint() {
        let mut room = 0;
        let checkpoint = |left| {
            room = left;
            vec![1, 2, 3]
        };
        let written = Bytes::from(Memo::write(b"receipt", checkpoint));
        assert_eq!(room + written.len() - 3, MEMO_BYTES_MAX);
        let memo = Memo { receipt: Bytes::from_static(b"receipt"), checkpoint: Bytes::from_static(&[1, 2, 3]) };
        assert_eq!(Memo::read(&written), memo);
        for (receipt, why) in [(Vec::new(), "none"), (vec![b'x'; RECEIPT_BYTES_MAX + 1], "too long")] {
            let written = Bytes::from(Memo::write(&receipt, |_| vec![1, 9]));
            assert_eq!(*written, [1, 9], "{why}");
            assert_eq!(*Memo::read(&written).checkpoint, [1, 9]);
        }
        assert_eq!(Memo::read(&Bytes::new()), Memo::default());
        assert_eq!(*Memo::read(&Bytes::from_static(&[VERSION, 9, 7])).receipt, [7], "cut off");
    }
}
