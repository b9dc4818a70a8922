//! The bytes of a segment that are not durable yet, kept in memory as well: after a failed sync the kernel may have dropped
//! its pages, and these are then the only ones left.

use std::collections::VecDeque;

const CHUNK: usize = 256 * 1024;

/// Frames in LSN order, in chunks that begin with a frame.
#[derive(Default)]
pub(crate) struct Tail {
    chunks: VecDeque<Chunk>,
    spare: Option<Vec<u8>>,
}

struct Chunk {
    start: u64,
    bytes: Vec<u8>,
}

impl Tail {
    /// Keeps a frame, given in parts, and returns its bytes in one piece.
    pub(crate) fn push(&mut self, lsn: u64, parts: [&[u8]; 3]) -> &[u8] {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let fits = self.chunks.back().is_some_and(|chunk| chunk.bytes.len() + bytes <= chunk.bytes.capacity());
        if !fits {
            let buffer = self.spare.take().unwrap_or_else(|| Vec::with_capacity(CHUNK));
            self.chunks.push_back(Chunk { start: lsn, bytes: buffer });
        }
        let Some(chunk) = self.chunks.back_mut() else { return &[] };
        let from = chunk.bytes.len();
        for part in parts {
            chunk.bytes.extend_from_slice(part);
        }
        chunk.bytes.get(from..).unwrap_or_default()
    }

    /// What lies before `durable` may go. Whole chunks go, so what stays begins well before the last page that was synced.
    pub(crate) fn release(&mut self, durable: u64) {
        while self.chunks.get(1).is_some_and(|second| second.start <= durable) {
            if let Some(mut chunk) = self.chunks.pop_front() {
                chunk.bytes.clear();
                self.spare = Some(chunk.bytes);
            }
        }
    }

    /// LSN of the first frame still kept.
    pub(crate) fn start(&self) -> Option<u64> {
        self.chunks.front().map(|chunk| chunk.start)
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.chunks.iter().map(|chunk| (chunk.start, chunk.bytes.as_slice()))
    }
}
