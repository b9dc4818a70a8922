//! Turns every error and every panic below into a problem document, and says so in the log once.

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use goldleaves_domain::{RequestId, TenantId};
use goldleaves_web::{Problem, WebBody};
use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderValue, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::grpc;
use crate::call::Traced;
use crate::error::{Failure, GatewayError};
use crate::headers::is_grpc;

/// See [`Rescue`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct RescueLayer;

/// Nothing outside of it ever sees an error.
#[derive(Debug, Clone)]
pub(crate) struct Rescue<S>(S);

impl<S> Layer<S> for RescueLayer {
    type Service = Rescue<S>;

    fn layer(&self, inner: S) -> Rescue<S> {
        Rescue(inner)
    }
}

impl<S> Service<Traced> for Rescue<S>
where
    S: Service<Traced, Response = Response<WebBody>, Error = Failure>,
{
    type Response = Response<WebBody>;
    type Error = Infallible;
    type Future = RescueFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Every service of the stack is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Traced) -> Self::Future {
        let request_id = call.facts.request_id.clone();
        let is_grpc = is_grpc(call.request.headers());
        let called = catch_unwind(AssertUnwindSafe(|| self.0.call(call)));
        RescueFuture { inner: called.map_err(|panic| log_panic(&request_id, &*panic)).ok(), request_id, is_grpc }
    }
}

pin_project! {
    /// The call, watched.
    pub(crate) struct RescueFuture<F> {
        #[pin]
        inner: Option<F>,
        request_id: RequestId,
        is_grpc: bool,
    }
}

impl<F> Future for RescueFuture<F>
where
    F: Future<Output = Result<Response<WebBody>, Failure>>,
{
    type Output = Result<Response<WebBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = match this.inner.as_pin_mut() {
            Some(inner) => catch_unwind(AssertUnwindSafe(|| inner.poll(cx))).unwrap_or_else(|panic| {
                log_panic(this.request_id, &*panic);
                Poll::Ready(Err(GatewayError::Panic.into()))
            }),
            None => Poll::Ready(Err(GatewayError::Panic.into())),
        };
        polled.map(|answer| Ok(answer.unwrap_or_else(|failure| respond(failure, this.request_id, *this.is_grpc))))
    }
}

/// A panic's own message may hold anything, so only its kind is logged here; the panic hook prints where it was.
fn log_panic(request_id: &RequestId, panic: &(dyn Any + Send)) {
    let has_text = panic.is::<&str>() || panic.is::<String>();
    tracing::error!(%request_id, has_text, "a request ran into a fault of the gateway");
}

fn respond(failure: Failure, request_id: &RequestId, is_grpc: bool) -> Response<WebBody> {
    let Failure { error, headers } = failure;
    let status = error.status();
    let cause = cause(&error).map(|source| format!("{source:?}"));
    if error.is_fault() {
        tracing::warn!(%request_id, status = status.as_u16(), cause = cause.as_deref(), "{error}");
    } else {
        tracing::debug!(%request_id, status = status.as_u16(), cause = cause.as_deref(), "{error}");
    }
    if is_grpc {
        return grpc::answer(&error, headers);
    }
    let mut problem = problem(&error);
    if let Some(seconds) = error.retry_after_seconds() {
        problem = problem.header(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let GatewayError::MethodNotAllowed { allowed } = &error
        && let Ok(allowed) = HeaderValue::from_str(allowed)
    {
        problem = problem.header(ALLOW, allowed);
    }
    let mut response = problem.response(request_id);
    response.headers_mut().extend(headers);
    response
}

/// Returns the cause of an error, for the log: of a far side's error what caused that, since it is named already.
fn cause(error: &GatewayError) -> Option<&(dyn Error + 'static)> {
    match error {
        GatewayError::Upstream { error, .. } => error.source(),
        other => other.source(),
    }
}

/// Returns the problem that the client is told: never more of a cause than what the client did itself.
fn problem(error: &GatewayError) -> Problem {
    let detail = match error {
        GatewayError::Token(cause) => return Problem::unauthorized(*cause),
        GatewayError::Path(cause) => format!("{error}: {cause}"),
        GatewayError::Upload(cause) => format!("{error}: {cause}"),
        other => other.to_string(),
    };
    let problem = Problem::new(error.status(), error.code(), detail);
    match error {
        GatewayError::TenantChosenTwice { choices } | GatewayError::TenantNotChosen { choices } => {
            problem.member("choices", choices.iter().map(TenantId::as_str).collect::<Vec<_>>())
        }
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::destination::Destination;
    use crate::error::UpstreamError;
    use crate::transport::ConnectError;

    fn rescued(inner: impl Future<Output = Result<Response<WebBody>, Failure>>) -> Response<WebBody> {
        let future = RescueFuture { inner: Some(inner), request_id: "r-1".parse().unwrap(), is_grpc: false };
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(Ok(response)) => response,
            Poll::Pending => panic!("pending"),
        }
    }

    #[test]
    fn a_panic_is_a_500() {
        let response = rescued(async { panic!("a fault of the test") });
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }

    #[test]
    fn headers_that_outer_layers_added_stay() {
        let response = rescued(async {
            let mut failure = Failure::from(GatewayError::RateLimited { retry_after: Duration::from_millis(1_200) });
            failure.headers.insert("x-outer", HeaderValue::from_static("1"));
            Err(failure)
        });
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["x-outer"], "1");
    }

    #[test]
    fn a_cause_inside_is_not_told() {
        let secret = ConnectError::Io(std::io::Error::other("10.1.2.3 refused"));
        let error = UpstreamError::Unreachable(secret).of(Destination::Upstream);
        assert!(!problem(&error).detail().contains("10.1.2.3"));
    }
}
