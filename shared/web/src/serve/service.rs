//! From hyper's service to tower's: the body in our type, and no clone of a service that is ready.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use super::Closing;
use super::buffers::Buffers;
use super::fold::Folded;
use super::watched::{OpenEnd, Watched};
use crate::WebBody;
use crate::exchange::Exchange;

/// A tower service as hyper calls it. The lock is only ever taken by the connection's own task.
#[derive(Debug)]
pub(super) struct ForHyper<S>(Mutex<S>);

impl<S> ForHyper<S> {
    pub(super) const fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }

    fn answer(&self, request: Request<WebBody>) -> Answering<S>
    where
        S: Service<Request<WebBody>, Error = Infallible> + Clone,
    {
        let mut service = self.0.lock();
        // Nobody need be woken: what is not ready is left, and a clone of its own waits for it.
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Answering::Called { answer: service.call(request) },
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending => Answering::Waiting { answer: service.clone().oneshot(request) },
        }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for ForHyper<S>
where
    S: Service<Request<WebBody>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Answering<S>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.answer(request.map(WebBody::from))
    }
}

/// The part of a connection's first call that was done before hyper was asked to serve it.
pub(super) enum Given<S: Service<Request<WebBody>>> {
    /// The call is under way.
    Call { call: Pin<Box<Option<S::Future>>> },
    /// Its answer is there.
    Answer { answer: Option<S::Response> },
}

/// The same as [`ForHyper`], for HTTP/1: the connection's socket learns from it where the exchange stands.
pub(super) struct ForHttp1<S: Service<Request<WebBody>>> {
    pub(super) service: ForHyper<S>,
    /// Taken by the first call.
    pub(super) given: Mutex<Option<Given<S>>>,
    pub(super) exchange: Exchange,
    pub(super) folded: Folded,
    pub(super) closing: Closing,
    pub(super) buffers: Buffers,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for ForHttp1<S>
where
    S: Service<Request<WebBody>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body + 'static,
{
    type Response = Response<Watched<B>>;
    type Error = Infallible;
    type Future = Exchanging<S>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.folded.unfold(request.headers_mut());
        let owes_body = !request.body().is_end_stream();
        self.exchange.asked(owes_body, request.body().size_hint().exact());
        let end = OpenEnd::of(&request);
        let request = match owes_body {
            true => request.map(|body| WebBody::arriving(body, self.exchange.clone())),
            false => request.map(WebBody::from),
        };
        let (exchange, closing, buffers) = (self.exchange.clone(), self.closing.clone(), self.buffers.clone());
        let answer = match self.given.lock().take() {
            Some(given) => Answering::Given { given },
            None => self.service.answer(request),
        };
        Exchanging { answer, exchange, closing, buffers, end }
    }
}

pin_project! {
    /// An answer over HTTP/1 in the making.
    pub(super) struct Exchanging<S: Service<Request<WebBody>>> {
        #[pin]
        answer: Answering<S>,
        exchange: Exchange,
        closing: Closing,
        buffers: Buffers,
        end: OpenEnd,
    }
}

impl<S, B> Future for Exchanging<S>
where
    S: Service<Request<WebBody>, Response = Response<B>>,
    B: Body + 'static,
{
    type Output = Result<Response<Watched<B>>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(context));
        Poll::Ready(answer.map(|mut response| {
            if this.closing.is_set() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            this.exchange.watching(response, *this.end, this.buffers)
        }))
    }
}

pin_project! {
    /// An answer in the making.
    #[project = AnsweringProjected]
    pub(super) enum Answering<S: Service<Request<WebBody>>> {
        Called { #[pin] answer: S::Future },
        Waiting { #[pin] answer: Oneshot<S, Request<WebBody>> },
        Given { given: Given<S> },
    }
}

impl<S: Service<Request<WebBody>>> Future for Answering<S> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AnsweringProjected::Called { answer } => answer.poll(context),
            AnsweringProjected::Waiting { answer } => answer.poll(context),
            AnsweringProjected::Given { given: Given::Call { call } } => match call.as_mut().as_pin_mut() {
                Some(call) => call.poll(context),
                None => Poll::Pending,
            },
            // A future is polled to its end once.
            AnsweringProjected::Given { given: Given::Answer { answer } } => {
                answer.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer)))
            }
        }
    }
}
