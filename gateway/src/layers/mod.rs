//! The layers of the stack, a file each, and what they have in common.
//!
//! Most layers only look at a call on its way in and at the answer on its way out. They are a [`Step`]; [`Stepped`]
//! makes a tower service of it without boxing anything.

mod auth;
mod concurrency;
mod cors;
mod grpc;
mod identity;
mod limits;
mod rate_limit;
mod request_id;
mod rescue;
mod route;
mod trace;
mod websocket;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use goldleaves_web::WebBody;
use http::Response;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

pub(crate) use auth::Auth;
pub(crate) use concurrency::ConcurrencyLimit;
pub use cors::{AllowedOrigins, ExposedError, ExposedHeaders, OriginsError};
pub(crate) use cors::{Cors, CorsRules, is_preflight};
pub(crate) use identity::IdentityLayer;
pub(crate) use limits::{Limits, LimitsOptions};
pub(crate) use rate_limit::{Buckets, RateLimit};
pub(crate) use request_id::RequestIds;
pub(crate) use rescue::RescueLayer;
pub(crate) use route::Route;
pub(crate) use trace::Trace;

/// The way out: a response, or an error that the rescue layer turns into one.
pub(crate) type Answer<E> = Result<Response<WebBody>, E>;

/// The result of a layer for a call on its way in.
pub(crate) enum Inward<Out, After, E> {
    /// It goes on; the second half sees the answer.
    On(Out, After),
    /// It is answered here.
    Answered(Response<WebBody>),
    /// It is refused here.
    Refused(E),
}

/// One layer.
pub(crate) trait Step<In> {
    /// The type that the next layer gets.
    type Out;
    /// The work that is to be done with the answer.
    type After: After<Self::Error>;
    /// The way it refuses.
    type Error;

    /// Looks at a call.
    fn inward(&self, call: In) -> Inward<Self::Out, Self::After, Self::Error>;
}

/// The way out of a layer. Dropped unused when the client leaves first.
pub(crate) trait After<E> {
    /// Looks at the answer.
    fn outward(self, answer: Answer<E>) -> Answer<E>;
}

/// Nothing to do on the way out.
impl<E> After<E> for () {
    fn outward(self, answer: Answer<E>) -> Answer<E> {
        answer
    }
}

/// Makes a tower layer of a step.
#[derive(Debug)]
pub(crate) struct StepLayer<S>(Arc<S>);

pub(crate) fn step<S>(step: S) -> StepLayer<S> {
    StepLayer(Arc::new(step))
}

impl<S, Inner> Layer<Inner> for StepLayer<S> {
    type Service = Stepped<S, Inner>;

    fn layer(&self, inner: Inner) -> Self::Service {
        Stepped { step: Arc::clone(&self.0), inner }
    }
}

/// A step and what is inside of it. Every service of the stack is always ready: what can be too much is refused with
/// a status instead of being left waiting.
#[derive(Debug)]
pub(crate) struct Stepped<S, Inner> {
    step: Arc<S>,
    inner: Inner,
}

impl<S, Inner: Clone> Clone for Stepped<S, Inner> {
    fn clone(&self) -> Self {
        Self { step: Arc::clone(&self.step), inner: self.inner.clone() }
    }
}

impl<S, In, Inner> Service<In> for Stepped<S, Inner>
where
    S: Step<In>,
    Inner: Service<S::Out, Response = Response<WebBody>, Error = S::Error>,
{
    type Response = Response<WebBody>;
    type Error = S::Error;
    type Future = StepFuture<Inner::Future, S::After, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: In) -> Self::Future {
        match self.step.inward(call) {
            Inward::On(out, after) => StepFuture::On { inner: self.inner.call(out), after: Some(after) },
            Inward::Answered(response) => StepFuture::Done { answer: Some(Ok(response)) },
            Inward::Refused(error) => StepFuture::Done { answer: Some(Err(error)) },
        }
    }
}

pin_project! {
    /// The way through a step.
    #[project = StepFutureProjected]
    pub(crate) enum StepFuture<F, A, E> {
        On { #[pin] inner: F, after: Option<A> },
        Done { answer: Option<Answer<E>> },
    }
}

impl<F, A, E> Future for StepFuture<F, A, E>
where
    F: Future<Output = Answer<E>>,
    A: After<E>,
{
    type Output = Answer<E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<E>> {
        match self.project() {
            StepFutureProjected::On { inner, after } => {
                let answer = ready!(inner.poll(cx));
                Poll::Ready(match after.take() {
                    Some(after) => after.outward(answer),
                    None => answer,
                })
            }
            // A future is polled to its end once.
            StepFutureProjected::Done { answer } => answer.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}
