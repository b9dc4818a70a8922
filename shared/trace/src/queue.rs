//! The queue between spans and their export: bounded, and shared by every core. Handing over is a few atomics, and never
//! waits; what there is no room for is dropped and counted.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use crate::span::DISCARDED;

/// The number of spans that may wait. With the batch on its way that is some fifteen megabytes at most.
const QUEUE_SPANS: usize = 16_384;

/// The end that spans go into.
#[derive(Debug)]
pub(crate) struct Queue {
    spans: mpsc::Sender<SpanData>,
    full: Counter,
}

impl Queue {
    /// A queue, and the end that spans come out of.
    pub(crate) fn new(full: Counter) -> (Self, mpsc::Receiver<SpanData>) {
        let (spans, out) = mpsc::channel(QUEUE_SPANS);
        (Self { spans, full }, out)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.name != DISCARDED && self.spans.try_send(span).is_err() {
            self.full.inc();
        }
    }

    /// The export's own end flushes.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
