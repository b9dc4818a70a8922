//! From hyper's service to tower's: the body in our type, and no clone of a service that is ready.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use crate::WebBody;

/// A tower service as hyper calls it. The lock is only ever taken by the connection's own task.
#[derive(Debug)]
pub(super) struct ForHyper<S>(Mutex<S>);

impl<S> ForHyper<S> {
    pub(super) const fn new(service: S) -> Self {
        Self(Mutex::new(service))
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
        let request = request.map(WebBody::from);
        let mut service = self.0.lock();
        // Nobody need be woken: what is not ready is left, and a clone of its own waits for it.
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Answering::Called { answer: service.call(request) },
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending => Answering::Waiting { answer: service.clone().oneshot(request) },
        }
    }
}

pin_project! {
    /// An answer in the making.
    #[project = AnsweringProjected]
    pub(super) enum Answering<S: Service<Request<WebBody>>> {
        Called { #[pin] answer: S::Future },
        Waiting { #[pin] answer: Oneshot<S, Request<WebBody>> },
    }
}

impl<S: Service<Request<WebBody>>> Future for Answering<S> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AnsweringProjected::Called { answer } => answer.poll(context),
            AnsweringProjected::Waiting { answer } => answer.poll(context),
        }
    }
}
