//! Traces: spans of what a program does, handed to an OpenTelemetry collector by OTLP over HTTP.
//!
//! Spans are telemetry, not money: nothing here ever waits on a request's path. A span that is over goes into a bounded
//! queue, or is dropped and counted; a task of the control runtime exports what is in the queue, with time-outs. Without
//! `OTEL_EXPORTER_OTLP_ENDPOINT` a [`Tracer`] is off: nothing is made and nothing is allocated.
//!
//! This crate knows neither usage nor routes: which spans there are and what they say, their programs decide.

mod encode;
mod endpoint;
mod export;
mod ids;
pub mod messaging;
mod metrics;
mod settings;
mod span;
mod tracer;
pub mod web;

pub use endpoint::{Endpoint, EndpointError};
pub use export::Exporting;
pub use ids::next_span;
pub use settings::TraceSettings;
pub use span::{Moment, OpenSpan, Opening, SpanKind, Value};
pub use tracer::Tracer;
