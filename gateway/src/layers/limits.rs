//! Refuses what is too much, and heads that two servers could read in two ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use goldleaves_web::WebBody;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Version};

use super::{After, Answer, Inward, Step};
use crate::call::Traced;
use crate::error::{Failure, GatewayError};
use crate::metrics::{CoreMetrics, RequestClass};
use crate::proxy::has_foreign_coding;

/// The longest method served; the longest registered one has 17 characters.
const METHOD_BYTES_MAX: usize = 32;

/// What is too much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitsOptions {
    pub(crate) header_bytes_max: usize,
    pub(crate) body_bytes_max: u64,
    /// Requests of one core that wait for an answer's head at once.
    pub(crate) waiting_max: usize,
}

/// The layer.
#[derive(Debug)]
pub(crate) struct Limits {
    options: LimitsOptions,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<CoreMetrics>,
}

impl Limits {
    pub(crate) fn new(options: LimitsOptions, metrics: Arc<CoreMetrics>) -> Self {
        Self { options, waiting: Arc::default(), metrics }
    }

    fn check(&self, request: &mut Request<WebBody>) -> Result<(), GatewayError> {
        if *request.method() == Method::CONNECT {
            return Err(GatewayError::Connect);
        }
        if request.method().as_str().len() > METHOD_BYTES_MAX {
            return Err(GatewayError::Method);
        }
        let bytes_max = self.options.header_bytes_max;
        if head_bytes(request) > bytes_max {
            return Err(GatewayError::HeaderTooLarge { bytes_max });
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

/// One request less waits.
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

fn head_bytes(request: &Request<WebBody>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() + target
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// There is one host, and the target's own (absolute form, `:authority`) wins (RFC 9112, 3.2.2).
fn settle_host(request: &mut Request<WebBody>) -> Result<(), GatewayError> {
    if request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Err(GatewayError::Host);
    }
    if let Some(authority) = request.uri().authority() {
        let text = authority.as_str();
        let value = HeaderValue::from_str(text).map_err(|_| GatewayError::Host)?;
        if text.contains('@') {
            return Err(GatewayError::Host);
        }
        request.headers_mut().insert(HOST, value);
    }
    match (request.version(), request.headers().get(HOST)) {
        (Version::HTTP_11, None) => Err(GatewayError::Host),
        (_, Some(host)) if !is_host(host.as_bytes()) => Err(GatewayError::Host),
        _ => Ok(()),
    }
}

/// Only what a host and a port are written with.
fn is_host(host: &[u8]) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte);
    host.iter().all(legal)
}
