//! Ids of traces and spans: random, as W3C Trace Context wants them.

use std::num::{NonZeroU64, NonZeroU128};

use goldleaves_domain::TraceContext;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// A span below `parent`, or the first one of a trace of its own.
pub(crate) fn next_span(parent: Option<TraceContext>) -> TraceContext {
    let span_id = NonZeroU64::new(rand::random()).unwrap_or(NonZeroU64::MIN);
    match parent {
        Some(parent) => parent.child(span_id),
        None => TraceContext::root(NonZeroU128::new(rand::random()).unwrap_or(NonZeroU128::MIN), span_id),
    }
}

/// A context in the SDK's words.
pub(crate) fn sdk_context(context: TraceContext, is_remote: bool) -> SpanContext {
    let (trace_id, span_id) = (TraceId::from(context.trace_id()), SpanId::from(context.span_id()));
    SpanContext::new(trace_id, span_id, TraceFlags::new(context.flags()), is_remote, TraceState::NONE)
}
