//! The streams of one h2 connection: each is watched by itself, and an idle connection is let go.
//!
//! hyper's header time-out is HTTP/1's alone, and a ping answered by the peer keeps an h2 connection for ever. A peer
//! that leaves its flow-control window at zero stops an answer without stopping the socket: then nobody polls the body,
//! so no time-out inside it can fire. Here the task that hyper makes for each stream has a timer of its own, and is
//! dropped when its peer takes nothing: that resets this stream and no other.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::buffers::{Buffers, Flow};
use super::{OWN_ANSWER_MAX, ServeStats};
use crate::Alarm;
use crate::body::is_whole;

/// The streams of one connection.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    connection: Arc<Mutex<H2Connection>>,
    stall_max: Duration,
    stats: ServeStats,
}

#[derive(Debug)]
struct H2Connection {
    open: usize,
    idle_since: Instant,
    /// The stream whose request was taken last and whose task hyper makes next.
    next: Option<H2Stream>,
}

/// The verdict on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionVerdict {
    /// Look again then.
    Keep(Instant),
    /// No request for too long.
    Idle,
}

impl Streams {
    /// A peer may take nothing of an answer for `stall_max`.
    pub(super) fn new(stall_max: Duration, stats: ServeStats) -> Self {
        let connection = H2Connection { open: 0, idle_since: Instant::now(), next: None };
        Self { connection: Arc::new(Mutex::new(connection)), stall_max, stats }
    }

    /// Judges the connection as it is now.
    pub(super) fn judge(&self, idle_max: Duration) -> ConnectionVerdict {
        let now = Instant::now();
        let connection = self.connection.lock();
        match connection.idle_since + idle_max {
            _ if connection.open > 0 => ConnectionVerdict::Keep(now + idle_max),
            end if now >= end => ConnectionVerdict::Idle,
            end => ConnectionVerdict::Keep(end),
        }
    }

    fn open(&self) -> Peer {
        let peer = Peer::default();
        let mut connection = self.connection.lock();
        connection.open += 1;
        connection.next = Some(H2Stream { peer: peer.clone(), streams: self.clone() });
        peer
    }
}

/// The thing that a stream waits for: told by its answer, asked by its task.
#[derive(Debug, Clone, Default)]
struct Peer(Arc<Mutex<Waits>>);

#[derive(Debug, Default)]
struct Waits {
    /// The time since when the peer has not asked for more of the answer.
    since: Option<Instant>,
    /// The answer is the server's own.
    own: bool,
}

impl Peer {
    fn waits(&self, since: Option<Instant>) {
        self.0.lock().since = since;
    }

    fn deadline(&self, stall_max: Duration) -> Option<Instant> {
        let waits = self.0.lock();
        let limit = if waits.own { stall_max.min(OWN_ANSWER_MAX) } else { stall_max };
        waits.since.map(|since| since + limit)
    }
}

/// One stream, until its task is dropped.
#[derive(Debug)]
struct H2Stream {
    peer: Peer,
    streams: Streams,
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        let mut connection = self.streams.connection.lock();
        connection.open = connection.open.saturating_sub(1);
        connection.idle_since = Instant::now();
    }
}

/// Runs the tasks that hyper makes for the streams.
impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let stream = self.connection.lock().next.take();
        match stream {
            Some(stream) => drop(tokio::spawn(StreamTask { task, alarm: Alarm::default(), stream })),
            None => drop(tokio::spawn(task)),
        }
    }
}

pin_project! {
    /// A stream's task, given up when its peer takes nothing for too long.
    struct StreamTask<F> {
        // Before the stream: what it holds is gone when the stream is.
        #[pin]
        task: F,
        alarm: Alarm,
        stream: H2Stream,
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.task.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(deadline) = this.stream.peer.deadline(this.stream.streams.stall_max) else { return Poll::Pending };
        if this.alarm.passed(deadline, cx) {
            this.stream.streams.stats.0.streams_reset.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("client stopped reading its response; its stream is reset");
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// Watches a service's answers.
#[derive(Debug, Clone)]
pub(super) struct CountedStreams<S> {
    pub(super) service: S,
    pub(super) streams: Streams,
    pub(super) buffers: Buffers,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for CountedStreams<S>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: 'static,
{
    type Response = Response<CountedBody<B>>;
    type Error = Infallible;
    type Future = CountedFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let peer = self.streams.open();
        CountedFuture { answer: self.service.call(request), peer: Some(peer), buffers: self.buffers.clone() }
    }
}

pin_project! {
    /// An answer in the making.
    pub(super) struct CountedFuture<F> {
        #[pin]
        answer: F,
        peer: Option<Peer>,
        buffers: Buffers,
    }
}

impl<F, B> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: 'static,
{
    type Output = Result<Response<CountedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(context));
        let peer = this.peer.take().unwrap_or_default();
        Poll::Ready(answer.map(|response| {
            // Its turn begins with the head.
            *peer.0.lock() = Waits { since: Some(Instant::now()), own: is_whole(response.body()) };
            response.map(|body| CountedBody { body, flow: Flow::new(this.buffers.clone()), peer })
        }))
    }
}

pin_project! {
    /// An answer's body, and whether its peer takes it.
    pub(super) struct CountedBody<B> {
        #[pin]
        body: B,
        flow: Flow,
        peer: Peer,
    }
}

impl<B: Body<Data = Bytes>> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        // No room: what it was given last still waits for the peer.
        ready!(this.flow.poll_room(context));
        let frame = this.body.poll_frame(context);
        // Pending: the source is slow. A frame: it is the peer's turn until the next poll.
        this.peer.waits(frame.is_ready().then(Instant::now));
        frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(|piece| this.flow.hold(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
