//! The request's body on its way to the upstream: counted, hashed and never buffered.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use goldleaves_domain::{Fingerprint, FingerprintBuilder};
use goldleaves_web::{BodyError, Buffers, Flow, WebBody};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::stall::Stall;
use crate::headers;

/// More frames than a client may have sent of a body that nobody reads.
const FRAMES_LEFT_MAX: usize = 64;

/// The limits of a request's body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UploadLimits {
    pub(crate) bytes_max: u64,
    pub(crate) idle: Duration,
}

/// The reason a request's body did not reach its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadFailure {
    /// The client broke off.
    #[error("the client broke off its request")]
    ClientLeft,
    /// The bytes that came are no body, such as a chunk without a length, or one that ends too early; the client is there and
    /// gets an answer.
    #[error("the request's body is malformed")]
    Malformed,
    /// More bytes than allowed.
    #[error("the request's body is longer than allowed")]
    TooLarge,
    /// The client sent nothing for too long.
    #[error("the client sent nothing of its request's body for too long")]
    Idle,
}

/// The knowledge of an upload that its two ends share: the one that streams it and the one that settles the call.
#[derive(Debug, Clone)]
pub(crate) struct UploadWatch(Arc<Mutex<WatchedUpload>>);

#[derive(Debug)]
struct WatchedUpload {
    fingerprint: Option<FingerprintBuilder>,
    finished: bool,
    failure: Option<UploadFailure>,
    moved: Instant,
}

impl UploadWatch {
    /// With the builder that the body's bytes shall go into, if anybody wants it.
    pub(crate) fn new(fingerprint: Option<FingerprintBuilder>) -> Self {
        Self(Arc::new(Mutex::new(WatchedUpload { fingerprint, finished: false, failure: None, moved: Instant::now() })))
    }

    /// Returns the reason the body did not reach its end, when it was broken off.
    pub(crate) fn failure(&self) -> Option<UploadFailure> {
        self.0.lock().failure
    }

    /// Returns whether the body came to its end, or never will.
    fn is_over(&self) -> bool {
        let watched = self.0.lock();
        watched.finished || watched.failure.is_some()
    }

    /// When a byte last came from the client.
    pub(crate) fn moved(&self) -> Instant {
        self.0.lock().moved
    }

    /// The request's fingerprint, once and only when its body was read to the end.
    pub(crate) fn take_fingerprint(&self) -> Option<Fingerprint> {
        let mut watched = self.0.lock();
        let builder = if watched.finished { watched.fingerprint.take() } else { None };
        drop(watched);
        builder.map(FingerprintBuilder::finish)
    }

    fn data(&self, data: &[u8]) {
        let mut watched = self.0.lock();
        watched.moved = Instant::now();
        if let Some(builder) = &mut watched.fingerprint {
            builder.body(data);
        }
    }

    fn finished(&self) {
        self.0.lock().finished = true;
    }

    fn failed(&self, failure: UploadFailure) -> UploadFailure {
        self.0.lock().failure.get_or_insert(failure).to_owned()
    }
}

/// The body that hyper sends to the upstream.
#[derive(Debug)]
pub(crate) struct Upload(Option<Box<UploadStream>>);

#[derive(Debug)]
struct UploadStream {
    source: WebBody,
    watch: UploadWatch,
    bytes_left: u64,
    stall: Stall,
    flow: Flow,
}

impl Upload {
    /// No body at all.
    pub(crate) const fn empty() -> Self {
        Self(None)
    }

    pub(crate) const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The client's body, seen by `watch`.
    pub(crate) fn streaming(
        source: WebBody,
        watch: UploadWatch,
        limits: UploadLimits,
        call_deadline: Instant,
        buffers: &Buffers,
    ) -> Self {
        let stall = Stall::new(limits.idle, call_deadline);
        Self(Some(Box::new(UploadStream {
            source,
            watch,
            bytes_left: limits.bytes_max,
            stall,
            flow: Flow::new(buffers.clone()),
        })))
    }
}

impl UploadStream {
    fn took(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, UploadFailure> {
        self.stall.moved();
        let Some(data) = frame.data_ref() else {
            if frame.trailers_ref().is_some_and(headers::has_blank_ends) {
                return Err(self.watch.failed(UploadFailure::Malformed));
            }
            self.watch.finished();
            return Ok(frame
                .into_trailers()
                .map(headers::strip_request_trailers)
                .map_or_else(|frame| frame, Frame::trailers));
        };
        match self.bytes_left.checked_sub(data.len() as u64) {
            Some(left) => self.bytes_left = left,
            None => return Err(self.watch.failed(UploadFailure::TooLarge)),
        }
        self.watch.data(data);
        if self.source.is_end_stream() {
            self.watch.finished();
        }
        Ok(frame.map_data(|piece| self.flow.hold(piece)))
    }
}

/// Whatever breaks off a request's body is the client's doing.
fn failure_of(error: &BodyError) -> UploadFailure {
    match error {
        BodyError::TooLarge { .. } => UploadFailure::TooLarge,
        BodyError::Idle => UploadFailure::Idle,
        BodyError::Connection(error) if is_malformed(error) => UploadFailure::Malformed,
        BodyError::HalfClosed(_) => UploadFailure::Malformed,
        BodyError::Connection(_) | BodyError::CallTimeout | BodyError::Stopped | BodyError::Source(_) => {
            UploadFailure::ClientLeft
        }
    }
}

/// hyper's decoder reports bytes that are no chunked coding as invalid input or data, and a connection that ended as an
/// unexpected end. h2 resets the stream of a message that is none, such as one whose length is not what it announced, and closes
/// the connection at fields that are none, such as one with an upper-case name.
fn is_malformed(error: &hyper::Error) -> bool {
    let Some(source) = error.source() else { return false };
    if let Some(error) = source.downcast_ref::<h2::Error>() {
        return (error.is_reset() || error.is_go_away()) && error.is_library();
    }
    let kind = source.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

/// hyper drops a call whose stream it had to reset, and with it a body that nobody may have been reading: whether it was
/// malformed is looked for here, because such a call is not billed.
impl Drop for UploadStream {
    fn drop(&mut self) {
        if self.watch.is_over() {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..FRAMES_LEFT_MAX {
            match Pin::new(&mut self.source).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => {
                    self.watch.failed(failure_of(&error));
                    return;
                }
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadFailure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFailure>>> {
        let Some(stream) = &mut self.0 else { return Poll::Ready(None) };
        // The client is not asked for more, and so not late, while the upstream has not taken what it sent.
        ready!(stream.flow.poll_room(cx));
        let polled = Pin::new(&mut stream.source).poll_frame(cx);
        if polled.is_pending() && stream.stall.expired(cx) {
            return Poll::Ready(Some(Err(stream.watch.failed(UploadFailure::Idle))));
        }
        match ready!(polled) {
            Some(Ok(frame)) => Poll::Ready(Some(stream.took(frame))),
            Some(Err(error)) => Poll::Ready(Some(Err(stream.watch.failed(failure_of(&error))))),
            None => {
                stream.watch.finished();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|stream| stream.source.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |stream| stream.source.size_hint())
    }
}
