//! The task that exports: takes spans out of the queue in batches and posts them to the collector.
//!
//! Whatever the collector does, this holds at most one batch besides the queue, and a request never learns of it. A batch
//! that the collector can't take now is tried again a few times; then it is dropped and counted. Told to finish, it
//! exports what is there for [`FLUSH_MAX`] and counts the rest.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use goldleaves_runtime::process::chain;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::metrics::TraceMetrics;
use crate::span::Span;
use crate::{Endpoint, Tracer, encode};

/// How many spans may wait. With the batch on its way that is some ten megabytes at most.
const QUEUE_SPANS: usize = 16_384;
/// How many go in one request.
const BATCH_SPANS: usize = 1_024;
/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_millis(200);
/// How long the collector may take to connect, and to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a batch is sent before it is dropped, and the pause after the first time, which doubles.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a collector may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// How long what is left may take once the program stops.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// The longest answer that is looked at.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The export while it runs.
#[derive(Debug)]
pub struct Exporting(Option<Running>);

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Exporting {
    /// There is nothing to export.
    pub(crate) const fn nothing() -> Self {
        Self(None)
    }

    /// Exports what is left, for a bounded time, or until `at_once`. To be called when nothing opens spans any more.
    pub async fn finish(self, at_once: impl Future<Output = ()>) {
        let Some(Running { stop, mut task }) = self.0 else { return };
        stop.cancel();
        tokio::select! {
            ended = &mut task => if ended.is_err() {
                tracing::error!("the export of traces ended in a panic");
            },
            () = at_once => task.abort(),
        }
    }
}

/// Starts the task.
pub(crate) fn start(endpoint: Endpoint, service_name: String, metrics: TraceMetrics) -> (Tracer, Exporting) {
    let (sender, queue) = mpsc::channel(QUEUE_SPANS);
    let tracer = Tracer::new(sender, metrics.queue_full.clone());
    let resource = encode::resource(&[
        ("service.name", service_name),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", Uuid::now_v7().to_string()),
    ]);
    let stop = CancellationToken::new();
    let collector = Collector { client: client(), endpoint };
    let exporter = Exporter { queue, collector, resource, metrics, stop: stop.clone(), in_hand: 0, is_away: false };
    let task = tokio::spawn(exporter.run());
    (tracer, Exporting(Some(Running { stop, task })))
}

type HttpClient = Client<HttpConnector, Full<Bytes>>;

fn client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
}

struct Exporter {
    queue: mpsc::Receiver<Span>,
    collector: Collector,
    resource: Resource,
    metrics: TraceMetrics,
    stop: CancellationToken,
    /// Spans taken out of the queue whose fate is open.
    in_hand: u64,
    /// So that the log has one line when the collector goes, and one when it is back.
    is_away: bool,
}

impl Exporter {
    async fn run(mut self) {
        let stop = self.stop.clone();
        let too_late = async {
            stop.cancelled().await;
            sleep(FLUSH_MAX).await;
        };
        tokio::select! {
            biased;
            () = self.work() => return,
            () = too_late => {}
        }
        let left = self.in_hand + self.queue.len() as u64;
        self.metrics.unsent.inc_by(left);
        tracing::warn!(spans = left, "the collector did not take the last spans in time, they are dropped");
    }

    async fn work(&mut self) {
        loop {
            let spans = self.next_batch().await;
            if spans.is_empty() {
                return;
            }
            self.in_hand = spans.len() as u64;
            let body = encode::request(&self.resource, spans);
            self.export(body, self.in_hand).await;
            self.in_hand = 0;
        }
    }

    /// Empty once the program stops and nothing is left.
    async fn next_batch(&mut self) -> Vec<Span> {
        let mut spans = Vec::new();
        tokio::select! {
            biased;
            _ = self.queue.recv_many(&mut spans, BATCH_SPANS) => {}
            () = self.stop.cancelled() => return spans,
        }
        if spans.len() < BATCH_SPANS {
            self.pause(LINGER).await;
            while spans.len() < BATCH_SPANS
                && let Ok(span) = self.queue.try_recv()
            {
                spans.push(span);
            }
        }
        spans
    }

    async fn export(&mut self, body: Bytes, spans: u64) {
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS {
            let error = match self.collector.post(body.clone()).await {
                Ok(refused) => return self.took(spans, refused.min(spans)),
                Err(error) => error,
            };
            self.did_not_take(&error);
            if !error.is_transient() {
                self.metrics.refused.inc_by(spans);
                return;
            }
            if attempt == ATTEMPTS || self.stop.is_cancelled() {
                break;
            }
            let asked = error.retry_after().unwrap_or_default();
            self.pause(pause.mul_f64(rand::random_range(0.5..=1.0)).max(asked)).await;
            pause *= 2;
        }
        self.metrics.unsent.inc_by(spans);
    }

    /// A stop cuts it short.
    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn took(&mut self, spans: u64, refused: u64) {
        self.metrics.exported.inc_by(spans - refused);
        self.metrics.refused.inc_by(refused);
        if std::mem::take(&mut self.is_away) {
            tracing::info!("the collector of traces takes spans again");
        }
    }

    fn did_not_take(&mut self, error: &PostError) {
        let cause = chain(error);
        if std::mem::replace(&mut self.is_away, true) {
            tracing::debug!(cause, "the collector of traces did not take a batch");
        } else {
            tracing::warn!(cause, "the collector of traces does not take spans, what it misses is dropped and counted");
        }
    }
}

struct Collector {
    client: HttpClient,
    endpoint: Endpoint,
}

/// Why a batch did not arrive.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error("no answer in time")]
    TimedOut,
    #[error("the collector can't be reached")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("the answer broke off")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the collector answered {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
}

impl PostError {
    /// Whether the same batch may be taken another time (OTLP 1.x, "Failures").
    fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502..=504),
            Self::TimedOut | Self::Unreachable(_) | Self::Answer(_) => true,
        }
    }

    /// How long the collector wants to be left alone.
    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::TimedOut | Self::Unreachable(_) | Self::Answer(_) => None,
        }
    }
}

impl Collector {
    /// Sends a batch once; how many of its spans the collector did not want.
    async fn post(&self, body: Bytes) -> Result<u64, PostError> {
        timeout(ANSWER_TIMEOUT, self.exchange(body)).await.map_err(|_| PostError::TimedOut)?
    }

    async fn exchange(&self, body: Bytes) -> Result<u64, PostError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.uri().clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("goldleaves/", env!("CARGO_PKG_VERSION"))));
        let response = self.client.request(request).await.map_err(PostError::Unreachable)?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let answer = answer.map_err(PostError::Answer)?.to_bytes();
        if !status.is_success() {
            return Err(PostError::Status { status, retry_after });
        }
        // An answer that says nothing readable took everything.
        let partial = ExportTraceServiceResponse::decode(answer).unwrap_or_default().partial_success;
        Ok(partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)))
    }
}

/// A `Retry-After` in seconds; as a date it is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}
