//! The things read from Stripe: meters, sums of meter events, and what an event of a webhook is about.

use goldleaves_https::{Answer, CallError};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::answer::{Refused, refusal};

/// Beyond this a float holds no whole number for sure.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The reason nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Stripe is away.
    #[error("Stripe did not answer")]
    Away(#[from] CallError),
    /// Stripe refuses.
    #[error("Stripe refused: {0}")]
    Refused(Refused),
    /// An answer that says something else.
    #[error("Stripe's answer can't be read")]
    Unreadable(#[from] serde_json::Error),
    /// An id that no request can name.
    #[error("the request can't be made")]
    Request(#[from] http::Error),
}

impl ReadError {
    /// Returns whether it says that the thing is not there.
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::Refused(Refused { status: 404, .. }))
    }

    /// Returns whether the key is not valid or may not read this.
    pub const fn is_of_the_key(&self) -> bool {
        matches!(self, Self::Refused(Refused { status: 401 | 403, .. }))
    }

    /// Returns whether Stripe was not reached at all.
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }

    /// Returns whether it says that there were too many calls.
    pub const fn is_limited(&self) -> bool {
        matches!(self, Self::Refused(Refused { status: 429, .. }))
    }
}

pub(crate) fn read<T: DeserializeOwned>(outcome: Result<Answer, CallError>) -> Result<T, ReadError> {
    let answer = outcome?;
    if answer.status.is_success() {
        return Ok(serde_json::from_slice(&answer.body)?);
    }
    Err(ReadError::Refused(refusal(&answer)))
}

/// A meter, as far as it matters whether usage may be pushed to it.
#[derive(Debug, Clone, Deserialize)]
pub struct StripeMeter {
    /// Its id.
    pub id: String,
    /// The name of its events.
    pub event_name: String,
    /// `active` or `inactive`.
    pub status: String,
    /// True if it is of live mode.
    pub livemode: bool,
    /// `day` or `hour` where only the newest event of each counts.
    pub event_time_window: Option<String>,
    default_aggregation: Aggregation,
    customer_mapping: CustomerMapping,
    value_settings: ValueSettings,
}

#[derive(Debug, Clone, Deserialize)]
struct Aggregation {
    formula: String,
}

#[derive(Debug, Clone, Deserialize)]
struct CustomerMapping {
    event_payload_key: String,
}

#[derive(Debug, Clone, Deserialize)]
struct ValueSettings {
    event_payload_key: String,
}

impl StripeMeter {
    /// Returns the reason differences can't be pushed to this meter under this name, if so.
    pub fn unfit(&self, event_name: &str) -> Option<String> {
        let wrong = [
            (self.status != "active", format!("its status is {}, not active", self.status)),
            (
                self.default_aggregation.formula != "sum",
                format!("it aggregates by {}, not by sum", self.default_aggregation.formula),
            ),
            (
                self.event_time_window.is_some(),
                "it has an event_time_window: only the newest event of each would count".to_owned(),
            ),
            (self.event_name != event_name, format!("its event_name is {}, not {event_name}", self.event_name)),
            (
                self.customer_mapping.event_payload_key != "stripe_customer_id",
                "its customer key is not stripe_customer_id".to_owned(),
            ),
            (self.value_settings.event_payload_key != "value", "its value key is not value".to_owned()),
        ];
        wrong.into_iter().find(|(is, _)| *is).map(|(_, what)| what)
    }
}

/// The sums of a meter that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The customer whose usage it is.
    pub stripe_customer_id: String,
    /// From when, in seconds since 1970; of a whole minute.
    pub start: i64,
    /// Until when; of a whole minute.
    pub end: i64,
    /// Returns whether each hour has a sum of its own; the ends are of whole hours then.
    pub is_by_hour: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Sums {
    pub(crate) data: Vec<Sum>,
    #[serde(default)]
    pub(crate) has_more: bool,
}

/// A page of sums.
#[derive(Debug, Clone)]
pub struct SumsPage {
    /// The sums.
    pub sums: Vec<Sum>,
    /// Names the next page; `None` on the last.
    pub next: Option<String>,
}

/// The sum of a window.
#[derive(Debug, Clone, Deserialize)]
pub struct Sum {
    pub(crate) id: String,
    /// Where the window begins, in seconds since 1970.
    pub start_time: i64,
    #[serde(deserialize_with = "nearest")]
    aggregated_value: f64,
}

/// The float that is nearest to a number's text. The JSON reader's own may be one beside it, which gives large sums a fraction.
fn nearest<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Box::<RawValue>::deserialize(from)?.get().parse().map_err(D::Error::custom)
}

impl Sum {
    /// Returns whether it is more than a float holds exactly.
    pub const fn is_too_large(&self) -> bool {
        self.aggregated_value.abs() >= EXACT_MAX
    }

    /// The sum; `None` where a float can't say it exactly.
    pub fn value(&self) -> Option<i128> {
        let value = self.aggregated_value;
        let is_exact = value.fract() == 0.0 && value.abs() < EXACT_MAX;
        // In this range every float that is whole is a 64-bit integer.
        is_exact.then(|| i128::from(value as i64))
    }
}

/// The subject of a webhook's event.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    data: Option<Data>,
}

#[derive(Debug, Clone, Deserialize)]
struct Data {
    reason: Option<Reason>,
}

#[derive(Debug, Clone, Deserialize)]
struct Reason {
    #[serde(default)]
    error_types: Vec<ErrorType>,
}

#[derive(Debug, Clone, Deserialize)]
struct ErrorType {
    code: String,
    #[serde(default)]
    sample_errors: Vec<SampleError>,
}

#[derive(Debug, Clone, Deserialize)]
struct SampleError {
    error_message: Option<String>,
    request: Option<SampleRequest>,
}

#[derive(Debug, Clone, Deserialize)]
struct SampleRequest {
    identifier: Option<String>,
}

/// One of the events that Stripe took and then dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The request's idempotency key, which begins with the row's identifier.
    pub key: String,
    /// The reason.
    pub code: String,
    /// The same for people.
    pub message: String,
}

impl Report {
    /// The samples of what was dropped.
    pub fn samples(&self) -> Vec<Sample> {
        let types = self.data.iter().filter_map(|data| data.reason.as_ref()).flat_map(|reason| &reason.error_types);
        let mut samples = Vec::new();
        for kind in types {
            for sample in &kind.sample_errors {
                if let Some(key) = sample.request.as_ref().and_then(|request| request.identifier.clone()) {
                    let message = sample.error_message.clone().unwrap_or_default();
                    samples.push(Sample { key, code: kind.code.clone(), message });
                }
            }
        }
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(text: &str) -> Result<Option<i128>, serde_json::Error> {
        let page = format!(r#"{{"data": [{{"id": "mtrusg_1", "start_time": 60, "aggregated_value": {text} }}]}}"#);
        let sums: Sums = serde_json::from_slice(page.as_bytes())?;
        Ok(sums.data.first().and_then(Sum::value))
    }

    #[test]
    fn a_sum_that_a_float_holds_is_read_as_it_is() {
        let large = 2_000_000_041_000_009_i128;
        let spread = (0..50_000).map(|step| 1_800_000_000_000_001 + step * 9_000_000_002);
        for whole in (large - 500..large + 500).chain(spread).chain([0, 7, 9_007_199_254_740_991]) {
            for whole in [whole, -whole] {
                let (float, integer) = (sum(&format!("{whole}.0")), sum(&whole.to_string()));
                assert_eq!(float.unwrap(), Some(whole));
                assert_eq!(integer.unwrap(), Some(whole));
            }
        }
        assert_eq!(sum("2.000000041000009e15").unwrap(), Some(large));
    }

    #[test]
    fn a_sum_is_too_large_from_2_to_the_53_on() {
        let is_too_large = |text: &str| {
            let sum = format!(r#"{{"id": "mtrusg_1", "start_time": 60, "aggregated_value": {text}}}"#);
            serde_json::from_str::<Sum>(&sum).unwrap().is_too_large()
        };
        let texts = ["9007199254740991.0", "9007199254740992.0", "-1e16", "0.5", "0"];
        assert_eq!(texts.map(is_too_large), [false, true, true, false, false]);
    }

    #[test]
    fn a_sum_that_a_float_does_not_hold_is_none() {
        for text in ["2000000041000009.5", "9007199254740992.0", "1e300", "0.1"] {
            assert_eq!(sum(text).unwrap(), None, "{text}");
        }
        for text in ["null", "true", "\"7.0\"", "[7.0]", "NaN", "inf"] {
            assert!(sum(text).is_err(), "{text}");
        }
    }
}
