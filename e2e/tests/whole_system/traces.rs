//! One trace, from the client's `traceparent` to the commit; and a collector that takes nothing costs nothing.

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::collector::{Collector, Reply, Span};
use goldleaves_testkit::upstream::{Answer, Upstream};

on_both!(one_trace_goes_from_the_client_to_the_commit, calls_are_billed_while_the_collector_is_silent);

const PATH: &str = "/api/v1/documents";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

async fn traced(kind: Kind, collector: &Collector) -> (Deployment, Upstream) {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let settings = [("UPSTREAM_URL", upstream.url()), ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    (Deployment::start_with(kind, &settings).await.unwrap(), upstream)
}

/// The id of a trace, and the `traceparent` of the client's span in it.
fn trace(digit: char, flags: &str) -> (String, String) {
    let id = digit.to_string().repeat(32);
    (id.clone(), format!("00-{id}-{CLIENT_SPAN}-{flags}"))
}

/// The spans of a trace once it has so many.
async fn spans_of(collector: &Collector, trace_id: &str, count: usize) -> Vec<Span> {
    let of = |spans: &[Span]| spans.iter().filter(|span| span.trace_id == trace_id).cloned().collect::<Vec<_>>();
    let spans = collector.wait_for(trace_id, |spans| Some(of(spans)).filter(|of| of.len() >= count)).await.unwrap();
    assert_eq!(spans.len(), count, "{spans:#?}");
    spans
}

/// The only span of this kind by this program.
fn only<'a>(spans: &'a [Span], kind: &str, service: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.kind == kind && span.service == service);
    let span = found.next().unwrap_or_else(|| panic!("no {kind} of {service}: {spans:#?}"));
    assert_eq!(found.next(), None, "only one {kind} of {service}");
    span
}

async fn one_trace_goes_from_the_client_to_the_commit(kind: Kind) {
    let collector = Collector::start().await.unwrap();
    let (mut deployment, upstream) = traced(kind, &collector).await;
    let (one_process, system) = match kind {
        Kind::Embedded => (Some("goldleaves"), "goldleaves"),
        Kind::Distributed => (None, "nats"),
    };
    let [gateway, worker, billing] =
        ["gateway", "meter-worker", "billing-api"].map(|program| one_process.unwrap_or(program));
    let token = deployment.token("acme").unwrap();
    let call = |traceparent: &str| Request::get(PATH).token(&token).header("traceparent", traceparent);

    let (unwanted, quiet) = trace('a', "00");
    deployment.ask(&call(&quiet)).await.unwrap();
    let (wanted, parent) = trace('b', "01");
    let answered = deployment.ask(&call(&parent)).await.unwrap();
    deployment.summary_of("acme", 2).await.unwrap();

    let spans = spans_of(&collector, &wanted, 5).await;
    let commit = spans.iter().find(|span| span.name == "COMMIT usage").unwrap();
    let edge: Vec<_> = spans.iter().filter(|span| *span != commit).cloned().collect();
    let (server, toward) = (only(&edge, "Server", gateway), only(&edge, "Client", gateway));
    let (sent, processed) = (only(&edge, "Producer", gateway), only(&edge, "Consumer", worker));
    assert_eq!(server.parent_id, CLIENT_SPAN);
    for below in [toward, sent, processed] {
        assert_eq!(below.parent_id, server.span_id, "{below:#?}");
    }
    assert_eq!((&commit.parent_id, commit.service.as_str()), (&processed.span_id, worker));
    assert!(processed.times.0 <= commit.times.0 && commit.times.1 <= processed.times.1, "{spans:#?}");
    let seen = upstream.served();
    assert_eq!(seen[1].head.header("traceparent"), Some(toward.traceparent().as_str()));
    for span in [sent, processed] {
        assert_eq!(span.says("messaging.message.id"), answered.header("x-usage-event-id"));
        assert_eq!(span.says("messaging.system"), Some(system));
    }
    assert!(spans.iter().all(|span| !span.failed), "{spans:#?}");

    let (billed, parent) = trace('c', "01");
    let other = Request::get("/billing/usage-summary/other").token(&token).header("traceparent", &parent);
    assert_eq!(deployment.ask(&other).await.unwrap().status, 403);
    let spans = spans_of(&collector, &billed, 4).await;
    let toward = spans.iter().find(|span| span.kind == "Client").unwrap();
    let asked = spans.iter().find(|span| span.parent_id == toward.span_id).unwrap();
    assert_eq!((asked.kind.as_str(), asked.service.as_str()), ("Server", billing));
    assert_eq!(asked.name, "GET /billing/usage-summary/{tenant_id}");
    let handled = spans.iter().find(|span| span.parent_id == asked.span_id).unwrap();
    assert_eq!((handled.name.as_str(), handled.kind.as_str()), ("handle", "Internal"));
    // What the client did wrong is no fault of who served it, but one to who called.
    assert_eq!(spans.iter().filter(|span| span.failed).collect::<Vec<_>>(), [toward]);

    let (read, parent) = trace('d', "01");
    let own = Request::get("/billing/usage-summary/acme").token(&token).header("traceparent", &parent);
    assert_eq!(deployment.ask(&own).await.unwrap().status, 200);
    let has_statement = |spans: &[Span]| {
        let handled = spans.iter().find(|span| span.trace_id == read && span.name == "handle")?;
        spans.iter().find(|span| span.parent_id == handled.span_id && span.kind == "Client").cloned()
    };
    let statement = collector.wait_for("a statement below the call", has_statement).await.unwrap();
    assert!(statement.says("db.system.name").is_some(), "{statement:#?}");

    assert!(deployment.stop().await.unwrap().success());
    let spans = collector.spans().unwrap();
    assert!(spans.iter().all(|span| span.trace_id != unwanted));
    // Beside the calls: how each program started, and the batches that its events went in.
    for (name, service) in [("start", gateway), ("start", worker), ("start", billing), ("relay a batch", gateway)] {
        assert!(spans.iter().any(|span| span.name == name && span.service == service), "no {name} of {service}");
    }
    assert!(spans.iter().any(|span| span.name == "record a batch" && span.service == worker), "{spans:#?}");
}

async fn calls_are_billed_while_the_collector_is_silent(kind: Kind) {
    let collector = Collector::start_replying(|_| Reply::Silence).await.unwrap();
    let (mut deployment, _upstream) = traced(kind, &collector).await;
    let request = Request::get(PATH).token(&deployment.token("acme").unwrap());
    for _ in 0..50 {
        assert_eq!(deployment.ask(&request).await.unwrap().status, 200);
    }
    deployment.summary_of("acme", 50).await.unwrap();
    let asked = async || Ok((collector.requests() > 0).then_some(()));
    wait_for("the collector to be asked", PATIENCE, asked).await.unwrap();
    assert!(deployment.stop().await.unwrap().success());
}
