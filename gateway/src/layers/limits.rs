//! Refuses what is too much, and heads that two servers could read in two ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use goldleaves_web::WebBody;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, UPGRADE};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Version};

use super::{After, Answer, Inward, Step};
use crate::call::Traced;
use crate::error::{Failure, GatewayError};
use crate::headers::{has_blank_ends, has_foreign_coding};
use crate::host::is_host_and_port;
use crate::metrics::{CoreMetrics, RequestClass};
use crate::via::Via;

/// The longest method served; the longest registered one has 17 characters.
const METHOD_BYTES_MAX: usize = 32;

/// The methods that are forwarded; `TRACE` would show a client what the gateway says to the upstream.
pub(super) const SERVED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The limits of a request and of a core.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitsOptions {
    pub(crate) header_bytes_max: usize,
    pub(crate) header_fields_max: usize,
    pub(crate) body_bytes_max: u64,
    /// Requests of one core that wait for an answer's head at once.
    pub(crate) waiting_max: usize,
}

/// The layer.
#[derive(Debug)]
pub(crate) struct Limits {
    options: LimitsOptions,
    via: Via,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<CoreMetrics>,
}

impl Limits {
    pub(crate) fn new(options: LimitsOptions, via: Via, metrics: Arc<CoreMetrics>) -> Self {
        Self { options, via, waiting: Arc::default(), metrics }
    }

    fn check(&self, request: &mut Request<WebBody>) -> Result<(), GatewayError> {
        if *request.method() == Method::CONNECT {
            return Err(GatewayError::Connect);
        }
        if *request.method() == Method::TRACE {
            return Err(GatewayError::MethodNotAllowed { allowed: SERVED_METHODS.into() });
        }
        if request.method().as_str().len() > METHOD_BYTES_MAX {
            return Err(GatewayError::Method);
        }
        if request.uri().scheme().is_some_and(is_foreign) {
            return Err(GatewayError::Scheme);
        }
        let bytes_max = self.options.header_bytes_max;
        if head_bytes(request) > bytes_max {
            return Err(GatewayError::HeaderTooLarge { bytes_max });
        }
        let fields_max = self.options.header_fields_max;
        if request.headers().len() > fields_max {
            return Err(GatewayError::HeaderFields { fields_max });
        }
        if request.version() == Version::HTTP_2 && has_blank_ends(request.headers()) {
            return Err(GatewayError::HeaderBlanks);
        }
        if is_expectation_unknown(request.headers()) {
            return Err(GatewayError::Expectation);
        }
        if mentions_h2c(request.headers()) {
            return Err(GatewayError::UpgradeRefused);
        }
        if self.via.was_here(request.headers()) {
            return Err(GatewayError::Loop);
        }
        if has_foreign_coding(request.headers()) {
            return Err(GatewayError::TransferCoding);
        }
        let bytes_max = self.options.body_bytes_max;
        if announced_length(request.headers()).is_some_and(|length| length > bytes_max) {
            return Err(GatewayError::BodyTooLarge { bytes_max });
        }
        settle_host(request)
    }
}

/// Decrements the number of waiting requests when dropped.
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Step<Traced> for Limits {
    type Out = Traced;
    type After = Waiting;
    type Error = Failure;

    fn inward(&self, mut call: Traced) -> Inward<Traced, Waiting, Failure> {
        let waiting = Waiting(Arc::clone(&self.waiting));
        let checked = if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.options.waiting_max {
            Err(GatewayError::Overloaded)
        } else {
            self.check(&mut call.request)
        };
        match checked {
            Ok(()) => Inward::On(call, waiting),
            Err(error) => {
                self.metrics.request(RequestClass::Refused, error.status());
                Inward::Refused(error.into())
            }
        }
    }
}

impl After<Failure> for Waiting {
    fn outward(self, answer: Answer<Failure>) -> Answer<Failure> {
        answer
    }
}

/// Nothing else is served; which of the two it is, is said by whoever takes the connection.
fn is_foreign(scheme: &Scheme) -> bool {
    !["http", "https"].iter().any(|served| scheme.as_str().eq_ignore_ascii_case(served))
}

fn head_bytes(request: &Request<WebBody>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() + target
}

pub(super) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The one expectation there is (RFC 9110, 10.1.1), in every field of that name.
fn is_expectation_unknown(headers: &HeaderMap) -> bool {
    let known = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"100-continue");
    !headers.get_all(EXPECT).iter().all(known)
}

/// An upgrade to HTTP/2 would put requests into a tunnel that nobody meters.
fn mentions_h2c(headers: &HeaderMap) -> bool {
    let mentions = |value: &HeaderValue| value.as_bytes().windows(3).any(|word| word.eq_ignore_ascii_case(b"h2c"));
    headers.get_all(UPGRADE).iter().any(mentions)
}

/// There is one host. In HTTP/1.1 the target's own (absolute form) wins (RFC 9112, 3.2.2); in HTTP/2 `:authority` and a
/// `host` that differ are malformed (RFC 9113, 8.3.1), and with neither or an empty one the target is a URI without a host, which is
/// to be refused (RFC 9110, 4.2.1).
fn settle_host(request: &mut Request<WebBody>) -> Result<(), GatewayError> {
    if request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Err(GatewayError::Host);
    }
    if let Some(authority) = request.uri().authority() {
        let text = authority.as_str();
        let value = HeaderValue::from_str(text).map_err(|_| GatewayError::Host)?;
        let said = request.headers().get(HOST);
        let differs = |host: &HeaderValue| !host.as_bytes().eq_ignore_ascii_case(text.as_bytes());
        if text.contains('@') || (request.version() == Version::HTTP_2 && said.is_some_and(differs)) {
            return Err(GatewayError::Host);
        }
        request.headers_mut().insert(HOST, value);
    }
    match (request.version(), request.headers().get(HOST)) {
        (Version::HTTP_11 | Version::HTTP_2, None) => Err(GatewayError::Host),
        (Version::HTTP_2, Some(host)) if host.is_empty() => Err(GatewayError::Host),
        (_, Some(host)) if !is_host_and_port(host.as_bytes()) => Err(GatewayError::Host),
        _ => Ok(()),
    }
}
