//! The ways of spans: sampled, taken, refused, sent again or dropped, each counted, and nobody waits for a collector.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use std::future::pending;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use goldleaves_domain::TraceContext;
use goldleaves_runtime::Metrics;
use goldleaves_runtime::settings::Values;
use goldleaves_runtime::telemetry::TRACED;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::collector::{Collector, Reply};
use goldleaves_trace::{Exporting, Moment, OpenSpan, Opening, SpanKind, TraceSettings, TracedSpans, Tracer, put_below};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tracing::{info, info_span, warn_span};
use tracing_subscriber::layer::SubscriberExt;

const PATIENCE: Duration = Duration::from_secs(30);

struct Exporter {
    tracer: Tracer,
    exporting: Exporting,
    metrics: Metrics,
}

fn opening(parent: Option<TraceContext>) -> Opening {
    Opening { parent, kind: SpanKind::Server, name: "GET".into(), started: Moment::now() }
}

/// The client's span, which wants to be exported or not.
fn client(flags: &str) -> TraceContext {
    format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}").parse().unwrap()
}

/// The counts: taken by the collector, refused by it, not taken in time, and never in the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    exported: u64,
    refused: u64,
    unsent: u64,
    queue_full: u64,
}

impl Exporter {
    fn start(url: &str) -> Self {
        Self::start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", url)])
    }

    fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut values = Values::load(settings.iter().copied(), None);
        let read = TraceSettings::read(&mut values);
        let (settings, metrics) = (values.finish(read).unwrap(), Metrics::new());
        let (tracer, exporting) = settings.start("edge", &metrics).unwrap();
        Self { tracer, exporting, metrics }
    }

    /// Opens and ends this many spans.
    fn spans(&self, count: usize) {
        for _ in 0..count {
            self.tracer.open(opening(None)).unwrap().end();
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
async fn spans_of_tracing_are_exported_by_their_target_once_traces_have_started() {
    let collector = Collector::start().await.unwrap();
    let Exporter { tracer, exporting, .. } = Exporter::start(&collector.url());
    let traced = TracedSpans::default();
    let subscriber = tracing_subscriber::registry().with(traced.layer());
    tracing::subscriber::with_default(subscriber, || {
        info_span!(target: TRACED, "before").in_scope(|| {});
        traced.export(&Tracer::off());
        info_span!(target: TRACED, "off").in_scope(|| {});
        traced.export(&tracer);
        assert!(warn_span!("request").is_disabled(), "another target");
        let work = info_span!(target: TRACED, "work", size = 3);
        put_below(&work, client("01"));
        work.in_scope(|| {
            info!(target: TRACED, "an event is no span");
            info_span!(target: TRACED, "step", otel.kind = "client").in_scope(|| {});
        });
        let quiet = info_span!(target: TRACED, "unwanted");
        put_below(&quiet, client("00"));
        quiet.in_scope(|| {});
        info_span!(target: TRACED, parent: None, "own").in_scope(|| {});
    });
    exporting.finish(pending()).await;
    let spans = collector.spans().unwrap();
    let of =
        |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}: {spans:#?}"));
    let (work, step, own) = (of("work"), of("step"), of("own"));
    assert_eq!(spans.len(), 3, "{spans:#?}");
    assert_eq!(work.says("size"), Some("3"), "{spans:#?}");
    assert_eq!(work.parent_id.as_str(), "00f067aa0ba902b7");
    assert_eq!(step.parent_id, work.span_id);
    assert_eq!(work.trace_id.as_str(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(step.trace_id, work.trace_id);
    assert_ne!(own.trace_id, work.trace_id);
    assert_eq!(work.kind.as_str(), "Internal");
    assert_eq!(step.kind.as_str(), "Client");
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
    assert_eq!(collector.requests(), 2);
    assert_eq!(collector.spans().unwrap().len(), 1);
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
    assert_eq!(collector.requests(), 3);
    assert_eq!(collector.spans().unwrap().len(), 1);
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
    assert!(exporter.tracer.open(opening(Some(client("00")))).is_none());
    assert!(exporter.tracer.open(opening(Some(client("01")))).is_some());
    assert!(Exporter::start("").tracer.open(opening(Some(client("01")))).is_none());
}

#[tokio::test]
async fn a_place_in_the_trace_is_given_whether_its_span_is_exported_or_not() {
    let collector = Collector::start().await.unwrap();
    let on = Exporter::start(&collector.url());
    for (tracer, parent, is_open) in [
        (&on.tracer, "03", true),
        (&on.tracer, "02", false),
        (&Tracer::off(), "01", false),
        (&Tracer::off(), "00", false),
    ] {
        let parent = client(parent);
        let (context, span) = tracer.begin(opening(Some(parent)));
        assert_eq!(context.trace_id(), parent.trace_id());
        assert_eq!(context.flags(), parent.flags());
        assert_ne!(context.span_id(), parent.span_id());
        assert_eq!(span.as_ref().map(OpenSpan::context), is_open.then_some(context));
    }
    for tracer in [&on.tracer, &Tracer::off()] {
        assert!(tracer.begin(opening(None)).0.is_sampled(), "a trace of one's own is wanted");
    }
}

#[tokio::test]
async fn what_is_exported_is_what_was_said() {
    let collector = Collector::start().await.unwrap();
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=eu%20west");
    let exporter = Exporter::start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()), attributes]);
    let (context, span) = exporter.tracer.begin(opening(Some(client("01"))));
    let mut span = span.unwrap();
    span.rename("GET /documents");
    span.set("http.response.status_code", 503_i64);
    span.link(client("01"));
    span.fail("503");
    span.end();
    exporter.tracer.open(opening(None)).unwrap().discard();
    drop(exporter.tracer.open(opening(Some(context))).unwrap());
    exporter.exporting.finish(pending()).await;
    let spans = collector.spans().unwrap();
    let [said, cut_off] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!(said.traceparent(), context.to_string());
    assert_eq!(said.name.as_str(), "GET /documents");
    assert_eq!(said.kind.as_str(), "Server");
    assert!(said.failed);
    assert_eq!(said.parent_id, "00f067aa0ba902b7");
    assert_eq!(said.links, [client("01").to_string()]);
    assert_eq!(said.says("http.response.status_code"), Some("503"));
    assert_eq!(said.says("error.type"), Some("503"));
    assert_eq!(cut_off.says("error.type"), Some("cut_off"));
    assert!(cut_off.failed);
    for (name, value) in [
        ("service.name", "edge"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("deployment.environment.name", "eu west"),
        ("telemetry.sdk.name", "opentelemetry"),
    ] {
        assert_eq!(said.resource.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[tokio::test]
async fn a_sampler_decides_what_its_parent_does_not() {
    let collector = Collector::start().await.unwrap();
    for (sampler, ratio, kept) in [
        // A trace of one's own, one that its client wants, and one that it does not.
        ("parentbased_always_on", "1", [true, true, false]),
        ("parentbased_always_off", "1", [false, true, false]),
        ("parentbased_traceidratio", "0", [false, true, false]),
        ("parentbased_traceidratio", "1", [true, true, false]),
        ("traceidratio", "0", [false, false, false]),
        ("always_on", "0", [true, true, true]),
        ("always_off", "1", [false, false, false]),
    ] {
        let exporter = Exporter::start_with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()),
            ("OTEL_TRACES_SAMPLER", sampler),
            ("OTEL_TRACES_SAMPLER_ARG", ratio),
        ]);
        let seen = [None, Some(client("01")), Some(client("00"))].map(|parent| {
            let (context, span) = exporter.tracer.begin(opening(parent));
            assert_eq!(context.is_sampled(), span.is_some(), "{sampler}");
            span.is_some()
        });
        assert_eq!(seen, kept, "{sampler} {ratio}");
    }
}

#[tokio::test]
async fn every_request_has_the_headers_that_are_set() {
    let collector = Collector::start().await.unwrap();
    let headers = "authorization=Bearer%20secret, x-team=blue";
    let exporter = Exporter::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()),
        ("OTEL_EXPORTER_OTLP_HEADERS", headers),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    ]);
    exporter.spans(1);
    exporter.wait_for(Counts { exported: 1, ..Counts::default() }).await;
    let heads = collector.heads();
    assert_eq!(heads[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(heads[0].header("x-team"), Some("blue"));
    assert_eq!(heads[0].header("user-agent"), Some(concat!("goldleaves/", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn a_collector_that_speaks_tls_is_trusted_by_its_certificate_alone() {
    let collector = Collector::start().await.unwrap();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key);
    let port = in_front_of(collector.address(), TlsAcceptor::from(Arc::new(config.unwrap()))).await;
    let scratch = tempfile::tempdir().unwrap();
    let url = format!("https://localhost:{port}");
    let exporter = |name: &str, pem: &str| {
        let file = scratch.path().join(name);
        std::fs::write(&file, pem).unwrap();
        let file = file.to_str().unwrap();
        Exporter::start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_EXPORTER_OTLP_CERTIFICATE", file)])
    };
    let trusting = exporter("own.pem", &own.cert.pem());
    trusting.spans(3);
    trusting.wait_for(Counts { exported: 3, ..Counts::default() }).await;
    assert_eq!(collector.spans().unwrap().len(), 3);
    let distrusting = exporter("other.pem", &other.cert.pem());
    distrusting.spans(1);
    distrusting.wait_for(Counts { unsent: 1, ..Counts::default() }).await;
    assert_eq!(collector.spans().unwrap().len(), 3);
}

/// The port of a listener that takes TLS off what it hands on.
async fn in_front_of(collector: SocketAddr, acceptor: TlsAcceptor) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((outside, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(outside).await else { return };
                let mut inside = tokio::net::TcpStream::connect(collector).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    port
}
