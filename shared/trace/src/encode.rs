//! Spans as OTLP's protobuf messages.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, ScopeSpans, SpanFlags, Status, span, status};
use prost::Message;

use crate::span::Span;
use crate::{SpanKind, Value};

/// The version of the semantic conventions that attributes are named after.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Who exports.
pub(crate) fn resource(attributes: &[(&'static str, String)]) -> Resource {
    let attributes = attributes.iter().map(|(name, text)| attribute(name, Value::from(text.clone()))).collect();
    Resource { attributes, ..Resource::default() }
}

/// One request's body.
pub(crate) fn request(resource: &Resource, spans: Vec<Span>) -> Bytes {
    let scope = InstrumentationScope {
        name: "goldleaves".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = ScopeSpans {
        scope: Some(scope),
        spans: spans.into_iter().map(message).collect(),
        schema_url: SCHEMA_URL.to_owned(),
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![scope_spans],
        schema_url: SCHEMA_URL.to_owned(),
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec().into()
}

fn message(span: Span) -> otlp::Span {
    // Who stands above a server's or a consumer's span is another program, as far as this one knows.
    let is_remote = span.parent.is_some() && matches!(span.kind, SpanKind::Server | SpanKind::Consumer);
    let remote = if is_remote { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    let code = if span.failed { status::StatusCode::Error } else { status::StatusCode::Unset };
    otlp::Span {
        trace_id: span.context.trace_id().to_be_bytes().to_vec(),
        span_id: span.context.span_id().to_be_bytes().to_vec(),
        parent_span_id: span.parent.map(|parent| parent.span_id().to_be_bytes().to_vec()).unwrap_or_default(),
        flags: u32::from(span.context.is_sampled()) | SpanFlags::ContextHasIsRemoteMask as u32 | remote,
        name: span.name.into_owned(),
        kind: kind(span.kind).into(),
        start_time_unix_nano: span.start_unix_nanos,
        end_time_unix_nano: span.end_unix_nanos,
        attributes: span.attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
        status: Some(Status { code: code.into(), message: String::new() }),
        ..otlp::Span::default()
    }
}

const fn kind(kind: SpanKind) -> span::SpanKind {
    match kind {
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Client => span::SpanKind::Client,
        SpanKind::Producer => span::SpanKind::Producer,
        SpanKind::Consumer => span::SpanKind::Consumer,
    }
}

fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.into_owned()),
        Value::Number(number) => any_value::Value::IntValue(number),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
