//! Traces: spans of what a program does, made by OpenTelemetry's SDK and handed to a collector by OTLP over HTTP.
//!
//! Spans are telemetry, not money: nothing here ever waits on a request's path. A span that is over goes into a bounded
//! queue, or is dropped and counted; a task of the control runtime exports what is in the queue, with time-outs. Without
//! `OTEL_EXPORTER_OTLP_ENDPOINT` a [`Tracer`] is off: nothing is made and nothing is allocated.
//!
//! This crate knows neither usage nor routes: which spans there are and what they say, their programs decide.

mod certificate;
mod client;
mod endpoint;
mod export;
mod ids;
mod layer;
pub mod messaging;
mod metrics;
mod queue;
mod settings;
mod span;
mod tracer;
mod variables;
pub mod web;

pub use certificate::CertificateError;
pub use endpoint::{Endpoint, EndpointError};
pub use export::{Exporting, TraceStartError};
pub use layer::{TracedSpans, put_below};
pub use opentelemetry::Value;
pub use opentelemetry::trace::SpanKind;
pub use settings::TraceSettings;
pub use span::{Moment, OpenSpan, Opening};

pub(crate) use ids::{next_span, sdk_context};
pub use tracer::Tracer;
