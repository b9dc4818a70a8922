//! The task that exports: takes spans out of the queue in batches and gives them to OpenTelemetry's exporter.
//!
//! Whatever the collector does, this holds at most one batch besides the queue, and a request never learns of it. What a
//! batch came to is counted. Told to finish, the task exports what is there for [`FLUSH_MAX`] and counts the rest.

use std::future::Future;
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, RetryPolicy, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::client::{BatchFate, CollectorClient};
use crate::metrics::TraceMetrics;
use crate::queue::Queue;
use crate::{CertificateError, Endpoint, Tracer};

/// The version of the semantic conventions that attributes are named after.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";
/// The number of spans that go in one request.
const BATCH_SPANS: usize = 1_024;
/// The time for which the first span of a batch waits for others.
const LINGER: Duration = Duration::from_millis(200);
/// The longest time what is left may take once the program stops.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// The most spans that one of ours is linked to: the events of a batch.
const LINKS_MAX: u32 = 1_024;

/// Where spans go to and which there are.
pub(crate) struct ExportPlan {
    pub(crate) endpoint: Endpoint,
    pub(crate) tls: ClientConfig,
    pub(crate) headers: HeaderMap,
    pub(crate) sampler: Sampler,
    /// The resource of the program; the last of two with the same name counts.
    pub(crate) resource: Vec<(String, String)>,
}

/// The reason nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceStartError {
    /// No encrypted connection can be made.
    #[error("traces can't be exported")]
    Certificate(#[from] CertificateError),
    /// The exporter does not want to be set up like this.
    #[error("traces can't be exported")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The export while it runs.
#[derive(Debug)]
pub struct Exporting(Option<RunningExport>);

#[derive(Debug)]
struct RunningExport {
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
        let Some(RunningExport { stop, mut task }) = self.0 else { return };
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
pub(crate) fn start(plan: ExportPlan, metrics: TraceMetrics) -> Result<(Tracer, Exporting), TraceStartError> {
    let ExportPlan { endpoint, tls, headers, sampler, resource } = plan;
    let (queue, spans) = Queue::new(metrics.queue_full.clone());
    let resource = resource_of(resource);
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler)
        .with_max_links_per_span(LINKS_MAX)
        .with_resource(resource.clone())
        .with_span_processor(queue)
        .build();
    let scope = InstrumentationScope::builder("goldleaves")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA_URL)
        .build();
    let tracer = Tracer::new(provider.tracer_with_scope(scope));
    let stop = CancellationToken::new();
    let collector = CollectorClient::new(tls, headers, stop.clone());
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(collector.clone())
        .with_endpoint(endpoint.to_string())
        .with_protocol(Protocol::HttpBinary)
        // The client's own attempts know when the program stops.
        .with_retry_policy(RetryPolicy::disabled())
        .build()?;
    exporter.set_resource(&resource);
    let task = Exporter { spans, exporter, collector, metrics, stop: stop.clone(), in_hand: 0 };
    let task = tokio::spawn(task.run());
    Ok((tracer, Exporting(Some(RunningExport { stop, task }))))
}

fn resource_of(attributes: Vec<(String, String)>) -> Resource {
    let own = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", Uuid::now_v7().to_string()),
    ];
    let attributes = attributes.into_iter().map(|(name, text)| KeyValue::new(name, text));
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_schema_url(own, SCHEMA_URL)
        .with_attributes(attributes)
        .build()
}

struct Exporter {
    spans: mpsc::Receiver<SpanData>,
    exporter: opentelemetry_otlp::SpanExporter,
    collector: CollectorClient,
    metrics: TraceMetrics,
    stop: CancellationToken,
    /// Spans taken out of the queue whose fate is open.
    in_hand: u64,
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
        let left = self.in_hand + self.spans.len() as u64;
        self.metrics.unsent.inc_by(left);
        tracing::warn!(spans = left, "the collector did not take the last spans in time, they are dropped");
    }

    async fn work(&mut self) {
        loop {
            let batch = self.next_batch().await;
            if batch.is_empty() {
                return;
            }
            self.in_hand = batch.len() as u64;
            self.export(batch).await;
            self.in_hand = 0;
        }
    }

    /// Empty once the program stops and nothing is left.
    async fn next_batch(&mut self) -> Vec<SpanData> {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            _ = self.spans.recv_many(&mut batch, BATCH_SPANS) => {}
            () = self.stop.cancelled() => return batch,
        }
        if batch.len() < BATCH_SPANS {
            tokio::select! {
                () = sleep(LINGER) => {}
                () = self.stop.cancelled() => {}
            }
            while batch.len() < BATCH_SPANS
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
        }
        batch
    }

    async fn export(&self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        let exported = self.exporter.export(batch).await;
        let fate = self.collector.fate().unwrap_or_else(|| {
            let cause = exported.err().map(|error| error.to_string());
            tracing::warn!(cause, spans, "a batch of spans can't be encoded, it is dropped");
            BatchFate::Refused
        });
        let (taken, refused, unsent) = match fate {
            BatchFate::Taken { refused } => (spans.saturating_sub(refused), refused.min(spans), 0),
            BatchFate::Refused => (0, spans, 0),
            BatchFate::Unsent => (0, 0, spans),
        };
        self.metrics.exported.inc_by(taken);
        self.metrics.refused.inc_by(refused);
        self.metrics.unsent.inc_by(unsent);
    }
}
