//! Puts the call into a trace (W3C Trace Context), exports its span when that is wanted, and says in the log how it went.

use std::convert::Infallible;
use std::time::Instant;

use goldleaves_domain::{RequestId, TraceContext};
use goldleaves_trace::{Tracer, web};
use http::{HeaderMap, Method};

use super::{After, Answer, Inward, Step};
use crate::call::{Identified, Traced};
use crate::names::TRACESTATE;
use crate::spans::{CallTrace, ServerSpan};

/// The layer that continues a valid `traceparent` or starts a trace.
#[derive(Debug)]
pub(crate) struct Trace(pub(crate) Tracer);

/// What is left to do: a call that is neither exported nor logged costs nothing here.
pub(crate) struct Told {
    span: Option<ServerSpan>,
    /// One line a call, at level debug only.
    line: Option<Box<Line>>,
}

struct Line {
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
        let (trace, span) = CallTrace::begin(&self.0, parent, (&request, &facts));
        let line = tracing::enabled!(tracing::Level::DEBUG).then(|| {
            Box::new(Line {
                request_id: facts.request_id.clone(),
                method: request.method().clone(),
                arrived: facts.arrived,
            })
        });
        Inward::On(Traced { request, facts, trace }, Told { span, line })
    }
}

impl<E> After<E> for Told {
    fn outward(self, answer: Answer<E>) -> Answer<E> {
        let response = answer?;
        if let Some(call) = self.line {
            tracing::debug!(
                request_id = %call.request_id,
                method = %call.method,
                status = response.status().as_u16(),
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

/// The client's span; a `tracestate` without a trace means nothing and goes.
fn parent(headers: &mut HeaderMap) -> Option<TraceContext> {
    let parent = web::parent(headers);
    if parent.is_none() {
        headers.remove(TRACESTATE);
    }
    parent
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

    #[test]
    fn anything_else_starts_one() {
        for bad in [&[][..], &[""], &["00-4bf92f3577b34da6a3ce929d0e0e4736"], &[PARENT, PARENT]] {
            assert_eq!(sent(bad), (None, false), "{bad:?}");
        }
    }
}
