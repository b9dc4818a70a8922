//! Metrics in the text format from before OpenMetrics, for whoever asks for it.
//!
//! Everything is made from the OpenMetrics text; values are not looked at.

use std::borrow::Cow;
use std::collections::HashMap;

use http::HeaderMap;
use http::header::ACCEPT;

/// The classic format's media type.
pub(crate) const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Returns whether a request prefers the classic format. Equal or unsaid: OpenMetrics.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let (mut classic, mut open) = (0.0_f32, 0.0_f32);
    for line in headers.get_all(ACCEPT) {
        for range in line.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.filter_map(|part| part.strip_prefix("q=")?.parse().ok()).next().unwrap_or(1.0);
            match kind.as_str() {
                "text/plain" => classic = classic.max(quality),
                "application/openmetrics-text" => open = open.max(quality),
                _ => {}
            }
        }
    }
    classic > open
}

/// The same metrics in the classic format: names of counters and infos are those of their samples, units and the end
/// mark are not said.
pub(crate) fn classic(openmetrics: &str) -> String {
    let kinds: HashMap<&str, &str> =
        openmetrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let sample_name = |name: &str| match kinds.get(name) {
        Some(&"counter") => format!("{name}_total"),
        Some(&"info") => format!("{name}_info"),
        _ => name.to_owned(),
    };
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        let line: Cow<'_, str> = if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            format!("# HELP {} {help}", sample_name(name)).into()
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let kind = match kind {
                "counter" | "gauge" | "histogram" | "summary" => kind,
                "info" | "stateset" => "gauge",
                _ => "untyped",
            };
            format!("# TYPE {} {kind}", sample_name(name)).into()
        } else if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        } else {
            line.into()
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_classic_format_is_there_for_whoever_prefers_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, wanted) in [
            ("", false),
            ("*/*", false),
            ("text/plain", true),
            ("Text/Plain; version=0.0.4, */*;q=0.1", true),
            ("text/plain, application/openmetrics-text", false),
            ("text/plain;q=0.9, application/openmetrics-text;q=0.8", true),
            (prometheus, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
            assert_eq!(is_wanted(&headers), wanted, "{accept}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }

    #[test]
    fn counters_are_named_as_their_samples_are() {
        let open = "# HELP a_calls Calls.\n# TYPE a_calls counter\na_calls_total{x=\"1\"} 3\n# HELP a_open Open.\n\
                    # TYPE a_open gauge\n# UNIT a_open bytes\na_open 7\n# TYPE a_build info\na_build_info{v=\"1\"} 1\n# EOF\n";
        let wanted = "# HELP a_calls_total Calls.\n# TYPE a_calls_total counter\na_calls_total{x=\"1\"} 3\n\
                      # HELP a_open Open.\n# TYPE a_open gauge\na_open 7\n# TYPE a_build_info gauge\n\
                      a_build_info{v=\"1\"} 1\n";
        assert_eq!(classic(open), wanted);
    }
}
