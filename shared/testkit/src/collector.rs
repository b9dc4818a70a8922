//! An OpenTelemetry collector for tests: takes traces by OTLP over HTTP, checks what it is sent, and tells what it got.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use goldleaves_domain::hex_text;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, span, status};
use prost::Message as _;

use crate::child::wait_for;
use crate::http1::Http1Head;
use crate::upstream::{Answer, Received, Upstream};

/// The longest time spans may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// The collector's reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Takes its spans.
    Take,
    /// Takes all but so many of them.
    TakeAllBut(i64),
    /// Answers with this status and takes nothing.
    Refuse(u16),
    /// Answers 503, takes nothing and asks for a pause of so many seconds.
    Later(u32),
    /// Never answers.
    Silence,
}

/// A span as it was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of who exported it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// `Server`, `Client`, `Producer`, `Consumer` or `Internal`.
    pub kind: String,
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits; empty for the first span of a trace.
    pub parent_id: String,
    /// When it began and ended, in nanoseconds since 1970.
    pub times: (u64, u64),
    /// True if its status is an error.
    pub failed: bool,
    /// The attributes of the span, as text.
    pub attributes: BTreeMap<String, String>,
    /// The `traceparent`s of the spans that it is linked to.
    pub links: Vec<String>,
    /// The resource of its program.
    pub resource: BTreeMap<String, String>,
}

impl Span {
    /// Returns what it says of this, if anything.
    pub fn says(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    /// The `traceparent` that names it as the parent.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, self.span_id)
    }
}

fn traceparent(trace_id: &[u8], span_id: &[u8]) -> String {
    format!("00-{}-{}-01", hex_text(trace_id), hex_text(span_id))
}

/// The running collector. It ends with the value.
#[derive(Debug)]
pub struct Collector {
    server: Upstream,
    got: Arc<Mutex<Got>>,
}

#[derive(Debug, Default)]
struct Got {
    requests: usize,
    heads: Vec<Http1Head>,
    spans: Vec<Span>,
    faults: Vec<String>,
}

impl Collector {
    /// One that takes everything.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start() -> Result<Self> {
        Self::start_replying(|_| Reply::Take).await
    }

    /// One that does as told with the request of this number, from 0.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start_replying(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Result<Self> {
        let got = Arc::new(Mutex::new(Got::default()));
        let shared = Arc::clone(&got);
        let server = Upstream::start(move |received| answer(received, &mut lock(&shared), &reply)).await?;
        Ok(Self { server, got })
    }

    /// Returns what `OTEL_EXPORTER_OTLP_ENDPOINT` is set to.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Returns the number of requests that came.
    pub fn requests(&self) -> usize {
        lock(&self.got).requests
    }

    /// The heads of all requests.
    pub fn heads(&self) -> Vec<Http1Head> {
        lock(&self.got).heads.clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Every span it took so far.
    ///
    /// # Errors
    /// It was sent something that is not OTLP.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let got = lock(&self.got);
        ensure!(got.faults.is_empty(), "the collector was sent: {:?}", got.faults);
        Ok(got.spans.clone())
    }

    /// Waits until what it took holds what `find` looks for.
    ///
    /// # Errors
    /// It was sent something that is not OTLP, or the spans do not come; the error names what came.
    pub async fn wait_for<T>(&self, what: &str, find: impl Fn(&[Span]) -> Option<T>) -> Result<T> {
        let found = wait_for(what, PATIENCE, async || Ok(find(&self.spans()?))).await;
        found.with_context(|| format!("the collector has {:#?}", lock(&self.got).spans))
    }
}

fn lock(got: &Mutex<Got>) -> MutexGuard<'_, Got> {
    got.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(received: &Received, got: &mut Got, reply: &dyn Fn(usize) -> Reply) -> Answer {
    let reply = reply(got.requests);
    got.requests += 1;
    got.heads.push(received.head.clone());
    let spans = match read(received) {
        Ok(spans) => spans,
        Err(fault) => {
            got.faults.push(format!("{fault:#}"));
            return Answer::ok("").status(400);
        }
    };
    let rejected_spans = match reply {
        Reply::Silence => return Answer::silence(),
        Reply::Refuse(status) => return Answer::ok("").status(status),
        Reply::Later(seconds) => return Answer::ok("").status(503).header("Retry-After", &seconds.to_string()),
        Reply::Take => 0,
        Reply::TakeAllBut(refused) => refused,
    };
    let kept = spans.len().saturating_sub(usize::try_from(rejected_spans).unwrap_or(0));
    got.spans.extend(spans.into_iter().take(kept));
    let partial = ExportTracePartialSuccess { rejected_spans, error_message: String::new() };
    let answer = ExportTraceServiceResponse { partial_success: (rejected_spans > 0).then_some(partial) };
    Answer::ok(answer.encode_to_vec()).header("Content-Type", "application/x-protobuf")
}

fn read(received: &Received) -> Result<Vec<Span>> {
    ensure!(received.method() == "POST" && received.target() == "/v1/traces", "not POST /v1/traces");
    let content_type = received.head.header("content-type");
    ensure!(content_type == Some("application/x-protobuf"), "Content-Type {content_type:?}");
    let request = ExportTraceServiceRequest::decode(received.body.bytes.as_slice()).context("not protobuf")?;
    let mut spans = Vec::new();
    for resource_spans in request.resource_spans {
        spans.extend(read_resource(resource_spans)?);
    }
    Ok(spans)
}

fn read_resource(resource_spans: ResourceSpans) -> Result<Vec<Span>> {
    let resource = attributes(resource_spans.resource.unwrap_or_default().attributes)?;
    ensure!(resource.contains_key("service.name"), "a resource without service.name");
    let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans.map(|span| read_span(&resource, span)).collect()
}

fn read_span(resource: &BTreeMap<String, String>, span: otlp::Span) -> Result<Span> {
    ensure!(span.trace_id.len() == 16 && span.trace_id.iter().any(|byte| *byte != 0), "a trace id: {span:?}");
    ensure!(span.span_id.len() == 8 && span.span_id.iter().any(|byte| *byte != 0), "a span id: {span:?}");
    ensure!(matches!(span.parent_span_id.len(), 0 | 8), "a parent's id: {span:?}");
    ensure!(!span.name.is_empty(), "a span without a name: {span:?}");
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    ensure!(start > 0 && start <= end, "a span's times: {span:?}");
    let kind = span::SpanKind::try_from(span.kind).context("a span's kind")?;
    let failed = span.status.is_some_and(|status| status.code() == status::StatusCode::Error);
    Ok(Span {
        service: resource.get("service.name").cloned().unwrap_or_default(),
        name: span.name,
        kind: format!("{kind:?}"),
        trace_id: hex_text(&span.trace_id),
        span_id: hex_text(&span.span_id),
        parent_id: hex_text(&span.parent_span_id),
        times: (start, end),
        failed,
        attributes: attributes(span.attributes)?,
        links: span.links.iter().map(|link| traceparent(&link.trace_id, &link.span_id)).collect(),
        resource: resource.clone(),
    })
}

fn attributes(list: Vec<KeyValue>) -> Result<BTreeMap<String, String>> {
    let mut attributes = BTreeMap::new();
    for KeyValue { key, value, .. } in list {
        let text = match value {
            Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => text,
            Some(AnyValue { value: Some(any_value::Value::IntValue(number)) }) => number.to_string(),
            other => bail!("the attribute {key} is {other:?}"),
        };
        ensure!(attributes.insert(key.clone(), text).is_none(), "the attribute {key} appears twice");
    }
    Ok(attributes)
}
