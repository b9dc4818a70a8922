//! Where spans go: `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector, the protocol names the path.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use url::Url;

/// The path that OTLP over HTTP adds to a collector's address for traces.
const TRACES_PATH: &str = "/v1/traces";

/// A collector that speaks OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    is_https: bool,
}

/// The reason a text names no collector. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("not a URL such as http://127.0.0.1:4318")]
    Malformed,
    /// A user, a query or a fragment.
    #[error("only scheme, host, port and a path belong here")]
    MoreThanBase,
    /// The path that is added anyway.
    #[error("/v1/traces is added to it: leave that out")]
    TracesPath,
}

impl Endpoint {
    /// Returns whether what is sent is encrypted.
    pub(crate) const fn is_https(&self) -> bool {
        self.is_https
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let url = Url::parse(text.trim()).map_err(|_| EndpointError::Malformed)?;
        let is_https = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(EndpointError::Malformed),
        };
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::MoreThanBase);
        }
        let base = url.as_str().trim_end_matches('/');
        if base.ends_with(TRACES_PATH) {
            return Err(EndpointError::TracesPath);
        }
        let uri = format!("{base}{TRACES_PATH}").parse().map_err(|_| EndpointError::Malformed)?;
        Ok(Self { uri, is_https })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_added() {
        for (text, full) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            (" http://127.0.0.1:4318/ ", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/otlp/", "http://[::1]:4318/otlp/v1/traces"),
            ("http://collector", "http://collector/v1/traces"),
            ("https://collector:4318", "https://collector:4318/v1/traces"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn what_names_no_collector_says_why() {
        for (text, error) in [
            ("", EndpointError::Malformed),
            ("collector:4318", EndpointError::Malformed),
            ("127.0.0.1:4318", EndpointError::Malformed),
            ("http://", EndpointError::Malformed),
            ("http://collector:x", EndpointError::Malformed),
            ("grpc://collector:4317", EndpointError::Malformed),
            ("http://me:secret@collector:4318", EndpointError::MoreThanBase),
            ("http://collector:4318/?key=secret", EndpointError::MoreThanBase),
            ("http://collector:4318/#traces", EndpointError::MoreThanBase),
            ("http://collector:4318/v1/traces", EndpointError::TracesPath),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text:?}");
        }
    }
}
