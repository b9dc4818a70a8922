//! The spans that the gateway exports of a call: one of its own, and one of the call to the upstream.
//!
//! They say which route was meant, never which path, query or body was sent, nor who called. Of a call whose trace
//! nobody wants nothing is made here.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use goldleaves_domain::{RoutePattern, TraceContext};
use goldleaves_trace::{Moment, OpenSpan, Opening, SpanKind, Tracer, web};
use goldleaves_web::{BodyError, WebBody};
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};

use crate::error::HttpStatus;
use crate::facts::Facts;
use crate::metrics::RequestClass;
use crate::names::USAGE_EVENT_ID;

/// A call's place in its trace.
#[derive(Clone)]
pub(crate) struct CallTrace {
    /// The gateway's own span, whether it is exported or not.
    context: TraceContext,
    /// The same as a header's value.
    header: HeaderValue,
    watched: Option<Arc<Watched>>,
}

/// The findings of layers about a call whose trace is exported.
struct Watched {
    tracer: Tracer,
    matched: OnceLock<Matched>,
}

struct Matched {
    class: RequestClass,
    route: Option<RoutePattern>,
}

impl CallTrace {
    /// The next span below `parent`; with it, when it is exported, the guard that ends it.
    pub(crate) fn begin(
        tracer: &Tracer,
        parent: Option<TraceContext>,
        request: &Request<WebBody>,
        facts: &Facts,
    ) -> (Self, Option<ServerSpan>) {
        let started = Moment::at(facts.arrived_at.unix_micros(), facts.arrived);
        let name = web::method_word(request.method()).into();
        let (context, open) = tracer.begin(Opening { parent, kind: SpanKind::Server, name, started });
        let header = header(context);
        let Some(mut open) = open else { return (Self { context, header, watched: None }, None) };
        web::say_request(&mut open, request.method(), request.version());
        open.set("goldleaves.request_id", facts.request_id.as_str().to_owned());
        let watched = Arc::new(Watched { tracer: tracer.clone(), matched: OnceLock::new() });
        let span = ServerSpan { open: Some(open), method: request.method().clone(), watched: Arc::clone(&watched) };
        (Self { context, header, watched: Some(watched) }, Some(span))
    }

    /// The gateway's own span as a `traceparent`.
    pub(crate) fn header(&self) -> Option<&str> {
        self.header.to_str().ok()
    }

    /// Notes the class and the route of the call.
    pub(crate) fn matched(&self, class: RequestClass, route: Option<&RoutePattern>) {
        if let Some(watched) = &self.watched {
            // Said once, by the layer that knows.
            let _ = watched.matched.set(Matched { class, route: route.cloned() });
        }
    }

    /// Returns the trace header for the upstream, and the span of the call to it.
    pub(crate) fn toward_upstream(self, method: &Method) -> (HeaderValue, Option<OpenSpan>) {
        let Some(watched) = self.watched else { return (self.header, None) };
        let name = web::method_word(method).into();
        let (parent, started) = (Some(self.context), Moment::now());
        let (context, mut open) = watched.tracer.begin(Opening { parent, kind: SpanKind::Client, name, started });
        if let Some(open) = &mut open {
            web::say_request(open, method, Version::HTTP_11);
        }
        (header(context), open)
    }
}

/// The gateway's span while its call is served. Dropped before its end, the call was cut off.
pub(crate) struct ServerSpan {
    open: Option<OpenSpan>,
    method: Method,
    watched: Arc<Watched>,
}

impl ServerSpan {
    /// The answer's head is known: the span ends with its body.
    pub(crate) fn answered(mut self, response: Response<WebBody>) -> Response<WebBody> {
        if let Some(open) = &mut self.open {
            web::say_status(open, HttpStatus::of(&response));
            if let Some(event_id) = response.headers().get(USAGE_EVENT_ID).and_then(|id| id.to_str().ok()) {
                open.set("goldleaves.event_id", event_id.to_owned());
            }
        }
        if response.body().is_end_stream() {
            self.end();
            return response;
        }
        response.map(|body| WebBody::boxed(WatchedBody { body, span: Some(self) }))
    }

    fn end(mut self) {
        if let Some(open) = self.finished() {
            open.end();
        }
    }

    /// With what the layers found out.
    fn finished(&mut self) -> Option<OpenSpan> {
        let mut open = self.open.take()?;
        if let Some(Matched { class, route }) = self.watched.matched.get() {
            open.set("goldleaves.route_class", class.as_str());
            if let Some(route) = route {
                open.rename(format!("{} {}", web::method_word(&self.method), route.as_str()));
                open.set("http.route", route.as_str().to_owned());
            }
        }
        Some(open)
    }
}

impl Drop for ServerSpan {
    fn drop(&mut self) {
        drop(self.finished());
    }
}

/// A response's body that ends its call's span.
struct WatchedBody {
    body: WebBody,
    span: Option<ServerSpan>,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Err(error)) => {
                if let Some(open) = self.span.as_mut().and_then(|span| span.open.as_mut()) {
                    open.fail(word_of(error));
                }
                self.span = None;
            }
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            Some(Ok(_)) | None => {
                if let Some(span) = self.span.take() {
                    span.end();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A `traceparent`.
fn header(context: TraceContext) -> HeaderValue {
    HeaderValue::from_bytes(&context.header()).unwrap_or(HeaderValue::from_static(""))
}

const fn word_of(error: &BodyError) -> &'static str {
    match error {
        BodyError::Connection(_) => "upstream_aborted",
        BodyError::TooLarge { .. } => "too_large",
        BodyError::Idle => "idle",
        BodyError::CallTimeout => "call_timeout",
        BodyError::Stopped => "gateway_stopped",
        BodyError::Source(_) | BodyError::HalfClosed(_) => "request_aborted",
    }
}
