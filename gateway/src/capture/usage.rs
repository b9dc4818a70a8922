//! Tests the upstream's word on what a call was worth, in headers or trailers.

use goldleaves_domain::{Action, Units};
use http::{HeaderMap, HeaderValue};

use crate::names::{USAGE_ACTION, USAGE_UNITS};

/// The upstream's word, as far as it said one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    pub(crate) units: Option<Units>,
    pub(crate) action: Option<Action>,
    /// Units were said that can't be read; they count as 1.
    pub(crate) is_bad: bool,
}

impl Usage {
    /// Takes it out of headers or trailers, so that no client sees it.
    pub(crate) fn take(headers: &mut HeaderMap) -> Self {
        let mut usage = Self::default();
        // Most upstreams say nothing, and two names need not be hashed to see that.
        if !headers.keys().any(|name| name.as_str().starts_with("x-usage-")) {
            return usage;
        }
        if headers.contains_key(USAGE_UNITS) {
            let units = single(headers, &USAGE_UNITS).and_then(|text| text.parse().ok());
            usage.is_bad = units.is_none();
            usage.units = Some(units.unwrap_or(Units::ONE));
            headers.remove(USAGE_UNITS);
        }
        if headers.contains_key(USAGE_ACTION) {
            usage.action = single(headers, &USAGE_ACTION).and_then(|text| text.parse().ok());
            headers.remove(USAGE_ACTION);
        }
        usage
    }

    /// Trailers win over what the head said.
    pub(crate) fn overridden_by(self, later: Self) -> Self {
        Self {
            units: later.units.or(self.units),
            action: later.action.or(self.action),
            is_bad: self.is_bad || later.is_bad,
        }
    }
}

/// Said twice is not said clearly.
fn single<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => HeaderValue::to_str(value).ok().map(str::trim),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(lines: &[(&'static str, &'static str)]) -> Usage {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers.append("x-other", HeaderValue::from_static("stays"));
        let usage = Usage::take(&mut headers);
        assert_eq!(headers.len(), 1, "nothing of usage may be left: {headers:?}");
        usage
    }

    #[test]
    fn units_and_action_are_read_and_removed() {
        let said = usage(&[("x-usage-units", "2.5"), ("x-usage-action", "search")]);
        assert_eq!(said.units.unwrap().micro(), 2_500_000);
        assert_eq!(said.action.unwrap().as_str(), "search");
        assert!(!said.is_bad);
    }

    #[test]
    fn bad_units_count_as_one_and_are_noticed() {
        for bad in ["", "-1", "1e3", "abc", "0.1234567", "1000000001", "1,5"] {
            let said = usage(&[("x-usage-units", bad)]);
            assert_eq!((said.units, said.is_bad), (Some(Units::ONE), true), "{bad:?}");
        }
        let twice = usage(&[("x-usage-units", "2"), ("x-usage-units", "2")]);
        assert!(twice.is_bad);
    }

    #[test]
    fn a_bad_action_is_none() {
        assert_eq!(usage(&[("x-usage-action", "two words")]).action, None);
    }

    #[test]
    fn trailers_win() {
        let head = usage(&[("x-usage-units", "2"), ("x-usage-action", "a")]);
        let both = head.overridden_by(usage(&[("x-usage-units", "3")]));
        assert_eq!(both.units.unwrap().to_string(), "3");
        assert_eq!(both.action.unwrap().as_str(), "a");
    }
}
