//! Ends h2 connections that hold a place without using it: idle ones, and those that take nothing of an answer.
//!
//! hyper's header time-out is HTTP/1's alone, and a ping answered by the peer keeps an h2 connection for ever. A peer
//! that leaves its flow-control window at zero stops an answer without stopping the socket: then nobody polls the body,
//! so no time-out inside it can fire either.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::Instant;

/// What the streams of one connection are doing.
#[derive(Debug, Clone)]
pub(super) struct Streams(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    next: u64,
    /// Streams in flight. `Some` = since when the peer has not asked for more of the answer.
    open: HashMap<u64, Option<Instant>>,
    idle_since: Instant,
}

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again then.
    Keep(Instant),
    /// No request for too long.
    Idle,
    /// A peer that takes nothing for too long.
    Stalled,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { next: 0, open: HashMap::new(), idle_since: Instant::now() })))
    }

    /// Judges the connection as it is now.
    pub(super) fn judge(&self, idle_max: Duration, stall_max: Duration) -> Verdict {
        let now = Instant::now();
        let state = self.0.lock();
        if state.open.is_empty() {
            let end = state.idle_since + idle_max;
            return if now >= end { Verdict::Idle } else { Verdict::Keep(end) };
        }
        match state.open.values().flatten().min() {
            Some(since) if now >= *since + stall_max => Verdict::Stalled,
            Some(since) => Verdict::Keep(*since + stall_max),
            None => Verdict::Keep(now + idle_max.min(stall_max)),
        }
    }

    fn open(&self) -> Stream {
        let mut state = self.0.lock();
        let id = state.next;
        state.next += 1;
        state.open.insert(id, None);
        Stream { id, streams: self.clone() }
    }
}

/// One request in flight, until its answer's body is dropped.
#[derive(Debug)]
struct Stream {
    id: u64,
    streams: Streams,
}

impl Stream {
    fn waits_for_peer(&self, since: Option<Instant>) {
        self.streams.0.lock().open.insert(self.id, since);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.streams.0.lock();
        state.open.remove(&self.id);
        state.idle_since = Instant::now();
    }
}

/// Counts a service's requests.
#[derive(Debug, Clone)]
pub(super) struct Counted<S> {
    pub(super) service: S,
    pub(super) streams: Streams,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Counted<S>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<CountedBody<B>>;
    type Error = Infallible;
    type Future = CountedFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        CountedFuture { answer: self.service.call(request), stream: Some(self.streams.open()) }
    }
}

pin_project! {
    /// An answer in the making.
    pub(super) struct CountedFuture<F> {
        #[pin]
        answer: F,
        stream: Option<Stream>,
    }
}

impl<F, B> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<CountedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(context));
        let stream = this.stream.take();
        Poll::Ready(answer.map(|response| response.map(|body| CountedBody { body, stream })))
    }
}

pin_project! {
    /// An answer's body, and whether its peer takes it.
    pub(super) struct CountedBody<B> {
        #[pin]
        body: B,
        stream: Option<Stream>,
    }
}

impl<B: Body<Data = Bytes>> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(context);
        if let Some(stream) = this.stream {
            // Pending: the source is slow. A frame: it is the peer's turn until the next poll.
            stream.waits_for_peer(frame.is_ready().then(Instant::now));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
