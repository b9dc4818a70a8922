//! Exports spans of `tracing` by their target: what a program does beside the calls that it serves, such as its start,
//! the batches of relay and worker, and statements under a call of billing.
//!
//! Such a span costs several times one of [`Tracer`](crate::Tracer), so none is ever made on the gateway's request path.
//! While nothing is exported OpenTelemetry sees none, and no log line ever shows one.

use std::sync::{Arc, OnceLock};

use goldleaves_domain::TraceContext;
use goldleaves_runtime::telemetry::TRACED;
use opentelemetry::Context;
use opentelemetry::global::{BoxedSpan, BoxedTracer};
use opentelemetry::trace::noop::NoopTracer;
use opentelemetry::trace::{SpanBuilder, TraceContextExt, Tracer as SdkTracer};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::{Tracer, sdk_context};

/// The place of the tracer that spans go to: the logs, and with them the layer, start before traces do.
#[derive(Debug, Clone, Default)]
pub struct TracedSpans(Arc<OnceLock<BoxedTracer>>);

impl TracedSpans {
    /// The layer that makes them; it belongs beside that of the logs.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + 'static
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = LateTracer { tracer: self.clone(), nothing: BoxedTracer::new(Box::new(NoopTracer::new())) };
        let spans = self.clone();
        let filter = dynamic_filter_fn(move |metadata, _| metadata.target() == TRACED && spans.0.get().is_some())
            .with_callsite_filter(|metadata| match metadata.target() == TRACED {
                // Asked each time, because the tracer comes later.
                true => Interest::sometimes(),
                false => Interest::never(),
            })
            .with_max_level_hint(LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(filter)
    }

    /// Exports them through this tracer from now on, if it exports anything. The first one stays.
    pub fn export(&self, tracer: &Tracer) {
        if let Some(tracer) = tracer.sdk() {
            let _ = self.0.set(BoxedTracer::new(Box::new(tracer.clone())));
        }
    }
}

/// Puts a span below one of [`Tracer`], before it is entered.
pub fn put_below(span: &Span, above: TraceContext) {
    // It fails for a span that is not exported, which has no place.
    let _ = span.set_parent(Context::new().with_remote_span_context(sdk_context(above, false)));
}

/// The tracer that is there once traces have started.
#[derive(Debug)]
struct LateTracer {
    tracer: TracedSpans,
    nothing: BoxedTracer,
}

impl SdkTracer for LateTracer {
    type Span = BoxedSpan;

    fn build_with_context(&self, builder: SpanBuilder, above: &Context) -> BoxedSpan {
        self.tracer.0.get().unwrap_or(&self.nothing).build_with_context(builder, above)
    }
}
