//! The settings of traces, and how their export starts.

use std::convert::Infallible;

use goldleaves_runtime::Metrics;
use goldleaves_runtime::process::chain;
use goldleaves_runtime::settings::{Values, parse, table};
use http::HeaderMap;
use rustls::RootCertStore;

use crate::certificate;
use crate::export::{self, ExportPlan, Exporting, TraceStartError};
use crate::metrics::TraceMetrics;
use crate::variables::{self, SamplerKind};
use crate::{Endpoint, Tracer};

/// OpenTelemetry's own variables, as far as they mean something here.
#[derive(Debug, Clone, Default)]
pub struct TraceSettings {
    collector: Option<CollectorSettings>,
    sampling: Sampling,
    service_name: Option<String>,
    resource: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
struct CollectorSettings {
    endpoint: Endpoint,
    headers: HeaderMap,
    roots: Option<RootCertStore>,
}

#[derive(Debug, Clone, Copy)]
struct Sampling {
    kind: SamplerKind,
    ratio: f64,
}

/// Every trace that begins here, and of others' what they want: the specification's own.
impl Default for Sampling {
    fn default() -> Self {
        Self { kind: SamplerKind::ParentOrOn, ratio: 1.0 }
    }
}

impl TraceSettings {
    /// Reads them; `None` when there was a mistake, which `values` holds then.
    pub fn read(values: &mut Values) -> Option<Self> {
        let collector = read_collector(values);
        let sampling = read_sampling(values);
        let service_name = values.optional(table::OTEL_SERVICE_NAME, parse::text);
        let resource = values.optional_discreet(table::OTEL_RESOURCE_ATTRIBUTES, variables::pairs);
        Some(Self {
            collector: collector?,
            sampling: sampling?,
            service_name: service_name?,
            resource: resource?.unwrap_or_default(),
        })
    }

    /// Starts exporting the spans of `program`, when there is somewhere to export them to.
    ///
    /// # Errors
    /// There is, and no connection to it can ever be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(&self, program: &str, metrics: &Metrics) -> Result<(Tracer, Exporting), TraceStartError> {
        let metrics = TraceMetrics::register(metrics);
        let Some(CollectorSettings { endpoint, headers, roots }) = self.collector.clone() else {
            return Ok((Tracer::off(), Exporting::nothing()));
        };
        let tls = certificate::client_config(&endpoint, roots)?;
        let sampler = variables::sampler(self.sampling.kind, self.sampling.ratio);
        tracing::info!("traces go to {endpoint}");
        let plan = ExportPlan { endpoint, tls, headers, sampler, resource: self.resource(program) };
        export::start(plan, metrics)
    }

    /// `OTEL_SERVICE_NAME` goes before a `service.name` among the attributes, and both before the program's own name.
    fn resource(&self, program: &str) -> Vec<(String, String)> {
        let named = |name: &str| vec![("service.name".to_owned(), name.to_owned())];
        let mut resource = named(program);
        resource.extend(self.resource.iter().cloned());
        resource.extend(self.service_name.iter().flat_map(|name| named(name)));
        resource
    }
}

/// Reads the collector. What is wrong with it is told in words that repeat nothing: it might hold a password.
fn read_collector(values: &mut Values) -> Option<Option<CollectorSettings>> {
    let setting = table::OTEL_EXPORTER_OTLP_ENDPOINT;
    let parsed = values.optional(setting, |text| Ok::<_, Infallible>(text.parse::<Endpoint>()));
    let endpoint = parsed.and_then(|parsed| {
        parsed.transpose().map_err(|error| values.mistake(setting, &format!("is wrong: {error}"))).ok()
    });
    let headers = values.optional_discreet(table::OTEL_EXPORTER_OTLP_HEADERS, variables::headers);
    let protocol = values.optional_discreet(table::OTEL_EXPORTER_OTLP_PROTOCOL, variables::protocol);
    let certificate = |text: &str| {
        let file = parse::path(text).map_err(|error| error.to_string())?;
        certificate::read(&file).map_err(|error| chain(&error))
    };
    let roots = values.optional(table::OTEL_EXPORTER_OTLP_CERTIFICATE, certificate);
    let (endpoint, headers, _, roots) = (endpoint?, headers?.unwrap_or_default(), protocol?, roots?);
    Some(endpoint.map(|endpoint| CollectorSettings { endpoint, headers, roots }))
}

fn read_sampling(values: &mut Values) -> Option<Sampling> {
    let kind = values.optional_discreet(table::OTEL_TRACES_SAMPLER, variables::sampler_kind);
    let ratio = values.optional_discreet(table::OTEL_TRACES_SAMPLER_ARG, variables::ratio);
    let default = Sampling::default();
    Some(Sampling { kind: kind?.unwrap_or(default.kind), ratio: ratio?.unwrap_or(default.ratio) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)]) -> Result<TraceSettings, String> {
        let mut values = Values::load(settings.iter().copied(), None);
        let read = TraceSettings::read(&mut values);
        values.finish(read).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn nothing_set_is_nothing_exported() {
        assert!(read(&[]).unwrap().collector.is_none());
        assert!(read(&[("OTEL_SERVICE_NAME", "edge")]).unwrap().collector.is_none());
    }

    #[test]
    fn a_mistake_is_named_and_its_secret_is_not() {
        let text = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hidden@collector:4318")]).unwrap_err();
        assert!(text.contains("OTEL_EXPORTER_OTLP_ENDPOINT: is wrong: only scheme, host"), "{text}");
        assert!(text.contains("expected http://host:4318") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let text = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team"),
        ])
        .unwrap_err();
        for mistake in [
            "OTEL_EXPORTER_OTLP_HEADERS: is wrong: pair 1 is not name=value; expected",
            "OTEL_EXPORTER_OTLP_PROTOCOL: is not spoken here: OTLP goes over HTTP in protobuf; expected http/protobuf",
            "OTEL_EXPORTER_OTLP_CERTIFICATE: ",
            "OTEL_TRACES_SAMPLER: is no sampler that is known here; expected always_on, always_off,",
            "OTEL_TRACES_SAMPLER_ARG: is no ratio from 0 to 1; expected",
            "OTEL_RESOURCE_ATTRIBUTES: is wrong: pair 1 is not name=value; expected",
        ] {
            assert!(text.contains(mistake), "{mistake} is not in {text}");
        }
    }

    #[test]
    fn the_service_is_called_by_the_most_particular_name() {
        let name = |settings: &[(&str, &str)]| {
            let resource = read(settings).unwrap().resource("gateway");
            resource.into_iter().rfind(|(name, _)| name == "service.name").unwrap().1
        };
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=edge,team=blue");
        assert_eq!(name(&[]), "gateway");
        assert_eq!(name(&[attributes]), "edge");
        assert_eq!(name(&[attributes, ("OTEL_SERVICE_NAME", "front")]), "front");
    }
}
