//! Puts the call into a trace (W3C Trace Context), exports its span when that is wanted, and says in the log how it went.

use std::convert::Infallible;
use std::time::Instant;

use goldleaves_domain::{RequestId, TraceContext};
use goldleaves_trace::{Tracer, web};
use http::{HeaderMap, Method};

use super::{After, Answer, Inward, Step};
use crate::call::{Identified, Traced};
use crate::error::HttpStatus;
use crate::names::TRACESTATE;
use crate::spans::{CallTrace, ServerSpan};

/// The most members a `tracestate` may have (W3C Trace Context, 3.3.1.1).
const TRACESTATE_MEMBERS_MAX: usize = 32;

/// The layer that continues a valid `traceparent` or starts a trace.
#[derive(Debug)]
pub(crate) struct Trace(pub(crate) Tracer);

/// The work that is left to do: a call that is neither exported nor logged costs nothing here.
pub(crate) struct Told {
    span: Option<ServerSpan>,
    /// One line per call, at level debug only.
    line: Option<Box<AccessLine>>,
}

struct AccessLine {
    request_id: RequestId,
    method: Method,
    arrived: Instant,
}

impl Step<Identified> for Trace {
    type Out = Traced;
    type After = Told;
    type Error = Infallible;

    fn inward(&self, call: Identified) -> Inward<Traced, Told, Infallible> {
        let Identified { mut request, facts } = call;
        let parent = parent(request.headers_mut());
        let (trace, span) = CallTrace::begin(&self.0, parent, &request, &facts);
        let line = tracing::enabled!(tracing::Level::DEBUG).then(|| {
            Box::new(AccessLine {
                request_id: facts.request_id.clone(),
                method: request.method().clone(),
                arrived: facts.arrived,
            })
        });
        Inward::On(Traced { request, facts, trace, place: None }, Told { span, line })
    }
}

impl<E> After<E> for Told {
    fn outward(self, answer: Answer<E>) -> Answer<E> {
        let response = answer?;
        if let Some(call) = self.line {
            tracing::debug!(
                request_id = %call.request_id,
                method = %call.method,
                status = HttpStatus::of(&response).as_u16(),
                head_micros = u64::try_from(call.arrived.elapsed().as_micros()).unwrap_or(u64::MAX),
                "a request was answered"
            );
        }
        Ok(match self.span {
            Some(span) => span.answered(response),
            None => response,
        })
    }
}

/// The client's span. A `tracestate` without a trace means nothing and goes, and so does one that cannot be parsed.
fn parent(headers: &mut HeaderMap) -> Option<TraceContext> {
    let parent = web::parent(headers);
    if headers.contains_key(TRACESTATE) && (parent.is_none() || !is_tracestate(headers)) {
        headers.remove(TRACESTATE);
    }
    parent
}

/// Returns whether the list of all lines is a `tracestate` (W3C Trace Context, 3.3.1).
fn is_tracestate(headers: &HeaderMap) -> bool {
    let mut count = 0_usize;
    headers.get_all(TRACESTATE).iter().all(|line| {
        line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()).all(
            |member| {
                count += 1;
                count <= TRACESTATE_MEMBERS_MAX && is_tracestate_member(member)
            },
        )
    })
}

fn is_tracestate_member(member: &[u8]) -> bool {
    let Some(at) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = member.split_at(at);
    let value = value.get(1..).unwrap_or_default();
    is_tracestate_key(key)
        && (1..=256).contains(&value.len())
        && value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'='))
}

/// A simple key, or a tenant and a system around one `@`.
fn is_tracestate_key(key: &[u8]) -> bool {
    let legal = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(byte);
    let named = |part: &[u8], most: usize| (1..=most).contains(&part.len()) && part.iter().all(legal);
    let starts_with_letter = |part: &[u8]| part.first().is_some_and(u8::is_ascii_lowercase);
    let starts_with_either = |part: &[u8]| part.first().is_some_and(u8::is_ascii_alphanumeric);
    match key.iter().position(|byte| *byte == b'@') {
        None => starts_with_letter(key) && named(key, 256),
        Some(at) => {
            let (tenant, system) = key.split_at(at);
            let system = system.get(1..).unwrap_or_default();
            starts_with_either(tenant) && named(tenant, 241) && starts_with_letter(system) && named(system, 14)
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::names::TRACEPARENT;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn sent(values: &[&'static str]) -> (Option<String>, bool) {
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_static(value));
        }
        (parent(&mut headers).map(|parent| parent.to_string()), headers.contains_key(TRACESTATE))
    }

    #[test]
    fn one_valid_trace_goes_on_with_its_state() {
        assert_eq!(sent(&[PARENT]), (Some(PARENT.to_owned()), true));
    }

    /// Each list is one of the specification's own test suite, or of its text.
    #[test]
    fn only_a_tracestate_that_can_be_parsed_goes_on() {
        let long = format!("{}=1", "z".repeat(256));
        let too_long = format!("{}=1", "z".repeat(257));
        let vendor = format!("{}@{}=1", "t".repeat(241), "v".repeat(14));
        let many = (0..32).map(|index| format!("bar{index:02}={index:02}")).collect::<Vec<_>>().join(",");
        let too_many = format!("{many},bar32=32");
        for (state, is_kept) in [
            ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", true),
            ("foo=1 \t , \t bar=2, \t baz=3", true),
            ("foo=1,", true),
            ("a-b_c*d/e=!\"#$%&'()*+-./0:;<>?@A[\\]^_`a{|}~", true),
            ("fw529a3039@dt=FfFf", true),
            (&long, true),
            (&vendor, true),
            (&many, true),
            ("foo", false),
            ("foo=", false),
            ("=1", false),
            ("foo =1", false),
            ("FOO=1", false),
            ("foo.bar=1", false),
            ("foo@=1,bar=2", false),
            ("@foo=1", false),
            ("foo@@bar=1", false),
            ("foo@bar@baz=1", false),
            ("foo=bar=baz", false),
            ("foo=1;bar=2", false),
            (&too_long, false),
            (&too_many, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
            headers.insert(TRACESTATE, HeaderValue::from_str(state).unwrap());
            assert!(parent(&mut headers).is_some());
            assert_eq!(headers.contains_key(TRACESTATE), is_kept, "{state}");
        }
    }

    #[test]
    fn anything_else_starts_one() {
        for bad in [&[][..], &[""], &["00-4bf92f3577b34da6a3ce929d0e0e4736"], &[PARENT, PARENT]] {
            assert_eq!(sent(bad), (None, false), "{bad:?}");
        }
    }
}
