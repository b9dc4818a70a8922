//! The meaning of an answer to a meter event for the row that was sent.

use std::time::Duration;

use goldleaves_https::{Answer, CallError};
use goldleaves_runtime::process;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

/// The longest text of Stripe's that is kept.
const MESSAGE_CHARS_MAX: usize = 500;
/// The longest pause that Stripe may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(900);

/// The fate of a meter event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Stripe has it: 2xx, also where the body can't be read.
    Taken,
    /// Stripe has had it: an event with this identifier is there.
    Duplicate,
    /// Nothing was sent.
    NotConnected(String),
    /// It may be there: nothing was answered.
    Unanswered(String),
    /// It was refused for now; the answer is replayed under the same key.
    Later {
        /// The text of the refusal.
        error: Refused,
        /// The time for which Stripe wants to be left alone.
        pause: Option<Duration>,
        /// 429.
        is_limited: bool,
    },
    /// No event of this lane is taken, or of no lane.
    Blocked(Block, Refused),
    /// This event will never be taken.
    Refused(Refused),
}

/// The reason no event of a lane is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Block {
    /// There is no such customer.
    NoCustomer,
    /// No active meter has this event's name.
    NoMeter,
    /// The key is not valid, or may not do this: true of every lane.
    Key,
}

/// Stripe's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// `code`, else `type`.
    pub code: String,
    /// `message`.
    pub message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {}: {}", self.status, self.code, self.message)
    }
}

#[derive(Debug, Deserialize)]
struct Envelope {
    error: Option<Body>,
}

#[derive(Debug, Default, Deserialize)]
struct Body {
    code: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    message: Option<String>,
    param: Option<String>,
}

impl Sent {
    pub(crate) fn of(outcome: Result<Answer, CallError>) -> Self {
        match outcome {
            Ok(answer) => Self::of_answer(&answer),
            Err(error) if error.is_before_sending() => Self::NotConnected(process::chain(&error)),
            Err(error) => match error.status() {
                Some(status) if status.is_success() => Self::Taken,
                // The head was the answer, and is replayed under the same key.
                Some(status) => {
                    Self::of_answer(&Answer { status, headers: HeaderMap::new(), body: bytes::Bytes::new() })
                }
                None => Self::Unanswered(process::chain(&error)),
            },
        }
    }

    fn of_answer(answer: &Answer) -> Self {
        if answer.status.is_success() {
            return Self::Taken;
        }
        let body = body(answer);
        let message = body.message.clone().unwrap_or_default().to_lowercase();
        let code = body.code.as_deref().unwrap_or_default();
        let refused = refused(answer.status, &body);
        let is_duplicate = code == "duplicate_meter_event" || message.contains("already exists with identifier");
        let should_retry = answer.headers.get("stripe-should-retry").and_then(|value| value.to_str().ok());
        match answer.status.as_u16() {
            400 if is_duplicate => Self::Duplicate,
            401 | 403 => Self::Blocked(Block::Key, refused),
            400 | 404 if is_about_customer(&body, &message) => Self::Blocked(Block::NoCustomer, refused),
            400 | 404 if is_about_meter(code, &message) => Self::Blocked(Block::NoMeter, refused),
            409 | 429 | 500..=599 => later(answer, refused, should_retry == Some("false")),
            _ if should_retry == Some("true") => later(answer, refused, false),
            400..=499 => Self::Refused(refused),
            // No answer of Stripe's: something on the way redirects.
            _ => later(answer, refused, false),
        }
    }
}

fn later(answer: &Answer, error: Refused, should_wait: bool) -> Sent {
    let asked = retry_after(&answer.headers);
    let pause = if should_wait { Some(RETRY_AFTER_MAX) } else { asked };
    Sent::Later { error, pause, is_limited: answer.status == StatusCode::TOO_MANY_REQUESTS }
}

fn is_about_customer(body: &Body, message: &str) -> bool {
    message.contains("no such customer")
        || (body.code.as_deref() == Some("resource_missing")
            && body.param.as_deref().is_some_and(|param| param.contains("customer")))
}

fn is_about_meter(code: &str, message: &str) -> bool {
    matches!(code, "no_meter" | "archived_meter" | "billing_meter_not_active" | "no_meter_found")
        || message.contains("no active meter")
        || message.contains("no such meter")
        || message.contains("no meter found")
}

fn body(answer: &Answer) -> Body {
    let envelope: Option<Envelope> = serde_json::from_slice(&answer.body).ok();
    envelope.and_then(|envelope| envelope.error).unwrap_or_default()
}

fn refused(status: StatusCode, body: &Body) -> Refused {
    let code = body.code.clone().or_else(|| body.kind.clone()).unwrap_or_else(|| "unreadable".to_owned());
    let message = body.message.as_deref().unwrap_or("an answer without Stripe's words");
    let message = message.chars().filter(|char| !char.is_control()).take(MESSAGE_CHARS_MAX).collect();
    Refused { status: status.as_u16(), code, message }
}

pub(crate) fn refusal(answer: &Answer) -> Refused {
    refused(answer.status, &body(answer))
}

/// A `Retry-After` in seconds; as a date it is not read.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Sent {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        Sent::of(Ok(Answer { status, headers: map, body: body.to_owned().into() }))
    }

    fn error(code: &str, message: &str) -> String {
        format!(r#"{{"error":{{"type":"invalid_request_error","code":"{code}","message":"{message}"}}}}"#)
    }

    #[test]
    fn every_answer_has_its_meaning() {
        assert_eq!(sent(200, &[], "{}"), Sent::Taken);
        assert_eq!(sent(200, &[], "<html>"), Sent::Taken);
        assert_eq!(sent(400, &[], &error("", "An event already exists with identifier gl1-0.")), Sent::Duplicate);
        assert_eq!(sent(400, &[], &error("duplicate_meter_event", "")), Sent::Duplicate);
        // Only 400 says so.
        assert!(matches!(sent(409, &[], &error("duplicate_meter_event", "")), Sent::Later { .. }));
        for status in [401, 403] {
            assert!(matches!(sent(status, &[], "{}"), Sent::Blocked(Block::Key, _)));
        }
        let customer = error("resource_missing", "No such customer: 'cus_1'");
        assert!(matches!(sent(400, &[], &customer), Sent::Blocked(Block::NoCustomer, _)));
        let meter = error("", "No active meter found for event name x");
        assert!(matches!(sent(400, &[], &meter), Sent::Blocked(Block::NoMeter, _)));
        for status in [400, 402, 404, 422] {
            assert!(matches!(sent(status, &[], &error("x", "y")), Sent::Refused(_)), "{status}");
        }
        for status in [302, 409, 429, 500, 502, 503] {
            assert!(matches!(sent(status, &[], ""), Sent::Later { .. }), "{status}");
        }
    }

    #[test]
    fn what_stripe_asks_for_is_heard() {
        let pause = |sent| match sent {
            Sent::Later { pause, is_limited, .. } => (pause.map(|pause: Duration| pause.as_secs()), is_limited),
            other => panic!("{other:?}"),
        };
        assert_eq!(pause(sent(429, &[("retry-after", "7")], "")), (Some(7), true));
        assert_eq!(pause(sent(503, &[("retry-after", "99999")], "")), (Some(900), false));
        assert_eq!(pause(sent(500, &[("stripe-should-retry", "false")], "")), (Some(900), false));
        assert_eq!(pause(sent(422, &[("stripe-should-retry", "true")], "")), (None, false));
    }
}
