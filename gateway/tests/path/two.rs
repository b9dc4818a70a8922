//! Upstreams of HTTP/2: calls share connections, trailers and resets pass both ways, and what the upstream did not look at
//! is sent again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goldleaves_domain::Outcome;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::h2_upstream::{H2Call, H2Upstream, Options, map};
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::secure::{Authority, Validity};
use goldleaves_testkit::token::Claims;
use goldleaves_testkit::upstream::{Answer, Upstream};
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use crate::world::{BILLABLE, Plan, World, token, token_of};

/// Whatever a test waits for has happened long before.
const LONG: Duration = Duration::from_secs(60);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it does not happen")
}

fn plan(origin: &str) -> Plan {
    Plan::with("UPSTREAMS", json!([{"name": "two", "addresses": [origin], "protocol": "h2"}]))
        .and("ROUTES", json!([{"path": "/api", "upstream": "two"}]))
}

/// In front of an upstream of HTTP/2 at this origin, and of another one for what has no route.
async fn before(origin: &str) -> World {
    plan(origin).start_before("http://127.0.0.1:1").await
}

async fn before_plain(upstream: &H2Upstream) -> World {
    before(&format!("http://{}", upstream.authority())).await
}

/// Sends everything back, with how much it was in a trailer.
/// Clients of HTTP/1.1 get those trailers that were announced.
async fn echo(mut asked: H2Call) {
    let (body, trailers) = asked.body().await.unwrap();
    let sum = trailers.and_then(|fields| fields.get("x-sum").cloned());
    let sum = sum.map(|sum| sum.to_str().unwrap().to_owned()).unwrap_or_default();
    let length = body.len().to_string();
    let mut stream = asked.head(&[("trailer", "x-length, x-sum, x-usage-units")]).unwrap();
    stream.send_data(body.into(), false).unwrap();
    stream.send_trailers(map(&[("x-length", &length), ("x-sum", &sum), ("x-usage-units", "7")]).unwrap()).unwrap();
}

/// Waits until so many calls came.
async fn came(upstream: &H2Upstream, calls: usize) {
    within(async {
        while upstream.calls() < calls {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A client of HTTP/2.
struct Client(SendRequest<Bytes>);

impl Client {
    async fn connect(world: &World) -> Self {
        let stream = TcpStream::connect(world.gateway.address()).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a head; what ends the stream with it has no body.
    async fn ask(&mut self, method: &str, ends: bool) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let mut sender = self.0.clone().ready().await.unwrap();
        let request = http::Request::builder().method(method).uri(format!("http://shop.example{BILLABLE}"));
        let request = request.header("authorization", format!("Bearer {}", token())).header("te", "trailers");
        sender.send_request(request.body(()).unwrap(), ends).unwrap()
    }
}

#[tokio::test]
async fn clients_of_http_1_are_served_by_it() {
    let (heads, mut seen) = mpsc::unbounded_channel();
    let upstream = H2Upstream::start(Options::default(), move |asked| {
        heads.send((asked.request.uri().clone(), asked.request.headers().clone())).unwrap();
        echo(asked)
    });
    let upstream = upstream.await.unwrap();
    let world = before_plain(&upstream).await;
    let post = || Request::post(BILLABLE, "hello").header("Host", "shop.example").header("Keep-Alive", "5");
    let response = world.send(post()).await;
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.header("x-usage-units"), None);
    let (uri, headers) = seen.recv().await.unwrap();
    assert_eq!(uri, format!("http://shop.example{BILLABLE}").as_str());
    assert_eq!(headers["content-length"], "5");
    assert!(["host", "connection", "keep-alive"].iter().all(|name| !headers.contains_key(*name)), "{headers:?}");
    let chunked = Request::new("POST", BILLABLE).header("TE", "trailers").chunked([b"ab".to_vec(), b"c".to_vec()]);
    let response = world.send(chunked).await;
    assert_eq!((response.text().as_str(), response.body.trailers.len()), ("abc", 2), "{:?}", response.body.trailers);
    let (_, headers) = seen.recv().await.unwrap();
    assert_eq!((headers.get("content-length"), headers.get("transfer-encoding")), (None, None));
    assert_eq!(headers["te"], "trailers");
    let upgrade = Request::get(BILLABLE).header("Connection", "Upgrade").header("Upgrade", "websocket");
    let refused = world.send(upgrade).await;
    assert_eq!((refused.status, refused.json().unwrap()["code"].as_str()), (501, Some("upgrade_refused")));
    assert_eq!(upstream.connections(), 1);
    let billed = |units: &str| (Outcome::Completed, 200, units.to_owned());
    assert_eq!(world.outcomes().await, [billed("7"), billed("7")]);
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways() {
    let upstream = H2Upstream::start(Options::default(), echo).await.unwrap();
    let world = before_plain(&upstream).await;
    let (response, mut body) = Client::connect(&world).await.ask("POST", false).await;
    let long = Bytes::from(vec![b'x'; 3 << 20]);
    let sending = async {
        body.send_data(long.clone(), false).unwrap();
        body.send_trailers(map(&[("x-sum", "12"), ("x-usage-units", "9")]).unwrap()).unwrap();
    };
    let reading = async {
        let mut answer = response.await.unwrap();
        let (mut came, body) = (0, answer.body_mut());
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            came += piece.len();
        }
        (came, body.trailers().await.unwrap().unwrap())
    };
    let (_, (came, trailers)) = within(async { tokio::join!(sending, reading) }).await;
    assert_eq!(came, long.len());
    assert_eq!(
        (&trailers["x-length"], &trailers["x-sum"]),
        (&long.len().to_string().parse().unwrap(), &"12".parse().unwrap())
    );
    assert!(!trailers.contains_key("x-usage-units"));
    assert_eq!(world.outcomes().await, [(Outcome::Completed, 200, "7".to_owned())]);
}

#[tokio::test]
async fn calls_share_a_connection_up_to_what_the_upstream_allows() {
    for (streams_max, fewest, most) in [(None, 1, 1), (Some(10), 3, 4)] {
        let (go, calls) = (Arc::new(Notify::new()), 30);
        let wait = Arc::clone(&go);
        let upstream = H2Upstream::start(Options { streams_max, ..Options::default() }, move |asked| {
            let wait = Arc::clone(&wait);
            async move {
                wait.notified().await;
                asked.answer("ok", &[]).unwrap();
            }
        });
        let upstream = upstream.await.unwrap();
        let world = before_plain(&upstream).await;
        // So that the upstream's settings are known.
        go.notify_one();
        assert_eq!(world.send(Request::get(BILLABLE)).await.text(), "ok");
        let mut client = Client::connect(&world).await;
        let mut answers = Vec::new();
        for _ in 0..calls {
            answers.push(client.ask("GET", true).await.0);
        }
        came(&upstream, calls + 1).await;
        go.notify_waiters();
        for answer in answers {
            assert_eq!(within(answer).await.unwrap().status(), 200);
        }
        assert!((fewest..=most).contains(&upstream.connections()), "{} connections", upstream.connections());
        assert_eq!(world.finish().await.len(), calls + 1);
    }
}

#[tokio::test]
async fn over_tls_the_upstream_must_choose_h2() {
    let authority = Authority::new().unwrap();
    let identity = authority.sign("server", &["127.0.0.1"], Validity::Good).unwrap();
    for (protocols, status) in [(&["h2"][..], 200), (&["h2", "http/1.1"], 200), (&["http/1.1"], 502), (&[], 502)] {
        let tls = Some(Authority::server(&identity, protocols, None).unwrap());
        let upstream = H2Upstream::start(Options { tls, ..Options::default() }, echo).await.unwrap();
        let entry = json!([{
            "name": "two", "addresses": [format!("https://{}", upstream.authority())],
            "protocol": "h2", "ca_file": authority.file(),
        }]);
        let plan = Plan::with("UPSTREAMS", entry).and("ROUTES", json!([{"path": "/api", "upstream": "two"}]));
        let world = plan.start_before("http://127.0.0.1:1").await;
        let response = world.send(Request::post(BILLABLE, "hello")).await;
        assert_eq!(response.status, status, "{protocols:?}");
        assert_eq!(upstream.calls(), usize::from(status == 200));
        assert_eq!(world.finish().await.len(), usize::from(status == 200));
    }
}

#[tokio::test]
async fn what_speaks_only_http_1_is_a_502() {
    let upstream = Upstream::start(|_| Answer::ok("")).await.unwrap();
    let world = before(&upstream.url()).await;
    let response = world.send(Request::get(BILLABLE)).await;
    assert_eq!((response.status, response.json().unwrap()["code"].as_str()), (502, Some("upstream_unreachable")));
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn it_is_spoken_over_sockets_of_this_machine() {
    let scratch = Scratch::new("socket").unwrap();
    let path = scratch.join("two.sock");
    let _upstream = H2Upstream::start_at(&path, echo).unwrap();
    let world = before(&format!("unix:{}", path.display())).await;
    assert_eq!(world.send(Request::post(BILLABLE, "hello")).await.text(), "hello");
}

#[tokio::test]
async fn what_the_upstream_refused_to_look_at_is_sent_again() {
    for (request, status, calls) in [
        (Request::get(BILLABLE), 200, 2),
        (Request::new("POST", BILLABLE), 200, 2),
        (Request::post(BILLABLE, "hello"), 502, 1),
    ] {
        let upstream = H2Upstream::start(Options::default(), |mut asked| async move {
            if asked.number == 0 {
                asked.respond.send_reset(Reason::REFUSED_STREAM);
            } else {
                echo(asked).await;
            }
        });
        let upstream = upstream.await.unwrap();
        let world = before_plain(&upstream).await;
        assert_eq!((world.send(request).await.status, upstream.calls()), (status, calls));
        let retried = "goldleaves_upstream_calls_retried_total{upstream=\"two\",reason=\"refused\"}";
        assert_eq!(world.metric(retried), f64::from(u8::from(status == 200)));
        assert_eq!(world.finish().await.len(), usize::from(status == 200), "one event, however often it was sent");
    }
}

#[tokio::test]
async fn any_other_reset_is_an_answer_and_not_sent_again() {
    let upstream = H2Upstream::start(Options::default(), |mut asked| async move {
        if asked.number == 1 {
            asked.respond.send_reset(Reason::INTERNAL_ERROR);
        } else {
            echo(asked).await;
        }
    });
    let upstream = upstream.await.unwrap();
    let world = before_plain(&upstream).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(world.send(Request::get(BILLABLE)).await.status);
    }
    assert_eq!((statuses.as_slice(), upstream.calls(), upstream.connections()), (&[200, 502, 200][..], 3, 1));
    assert_eq!(world.finish().await.len(), 2);
}

#[tokio::test]
async fn an_upstream_that_goes_away_costs_no_call() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let upstream = H2Upstream::start(Options::default(), move |asked| {
        let wait = Arc::clone(&wait);
        async move {
            if asked.number % 5 == 0 {
                asked.leave.notify_one();
            }
            if asked.number == 0 {
                wait.notified().await;
            }
            echo(asked).await;
        }
    });
    let upstream = upstream.await.unwrap();
    let world = before_plain(&upstream).await;
    let (first, _) = Client::connect(&world).await.ask("GET", true).await;
    let mut first = tokio::spawn(first);
    came(&upstream, 1).await;
    for _ in 0..30 {
        assert_eq!(world.send(Request::post(BILLABLE, "hello")).await.text(), "hello");
    }
    assert!(!first.is_finished());
    go.notify_one();
    assert_eq!(within(&mut first).await.unwrap().unwrap().status(), 200, "what was under way ends");
    assert!(upstream.connections() > 5, "{} connections", upstream.connections());
    assert_eq!(world.finish().await.len(), 31);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_broken_off() {
    for how in ["cancel", "fault", "dies", "short"] {
        let half_came = Arc::new(Notify::new());
        let wait = Arc::clone(&half_came);
        let upstream = H2Upstream::start(Options::default(), move |mut asked| {
            let wait = Arc::clone(&wait);
            async move {
                let mut body = asked.head(&[("content-length", "100")]).unwrap();
                body.send_data("half".into(), false).unwrap();
                wait.notified().await;
                match how {
                    "cancel" => body.send_reset(Reason::CANCEL),
                    "fault" => body.send_reset(Reason::INTERNAL_ERROR),
                    "short" => body.send_reset(Reason::NO_ERROR),
                    _ => asked.kill.abort(),
                }
            }
        });
        let upstream = upstream.await.unwrap();
        let world = before_plain(&upstream).await;
        let (answer, _) = Client::connect(&world).await.ask("GET", true).await;
        let mut answer = within(answer).await.unwrap();
        assert_eq!(within(answer.body_mut().data()).await.unwrap().unwrap(), "half");
        half_came.notify_one();
        let end = within(answer.body_mut().data()).await;
        assert!(matches!(end, Some(Err(_))), "{how}: {end:?}");
        assert_eq!(world.outcomes().await, [(Outcome::UpstreamAborted, 200, "0".to_owned())], "{how}");
    }
}

#[tokio::test]
async fn a_clients_reset_becomes_one_toward_the_upstream() {
    for (head, ends, status) in [(false, true, 499), (false, false, 499), (true, true, 200), (true, false, 200)] {
        let (told, mut hears) = mpsc::unbounded_channel();
        let upstream = H2Upstream::start(Options::default(), move |mut asked| {
            let told = told.clone();
            async move {
                let mut stream = head.then(|| asked.head(&[]).unwrap());
                told.send(None).unwrap();
                let reset = match &mut stream {
                    Some(stream) => std::future::poll_fn(|cx| stream.poll_reset(cx)).await,
                    None => std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await,
                };
                told.send(Some(reset.unwrap())).unwrap();
            }
        });
        let upstream = upstream.await.unwrap();
        let world = before_plain(&upstream).await;
        let mut client = Client::connect(&world).await;
        let (answer, mut body) = client.ask("POST", ends).await;
        assert_eq!(within(hears.recv()).await, Some(None));
        if head {
            drop(within(answer).await.unwrap());
        } else {
            drop(answer);
        }
        body.send_reset(Reason::CANCEL);
        let reset = within(hears.recv()).await.flatten();
        assert!(reset.is_some(), "head {head}, ends {ends}");
        assert_eq!((world.metric("goldleaves_upstream_outstanding"), upstream.connections()), (0.0, 1));
        assert_eq!(world.outcomes().await, [(Outcome::ClientAborted, status, "1".to_owned())]);
    }
}

#[tokio::test]
async fn the_end_of_a_calls_time_resets_its_stream() {
    let (told, mut hears) = mpsc::unbounded_channel();
    let upstream = H2Upstream::start(Options::default(), move |mut asked| {
        let told = told.clone();
        async move {
            let mut stream = asked.head(&[]).unwrap();
            told.send(std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap()).unwrap();
        }
    });
    let upstream = upstream.await.unwrap();
    let plan = plan(&format!("http://{}", upstream.authority())).and("CALL_TIMEOUT_SECS", "2");
    let world = plan.start_before("http://127.0.0.1:1").await;
    let mut client = Client::connect(&world).await;
    // The request's body stays open, too.
    let (answer, _body) = client.ask("POST", false).await;
    let mut answer = within(answer).await.unwrap();
    assert!(matches!(within(answer.body_mut().data()).await, Some(Err(_))));
    assert!(within(hears.recv()).await.is_some());
    assert_eq!(world.outcomes().await, [(Outcome::GatewayStopped, 200, "1".to_owned())]);
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_holds_nobody_else_up() {
    let upstream = H2Upstream::start(Options::default(), |mut asked| async move {
        if asked.number >= 60 {
            return echo(asked).await;
        }
        let mut body = asked.head(&[]).unwrap();
        body.send_data(vec![0; 4 << 20].into(), true).unwrap();
        std::future::poll_fn(|cx| body.poll_reset(cx)).await.ok();
    });
    let upstream = upstream.await.unwrap();
    // So that no stalled stream is given up, which would make room.
    let plan = plan(&format!("http://{}", upstream.authority())).and("BODY_IDLE_TIMEOUT_SECS", "3600");
    let world = plan.start_before("http://127.0.0.1:1").await;
    let (mut client, mut held) = (Client::connect(&world).await, Vec::new());
    for _ in 0..60 {
        let (answer, _) = client.ask("GET", true).await;
        held.push(within(answer).await.unwrap());
    }
    for _ in 0..20 {
        let long = "x".repeat(100_000);
        assert_eq!(within(world.send(Request::post(BILLABLE, long.clone()))).await.text(), long);
    }
    assert_eq!(upstream.connections(), 1);
    drop(held);
}

#[tokio::test]
async fn an_unused_connection_makes_room_and_no_more_than_one() {
    let one = H2Upstream::start(Options::default(), echo).await.unwrap();
    let two = H2Upstream::start(Options::default(), echo).await.unwrap();
    let entry = |name: &str, upstream: &H2Upstream| json!({"name": name, "addresses": [format!("http://{}", upstream.authority())], "protocol": "h2"});
    let routes = json!([{"path": "/one", "upstream": "one"}, {"path": "/two", "upstream": "two"}]);
    let plan = Plan::with("UPSTREAMS", json!([entry("one", &one), entry("two", &two)]))
        .and("ROUTES", routes)
        .and("UPSTREAM_CONNECTIONS_MAX", "2");
    let world = plan.start(Upstream::start(|_| Answer::ok("other")).await.unwrap()).await;
    for path in ["/one", "/two"] {
        assert_eq!(world.send(Request::post(path, "hello")).await.text(), "hello");
    }
    let other = world.send(Request::get(BILLABLE)).await;
    assert_eq!((other.status, other.text().as_str()), (200, "other"));
    assert_eq!(world.metric("goldleaves_upstream_connections "), 2.0, "the other one of the two is kept");
}

#[tokio::test]
async fn a_connection_that_goes_away_is_counted_until_its_last_stream_ends() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let upstream = H2Upstream::start(Options::default(), move |asked| {
        let wait = Arc::clone(&wait);
        async move {
            if asked.number == 0 {
                wait.notified().await;
            } else {
                asked.leave.notify_one();
            }
            echo(asked).await;
        }
    });
    let upstream = upstream.await.unwrap();
    let plan = plan(&format!("http://{}", upstream.authority())).and("UPSTREAM_CONNECTIONS_MAX", "1");
    let world = plan.start_before("http://127.0.0.1:1").await;
    let (first, _) = Client::connect(&world).await.ask("GET", true).await;
    let first = tokio::spawn(first);
    came(&upstream, 1).await;
    // Nobody alone gets every connection.
    let token = token_of(&Claims::new("another", "bob"));
    let ask = async || world.send_bare(Request::post(BILLABLE, "hello").token(&token)).await;
    within(async {
        while ask().await.status == 200 {
            assert_eq!(upstream.connections(), 1, "the first has not ended, and there may be one");
        }
    })
    .await;
    let busy = ask().await;
    assert_eq!((busy.status, busy.json().unwrap()["code"].as_str()), (503, Some("upstream_busy")));
    go.notify_one();
    assert_eq!(within(first).await.unwrap().unwrap().status(), 200);
    within(async { while ask().await.status != 200 {} }).await;
}
