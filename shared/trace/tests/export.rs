//! What becomes of spans: taken, refused, sent again or dropped, each counted, and nobody waits for a collector.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use std::future::pending;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use goldleaves_domain::TraceContext;
use goldleaves_runtime::Metrics;
use goldleaves_runtime::settings::Values;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::collector::{Collector, Reply};
use goldleaves_trace::{Exporting, Moment, Opening, SpanKind, TraceSettings, Tracer, next_span};

const PATIENCE: Duration = Duration::from_secs(30);

struct Exporter {
    tracer: Tracer,
    exporting: Exporting,
    metrics: Metrics,
}

/// What was counted: taken by the collector, refused by it, not taken in time, and never in the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    exported: u64,
    refused: u64,
    unsent: u64,
    queue_full: u64,
}

impl Exporter {
    fn start(url: &str) -> Self {
        let mut values = Values::load([("OTEL_EXPORTER_OTLP_ENDPOINT", url)], None);
        let read = TraceSettings::read(&mut values);
        let (settings, metrics) = (values.finish(read).unwrap(), Metrics::new());
        let (tracer, exporting) = settings.start("edge", &metrics);
        Self { tracer, exporting, metrics }
    }

    /// So many spans, opened and ended.
    fn spans(&self, count: usize) {
        for _ in 0..count {
            let (context, name, started) = (next_span(None), "GET".into(), Moment::now());
            let opening = Opening { context, parent: None, kind: SpanKind::Server, name, started };
            self.tracer.open(opening).unwrap().end();
        }
    }

    fn counts(&self) -> Counts {
        let text = self.metrics.text();
        let count = |sample: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(&format!("goldleaves_trace_spans_{sample} ")));
            value.unwrap_or_else(|| panic!("no {sample} in {text}")).parse().unwrap()
        };
        Counts {
            exported: count("exported_total"),
            refused: count("dropped_total{reason=\"refused\"}"),
            unsent: count("dropped_total{reason=\"unsent\"}"),
            queue_full: count("dropped_total{reason=\"queue_full\"}"),
        }
    }

    async fn wait_for(&self, counts: Counts) {
        let reached = wait_for("the counts", PATIENCE, async || Ok((self.counts() == counts).then_some(()))).await;
        assert!(reached.is_ok(), "{:?} and not {counts:?}", self.counts());
    }
}

#[tokio::test]
async fn what_is_there_at_the_end_is_exported() {
    let collector = Collector::start().await.unwrap();
    let exporter = Exporter::start(&collector.url());
    exporter.spans(3_000);
    let Exporter { exporting, metrics, tracer } = exporter;
    exporting.finish(pending()).await;
    assert_eq!(collector.spans().unwrap().len(), 3_000);
    assert_eq!(collector.requests(), 3, "in batches of 1,024");
    assert!(metrics.text().contains("goldleaves_trace_spans_exported_total 3000\n"));
    drop(tracer);
}

#[tokio::test]
async fn what_the_collector_refuses_is_sent_once_and_what_comes_later_is_taken() {
    let refuse = |number| if number == 0 { Reply::Refuse(400) } else { Reply::Take };
    let collector = Collector::start_replying(refuse).await.unwrap();
    let exporter = Exporter::start(&collector.url());
    exporter.spans(2);
    exporter.wait_for(Counts { refused: 2, ..Counts::default() }).await;
    exporter.spans(1);
    exporter.wait_for(Counts { refused: 2, exported: 1, ..Counts::default() }).await;
    assert_eq!((collector.requests(), collector.spans().unwrap().len()), (2, 1));
}

#[tokio::test]
async fn what_the_collector_takes_in_part_is_counted_apart() {
    let collector = Collector::start_replying(|_| Reply::TakeAllBut(2)).await.unwrap();
    let exporter = Exporter::start(&collector.url());
    exporter.spans(5);
    exporter.wait_for(Counts { exported: 3, refused: 2, ..Counts::default() }).await;
    assert_eq!(collector.requests(), 1);
}

#[tokio::test]
async fn a_busy_collector_is_asked_again() {
    let busy = |number| if number < 2 { Reply::Refuse(503) } else { Reply::Take };
    let collector = Collector::start_replying(busy).await.unwrap();
    let exporter = Exporter::start(&collector.url());
    exporter.spans(1);
    exporter.wait_for(Counts { exported: 1, ..Counts::default() }).await;
    assert_eq!((collector.requests(), collector.spans().unwrap().len()), (3, 1));
}

#[tokio::test]
async fn a_collector_that_asks_for_a_pause_gets_it() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let later = move |number| {
        seen.lock().unwrap().push(Instant::now());
        if number == 0 { Reply::Later(2) } else { Reply::Take }
    };
    let collector = Collector::start_replying(later).await.unwrap();
    let exporter = Exporter::start(&collector.url());
    exporter.spans(1);
    exporter.wait_for(Counts { exported: 1, ..Counts::default() }).await;
    let times = asked.lock().unwrap();
    let [first, second] = times[..] else { panic!("{} requests", times.len()) };
    // Its own pause would have been half a second at most.
    assert!(second - first >= Duration::from_secs(2), "{:?}", second - first);
}

#[tokio::test]
async fn a_collector_that_is_away_costs_what_it_misses_and_no_more() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let exporter = Exporter::start(&format!("http://{closed}"));
    exporter.spans(10);
    exporter.wait_for(Counts { unsent: 10, ..Counts::default() }).await;
}

#[tokio::test]
async fn nobody_waits_for_a_silent_collector_and_what_it_misses_is_counted() {
    let collector = Collector::start_replying(|_| Reply::Silence).await.unwrap();
    let exporter = Exporter::start(&collector.url());
    exporter.spans(1);
    let asked = async || Ok((collector.requests() == 1).then_some(()));
    wait_for("the first request", PATIENCE, asked).await.unwrap();
    // It is in the middle of a request now. Nothing here gives way to another task.
    exporter.spans(20_000);
    let full = exporter.counts().queue_full;
    assert_eq!(full, 20_000 - 16_384, "what the queue has no room for");
    let Exporter { tracer, exporting, metrics } = exporter;
    exporting.finish(pending()).await;
    drop(tracer);
    let text = metrics.text();
    let unsent = "goldleaves_trace_spans_dropped_total{reason=\"unsent\"} 16385\n";
    assert!(text.contains(unsent) && text.contains("goldleaves_trace_spans_exported_total 0\n"), "{text}");
}

#[tokio::test]
async fn who_is_in_a_hurry_leaves_the_rest_behind() {
    let collector = Collector::start_replying(|_| Reply::Silence).await.unwrap();
    let exporter = Exporter::start(&collector.url());
    exporter.spans(1);
    exporter.exporting.finish(async {}).await;
    assert_eq!(collector.spans().unwrap(), []);
}

#[tokio::test]
async fn without_a_collector_and_without_being_asked_for_no_span_is_made() {
    let collector = Collector::start().await.unwrap();
    let exporter = Exporter::start(&collector.url());
    let unwanted: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".parse().unwrap();
    let wanted: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
    let opening = |context| {
        let (name, started) = ("GET".into(), Moment::now());
        Opening { context, parent: None, kind: SpanKind::Server, name, started }
    };
    assert!(exporter.tracer.open(opening(unwanted)).is_none());
    assert!(exporter.tracer.open(opening(wanted)).is_some());
    assert!(Exporter::start("").tracer.open(opening(wanted)).is_none());
}
