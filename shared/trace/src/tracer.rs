//! Where spans are opened, and the queue they wait in.

use std::sync::Arc;

use goldleaves_domain::TraceContext;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use crate::span::Span;
use crate::{OpenSpan, Opening};

/// Opens spans, or does nothing at all. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Queue>>);

/// Bounded, and shared by every core: handing over is a few atomics, and never waits.
#[derive(Debug)]
struct Queue {
    spans: mpsc::Sender<Span>,
    full: Counter,
}

impl Tracer {
    /// One that does nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    pub(crate) fn new(spans: mpsc::Sender<Span>, full: Counter) -> Self {
        Self(Some(Arc::new(Queue { spans, full })))
    }

    /// Whether spans of this trace are exported.
    pub const fn wants(&self, context: TraceContext) -> bool {
        self.0.is_some() && context.is_sampled()
    }

    /// The context of a `traceparent` that is valid and whose spans are exported. Reads nothing when none are.
    pub fn continued(&self, traceparent: Option<&str>) -> Option<TraceContext> {
        self.0.as_ref()?;
        traceparent?.parse().ok().filter(|context| self.wants(*context))
    }

    /// Begins a span, when it is wanted.
    pub fn open(&self, opening: Opening) -> Option<OpenSpan> {
        self.wants(opening.context).then(|| OpenSpan::new(self.clone(), opening))
    }

    pub(crate) fn hand_over(&self, span: Span) {
        if let Some(queue) = &self.0
            && queue.spans.try_send(span).is_err()
        {
            queue.full.inc();
        }
    }
}
