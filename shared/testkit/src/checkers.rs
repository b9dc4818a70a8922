//! Parsers that others wrote for the formats we write: OpenMetrics and the classic text format, CloudEvents, W3C Trace
//! Context. Each reads a file with Python and says what it found, or why the format is broken.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use goldleaves_toolbox::Toolbox;

use crate::scratch::Scratch;

/// Reads the file named by the second argument in the format named by the first, and prints how much it found.
const CHECK: &str = r#"
import json, sys
kind, path = sys.argv[1:]
data = open(path, "rb").read()
if kind == "openmetrics":
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
    print(len(list(parse(data.decode()))))
elif kind == "classic":
    from prometheus_client.parser import text_string_to_metric_families as parse
    families = list(parse(data.decode()))
    assert all(family.type != "unknown" for family in families), [f.name for f in families if f.type == "unknown"]
    print(len(families))
elif kind in ("cloudevent", "cloudevents"):
    from cloudevents.core.formats.json import JSONFormat
    events = [data] if kind == "cloudevent" else [json.dumps(event) for event in json.loads(data)]
    for event in [JSONFormat().read(None, event) for event in events]:
        assert event.get_specversion() == "1.0" and event.get_id() and event.get_source() and event.get_type()
    print(len(events))
elif kind == "trace":
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    context = TraceContextTextMapPropagator().extract(json.loads(data))
    span = trace.get_current_span(context).get_span_context()
    assert span.is_valid, data
    print(len(span.trace_state))
"#;

/// A format that somebody else's parser knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Metrics, as OpenMetrics text: the number of families.
    OpenMetrics,
    /// Metrics in the text format before that: the number of families, each of a known type.
    Classic,
    /// One CloudEvent in JSON.
    CloudEvent,
    /// A JSON batch of CloudEvents: their number.
    CloudEvents,
    /// A JSON object of `traceparent` and `tracestate`: the number of members of the state.
    Trace,
}

impl Format {
    const fn word(self) -> &'static str {
        match self {
            Self::OpenMetrics => "openmetrics",
            Self::Classic => "classic",
            Self::CloudEvent => "cloudevent",
            Self::CloudEvents => "cloudevents",
            Self::Trace => "trace",
        }
    }
}

/// Has `text` read, and says how much was found in it.
///
/// # Errors
/// The parser is missing, or refuses the text: with its words.
pub fn check(format: Format, text: &[u8]) -> Result<usize> {
    let tool = Toolbox::of_target().checkers()?;
    let scratch = Scratch::new("checkers")?;
    let file = scratch.join("text");
    std::fs::write(&file, text).context("a text to check")?;
    let mut command = Command::new(tool.python);
    command.args(["-c", CHECK, format.word()]).arg(&file).stdin(Stdio::null());
    command.env("PYTHONPATH", tool.site).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().context("running Python")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{format:?} is refused: {}", said.trim());
    String::from_utf8_lossy(&output.stdout).trim().parse().context("what the parser found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_refused() {
        for (format, good, bad) in [
            (Format::OpenMetrics, "# TYPE a counter\na_total 1\n# EOF\n", "# TYPE a counter\na 1\n# EOF\n"),
            (Format::Classic, "# TYPE a counter\na 1\n", "# TYPE a counter\na{ 1\n"),
            (
                Format::CloudEvent,
                r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#,
                r#"{"specversion":"1.0"}"#,
            ),
            (
                Format::Trace,
                r#"{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#,
                r#"{"traceparent":"00-0-00f067aa0ba902b7-01"}"#,
            ),
        ] {
            check(format, good.as_bytes()).unwrap();
            assert!(check(format, bad.as_bytes()).is_err(), "{format:?}");
        }
    }
}
