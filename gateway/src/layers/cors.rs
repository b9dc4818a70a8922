//! Cross-origin rules of `ALLOWED_ORIGINS`. Preflights are answered here; they carry no token and are never billed.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use goldleaves_web::WebBody;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;

use super::{After, Answer, Inward, Step};
use crate::call::Traced;
use crate::error::Failure;
use crate::metrics::{CoreMetrics, RequestClass};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
/// The headers that pages may always read, whatever the upstream says.
const EXPOSED: &str = "X-Request-ID, X-Usage-Event-ID, Retry-After, WWW-Authenticate, RateLimit, RateLimit-Policy";
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");
const VARIES: HeaderValue = HeaderValue::from_static("Origin");

/// The origins whose pages may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// `*`: all, without credentials.
    Any,
    /// These.
    Only(HashSet<HeaderValue>),
}

/// A text that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin such as https://app.example.com")]
pub struct OriginsError(String);

impl FromStr for AllowedOrigins {
    type Err = OriginsError;

    /// Origins separated by commas, or `*`.
    fn from_str(list: &str) -> Result<Self, OriginsError> {
        let words: Vec<&str> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        if words == ["*"] {
            return Ok(Self::Any);
        }
        let origin = |word: &str| {
            let host = word.strip_prefix("http://").or_else(|| word.strip_prefix("https://")).unwrap_or_default();
            let legal = !host.is_empty() && !host.contains(['/', '*', '?', '#', '@', ' ']);
            let value = legal.then(|| HeaderValue::from_str(&word.to_ascii_lowercase()).ok()).flatten();
            value.ok_or_else(|| OriginsError(word.to_owned()))
        };
        if words.is_empty() {
            return Err(OriginsError(list.to_owned()));
        }
        words.into_iter().map(origin).collect::<Result<_, _>>().map(Self::Only)
    }
}

impl AllowedOrigins {
    fn allows(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Any => true,
            Self::Only(origins) => origins.contains(origin),
        }
    }
}

/// Names of headers that pages may read, beside the gateway's own and those the upstream lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposedHeaders(String);

/// A text that is no name of a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no header name such as X-Total-Count")]
pub struct ExposedError(String);

impl FromStr for ExposedHeaders {
    type Err = ExposedError;

    /// Names separated by commas.
    fn from_str(list: &str) -> Result<Self, ExposedError> {
        let words: Vec<&str> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        let wrong = words.iter().find(|word| HeaderName::try_from(**word).is_err());
        match wrong {
            Some(word) => Err(ExposedError((*word).to_owned())),
            None if words.is_empty() => Err(ExposedError(list.to_owned())),
            None => Ok(Self(words.join(", "))),
        }
    }
}

/// The rules of `ALLOWED_ORIGINS` and `CORS_EXPOSE_HEADERS`.
#[derive(Debug)]
pub(crate) struct CorsRules {
    origins: Arc<AllowedOrigins>,
    exposed: HeaderValue,
}

impl CorsRules {
    pub(crate) fn new(origins: Arc<AllowedOrigins>, further: Option<&ExposedHeaders>) -> Self {
        let exposed = match further {
            Some(ExposedHeaders(names)) => HeaderValue::try_from(format!("{EXPOSED}, {names}")),
            None => Ok(HeaderValue::from_static(EXPOSED)),
        };
        // Names of headers are legal in a header's value.
        Self { origins, exposed: exposed.unwrap_or(HeaderValue::from_static(EXPOSED)) }
    }
}

/// The layer; without rules it does nothing.
#[derive(Debug)]
pub(crate) struct Cors {
    pub(crate) rules: Option<Arc<CorsRules>>,
    pub(crate) metrics: Arc<CoreMetrics>,
}

/// The permission that an answer gives to browsers.
pub(crate) enum CorsPermission {
    /// CORS is off: what the upstream says stands.
    Off,
    /// CORS is on, but this is no request of an allowed origin.
    Nobody,
    /// This origin may read the answer.
    With { origin: HeaderValue, rules: Arc<CorsRules> },
}

impl Step<Traced> for Cors {
    type Out = Traced;
    type After = CorsPermission;
    type Error = Failure;

    fn inward(&self, call: Traced) -> Inward<Traced, CorsPermission, Failure> {
        let Some(rules) = &self.rules else { return Inward::On(call, CorsPermission::Off) };
        let shared = match call.request.headers().get(ORIGIN) {
            Some(origin) if rules.origins.allows(origin) => {
                CorsPermission::With { origin: origin.clone(), rules: Arc::clone(rules) }
            }
            _ => CorsPermission::Nobody,
        };
        if is_preflight(&call.request) {
            self.metrics.request(RequestClass::Preflight, StatusCode::NO_CONTENT);
            call.trace.matched(RequestClass::Preflight, None);
            return Inward::Answered(preflight(call.request.headers(), &shared));
        }
        Inward::On(call, shared)
    }
}

impl After<Failure> for CorsPermission {
    fn outward(self, mut answer: Answer<Failure>) -> Answer<Failure> {
        match &mut answer {
            Ok(response) => self.apply(response.headers_mut()),
            Err(failure) => self.apply(&mut failure.headers),
        }
        answer
    }
}

impl CorsPermission {
    /// The gateway's word replaces the upstream's: two would contradict each other.
    fn apply(&self, headers: &mut HeaderMap) {
        if matches!(self, Self::Off) {
            return;
        }
        let exposed: Vec<HeaderValue> = headers.get_all(ACCESS_CONTROL_EXPOSE_HEADERS).iter().cloned().collect();
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_HEADERS,
            ACCESS_CONTROL_MAX_AGE,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            headers.remove(name);
        }
        headers.append(VARY, VARIES);
        let Self::With { origin, rules } = self else { return };
        if *rules.origins == AllowedOrigins::Any {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, rules.exposed.clone());
        for list in exposed {
            headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, list);
        }
    }
}

/// A browser's question before its request. It has neither a token nor a body.
pub(crate) fn is_preflight(request: &Request<WebBody>) -> bool {
    request.method() == Method::OPTIONS
        && request.body().is_end_stream()
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight(asked: &HeaderMap, shared: &CorsPermission) -> Response<WebBody> {
    let mut response = Response::new(WebBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    shared.apply(headers);
    if let CorsPermission::With { .. } = shared {
        headers.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
        if let Some(wanted) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_names_are_header_names() {
        let two: ExposedHeaders = " X-Total-Count ,etag".parse().unwrap();
        assert_eq!(two, ExposedHeaders("X-Total-Count, etag".to_owned()));
        for bad in ["", ",", "a b", "x:y", "*,\"a\""] {
            assert!(bad.parse::<ExposedHeaders>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn origins_are_scheme_and_host() {
        assert_eq!("*".parse::<AllowedOrigins>().unwrap(), AllowedOrigins::Any);
        let two: AllowedOrigins = " https://A.example , http://b:8080".parse().unwrap();
        assert!(two.allows(&HeaderValue::from_static("https://a.example")));
        assert!(two.allows(&HeaderValue::from_static("http://b:8080")));
        assert!(!two.allows(&HeaderValue::from_static("https://b:8080")));
        for bad in ["", ",", "a.example", "https://", "https://a/", "https://*.a", "*,https://a"] {
            assert!(bad.parse::<AllowedOrigins>().is_err(), "{bad:?}");
        }
    }
}
