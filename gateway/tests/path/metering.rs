//! Tests what an event says, and which responses are billed.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use goldleaves_domain::{FingerprintBuilder, NormalPath, Outcome};
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::world::{BILLABLE, Plan, World, token};

#[tokio::test]
async fn an_event_says_what_happened() {
    let world = World::answering(|_| Answer::ok("12345").status(201)).await;
    let target = "/api/v1/documents/7?q=1";
    let request = Request::post(target, "hello").header("X-Request-ID", "mine").header("User-Agent", "tests/1");
    let response = world.send(request).await;
    let event_id = response.header("x-usage-event-id").unwrap().to_owned();
    let event = world.finish().await.remove(0);
    assert_eq!(event.event_id.to_string(), event_id);
    assert_eq!((event.tenant_id.as_str(), event.user_id.as_str()), ("acme", "anna"));
    assert_eq!(event.request_id.as_str(), "mine");
    assert_eq!(event.client_request_id.unwrap().as_str(), "mine");
    assert_eq!((event.route.as_str(), event.action.as_str()), (BILLABLE, "create"));
    assert_eq!((event.units.to_string().as_str(), event.outcome), ("1", Outcome::Completed));
    assert_eq!((event.metadata.method.as_str(), event.metadata.status_code), ("POST", 201));
    assert_eq!(event.metadata.user_agent.as_deref(), Some("tests/1"));
    assert_eq!(event.metadata.client_ip.as_deref(), Some("127.0.0.1"), "the socket's peer");
    assert_eq!(event.metadata.response_bytes, 5);
    assert!(event.metadata.processing_micros > 0);
    let path = NormalPath::normalise("/api/v1/documents/7").unwrap();
    let mut asked = FingerprintBuilder::new(&"anna".parse().unwrap(), "POST", &path, Some("q=1"));
    asked.body(b"hello");
    assert_eq!(event.fingerprint, Some(asked.finish()));
}

#[tokio::test]
async fn client_info_can_be_left_out() {
    let upstream = Upstream::start(|_| Answer::ok("")).await.unwrap();
    let world = Plan::with("EVENT_CLIENT_INFO", "false").start(upstream).await;
    world.send(Request::get(BILLABLE).header("User-Agent", "tests/1")).await;
    let event = world.finish().await.remove(0);
    assert_eq!((event.metadata.user_agent, event.metadata.client_ip), (None, None));
}

#[tokio::test]
async fn methods_have_actions_and_the_body_has_one_fingerprint_however_it_is_cut() {
    let world = World::answering(|received| Answer::ok(if received.method() == "HEAD" { "" } else { "x" })).await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
        world.send(Request::new(method, BILLABLE)).await;
    }
    let chunked = Request::new("POST", BILLABLE).chunked([b"abc".to_vec(), b"d".to_vec(), b"ef".to_vec()]);
    for request in [Request::post(BILLABLE, "abcdef"), chunked, Request::post(BILLABLE, "abcdeg")] {
        world.send(request.header("X-Request-ID", "mine")).await;
    }
    let events = world.finish().await;
    let without_id = events.iter().take(8).all(|event| event.fingerprint.is_none());
    assert!(without_id, "only repeats of an id that the client chose are ever compared");
    let actions: Vec<_> = events.iter().take(8).map(|event| event.action.as_str()).collect();
    assert_eq!(actions, ["read", "read", "create", "update", "update", "delete", "other", "other"]);
    let prints: Vec<_> = events.iter().skip(8).map(|event| event.fingerprint.clone().unwrap()).collect();
    assert!(prints[0] == prints[1] && prints[1] != prints[2], "{prints:?}");
}

#[tokio::test]
async fn only_billable_statuses_are_billed_and_have_an_event_id() {
    let world = World::answering(|received| {
        let status = received.target().rsplit('/').next().unwrap().parse().unwrap();
        if matches!(status, 204 | 304) { Answer::head_only(status) } else { Answer::ok("x").status(status) }
    })
    .await;
    let statuses = [200, 201, 204, 299, 301, 304, 400, 404, 429, 500, 503];
    for status in statuses {
        let response = world.send(Request::get(&format!("{BILLABLE}/{status}"))).await;
        let billable = (200..400).contains(&status);
        assert_eq!((response.status, response.header("x-usage-event-id").is_some()), (status, billable), "{status}");
    }
    let outcomes = world.outcomes().await;
    let billed = [200, 201, 204, 299, 301, 304].map(|status| (Outcome::Completed, status, "1".to_owned()));
    assert_eq!(outcomes, billed);
}

#[tokio::test]
async fn billable_statuses_can_be_chosen() {
    let upstream = Upstream::start(|received| {
        Answer::ok("x").status(received.target().rsplit('/').next().unwrap().parse().unwrap())
    });
    let world = Plan::with("BILLABLE_STATUSES", "404,5xx").start(upstream.await.unwrap()).await;
    for status in [200, 404, 410, 500] {
        world.send(Request::get(&format!("{BILLABLE}/{status}"))).await;
    }
    let statuses: Vec<_> = world.outcomes().await.iter().map(|(_, status, _)| *status).collect();
    assert_eq!(statuses, [404, 500]);
}

#[tokio::test]
async fn the_upstream_says_what_a_call_was_worth() {
    let world = World::answering(|received| match received.target().rsplit('/').next().unwrap() {
        "head" => Answer::ok("x").header("X-Usage-Units", "2.5").header("X-Usage-Action", "search"),
        "bad" => Answer::ok("x").header("X-Usage-Units", "-3").header("X-Usage-Action", "two words"),
        "none" => Answer::ok("x").header("X-Usage-Units", "0"),
        "not-billed" => Answer::ok("x").status(404).header("X-Usage-Units", "7"),
        _ => Answer::chunked([b"x".to_vec()])
            .header("X-Usage-Units", "2")
            .header("Trailer", "X-Usage-Units, X-Other")
            .trailer("X-Usage-Units", "0.000001")
            .trailer("X-Usage-Action", "embed")
            .trailer("X-Other", "1"),
    })
    .await;
    for (path, te) in
        [("head", ""), ("bad", ""), ("none", ""), ("not-billed", ""), ("trailers", ""), ("trailers", "trailers")]
    {
        let request = Request::get(&format!("{BILLABLE}/{path}"));
        let request = if te.is_empty() { request } else { request.header("TE", te) };
        let response = world.send(request.header("X-Usage-Units", "99")).await;
        let wire = String::from_utf8_lossy(&response.wire).to_lowercase();
        assert!(!wire.contains("x-usage-units") && !wire.contains("x-usage-action"), "{path}: {wire}");
        let others = if te.is_empty() { 0 } else { 1 };
        assert_eq!(response.body.trailers.len(), others, "{path}: {wire}");
    }
    assert_eq!(world.metric("goldleaves_usage_units_bad_total"), 1.0);
    assert!(world.upstream().served().iter().all(|seen| seen.head.header("x-usage-units").is_none()));
    let events = world.finish().await;
    let told: Vec<_> = events.iter().map(|event| (event.units.to_string(), event.action.to_string())).collect();
    let expected = [("2.5", "search"), ("1", "read"), ("0", "read"), ("0.000001", "embed"), ("0.000001", "embed")];
    assert_eq!(told, expected.map(|(units, action)| (units.to_owned(), action.to_owned())));
}

#[tokio::test]
async fn the_upstream_may_always_send_trailers_on_billable_routes() {
    let world = World::answering(|_| Answer::ok("")).await;
    world.send(Request::get(BILLABLE)).await;
    assert_eq!(world.only_received().head.header("te"), Some("trailers"));
}

#[tokio::test]
async fn strict_answers_once_the_record_is_on_the_disk() {
    let upstream = Upstream::start(|_| Answer::ok("x")).await.unwrap();
    let world = Plan::strict().start(upstream).await;
    for _ in 0..5 {
        let response = world.send(Request::get(BILLABLE)).await;
        assert!(response.status == 200 && response.header("x-usage-event-id").is_some());
    }
    assert_eq!(world.outcomes().await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_share_one_h2_connection_are_billed_one_by_one() {
    let world = World::answering(|_| Answer::ok("hello")).await;
    let stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let bearer = format!("Bearer {}", token());
    // More than may be open at once: the rest waits for its turn.
    let calls = (0..500).map(|number| {
        let uri = format!("http://a{BILLABLE}/{number}");
        let request = hyper::Request::get(uri).header("authorization", &bearer);
        let (request, mut sender) = (request.body(Empty::<bytes::Bytes>::new()).unwrap(), sender.clone());
        async move {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            assert_eq!(response.status(), 200);
            let event_id = response.headers()["x-usage-event-id"].to_str().unwrap().to_owned();
            assert_eq!(response.into_body().collect().await?.to_bytes(), "hello");
            Ok::<_, hyper::Error>(event_id)
        }
    });
    let told: BTreeSet<String> = try_join_all(calls).await.unwrap().into_iter().collect();
    drop(sender);
    driver.await.unwrap().unwrap();
    let events = world.finish().await;
    assert_eq!((told.len(), events.len()), (500, 500));
    assert_eq!(events.iter().map(|event| event.event_id.to_string()).collect::<BTreeSet<_>>(), told);
}
