//! The innermost service: one call, from a finished request to the head of its answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use goldleaves_trace::{OpenSpan, web};
use goldleaves_web::WebBody;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tower::Service;

use super::answer::{AnswerBody, Lease};
use super::connection::{ConnectError, Connection};
use super::exchange::{HeadLimits, NoHead, exchange};
use super::headers::{self, Framing};
use super::origin::Origin;
use super::pool::Pool;
use super::stall::Stall;
use super::tunnel::Tunnel;
use super::upload::{Upload, UploadLimits, UploadWatch};
use crate::call::{Destination, Outbound};
use crate::capture::Meter;
use crate::error::{Failure, GatewayError, UpstreamError};
use crate::metrics::CoreMetrics;

/// An answer's head, its body to come, and the guard of the call.
pub(crate) struct Served {
    pub(crate) response: Response<AnswerBody>,
    pub(crate) meter: Option<Meter>,
    /// Where the answer is 101: both ends of the tunnel.
    pub(crate) tunnel: Option<Tunnel>,
}

/// How long things may take, and how much may come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProxyOptions {
    pub(crate) head_timeout: Duration,
    pub(crate) body_idle: Duration,
    pub(crate) call_timeout: Duration,
    /// The idle limit of what is quiet by nature: tunnels, event streams, gRPC.
    pub(crate) stream_idle: Duration,
    /// The most header fields of an answer.
    pub(crate) header_fields_max: usize,
    pub(crate) upload: UploadLimits,
}

/// The proxy of one core.
#[derive(Clone)]
pub(crate) struct Proxy(Arc<Inner>);

struct Inner {
    upstream: Arc<Pool>,
    billing: Arc<Pool>,
    options: ProxyOptions,
    metrics: Arc<CoreMetrics>,
}

impl Proxy {
    pub(crate) fn new(
        (upstream, billing): (Arc<Pool>, Arc<Pool>),
        options: ProxyOptions,
        metrics: Arc<CoreMetrics>,
    ) -> Self {
        Self(Arc::new(Inner { upstream, billing, options, metrics }))
    }
}

impl Service<Outbound> for Proxy {
    type Response = Served;
    type Error = Failure;
    // The first of the two seams at which types end: all states of a call are behind this one box.
    type Future = Pin<Box<dyn Future<Output = Result<Served, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Outbound) -> Self::Future {
        let proxy = Arc::clone(&self.0);
        Box::pin(async move {
            let Outbound { request, facts, destination, expires, mut meter, watch, span, place } = call;
            let call = Instant::from_std(facts.arrived) + proxy.options.call_timeout;
            let stream = expires.map_or(call, |expires| call.min(Instant::from_std(expires)));
            let ends = Ends { call, stream };
            let prepared = proxy.prepare(request, destination, (watch, ends));
            let span = span.map(|span| placed(span, prepared.pool.origin()));
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
    /// What stays open for as long as somebody listens: a tunnel, an event stream, gRPC. Never longer than the token.
    stream: Instant,
}

/// A request as it is sent, and what is known of it.
struct Prepared {
    request: Request<Upload>,
    pool: Arc<Pool>,
    watch: Option<UploadWatch>,
    /// It may be sent twice: it has no body and changes nothing the second time (RFC 9110, 9.2.2).
    repeatable: bool,
    /// The client's end of a tunnel, when it asked for one.
    client: Option<OnUpgrade>,
}

impl Inner {
    fn prepare(
        &self,
        mut request: Request<WebBody>,
        destination: Destination,
        (watch, ends): (Option<UploadWatch>, Ends),
    ) -> Prepared {
        let pool = match destination {
            Destination::Upstream => Arc::clone(&self.upstream),
            Destination::Billing => Arc::clone(&self.billing),
        };
        let framing = match (&watch, request.body().size_hint().exact()) {
            (None, _) => Framing::None,
            (Some(_), Some(length)) => Framing::Length(length),
            (Some(_), None) => Framing::Chunked,
        };
        let version = request.version();
        let upgrade = headers::outward(request.headers_mut(), version, framing, pool.origin());
        let client = upgrade.map(|_| hyper::upgrade::on(&mut request));
        let repeatable = watch.is_none() && is_idempotent(request.method()) && client.is_none();
        let (mut parts, body) = request.into_parts();
        parts.version = Version::HTTP_11;
        parts.extensions = http::Extensions::new();
        let body = match &watch {
            Some(watch) if is_grpc(&parts.headers) => {
                let limits = UploadLimits { idle: self.options.stream_idle, ..self.options.upload };
                Upload::streaming(body, watch.clone(), (limits, ends.stream))
            }
            Some(watch) => Upload::streaming(body, watch.clone(), (self.options.upload, ends.call)),
            None => Upload::empty(),
        };
        Prepared { request: Request::from_parts(parts, body), pool, watch, repeatable, client }
    }

    async fn serve(
        &self,
        prepared: Prepared,
        mut meter: Option<&mut Meter>,
        ends: Ends,
    ) -> Result<(Response<AnswerBody>, Option<Tunnel>), GatewayError> {
        let Prepared { request, pool, watch, repeatable, client } = prepared;
        if let Some(meter) = &mut meter {
            meter.check()?;
        }
        let mut connection = match std::future::poll_fn(|cx| Poll::Ready(pool.take(cx))).await {
            Some(connection) => connection,
            None => self.connect(&pool).await?,
        };
        if let Some(meter) = meter
            && let Err(refused) = meter.hand_over().await
        {
            pool.put(connection);
            return Err(refused);
        }
        if client.is_some() {
            connection.allow_upgrade();
        }
        let spare = (repeatable && connection.is_reused()).then(|| copy_of(&request));
        let limits = HeadLimits { timeout: self.options.head_timeout, call_deadline: ends.call };
        let sent = std::time::Instant::now();
        let mut head = exchange(&mut connection, request, watch.as_ref(), limits).await;
        if let Err(NoHead::Broke { unsent, .. }) = &mut head
            && connection.is_reused()
            && !connection.heard_anything()
            && let Some(again) = unsent.take().map(|request| *request).or(spare)
        {
            // The upstream closed the connection while the request was on its way to it.
            self.metrics.upstream_retried();
            drop(connection);
            connection = self.connect(&pool).await?;
            if client.is_some() {
                connection.allow_upgrade();
            }
            head = exchange(&mut connection, again, watch.as_ref(), limits).await;
        }
        let response = head.map_err(|no_head| no_head.into_error(watch.as_ref(), pool.whom()))?;
        self.metrics.upstream_answered(sent.elapsed());
        self.answered(response, Lease { connection, pool }, (watch, client, ends))
    }

    async fn connect(&self, pool: &Pool) -> Result<Connection, GatewayError> {
        self.metrics.upstream_connecting();
        let failed = |error| match error {
            ConnectError::Busy => UpstreamError::Busy,
            error => UpstreamError::Unreachable(error),
        };
        pool.connect().await.map_err(|error| failed(error).of(pool.whom()))
    }

    fn answered(
        &self,
        mut response: Response<Incoming>,
        lease: Lease,
        (watch, client, ends): (Option<UploadWatch>, Option<OnUpgrade>, Ends),
    ) -> Result<(Response<AnswerBody>, Option<Tunnel>), GatewayError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switched(response, lease, (client, ends.stream));
        }
        if response.headers().len() > self.options.header_fields_max {
            let error = UpstreamError::Answer("it has more header fields than HEADER_FIELDS_MAX allows");
            return Err(error.of(lease.pool.whom()));
        }
        if headers::has_foreign_coding(response.headers()) {
            return Err(UpstreamError::Answer("only the transfer coding chunked is known").of(lease.pool.whom()));
        }
        headers::inward(response.headers_mut());
        let stall = match is_event_stream(response.headers()) || is_grpc(response.headers()) {
            true => Stall::new(self.options.stream_idle, ends.stream),
            false => Stall::new(self.options.body_idle, ends.call),
        };
        let response = plain(response, |incoming| AnswerBody::new(incoming, lease, stall).watching(watch));
        Ok((response, None))
    }

    fn switched(
        &self,
        mut response: Response<Incoming>,
        lease: Lease,
        (client, latest): (Option<OnUpgrade>, Instant),
    ) -> Result<(Response<AnswerBody>, Option<Tunnel>), GatewayError> {
        let unasked = || UpstreamError::Answer("101 to a request that did not ask for it").of(lease.pool.whom());
        let client = client.ok_or_else(unasked)?;
        let upstream = hyper::upgrade::on(&mut response);
        let protocol = response.headers().get(UPGRADE).cloned();
        headers::inward(response.headers_mut());
        if let Some(protocol) = protocol {
            response.headers_mut().insert(UPGRADE, protocol);
        }
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        let (connection, idle) = (lease.connection, self.options.stream_idle);
        let tunnel = Tunnel { client, upstream, connection, idle, latest, place: None };
        Ok((plain(response, AnswerBody::switched), Some(tunnel)))
    }
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
fn plain(response: Response<Incoming>, body: impl FnOnce(Incoming) -> AnswerBody) -> Response<AnswerBody> {
    let (mut parts, incoming) = response.into_parts();
    parts.version = Version::HTTP_11;
    let reason = parts.extensions.remove::<hyper::ext::ReasonPhrase>();
    parts.extensions = http::Extensions::new();
    if let Some(reason) = reason {
        parts.extensions.insert(reason);
    }
    Response::from_parts(parts, body(incoming))
}

/// The span of a call says whom it calls.
fn placed(mut span: OpenSpan, origin: &Origin) -> OpenSpan {
    span.set("server.address", origin.host().to_owned());
    span.set("server.port", origin.port());
    span
}

/// The span of a call ends with the answer's body.
fn told(response: Response<AnswerBody>, span: Option<OpenSpan>) -> Response<AnswerBody> {
    let Some(mut span) = span else { return response };
    web::say_status(&mut span, response.status());
    response.map(|body| body.ending(span))
}

fn copy_of(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// The media type of a message, without parameters.
fn media_type(headers: &HeaderMap) -> &[u8] {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    media_type(headers).eq_ignore_ascii_case(b"text/event-stream")
}

/// `application/grpc`, `application/grpc+proto`, `application/grpc-web`, ….
fn is_grpc(headers: &HeaderMap) -> bool {
    let start = media_type(headers).get(..b"application/grpc".len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}
