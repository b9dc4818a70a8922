//! The export of a batch: a span for each event, in its own trace, and one COMMIT that is linked to them all.

use std::future::pending;

use goldleaves_domain::wire;
use goldleaves_meter_worker::Meter;
use goldleaves_runtime::Metrics;
use goldleaves_runtime::settings::Values;
use goldleaves_testkit::collector::{Collector, Span};
use goldleaves_testkit::postgres::Postgres;
use goldleaves_trace::TraceSettings;

use crate::support::{Gateway, ledger};

#[tokio::test]
async fn a_batch_has_one_commit_that_every_trace_of_it_finds() {
    let (postgres, collector) = (Postgres::start().await.unwrap(), Collector::start().await.unwrap());
    let mut values = Values::load([("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url().as_str())], None);
    let read = TraceSettings::read(&mut values);
    let (settings, metrics) = (values.finish(read).unwrap(), Metrics::new());
    let (tracer, exporting) = settings.start("meter-worker", &metrics).unwrap();
    let meter = Meter::new(ledger(&postgres).await.0, &metrics).traced(tracer);
    let mut gateway = Gateway::new();
    let payloads = ["a-01", "b-00", "c-01", "d-01"].map(|trace| {
        let (digit, flags) = trace.split_once('-').unwrap();
        let mut event = gateway.usage();
        event.traceparent = Some(format!("00-{}-00f067aa0ba902b7-{flags}", digit.repeat(32)));
        wire::encode_event(&event)
    });

    meter.record(payloads.to_vec()).await.unwrap();
    exporting.finish(pending()).await;

    let spans = collector.spans().unwrap();
    let (commits, events): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.name == "COMMIT usage");
    assert_eq!((commits.len(), events.len()), (1, 3), "{spans:#?}");
    let commit = commits[0];
    assert_eq!(commit.says("goldleaves.batch_size"), Some("4"));
    let mut traces: Vec<&str> = events.iter().map(|event| &event.trace_id[..1]).collect();
    traces.sort_unstable();
    assert_eq!(traces, ["a", "c", "d"], "of the trace that nobody wants there is nothing");
    let sorted = |mut texts: Vec<String>| {
        texts.sort_unstable();
        texts
    };
    assert_eq!(sorted(commit.links.clone()), sorted(events.iter().map(|event| event.traceparent()).collect()));
    assert!(events.iter().all(|event| event.links == [commit.traceparent()]), "{spans:#?}");
    let first: Vec<&&Span> = events.iter().filter(|event| event.span_id == commit.parent_id).collect();
    assert!(first.len() == 1 && first[0].trace_id == commit.trace_id, "{spans:#?}");
}
