//! The innermost service: one call, from a finished request to the head of its answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use goldleaves_trace::{OpenSpan, web};
use goldleaves_web::{Buffers, WebBody};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tower::Service;

use super::answer::{AnswerBody, Lease, Source};
use super::exchange::{HeadLimits, NoHead, exchange};
use super::reach::{Course, Reached, Wanted};
use super::tunnel::Tunnel;
use crate::call::{HandOver, Outbound};
use crate::destination::Destination;
use crate::edge::Way;
use crate::error::{Failure, GatewayError, UpstreamError};
use crate::headers::{self, Framing, is_event_stream, is_grpc};
use crate::metrics::CoreMetrics;
use crate::transport::{
    Connection, Origin, Short, Speaks, Stall, Upload, UploadLimits, UploadWatch, short, short_head, was_refused,
    was_reset,
};
use crate::upstream::{Address, Answered, CallResult, RetryReason};

/// An answer's head, its body to come, and the guard of the call.
pub(crate) struct Served<M> {
    pub(crate) response: Response<AnswerBody>,
    pub(crate) meter: Option<M>,
    /// Where the answer is 101: both ends of the tunnel.
    pub(crate) tunnel: Option<Tunnel>,
}

/// The proxy of one core.
#[derive(Clone)]
pub(crate) struct Proxy(Arc<ProxyInner>);

struct ProxyInner {
    /// The core's number.
    core: usize,
    /// The most header fields of an answer.
    header_fields_max: usize,
    metrics: Arc<CoreMetrics>,
    buffers: Buffers,
}

impl Proxy {
    pub(crate) fn new(core: usize, header_fields_max: usize, metrics: Arc<CoreMetrics>, buffers: Buffers) -> Self {
        Self(Arc::new(ProxyInner { core, header_fields_max, metrics, buffers }))
    }
}

impl<M: HandOver> Service<Outbound<M>> for Proxy {
    type Response = Served<M>;
    type Error = Failure;
    // The first of the two seams at which types end: all states of a call are behind this one box.
    type Future = Pin<Box<dyn Future<Output = Result<Served<M>, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Outbound<M>) -> Self::Future {
        let proxy = Arc::clone(&self.0);
        Box::pin(async move {
            let Outbound { request, facts, way, expires, mut meter, watch, span, place } = call;
            let call = Instant::from_std(facts.arrived) + way.limits.call_timeout;
            let stream = expires.map_or(call, |expires| call.min(Instant::from_std(expires)));
            let ends = Ends { call, stream };
            let span = span.map(|span| placed(span, way.upstream.origin()));
            let prepared = prepare(*request, way, &proxy.buffers, watch, ends);
            match proxy.serve(prepared, meter.as_mut(), ends).await {
                Ok((response, None)) => {
                    let response = told(response, span).map(|body| body.in_place(place));
                    Ok(Served { response, meter, tunnel: None })
                }
                Ok((response, Some(tunnel))) => {
                    let tunnel = Some(Tunnel { place, ..tunnel });
                    Ok(Served { response: told(response, span), meter, tunnel })
                }
                Err(error) => {
                    if let Some(mut span) = span {
                        span.fail(error.void_reason().as_str());
                    }
                    if let Some(meter) = &mut meter {
                        meter.failed(&error);
                    }
                    Err(error.into())
                }
            }
        })
    }
}

/// When the gateway ends a call.
#[derive(Debug, Clone, Copy)]
struct Ends {
    /// Any call.
    call: Instant,
    /// The end of calls that stay open for as long as somebody listens: a tunnel, an event stream, gRPC. Never later
    /// than the token's.
    stream: Instant,
}

/// A request as it is sent, and what is known of it.
struct Prepared {
    request: Request<Upload>,
    way: Arc<Way>,
    watch: Option<UploadWatch>,
    /// It may be sent twice: it has no body and changes nothing the second time (RFC 9110, 9.2.2).
    repeatable: bool,
    /// The client's end of a tunnel, when it asked for one.
    client: Option<OnUpgrade>,
    speaks: Speaks,
}

fn prepare(
    mut request: Request<WebBody>,
    way: Arc<Way>,
    buffers: &Buffers,
    watch: Option<UploadWatch>,
    ends: Ends,
) -> Prepared {
    let framing = match (&watch, request.body().size_hint().exact()) {
        (None, _) => Framing::None,
        (Some(_), Some(length)) => Framing::Length(length),
        (Some(_), None) => Framing::Chunked,
    };
    let version = request.version();
    let authority = way.upstream.origin().map(|origin| origin.authority());
    let upgrade = headers::outward(request.headers_mut(), version, framing, authority);
    let client = upgrade.map(|_| hyper::upgrade::on(&mut request));
    let repeatable = watch.is_none() && is_idempotent(request.method()) && client.is_none();
    let (mut parts, body) = request.into_parts();
    parts.version = Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    let is_grpc = is_grpc(&parts.headers);
    // What comes as gRPC goes on as gRPC where no entry says otherwise: it is nothing without HTTP/2.
    let is_call_of_grpc = is_grpc && version == Version::HTTP_2 && !headers::is_grpc_web(&parts.headers);
    let otherwise = if is_call_of_grpc { Speaks::Two } else { Speaks::One };
    let speaks = way.upstream.spec().protocol.unwrap_or(otherwise);
    let body = match &watch {
        Some(watch) if is_grpc => {
            let limits = UploadLimits { idle: way.limits.stream_idle, ..way.limits.upload() };
            Upload::streaming(body, watch.clone(), limits, ends.stream, buffers)
        }
        Some(watch) => Upload::streaming(body, watch.clone(), way.limits.upload(), ends.call, buffers),
        None => Upload::empty(),
    };
    Prepared { request: Request::from_parts(parts, body), way, watch, repeatable, client, speaks }
}

impl ProxyInner {
    async fn serve<M: HandOver>(
        &self,
        prepared: Prepared,
        mut meter: Option<&mut M>,
        ends: Ends,
    ) -> Result<(Response<AnswerBody>, Option<Tunnel>), GatewayError> {
        let Prepared { request, way, watch, repeatable, client, speaks } = prepared;
        if client.is_some() && speaks == Speaks::Two {
            return Err(GatewayError::UpgradeUnsupported);
        }
        if let Some(meter) = &mut meter {
            meter.check()?;
        }
        let mut course = Course::begin(&way, self.core, &self.metrics, speaks, ends.call)?;
        let reached = course.reach(Wanted::Any).await?;
        if let Some(meter) = meter
            && let Err(refused) = meter.hand_over().await
        {
            reached.give_back();
            return Err(refused);
        }
        let limits = HeadLimits { timeout: way.limits.head_timeout, began: Instant::now(), call_deadline: ends.call };
        let sending =
            Sending { request, watch: watch.as_ref(), repeatable, is_upgrade: client.is_some(), speaks, limits };
        let (head, mut reached, took) = sending.ask(&mut course, reached).await?;
        reached.waited();
        self.observe(&way, reached.address(), Seen { head: &head, took, watch: watch.as_ref() });
        let response = head.map_err(|no_head| no_head.into_error(watch.as_ref(), way.whom()))?;
        let lease = course.lease(reached);
        self.answered(response, lease, AnswerNeeds { way: &way, watch, client, ends })
    }

    /// Counts how the call went, so far.
    fn observe(&self, way: &Way, address: &Arc<Address>, seen: Seen<'_>) {
        let Seen { head, took, watch } = seen;
        let upstream = &way.upstream;
        // While the client sends, the upstream need not answer: it would be as slow as the client otherwise.
        let own = watch.map_or(took, |watch| took.min(watch.moved().elapsed()));
        let answered = |how| upstream.answered(self.core, address, own, how);
        let result = match head {
            Ok(response) => {
                self.metrics.upstream_answered(took);
                upstream.metrics().answered(self.core, took);
                let is_bad = matches!(response.status().as_u16(), 502..=504);
                return answered(if is_bad { Answered::Badly } else { Answered::Well });
            }
            Err(_) if watch.is_some_and(|watch| watch.failure().is_some()) => CallResult::ClientLeft,
            Err(NoHead::Broke { .. }) => CallResult::Broke,
            Err(NoHead::Silent) => CallResult::Silent,
        };
        if result != CallResult::ClientLeft {
            answered(Answered::Badly);
        }
        upstream.metrics().called(self.core, result);
    }

    fn answered(
        &self,
        mut response: Response<Source>,
        lease: Lease,
        asked: AnswerNeeds<'_>,
    ) -> Result<(Response<AnswerBody>, Option<Tunnel>), GatewayError> {
        let AnswerNeeds { way, watch, client, ends } = asked;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return switched(response, lease, way, client, ends.stream);
        }
        if response.headers().len() > self.header_fields_max {
            let error = UpstreamError::Answer("it has more header fields than HEADER_FIELDS_MAX allows");
            return Err(error.of(way.whom()));
        }
        if headers::has_foreign_coding(response.headers()) {
            return Err(UpstreamError::Answer("only the transfer coding chunked is known").of(way.whom()));
        }
        if headers::inward(response.headers_mut()).is_err() {
            return Err(UpstreamError::Answer("it says two lengths of its body").of(way.whom()));
        }
        let stall = match is_event_stream(response.headers()) || is_grpc(response.headers()) {
            true => Stall::new(way.limits.stream_idle, ends.stream),
            false => Stall::new(way.limits.body_idle, ends.call),
        };
        let response = plain(response, |source| AnswerBody::new(source, lease, stall).watching(watch));
        Ok((response, None))
    }
}

/// A request, and how it is sent.
struct Sending<'a> {
    request: Request<Upload>,
    watch: Option<&'a UploadWatch>,
    repeatable: bool,
    is_upgrade: bool,
    speaks: Speaks,
    limits: HeadLimits,
}

/// The head of an answer, or why there is none.
type Head = Result<Response<Source>, NoHead>;

impl Sending<'_> {
    /// Sends the request, once more where it may be, and waits for the head of its answer; with the connection that it came over.
    async fn ask(
        self,
        course: &mut Course<'_>,
        mut reached: Reached,
    ) -> Result<(Head, Reached, Duration), GatewayError> {
        let Self { request, watch, repeatable, is_upgrade, speaks, limits } = self;
        let mut sent = std::time::Instant::now();
        let mut was_sent = false;
        if !is_upgrade
            && speaks == Speaks::One
            && reached.pool().tries_short()
            && let Some(head) = short_head(&request)
        {
            match short(&mut reached.connection, head, limits.deadline(limits.began)).await {
                Short::Answered(response) => return Ok((Ok(response.map(Source::Whole)), reached, sent.elapsed())),
                Short::Silent => return Ok((Err(NoHead::Silent), reached, sent.elapsed())),
                Short::Long { is_sent } => was_sent = is_sent,
            }
            reached.pool().was_long();
        }
        if is_upgrade {
            reached.connection.allow_upgrade();
        }
        let may_be_refused = speaks == Speaks::Two && watch.is_none();
        let may_be_broken = repeatable && reached.connection.is_reused();
        let spare = (may_be_refused || may_be_broken).then(|| Spare::of(&request));
        let mut head = exchange(&mut reached.connection, request, watch, limits).await;
        if let Err(NoHead::Broke { unsent, error }) = &mut head
            && let Some(reason) = why_again(&reached.connection, error)
            && let Some(again) = unsent.take().filter(|_| !was_sent).map(|request| *request).or_else(|| {
                let spare = spare.filter(|_| repeatable || reason == RetryReason::Refused);
                spare.map(Spare::request)
            })
            && course.may_retry(reason)
        {
            // The upstream closed the connection while the request was on its way to it, or did not look at it.
            course.give_up(reached);
            reached = course.reach(Wanted::New).await?;
            if is_upgrade {
                reached.connection.allow_upgrade();
            }
            sent = std::time::Instant::now();
            let limits = HeadLimits { began: Instant::now(), ..limits };
            head = exchange(&mut reached.connection, again, watch, limits).await;
        }
        Ok((head, reached, sent.elapsed()))
    }
}

/// Returns the reason a call whose connection broke may be sent again, if it can be.
fn why_again(connection: &Connection, error: &hyper::Error) -> Option<RetryReason> {
    if was_refused(error) {
        Some(RetryReason::Refused)
    } else if connection.is_reused() && !connection.heard_anything() && !was_reset(error) {
        Some(RetryReason::Reused)
    } else {
        None
    }
}

/// The result of an attempt.
struct Seen<'a> {
    head: &'a Head,
    took: Duration,
    watch: Option<&'a UploadWatch>,
}

/// The parts of a call that its answer still needs once the head has come.
struct AnswerNeeds<'a> {
    way: &'a Way,
    watch: Option<UploadWatch>,
    client: Option<OnUpgrade>,
    ends: Ends,
}

fn switched(
    mut response: Response<Source>,
    lease: Lease,
    way: &Way,
    client: Option<OnUpgrade>,
    latest: Instant,
) -> Result<(Response<AnswerBody>, Option<Tunnel>), GatewayError> {
    let unasked = || UpstreamError::Answer("101 to a request that did not ask for it").of(way.whom());
    let client = client.ok_or_else(unasked)?;
    let upstream = hyper::upgrade::on(&mut response);
    let protocol = response.headers().get(UPGRADE).cloned();
    if headers::inward(response.headers_mut()).is_err() {
        return Err(UpstreamError::Answer("it says two lengths of its body").of(way.whom()));
    }
    if let Some(protocol) = protocol {
        response.headers_mut().insert(UPGRADE, protocol);
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let Lease { connection, held, .. } = lease;
    let tunnel = Tunnel { client, upstream, connection, held, idle: way.limits.stream_idle, latest, place: None };
    Ok((plain(response, AnswerBody::switched), Some(tunnel)))
}

impl NoHead {
    fn into_error(self, watch: Option<&UploadWatch>, whom: Destination) -> GatewayError {
        match (watch.and_then(UploadWatch::failure), self) {
            (Some(failure), _) => GatewayError::Upload(failure),
            (None, Self::Broke { error, .. }) if error.is_parse_too_large() => {
                UpstreamError::Answer("its head has too many bytes or fields").of(whom)
            }
            (None, Self::Broke { error, .. }) => UpstreamError::Broke(error).of(whom),
            (None, Self::Silent) => UpstreamError::Silent.of(whom),
        }
    }
}

/// The response as the client's connection shall write it: its own version, nothing of hyper's client within.
fn plain(response: Response<Source>, body: impl FnOnce(Source) -> AnswerBody) -> Response<AnswerBody> {
    let (mut parts, source) = response.into_parts();
    parts.version = Version::HTTP_11;
    let reason = parts.extensions.remove::<hyper::ext::ReasonPhrase>();
    parts.extensions = http::Extensions::new();
    if let Some(reason) = reason {
        parts.extensions.insert(reason);
    }
    Response::from_parts(parts, body(source))
}

/// The span of a call says whom it calls.
fn placed(mut span: OpenSpan, origin: Option<&Arc<Origin>>) -> OpenSpan {
    if let Some(origin) = origin {
        span.set("server.address", origin.host().to_owned());
        span.set("server.port", i64::from(origin.port()));
    }
    span
}

/// The span of a call ends with the answer's body.
fn told(response: Response<AnswerBody>, span: Option<OpenSpan>) -> Response<AnswerBody> {
    let Some(mut span) = span else { return response };
    web::say_status(&mut span, response.status());
    response.map(|body| body.ending(span))
}

/// A request without a body, kept in case that it must be sent again. Its fields are a list: nobody looks one up, and a map
/// costs several times as much to copy.
struct Spare {
    method: Method,
    uri: Uri,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Spare {
    fn of(request: &Request<Upload>) -> Self {
        let mut fields = Vec::with_capacity(request.headers().len());
        fields.extend(request.headers().iter().map(|(name, value)| (name.clone(), value.clone())));
        Self { method: request.method().clone(), uri: request.uri().clone(), fields }
    }

    fn request(self) -> Request<Upload> {
        let mut request = Request::new(Upload::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        let headers = request.headers_mut();
        for (name, value) in self.fields {
            headers.append(name, value);
        }
        request
    }
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}
