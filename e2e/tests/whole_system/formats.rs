//! Formats written for others, read by parsers that others wrote: metrics in both text formats, events, traces.

use goldleaves_e2e::deployment::{Deployment, Kind};
use goldleaves_testkit::checkers::{Format, check};
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::json;

on_both!(metrics_and_traces_are_read_by_others);

async fn metrics_and_traces_are_read_by_others(kind: Kind) {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
    let request = Request::get("/api/v1/documents").token(&deployment.token("acme").unwrap());
    let request = request.header("traceparent", parent).header("tracestate", "rojo=1, congo=t61rcWkgMzE");
    assert_eq!(deployment.ask(&request).await.unwrap().status, 200);
    let seen = upstream.served().remove(0);
    let sent = |name: &str| seen.head.header(name).unwrap().to_owned();
    assert!(sent("traceparent").ends_with("-03"), "{}", sent("traceparent"));
    let carrier = json!({"traceparent": sent("traceparent"), "tracestate": sent("tracestate")});
    assert_eq!(check(Format::Trace, carrier.to_string().as_bytes()).unwrap(), 2);
    let metrics = Request::get("/metrics");
    let open = metrics.send(deployment.ops().unwrap()).await.unwrap();
    let classic = metrics.header("Accept", "text/plain").send(deployment.ops().unwrap()).await.unwrap();
    assert_eq!(classic.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let families = check(Format::OpenMetrics, &open.body.bytes).unwrap();
    assert!(families > 20, "{families}");
    assert_eq!(check(Format::Classic, &classic.body.bytes).unwrap(), families);
}

/// The golden events are what gateways write: a test of the wire format holds them to that.
#[test]
fn events_are_cloud_events_to_others() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/domain/tests/golden");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".json") && (name.starts_with("event-v1") || name.starts_with("seal-v1")) {
            check(Format::CloudEvent, &std::fs::read(&path).unwrap())
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
            read += 1;
        }
    }
    assert!(read >= 6, "{read}");
    let several = std::fs::read(format!("{folder}/batch-v1.json")).unwrap();
    assert_eq!(check(Format::CloudEvents, &several).unwrap(), 3);
}
