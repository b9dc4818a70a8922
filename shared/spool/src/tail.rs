//! The bytes of a segment that are not durable yet: staged, so that they survive the process, and kept until the disk has
//! them, for after a failed sync the kernel may have dropped its pages.

use std::collections::VecDeque;

use crate::stage::{CHUNK_ROOM, Chunks};

/// Frames in LSN order, in chunks that begin with a frame.
#[derive(Default)]
pub(crate) struct Tail {
    chunks: VecDeque<Chunk>,
}

struct Chunk {
    start: u64,
    used: usize,
    place: TailPlace,
}

enum TailPlace {
    Staged(usize),
    /// There is no stage, or it is full and this must not be refused: it survives the process once it is written out.
    Memory(Vec<u8>),
}

impl Tail {
    /// Keeps a frame, given in parts.
    pub(crate) fn push(&mut self, chunks: &mut Chunks, lsn: u64, parts: [&[u8]; 3]) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if self.is_full(bytes) {
            let place = match chunks.take(lsn) {
                Some(index) => TailPlace::Staged(index),
                None => TailPlace::Memory(Vec::with_capacity(CHUNK_ROOM)),
            };
            self.chunks.push_back(Chunk { start: lsn, used: 0, place });
        }
        let Some(chunk) = self.chunks.back_mut() else { return };
        for part in parts {
            match &mut chunk.place {
                TailPlace::Staged(index) => chunks.put(*index, chunk.used, part),
                TailPlace::Memory(buffer) => buffer.extend_from_slice(part),
            }
            chunk.used += part.len();
        }
    }

    /// Returns whether a frame of so many bytes needs a further chunk.
    fn is_full(&self, bytes: usize) -> bool {
        self.chunks.back().is_none_or(|chunk| chunk.used + bytes > CHUNK_ROOM)
    }

    /// Releases what lies before `durable`. Whole chunks go, so what stays begins well before the last page that was synced.
    pub(crate) fn release(&mut self, chunks: &mut Chunks, durable: u64) {
        while self.chunks.get(1).is_some_and(|second| second.start <= durable) {
            self.release_first(chunks);
        }
    }

    /// All of it may go.
    pub(crate) fn release_all(&mut self, chunks: &mut Chunks) {
        while !self.chunks.is_empty() {
            self.release_first(chunks);
        }
    }

    /// The stage goes: what is still needed is kept in memory.
    pub(crate) fn keep_in_memory(&mut self, chunks: &Chunks) {
        for chunk in &mut self.chunks {
            if let TailPlace::Staged(index) = chunk.place {
                let mut buffer = vec![0; chunk.used];
                chunks.load(index, 0, &mut buffer);
                chunk.place = TailPlace::Memory(buffer);
            }
        }
    }

    fn release_first(&mut self, chunks: &mut Chunks) {
        if let Some(Chunk { place: TailPlace::Staged(index), .. }) = self.chunks.pop_front() {
            chunks.give_back(index);
        }
    }

    /// LSN of the first frame still kept.
    pub(crate) fn start(&self) -> Option<u64> {
        self.chunks.front().map(|chunk| chunk.start)
    }

    /// Copies what is kept from `from` on, at most `into` holds and to the end of a chunk. How many bytes there were.
    pub(crate) fn copy(&self, chunks: &Chunks, from: u64, into: &mut [u8]) -> usize {
        let holds = |chunk: &&Chunk| chunk.start <= from && from < chunk.start + chunk.used as u64;
        let Some(chunk) = self.chunks.iter().find(holds) else { return 0 };
        let at = usize::try_from(from - chunk.start).unwrap_or(chunk.used);
        let count = (chunk.used - at).min(into.len());
        let Some(into) = into.get_mut(..count) else { return 0 };
        match &chunk.place {
            TailPlace::Staged(index) => chunks.load(*index, at, into),
            TailPlace::Memory(buffer) => into.copy_from_slice(buffer.get(at..at + count).unwrap_or_default()),
        }
        count
    }
}
