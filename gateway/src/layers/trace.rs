//! Puts the call into a trace (W3C Trace Context) and says in the log how it went.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Instant;

use goldleaves_domain::RequestId;
use http::{HeaderMap, HeaderValue, Method};

use super::{After, Answer, Inward, Step};
use crate::call::{Identified, Traced};
use crate::names::{TRACEPARENT, TRACESTATE};

/// The layer that continues a valid `traceparent` or starts a trace.
#[derive(Debug)]
pub(crate) struct Trace;

/// One line a call, at level debug only: at the default level a call costs nothing here.
pub(crate) struct Told(Option<Box<Call>>);

struct Call {
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
        let traceparent = continue_or_start(request.headers_mut());
        let told = tracing::enabled!(tracing::Level::DEBUG).then(|| {
            Box::new(Call {
                request_id: facts.request_id.clone(),
                method: request.method().clone(),
                arrived: facts.arrived,
            })
        });
        Inward::On(Traced { request, facts, traceparent }, Told(told))
    }
}

impl<E> After<E> for Told {
    fn outward(self, answer: Answer<E>) -> Answer<E> {
        if let (Some(call), Ok(response)) = (self.0, &answer) {
            tracing::debug!(
                request_id = %call.request_id,
                method = %call.method,
                status = response.status().as_u16(),
                head_micros = u64::try_from(call.arrived.elapsed().as_micros()).unwrap_or(u64::MAX),
                "a request was answered"
            );
        }
        answer
    }
}

/// The `traceparent` of this gateway's own span; a `tracestate` without a trace means nothing and goes.
fn continue_or_start(headers: &mut HeaderMap) -> HeaderValue {
    let (trace, flags) = match valid_parent(headers) {
        Some(parent) => parent,
        None => {
            headers.remove(TRACESTATE);
            (rand::random::<u128>().max(1), 1)
        }
    };
    let mut text = String::with_capacity(55);
    // Writing to a string does not fail.
    let _ = write!(text, "00-{trace:032x}-{:016x}-{flags:02x}", rand::random::<u64>().max(1));
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

/// Trace id and flags of the only `traceparent`, when it is valid.
fn valid_parent(headers: &HeaderMap) -> Option<(u128, u8)> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let text = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let mut parts = text.splitn(5, '-');
    let version = hex(parts.next()?, 2)?;
    let trace = hex(parts.next()?, 32)?;
    let span = hex(parts.next()?, 16)?;
    let flags = hex(parts.next()?, 2)?;
    // Only later versions may say more.
    let legal = version != 0xff && (version > 0 || parts.next().is_none()) && trace != 0 && span != 0;
    legal.then_some((trace, u8::try_from(flags).ok()? & 1))
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(lower)).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(values: &[&'static str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_static(value));
        }
        let traceparent = continue_or_start(&mut headers);
        (traceparent.to_str().unwrap().to_owned(), headers.contains_key(TRACESTATE))
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_valid_trace_goes_on_with_a_span_of_our_own() {
        for parent in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later-versions-say-more",
        ] {
            let (text, state) = sent(&[parent]);
            assert!(text.starts_with(&format!("00-{TRACE}-")) && text.ends_with("-01") && state, "{text}");
            assert!(!text.contains("00f067aa0ba902b7"), "{text}");
            assert_eq!(text.len(), 55);
        }
        assert!(sent(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"]).0.ends_with("-00"));
    }

    #[test]
    fn anything_else_starts_one() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for bad in [
            &[][..],
            &[""][..],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"],
            &["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            &["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"],
            &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"],
            &[parent, parent],
        ] {
            let (text, state) = sent(bad);
            assert!(!text.contains(TRACE) && text.len() == 55 && !state, "{bad:?} gave {text}");
        }
    }
}
