//! Ids of traces and spans: random, as W3C Trace Context wants them.

use std::num::{NonZeroU64, NonZeroU128};

use goldleaves_domain::TraceContext;

/// A span below `parent`, or the first one of a trace of its own.
pub(crate) fn next_span(parent: Option<TraceContext>) -> TraceContext {
    let span_id = NonZeroU64::new(rand::random()).unwrap_or(NonZeroU64::MIN);
    match parent {
        Some(parent) => parent.child(span_id),
        None => TraceContext::root(NonZeroU128::new(rand::random()).unwrap_or(NonZeroU128::MIN), span_id),
    }
}
