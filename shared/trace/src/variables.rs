//! The texts of OpenTelemetry's own variables: pairs, headers, samplers. No error repeats a value: headers hold keys.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;

/// The most that is read of one list.
const PAIRS_MAX: usize = 64;

/// The reason a text is not what its variable wants. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VariableError {
    #[error("is wrong: pair {0} is not name=value")]
    NotAPair(usize),
    #[error("is wrong: the value of pair {0} is not percent-encoded UTF-8")]
    Encoding(usize),
    #[error("is wrong: pair {0} is no HTTP header")]
    NotAHeader(usize),
    #[error("is wrong: pair {0} names a header that the protocol itself sets")]
    OwnHeader(usize),
    #[error("is wrong: more than 64 pairs")]
    TooMany,
    #[error("is not spoken here: OTLP goes over HTTP in protobuf")]
    Protocol,
    #[error("is no sampler that is known here")]
    Sampler,
    #[error("is no ratio from 0 to 1")]
    Ratio,
}

/// `name=value` separated by commas, values percent-encoded (W3C Baggage, without properties).
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, VariableError> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let pairs: Vec<_> = items.enumerate().map(|(at, item)| pair(at + 1, item)).collect::<Result<_, _>>()?;
    if pairs.len() > PAIRS_MAX { Err(VariableError::TooMany) } else { Ok(pairs) }
}

fn pair(number: usize, text: &str) -> Result<(String, String), VariableError> {
    let (name, value) = text.split_once('=').ok_or(VariableError::NotAPair(number))?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() {
        return Err(VariableError::NotAPair(number));
    }
    let value = percent_decode_str(value).decode_utf8().map_err(|_| VariableError::Encoding(number))?;
    Ok((name.to_owned(), value.into_owned()))
}

/// Headers of every request to the collector; they are never shown.
pub(crate) fn headers(text: &str) -> Result<HeaderMap, VariableError> {
    const OWN: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, HOST];
    let mut headers = HeaderMap::new();
    for (at, (name, value)) in pairs(text)?.into_iter().enumerate() {
        let not_a_header = VariableError::NotAHeader(at + 1);
        let name: HeaderName = name.parse().map_err(|_| not_a_header.clone())?;
        if OWN.contains(&name) {
            return Err(VariableError::OwnHeader(at + 1));
        }
        let mut value: HeaderValue = value.parse().map_err(|_| not_a_header)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The protocol, of which there is one.
pub(crate) fn protocol(text: &str) -> Result<(), VariableError> {
    if text.trim() == "http/protobuf" { Ok(()) } else { Err(VariableError::Protocol) }
}

/// The kinds of sampler: what decides of a trace that begins here, and whether it also decides of those that others
/// began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SamplerKind {
    AlwaysOn,
    AlwaysOff,
    Ratio,
    ParentOrOn,
    ParentOrOff,
    ParentOrRatio,
}

/// The kind of sampler, by the specification's names.
pub(crate) fn sampler_kind(text: &str) -> Result<SamplerKind, VariableError> {
    match text.trim() {
        "always_on" => Ok(SamplerKind::AlwaysOn),
        "always_off" => Ok(SamplerKind::AlwaysOff),
        "traceidratio" => Ok(SamplerKind::Ratio),
        "parentbased_always_on" => Ok(SamplerKind::ParentOrOn),
        "parentbased_always_off" => Ok(SamplerKind::ParentOrOff),
        "parentbased_traceidratio" => Ok(SamplerKind::ParentOrRatio),
        _ => Err(VariableError::Sampler),
    }
}

/// The part of traces that a ratio keeps.
pub(crate) fn ratio(text: &str) -> Result<f64, VariableError> {
    let ratio: f64 = text.trim().parse().map_err(|_| VariableError::Ratio)?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err(VariableError::Ratio) }
}

/// The SDK's sampler of this kind.
pub(crate) fn sampler(kind: SamplerKind, ratio: f64) -> Sampler {
    let by_parent = |root| Sampler::ParentBased(Box::new(root));
    match kind {
        SamplerKind::AlwaysOn => Sampler::AlwaysOn,
        SamplerKind::AlwaysOff => Sampler::AlwaysOff,
        SamplerKind::Ratio => Sampler::TraceIdRatioBased(ratio),
        SamplerKind::ParentOrOn => by_parent(Sampler::AlwaysOn),
        SamplerKind::ParentOrOff => by_parent(Sampler::AlwaysOff),
        SamplerKind::ParentOrRatio => by_parent(Sampler::TraceIdRatioBased(ratio)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_and_blanks_around_them_are_cut_off() {
        let read = pairs(" deployment.environment.name = eu%20west ,team=a=b,, empty=").unwrap();
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(read, [("deployment.environment.name", "eu west"), ("team", "a=b"), ("empty", "")]);
        for (text, error) in [
            ("a=1,b", VariableError::NotAPair(2)),
            ("=1", VariableError::NotAPair(1)),
            ("a=%ff", VariableError::Encoding(1)),
        ] {
            assert_eq!(pairs(text), Err(error), "{text}");
        }
        assert_eq!(pairs(&vec!["a=1"; 65].join(",")), Err(VariableError::TooMany));
    }

    #[test]
    fn headers_are_hidden_and_the_protocols_own_are_refused() {
        let read = headers("Authorization=Bearer%20key,x-team=blue").unwrap();
        assert_eq!(read.get("authorization").unwrap(), "Bearer key");
        assert!(!format!("{read:?}").contains("key"), "{read:?}");
        for (text, error) in [
            ("x=1,a b=2", VariableError::NotAHeader(2)),
            ("x=%0a", VariableError::NotAHeader(1)),
            ("Content-Type=text/plain", VariableError::OwnHeader(1)),
        ] {
            assert_eq!(headers(text), Err(error), "{text}");
        }
    }

    #[test]
    fn samplers_have_the_specifications_names() {
        assert_eq!(sampler_kind("parentbased_traceidratio"), Ok(SamplerKind::ParentOrRatio));
        assert_eq!(sampler_kind("jaeger_remote"), Err(VariableError::Sampler));
        assert_eq!(ratio("0.25"), Ok(0.25));
        for text in ["", "-0.1", "1.1", "NaN", "half"] {
            assert_eq!(ratio(text), Err(VariableError::Ratio), "{text}");
        }
    }
}
