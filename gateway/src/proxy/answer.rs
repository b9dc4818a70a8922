//! The answer's body on its way to the client. Polling it polls the upstream connection too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use goldleaves_trace::OpenSpan;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::edge::Way;
use crate::open_calls::OpenCall;
use crate::transport::{Connection, Pool, Stall, UploadFailure, UploadWatch};
use crate::upstream::{Request, UnderWay};

/// The longest answer over HTTP/2 that is looked at before it is passed on.
const WHOLE_BYTES_MAX: u64 = 16 << 10;

/// The reason an answer did not reach its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The upstream broke off.
    #[error("the upstream broke off its answer")]
    Broke(#[source] hyper::Error),
    /// It ended before it had as many bytes as its head said.
    #[error("the upstream's answer is shorter than it said")]
    Short,
    /// The upstream sent nothing for too long.
    #[error("the upstream stopped sending its answer")]
    Silent,
    /// The call's time was up: the gateway ends it, whoever was slow.
    #[error("the call's time was up before its answer ended")]
    CallTimeout,
    /// The client's own request broke off, and the answer with it.
    #[error("the request broke off while it was answered")]
    Upload(#[source] UploadFailure),
}

impl AnswerError {
    /// In a trace.
    const fn word(&self) -> &'static str {
        match self {
            Self::Broke(_) | Self::Short => "upstream_aborted",
            Self::Silent => "upstream_silent",
            Self::CallTimeout => "call_timeout",
            Self::Upload(_) => "request_aborted",
        }
    }
}

/// Where an answer's body comes from.
pub(crate) enum Source {
    /// All of it came with the head.
    Whole(Bytes),
    /// It comes as it comes.
    Streamed(Incoming),
    /// Some of it was looked at already.
    Begun(Box<Begun>),
}

type Piece = Result<Frame<Bytes>, hyper::Error>;

/// The pieces of a body that were looked at, and what follows.
pub(crate) struct Begun {
    first: Option<Piece>,
    second: Option<Piece>,
    rest: Incoming,
}

impl Begun {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        match self.first.take().or_else(|| self.second.take()) {
            Some(piece) => Poll::Ready(Some(piece)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.second.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let pieces = self.first.iter().chain(&self.second).map(bytes_of);
        let ahead = pieces.sum::<usize>() as u64;
        self.rest.size_hint().exact().map_or_else(SizeHint::default, |left| SizeHint::with_exact(ahead + left))
    }
}

fn bytes_of(piece: &Piece) -> usize {
    piece.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len)
}

impl Source {
    /// The body of an answer over HTTP/2, whose head mostly comes together with all that follows. What is short and whole
    /// is told from what streams, so that its way to the client is the short one, too.
    pub(crate) fn of_stream(mut body: Incoming, cx: &mut Context<'_>) -> Self {
        let length = body.size_hint().exact();
        if body.is_end_stream() || length.is_some_and(|length| length > WHOLE_BYTES_MAX) {
            return Self::Streamed(body);
        }
        let Poll::Ready(Some(first)) = Pin::new(&mut body).poll_frame(cx) else { return Self::Streamed(body) };
        let is_whole = length.is_none_or(|length| bytes_of(&first) as u64 == length);
        let mut second = None;
        let mut is_over = body.is_end_stream();
        if is_whole && !is_over {
            // The end may be a frame of its own, or trailers.
            let polled = Pin::new(&mut body).poll_frame(cx);
            is_over = matches!(polled, Poll::Ready(None));
            second = if let Poll::Ready(piece) = polled { piece } else { None };
        }
        match first.map(Frame::into_data) {
            Ok(Ok(bytes)) if is_whole && is_over => Self::Whole(bytes),
            first => {
                let first = first.map(|first| first.map_or_else(|other| other, Frame::data));
                Self::Begun(Box::new(Begun { first: Some(first), second, rest: body }))
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        match self {
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Streamed(incoming) => Pin::new(incoming).poll_frame(cx),
            Self::Begun(begun) => begun.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(incoming) => incoming.is_end_stream(),
            Self::Begun(begun) => begun.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(incoming) => incoming.size_hint(),
            Self::Begun(begun) => begun.size_hint(),
        }
    }
}

/// A body and the connection it comes over, which goes back to the pool at the body's end and is closed otherwise.
pub(crate) struct AnswerBody {
    source: Source,
    lease: Option<Lease>,
    watch: Option<UploadWatch>,
    stall: Stall,
    /// The span of the call to the upstream, when it is exported.
    span: Option<OpenSpan>,
    /// Given back with the body.
    place: Option<OpenCall>,
}

/// A connection in use, where it goes afterwards, and what the call holds of its upstream meanwhile.
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    pub(crate) pool: Arc<Pool>,
    pub(crate) held: Held,
}

/// Everything that an upstream counts for as long as a call is under way.
pub(crate) struct Held {
    pub(crate) _under_way: UnderWay,
    pub(crate) _request: Option<Request>,
    /// With what it belongs to.
    pub(crate) _way: Arc<Way>,
}

impl AnswerBody {
    pub(crate) fn new(source: Source, lease: Lease, stall: Stall) -> Self {
        let is_over = matches!(source, Source::Whole(_)) || source.is_end_stream();
        let mut this = Self { source, lease: Some(lease), watch: None, stall, span: None, place: None };
        if is_over {
            this.release(None);
        }
        this
    }

    /// The empty body of a 101, whose connection is a tunnel now.
    pub(crate) fn switched(source: Source) -> Self {
        Self {
            source,
            lease: None,
            watch: None,
            stall: Stall::new(Duration::ZERO, Instant::now()),
            span: None,
            place: None,
        }
    }

    /// With the request's body, which may still be on its way.
    pub(crate) fn watching(mut self, watch: Option<UploadWatch>) -> Self {
        self.watch = watch;
        self
    }

    /// With the call's place among those of its tenant. An answer without a body has ended.
    pub(crate) fn in_place(mut self, place: Option<OpenCall>) -> Self {
        self.place = place.filter(|_| !self.is_end_stream());
        self
    }

    /// With the span that its end ends.
    pub(crate) fn ending(mut self, span: OpenSpan) -> Self {
        match self.lease {
            Some(_) => self.span = Some(span),
            None => span.end(),
        }
        self
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let mut polled = self.source.poll_frame(cx);
        if polled.is_pending() {
            if let Some(lease) = &mut self.lease {
                lease.connection.drive(cx);
            }
            polled = self.source.poll_frame(cx);
        }
        match polled {
            Poll::Pending if self.stall.expired(cx) => {
                let error = if self.is_late() { AnswerError::CallTimeout } else { AnswerError::Silent };
                Poll::Ready(Some(Err(self.failed(error))))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.took(frame, cx))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.broke(error)))),
            // A stream may be reset without a fault, and with less than was announced.
            Poll::Ready(None) if self.is_short() => Poll::Ready(Some(Err(self.failed(AnswerError::Short)))),
            Poll::Ready(None) => {
                self.release(Some(cx));
                Poll::Ready(None)
            }
        }
    }

    fn took(&mut self, frame: Frame<Bytes>, cx: &mut Context<'_>) -> Result<Frame<Bytes>, AnswerError> {
        self.stall.moved();
        if self.source.is_end_stream() || frame.is_trailers() {
            self.release(Some(cx));
        } else if self.is_late() {
            return Err(self.failed(AnswerError::CallTimeout));
        }
        Ok(frame)
    }

    fn is_short(&self) -> bool {
        self.lease.is_some() && self.source.size_hint().exact().is_some_and(|left| left > 0)
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.stall.latest()
    }

    fn broke(&mut self, error: hyper::Error) -> AnswerError {
        let error = match self.watch.as_ref().and_then(UploadWatch::failure) {
            // The request's body has the same end, and may have met it first.
            Some(UploadFailure::Idle) if self.is_late() => AnswerError::CallTimeout,
            Some(failure) => AnswerError::Upload(failure),
            None => AnswerError::Broke(error),
        };
        self.failed(error)
    }

    fn failed(&mut self, error: AnswerError) -> AnswerError {
        if let Some(mut span) = self.span.take() {
            span.fail(error.word());
        }
        error
    }

    /// The exchange is over: hyper says so once it was polled after the last byte.
    fn release(&mut self, cx: Option<&mut Context<'_>>) {
        let Some(Lease { mut connection, pool, held: _held }) = self.lease.take() else { return };
        if let Some(span) = self.span.take() {
            span.end();
        }
        if let (false, Some(cx)) = (connection.is_ready(), cx) {
            connection.drive(cx);
        }
        pool.put(connection);
    }

    /// The body, where all of it is here.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.source {
            Source::Whole(bytes) if !bytes.is_empty() => Some(std::mem::take(bytes)),
            Source::Whole(_) | Source::Streamed(_) | Source::Begun(_) => None,
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}
