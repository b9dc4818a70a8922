//! One budget of buffered bytes: what the bodies served by one core hold together while their takers are slow.
//!
//! A stream with nothing on its way may always go on, so that none stands still for ever; one that has something on its way
//! gets more only while there is room, and never more than a fixed part. It counts what was handed to a connection and not
//! written yet. It does not limit how many streams there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

/// A stream that has so many bytes on their way reads nothing more; with the piece that it read last, that is 96 KiB, each way.
const STREAM_BYTES_MAX: usize = 32 << 10;
/// The most bytes that are read at a time while the budget is used up.
pub(super) const SHORT_READ_BYTES: usize = 8 << 10;
/// The first bytes of a body, when they are so few, are not counted: most answers are no longer.
const FREE_BYTES: usize = 4 << 10;
/// Shorter pieces are copied out of the larger buffer that they would keep alive.
const COPIED_BYTES: usize = 2 << 10;
/// The bytes of a piece beside its content.
const PIECE_BYTES: usize = 256;

/// The budget. Clones share it.
#[derive(Debug, Clone)]
pub struct Buffers(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    max: usize,
    used: AtomicUsize,
}

impl Default for Buffers {
    /// 16 MiB.
    fn default() -> Self {
        Self::new(16 << 20)
    }
}

impl Buffers {
    /// A budget of this many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Budget { max: bytes_max, used: AtomicUsize::new(0) }))
    }

    /// Returns the number of bytes that are on their way.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes that may be read at a time: less when the budget is used up.
    pub fn read_max(&self) -> usize {
        if self.is_full() { SHORT_READ_BYTES } else { usize::MAX }
    }

    /// Lends this many bytes, as long as half of the budget is left.
    pub(super) fn lend(&self, bytes: usize) -> Option<Lent> {
        if self.used() + bytes > self.0.max / 2 {
            return None;
        }
        self.take(bytes);
        Some(Lent { buffers: self.clone(), bytes })
    }

    fn is_full(&self) -> bool {
        self.used() >= self.0.max
    }

    fn take(&self, bytes: usize) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Lent {
    buffers: Buffers,
    bytes: usize,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.buffers.give_back(self.bytes);
    }
}

/// One body's way from where it is read to where it is written.
#[derive(Debug)]
pub struct Flow {
    buffers: Buffers,
    /// Made by the first piece that is counted.
    stream: Option<Arc<StreamBuffers>>,
    begun: bool,
}

#[derive(Debug)]
struct StreamBuffers {
    buffers: Buffers,
    on_its_way: AtomicUsize,
    waiting: Mutex<Option<Waker>>,
}

impl Flow {
    /// A body that shares this budget.
    pub const fn new(buffers: Buffers) -> Self {
        Self { buffers, stream: None, begun: false }
    }

    /// Ready when the next piece may be fetched. The task is woken when what was handed on before is written.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let Some(stream) = &self.stream else { return Poll::Ready(()) };
        if stream.has_room() {
            return Poll::Ready(());
        }
        *stream.waiting.lock() = Some(cx.waker().clone());
        // What was on its way may have gone meanwhile.
        if stream.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The piece, counted until its last byte is dropped.
    pub fn hold(&mut self, piece: Bytes) -> Bytes {
        let is_first = !std::mem::replace(&mut self.begun, true);
        if is_first && piece.len() <= FREE_BYTES {
            return piece;
        }
        let piece = if piece.len() <= COPIED_BYTES { Bytes::copy_from_slice(&piece) } else { piece };
        let stream = self.stream.get_or_insert_with(|| {
            let buffers = self.buffers.clone();
            Arc::new(StreamBuffers { buffers, on_its_way: AtomicUsize::new(0), waiting: Mutex::default() })
        });
        let bytes = piece.len() + PIECE_BYTES;
        stream.on_its_way.fetch_add(bytes, Ordering::Relaxed);
        self.buffers.take(bytes);
        Bytes::from_owner(CountedBytes { piece, stream: Arc::clone(stream) })
    }
}

impl StreamBuffers {
    fn has_room(&self) -> bool {
        match self.on_its_way.load(Ordering::Acquire) {
            0 => true,
            bytes => bytes < STREAM_BYTES_MAX && !self.buffers.is_full(),
        }
    }

    fn wrote(&self, bytes: usize) {
        self.buffers.give_back(bytes);
        self.on_its_way.fetch_sub(bytes, Ordering::Release);
        if self.has_room()
            && let Some(waiting) = self.waiting.lock().take()
        {
            waiting.wake();
        }
    }
}

/// A piece on its way.
struct CountedBytes {
    piece: Bytes,
    stream: Arc<StreamBuffers>,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.stream.wrote(self.piece.len() + PIECE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_room(flow: &Flow) -> bool {
        flow.poll_room(&Context::from_waker(Waker::noop())).is_ready()
    }

    fn piece(bytes: usize) -> Bytes {
        Bytes::from(vec![b'x'; bytes])
    }

    #[test]
    fn a_stream_with_nothing_on_its_way_goes_on_though_the_budget_is_used_up() {
        let buffers = Buffers::new(100 << 10);
        let (mut one, mut two, mut three) =
            (Flow::new(buffers.clone()), Flow::new(buffers.clone()), Flow::new(buffers.clone()));
        let held = [one.hold(piece(60 << 10)), two.hold(piece(60 << 10))];
        assert!(!has_room(&one) && !has_room(&two), "the budget is used up");
        assert!(has_room(&three), "it has nothing on its way");
        let last = three.hold(piece(8 << 10));
        assert!(!has_room(&three));
        assert_eq!(buffers.read_max(), SHORT_READ_BYTES);
        drop(last);
        assert!(has_room(&three));
        drop(held);
        assert_eq!(buffers.used(), 0);
        assert_eq!(buffers.read_max(), usize::MAX);
    }

    #[test]
    fn a_stream_has_its_part_and_no_more_however_much_room_there_is() {
        let mut flow = Flow::new(Buffers::default());
        let mut held = vec![flow.hold(piece(16 << 10))];
        assert!(has_room(&flow));
        held.push(flow.hold(piece(64 << 10)));
        assert!(!has_room(&flow));
        held.pop();
        assert!(has_room(&flow));
    }

    #[test]
    fn small_pieces_keep_no_large_buffer_and_are_counted_as_what_they_cost() {
        let buffers = Buffers::default();
        let mut flow = Flow::new(buffers.clone());
        let large = piece(32 << 10);
        assert_eq!(flow.hold(large.slice(..10)).as_ptr(), large.as_ptr(), "the first one is free");
        assert_eq!(buffers.used(), 0);
        let copied = flow.hold(large.slice(10..20));
        assert_ne!(copied.as_ptr(), large.as_ptr().wrapping_add(10));
        assert_eq!(buffers.used(), 10 + PIECE_BYTES);
        let mut held = Vec::new();
        while has_room(&flow) {
            held.push(flow.hold(large.slice(..1)));
        }
        assert!(held.len() < STREAM_BYTES_MAX / PIECE_BYTES, "{}", held.len());
    }

    #[test]
    fn whoever_waits_is_woken_when_there_is_room() {
        struct Flag(AtomicUsize);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let flag = Arc::new(Flag(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&flag));
        let mut flow = Flow::new(Buffers::new(1));
        let held = flow.hold(piece(5 << 10));
        assert!(flow.poll_room(&Context::from_waker(&waker)).is_pending());
        drop(held);
        assert_eq!(flag.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn half_of_the_budget_is_never_lent() {
        let buffers = Buffers::new(100);
        let lent = buffers.lend(50);
        assert!(lent.is_some() && buffers.lend(1).is_none());
        drop(lent);
        assert_eq!(buffers.used(), 0);
    }
}
