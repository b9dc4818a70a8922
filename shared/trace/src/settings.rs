//! What a program is told about traces, and how their export starts.

use std::convert::Infallible;

use goldleaves_runtime::Metrics;
use goldleaves_runtime::settings::{Values, parse, table};

use crate::export::{self, Exporting};
use crate::metrics::TraceMetrics;
use crate::{Endpoint, Tracer};

/// `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_SERVICE_NAME`.
#[derive(Debug, Clone, Default)]
pub struct TraceSettings {
    endpoint: Option<Endpoint>,
    service_name: Option<String>,
}

impl TraceSettings {
    /// Reads them; `None` when there was a mistake, which `values` holds then.
    pub fn read(values: &mut Values) -> Option<Self> {
        let endpoint = read_endpoint(values);
        let service_name = values.optional(table::OTEL_SERVICE_NAME, parse::text);
        Some(Self { endpoint: endpoint?, service_name: service_name? })
    }

    /// Starts exporting the spans of `program`, when there is somewhere to export them to.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(&self, program: &str, metrics: &Metrics) -> (Tracer, Exporting) {
        let metrics = TraceMetrics::register(metrics);
        let Some(endpoint) = &self.endpoint else { return (Tracer::off(), Exporting::nothing()) };
        tracing::info!("traces go to {endpoint}");
        let service_name = self.service_name.clone().unwrap_or_else(|| program.to_owned());
        export::start(endpoint.clone(), service_name, metrics)
    }
}

/// What is wrong with it is told in words that repeat nothing: it might hold a password.
fn read_endpoint(values: &mut Values) -> Option<Option<Endpoint>> {
    let setting = table::OTEL_EXPORTER_OTLP_ENDPOINT;
    let parsed = values.optional(setting, |text| Ok::<_, Infallible>(text.parse::<Endpoint>()))?;
    parsed.transpose().map_err(|error| values.mistake(setting, &format!("is wrong: {error}"))).ok()
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
        assert!(read(&[]).unwrap().endpoint.is_none());
        assert!(read(&[("OTEL_SERVICE_NAME", "edge")]).unwrap().endpoint.is_none());
    }

    #[test]
    fn a_mistake_is_named_and_its_secret_is_not() {
        let text = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hidden@collector:4318")]).unwrap_err();
        assert!(text.contains("OTEL_EXPORTER_OTLP_ENDPOINT: is wrong: only scheme, host"), "{text}");
        assert!(text.contains("expected http://host:4318") && !text.contains("hidden"), "{text}");
    }
}
