//! Writing and cutting the pieces that payloads are made of.

use std::str::FromStr;

use super::error::CodecError;

/// The longest beginning of `text` that has at most `bytes_max` bytes and ends between characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

/// Appends a text: its length and its bytes. Callers keep texts short; one too long for its length is cut.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = cut(text, u16::MAX.into());
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Bytes cut from the front.
pub(crate) struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(CodecError::Truncated(field))?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(CodecError::Truncated(field))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        self.array::<1>(field).map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, CodecError> {
        let length = u16::from_le_bytes(self.array(field)?);
        std::str::from_utf8(self.take(length.into(), field)?).map_err(|_| CodecError::Invalid(field))
    }

    pub(crate) fn optional(&mut self, present: u8, field: &'static str) -> Result<Option<String>, CodecError> {
        if present == 0 { Ok(None) } else { self.text(field).map(|text| Some(text.to_owned())) }
    }

    pub(crate) fn parse<T: FromStr>(&mut self, field: &'static str) -> Result<T, CodecError> {
        self.text(field)?.parse().map_err(|_| CodecError::Invalid(field))
    }

    /// Checks that nothing is left.
    pub(crate) const fn finish(&self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::TooLong(self.0.len())) }
    }
}
