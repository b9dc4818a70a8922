//! Tests the spans of a call: how they hang together, what they say and what they never say.

use goldleaves_testkit::client::Request;
use goldleaves_testkit::collector::{Collector, Span};
use goldleaves_testkit::upstream::{Answer, Received, Upstream};

use crate::world::{BILLABLE, Plan, World};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

struct Traced {
    world: World,
    collector: Collector,
}

async fn traced(handler: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Traced {
    let collector = Collector::start().await.unwrap();
    let plan = Plan::with("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()).and("ALLOWED_ORIGINS", "https://app.example");
    Traced { world: plan.start(Upstream::start(handler).await.unwrap()).await, collector }
}

impl Traced {
    /// Waits for so many spans of the gateway.
    async fn spans(&self, count: usize) -> Vec<Span> {
        let enough = |spans: &[Span]| (spans.len() >= count).then(|| spans.to_vec());
        self.collector.wait_for("spans", enough).await.unwrap()
    }
}

fn request(target: &str, flags: &str) -> Request {
    Request::get(target).header("traceparent", &format!("00-{TRACE}-{CLIENT_SPAN}-{flags}"))
}

fn of_kind<'a>(spans: &'a [Span], kind: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.kind == kind);
    let span = found.next().unwrap_or_else(|| panic!("no {kind} in {spans:#?}"));
    assert_eq!(found.next(), None, "only one {kind}");
    span
}

#[tokio::test]
async fn a_call_is_one_span_below_the_clients_and_one_toward_the_upstream() {
    let traced = traced(|_| Answer::ok("body").header("X-Usage-Units", "2")).await;
    let sent = request(&format!("{BILLABLE}/7?key=private"), "01").header("x-request-id", "r-1");
    let response = traced.world.send(sent).await;
    let spans = traced.spans(2).await;
    assert_eq!(spans.len(), 2);
    let (server, client) = (of_kind(&spans, "Server"), of_kind(&spans, "Client"));
    assert_eq!((server.trace_id.as_str(), server.parent_id.as_str()), (TRACE, CLIENT_SPAN));
    assert_eq!((client.trace_id.as_str(), &client.parent_id), (TRACE, &server.span_id));
    let seen = traced.world.only_received();
    assert_eq!(seen.head.header("traceparent"), Some(client.traceparent().as_str()));

    assert_eq!((server.service.as_str(), server.name.as_str()), ("gateway", format!("GET {BILLABLE}").as_str()));
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", BILLABLE),
        ("http.response.status_code", "200"),
        ("url.scheme", "http"),
        ("network.protocol.version", "1.1"),
        ("goldleaves.route_class", "billable"),
        ("goldleaves.request_id", "r-1"),
        ("goldleaves.event_id", response.header("x-usage-event-id").unwrap()),
    ] {
        assert_eq!(server.says(name), Some(value), "{name}");
    }
    let port = traced.world.upstream().address().port().to_string();
    assert_eq!((client.says("server.address"), client.says("server.port")), (Some("127.0.0.1"), Some(port.as_str())));
    assert_eq!(client.says("http.response.status_code"), Some("200"));
    assert!(server.times.0 <= client.times.0 && client.times.1 <= server.times.1, "{spans:#?}");
    assert!(!server.failed && !client.failed);
    let everything = format!("{spans:?}");
    for private in ["private", "/7", "anna", "acme", "Bearer"] {
        assert!(!everything.contains(private), "{private} is in {everything}");
    }
    let server = server.traceparent();
    assert_eq!(traced.world.finish().await[0].traceparent, Some(server), "the event goes on from the gateway's span");
}

#[tokio::test]
async fn a_trace_that_nobody_wants_is_carried_and_not_exported() {
    let traced = traced(|_| Answer::ok("")).await;
    traced.world.send(request(BILLABLE, "00")).await;
    traced.world.send(Request::get(BILLABLE)).await;
    let spans = traced.spans(2).await;
    assert!(spans.iter().all(|span| span.trace_id != TRACE), "{spans:#?}");
    assert_eq!(of_kind(&spans, "Server").parent_id, "", "without a parent it is the first of its trace");
    let seen = traced.world.upstream().served();
    let carried = seen[0].head.header("traceparent").unwrap().to_owned();
    assert!(carried.starts_with(&format!("00-{TRACE}-")) && carried.ends_with("-00"), "{carried}");
    assert!(!carried.contains(CLIENT_SPAN), "{carried}");
    assert_eq!(traced.world.finish().await[0].traceparent, Some(carried));
}

#[tokio::test]
async fn what_the_gateway_answers_itself_has_a_span_too() {
    let traced = traced(|_| Answer::ok("")).await;
    traced.world.send_bare(request("/health", "01")).await;
    traced.world.send_bare(request(BILLABLE, "01")).await;
    traced.world.send_bare(request("/a%2fb", "01")).await;
    let preflight = Request::new("OPTIONS", BILLABLE).header("Origin", "https://app.example");
    traced.world.send_bare(preflight.header("Access-Control-Request-Method", "GET")).await;
    traced.world.send_bare(Request::new("BREW", BILLABLE)).await;
    let spans = traced.spans(5).await;
    let told = |span: &Span| {
        let say = |name| span.says(name).unwrap_or("-").to_owned();
        (span.name.clone(), say("goldleaves.route_class"), say("http.response.status_code"), say("error.type"))
    };
    let told: Vec<_> = spans.iter().map(told).collect();
    let span =
        |name: &str, class: &str, status: &str| (name.to_owned(), class.to_owned(), status.to_owned(), "-".into());
    let wanted = [
        span("GET", "local", "200"),
        span(&format!("GET {BILLABLE}"), "billable", "401"),
        span("GET", "refused", "400"),
        span("OPTIONS", "preflight", "204"),
        span(&format!("HTTP {BILLABLE}"), "billable", "401"),
    ];
    assert_eq!(told, wanted);
    assert_eq!(spans[4].says("http.request.method"), Some("_OTHER"));
}

#[tokio::test]
async fn what_breaks_off_says_so() {
    let traced = traced(|received| match received.target() {
        "/open/cut" => Answer::cut_short(100, "ten bytes."),
        _ => Answer::silence(),
    })
    .await;
    let cut = request("/open/cut", "01").token(&crate::world::token());
    assert!(cut.send(traced.world.gateway.address()).await.is_err(), "the body breaks off");
    let spans = traced.spans(2).await;
    let (server, client) = (of_kind(&spans, "Server"), of_kind(&spans, "Client"));
    assert_eq!((server.says("error.type"), server.failed), (Some("upstream_aborted"), true));
    assert_eq!((client.says("error.type"), client.failed), (Some("upstream_aborted"), true));
}

#[tokio::test]
async fn a_client_that_leaves_is_told_of() {
    let traced = traced(|_| Answer::silence()).await;
    let token = crate::world::token();
    let left = request(BILLABLE, "01").token(&token);
    let address = traced.world.gateway.address();
    let asking = tokio::spawn(async move { left.send(address).await.is_ok() });
    while traced.world.upstream().served().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    asking.abort();
    let spans = traced.spans(2).await;
    let (server, client) = (of_kind(&spans, "Server"), of_kind(&spans, "Client"));
    assert_eq!((server.says("error.type"), server.says("http.response.status_code")), (Some("cut_off"), None));
    assert_eq!(server.says("goldleaves.route_class"), Some("billable"));
    assert_eq!(client.says("error.type"), Some("cut_off"));
}

#[tokio::test]
async fn an_upstream_that_is_away_is_an_error_of_both() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let collector = Collector::start().await.unwrap();
    let plan = Plan::with("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    let traced = Traced { world: plan.start_before(&format!("http://{closed}")).await, collector };
    assert_eq!(traced.world.send(request(BILLABLE, "01")).await.status, 502);
    let spans = traced.spans(2).await;
    let (server, client) = (of_kind(&spans, "Server"), of_kind(&spans, "Client"));
    assert_eq!((server.says("error.type"), server.failed), (Some("502"), true));
    assert_eq!((client.says("error.type"), client.failed), (Some("upstream_unreachable"), true));
}
