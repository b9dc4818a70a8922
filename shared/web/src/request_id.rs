//! The request id: the client's when it is exactly one legal value, else a new UUIDv7; on every response.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use goldleaves_domain::RequestId;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use uuid::{NoContext, Timestamp, Uuid};

/// `X-Request-ID`.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's id and who gave it; an extension of every request behind [`RequestIdLayer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified {
    /// The id: on every response, in every log line.
    pub id: RequestId,
    /// True if the client chose it.
    pub from_client: bool,
}

impl Identified {
    /// Keeps the client's id when there is exactly one and it is legal; makes one otherwise, never refuses.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(&REQUEST_ID).iter();
        let one = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok().and_then(|text| text.parse().ok()),
            _ => None,
        };
        match one {
            Some(id) => Self { id, from_client: true },
            None => Self { id: RequestId::from_uuid(new_uuid()), from_client: false },
        }
    }

    /// The id as a header value.
    pub fn header_value(&self) -> HeaderValue {
        // The alphabet of a request id is one of header values.
        HeaderValue::from_str(self.id.as_str()).unwrap_or(HeaderValue::from_static("invalid"))
    }
}

/// A UUIDv7 without the counter that orders those of one millisecond: that is behind one lock for all cores.
fn new_uuid() -> Uuid {
    Uuid::new_v7(Timestamp::now(NoContext))
}

/// Gives every request its [`Identified`] and every response the header.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestIdLayer;

/// See [`RequestIdLayer`].
#[derive(Debug, Clone)]
pub struct RequestIdService<S>(S);

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestIdService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequestIdService(inner)
    }
}

impl<S, A, B> Service<Request<A>> for RequestIdService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = RequestIdFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let identified = Identified::of(request.headers());
        let header = identified.header_value();
        request.headers_mut().insert(REQUEST_ID, header.clone());
        request.extensions_mut().insert(identified);
        RequestIdFuture { inner: self.0.call(request), header: Some(header) }
    }
}

pin_project! {
    /// The answer, with the request's id.
    #[derive(Debug)]
    pub struct RequestIdFuture<F> {
        #[pin]
        inner: F,
        header: Option<HeaderValue>,
    }
}

impl<F, B, E> Future for RequestIdFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut answer = ready!(this.inner.poll(context));
        if let (Ok(response), Some(header)) = (&mut answer, this.header.take()) {
            response.headers_mut().insert(REQUEST_ID, header);
        }
        Poll::Ready(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&[u8]]) -> Identified {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        }
        Identified::of(&headers)
    }

    #[test]
    fn one_legal_value_is_kept() {
        let longest = "x".repeat(128);
        for value in ["a", "A-z.0_9:x", longest.as_str()] {
            let identified = of(&[value.as_bytes()]);
            assert_eq!(identified.id.as_str(), value);
            assert!(identified.from_client);
            assert_eq!(identified.header_value(), value);
        }
    }

    #[test]
    fn anything_else_is_replaced() {
        let too_long = "x".repeat(129);
        let bad: &[&[&[u8]]] =
            &[&[], &[b""], &[b"a b"], &[b"a~b"], &[b"a,b"], &[b"\xff"], &[too_long.as_bytes()], &[b"a", b"a"]];
        for values in bad {
            let identified = of(values);
            assert!(!identified.from_client, "{values:?}");
            let id = Uuid::parse_str(identified.id.as_str()).unwrap();
            assert_eq!(id.get_version_num(), 7);
        }
    }

    #[tokio::test]
    async fn layer_tells_the_request_and_the_response() {
        let inner = tower::service_fn(|request: Request<()>| async move {
            let identified = request.extensions().get::<Identified>().unwrap().clone();
            assert_eq!(request.headers()[REQUEST_ID], identified.id.as_str());
            Ok::<_, std::convert::Infallible>(Response::new(identified.id))
        });
        let mut service = RequestIdLayer.layer(inner);
        let request = Request::builder().header("X-Request-ID", "no good").body(()).unwrap();
        let response = service.call(request).await.unwrap();
        assert_eq!(response.headers()[REQUEST_ID], response.body().as_str());
    }
}
