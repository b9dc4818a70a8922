//! Where spans begin: the SDK's tracer, or nothing at all.

use goldleaves_domain::TraceContext;
use opentelemetry::Context;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, TraceContextExt, Tracer as _};
use opentelemetry_sdk::trace::SdkTracer;

use crate::{OpenSpan, Opening, SpanKind, next_span, sdk_context};

/// The flag of a trace whose id is random, as the SDK's own are not said to be.
const RANDOM: u8 = 2;

/// Begins spans, or does nothing at all. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<SdkTracer>);

impl Tracer {
    /// One that does nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    pub(crate) const fn new(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// The SDK's tracer, where spans are exported.
    pub(crate) const fn sdk(&self) -> Option<&SdkTracer> {
        self.0.as_ref()
    }

    /// The context of a `traceparent` that is valid and whose spans are exported. Reads nothing when none are.
    pub fn continued(&self, traceparent: Option<&str>) -> Option<TraceContext> {
        self.0.as_ref()?;
        traceparent?.parse().ok().filter(|context: &TraceContext| context.is_sampled())
    }

    /// The next span's place in its trace and, when the sampler wants it, the span itself. A place is given in any case:
    /// it is what others are told, and what the spool keeps.
    pub fn begin(&self, opening: Opening) -> (TraceContext, Option<OpenSpan>) {
        let Some(tracer) = &self.0 else { return (next_span(opening.parent), None) };
        let Opening { parent, kind, name, started } = opening;
        // The span above a server's or a consumer's is another program's, as far as this one knows.
        let is_remote = matches!(kind, SpanKind::Server | SpanKind::Consumer);
        let above = Context::new();
        let above = match parent {
            Some(parent) => above.with_remote_span_context(sdk_context(parent, is_remote)),
            None => above,
        };
        let builder = SpanBuilder::from_name(name).with_kind(kind.clone()).with_start_time(started.wall());
        let span = tracer.build_with_context(builder, &above);
        let Some(context) = own_context(span.span_context(), parent) else { return (next_span(parent), None) };
        let open = span.is_recording().then(|| OpenSpan::new(context, kind, started, span));
        (context, open)
    }

    /// Begins a span, when the sampler wants it.
    pub fn open(&self, opening: Opening) -> Option<OpenSpan> {
        self.0.as_ref()?;
        self.begin(opening).1
    }
}

/// `None` for a context without ids, which the SDK gives once it is shut down.
fn own_context(context: &SpanContext, parent: Option<TraceContext>) -> Option<TraceContext> {
    let span_id = u64::from_be_bytes(context.span_id().to_bytes()).try_into().ok()?;
    let own = match parent {
        Some(parent) => parent.child(span_id),
        None => {
            let trace_id = u128::from_be_bytes(context.trace_id().to_bytes()).try_into().ok()?;
            TraceContext::root(trace_id, span_id)
        }
    };
    Some(own.with_flags(own.flags() & RANDOM | context.trace_flags().to_u8()))
}
