//! Upgraded connections: bytes both ways, settled when the tunnel closes.

use std::time::Duration;

use goldleaves_domain::Outcome;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::token::{Claims, now_secs};
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{BILLABLE, Plan, World, token, token_of};

/// Switches to a protocol that sends everything back.
async fn echoing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = head(&mut stream).await.to_lowercase();
                assert!(
                    head.contains("connection: te, upgrade\r\n") && head.contains("upgrade: websocket\r\n"),
                    "{head}"
                );
                let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                                X-Usage-Units: 5\r\n\r\nfirst";
                stream.write_all(switched.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    url
}

async fn head(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(read).unwrap()
}

async fn open(world: &World) -> TcpStream {
    open_with(world, &token()).await
}

async fn open_with(world: &World, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    let request = Request::get(BILLABLE).header("Connection", "Upgrade").header("Upgrade", "websocket").token(token);
    stream.write_all(&request.wire("a")).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("upgrade: websocket\r\n"), "{answer}");
    assert!(answer.contains("x-usage-event-id: ") && !answer.contains("x-usage-units"), "{answer}");
    let mut first = [0; 5];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first", "what came with the head is not lost");
    stream
}

#[tokio::test]
async fn a_tunnel_is_settled_when_it_closes() {
    let world = Plan::default().start_before(&echoing().await).await;
    let mut stream = open(&world).await;
    // More than is read of an answer's head, or in one poll of a connection.
    let long = "x".repeat(3 << 20);
    let (mut read, mut write) = stream.split();
    let mut echoed = vec![0; long.len()];
    let (sent, came) = tokio::join!(write.write_all(long.as_bytes()), read.read_exact(&mut echoed));
    sent.unwrap();
    assert_eq!((came.unwrap(), echoed == long.as_bytes()), (long.len(), true));
    for word in ["hello", "again"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, word.as_bytes());
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.metric("goldleaves_requests_total{class=\"billable\",status=\"101\"}"), 1.0);
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    world.events(1).await;
    let event = world.finish().await.remove(0);
    assert_eq!(
        (event.outcome, event.metadata.status_code, event.units.to_string().as_str()),
        (Outcome::Completed, 101, "5")
    );
    assert_eq!(event.metadata.response_bytes, 15 + (3 << 20));
}

#[tokio::test]
async fn the_gateways_stop_ends_a_tunnel() {
    let plan = Plan::with("SHUTDOWN_GRACE_SECS", "0.2");
    let world = plan.start_before(&echoing().await).await;
    let _stream = open(&world).await;
    assert_eq!(world.outcomes().await, [(Outcome::GatewayStopped, 101, "5".to_owned())]);
}

/// Long enough for any tunnel to end that has an end.
const OUTLIVED: Duration = Duration::from_secs(120);

/// The time that a tunnel is allowed: enough to open one on a machine that has other work.
const ALLOWED_SECS: u64 = 12;

async fn ends(plan: Plan, token: fn() -> String) {
    let world = plan.start_before(&echoing().await).await;
    let mut stream = open_with(&world, &token()).await;
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = Vec::new();
    let ended = tokio::time::timeout(OUTLIVED, stream.read_to_end(&mut echoed)).await;
    assert!(ended.is_ok(), "the tunnel is still open long after the time of its call or the end of its token");
    // A slow machine may reach the end first.
    assert!(b"hello".starts_with(&echoed), "{echoed:?}");
    assert_eq!(world.outcomes().await, [(Outcome::GatewayStopped, 101, "5".to_owned())]);
}

#[tokio::test]
async fn a_tunnel_ends_with_its_time_and_with_its_token() {
    // The token is made when the gateway is up, because a start takes a while on a busy machine.
    let short = || token_of(&Claims::new("acme", "anna").with("exp", json!(now_secs() + ALLOWED_SECS)));
    let timed = Plan::with("CALL_TIMEOUT_SECS", ALLOWED_SECS);
    tokio::join!(ends(timed, token), ends(Plan::default(), short));
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_ends() {
    let world = Plan::with("TUNNEL_IDLE_TIMEOUT_SECS", "2").start_before(&echoing().await).await;
    let mut stream = open(&world).await;
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = Vec::new();
    let ended = tokio::time::timeout(OUTLIVED, stream.read_to_end(&mut echoed)).await;
    assert!(ended.is_ok(), "the tunnel is still open long after it fell silent");
    assert_eq!(echoed, b"hello");
    assert_eq!(world.outcomes().await, [(Outcome::Completed, 101, "5".to_owned())]);
}

#[tokio::test]
async fn an_upstream_may_decline() {
    let world = World::answering(|_| Answer::ok("no")).await;
    let request = Request::get(BILLABLE).header("Connection", "upgrade").header("Upgrade", "websocket");
    assert_eq!(world.send(request).await.text(), "no");
    assert_eq!(world.only_received().head.header("upgrade"), Some("websocket"));
    assert_eq!(world.outcomes().await, [(Outcome::Completed, 200, "1".to_owned())]);
}

#[tokio::test]
async fn nobody_switches_unasked() {
    let world = World::answering(|_| {
        Answer::raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    })
    .await;
    assert_eq!(world.send(Request::get(BILLABLE)).await.status, 502);
    assert!(world.finish().await.is_empty());
}

#[tokio::test]
async fn strict_opens_a_tunnel_once_its_record_is_on_the_disk() {
    let world = Plan::strict().start_before(&echoing().await).await;
    drop(open(&world).await);
    world.events(1).await;
    let outcomes = world.outcomes().await;
    assert_eq!((outcomes.len(), outcomes[0].1), (1, 101));
}

#[tokio::test]
async fn a_websocket_may_bring_its_token_as_a_subprotocol() {
    let declining = || Upstream::start(|_| Answer::ok("no"));
    let ask = |offered: &str| {
        let request = Request::get(BILLABLE).header("Connection", "upgrade").header("Upgrade", "websocket");
        request.header("Sec-WebSocket-Protocol", offered)
    };
    let bearer = format!("bearer.{}", token());
    let world = Plan::with("WEBSOCKET_TOKEN", "true").start(declining().await.unwrap()).await;
    for (request, status) in [
        (ask(&format!("chat, {bearer},v2")), 200),
        (ask(&bearer), 200),
        (ask(&format!("{bearer}, {bearer}")), 401),
        (ask(&bearer).header("Sec-WebSocket-Protocol", &bearer), 401),
        (ask(&format!("chat, {bearer}")).token(&token()), 401),
        (ask("chat, bearer.nonsense"), 401),
        (ask("chat"), 401),
        (ask("chat").token(&token()), 200),
        (Request::get(BILLABLE).header("Sec-WebSocket-Protocol", &bearer), 401),
    ] {
        assert_eq!(world.send_bare(request).await.status, status);
    }
    let seen = world.upstream().served();
    let offered: Vec<_> = seen.iter().map(|seen| seen.head.header("sec-websocket-protocol")).collect();
    assert_eq!(offered, [Some("chat, v2"), None, Some("chat")], "the token is taken out");
    assert!(seen.iter().take(2).all(|seen| seen.head.header("authorization").is_none()));
    assert_eq!(world.finish().await.len(), 3);

    // Where nobody is asked for a token, none goes on either.
    let plan = Plan::with("WEBSOCKET_TOKEN", "true").and("PUBLIC_ROUTES", "/open");
    let world = plan.start(declining().await.unwrap()).await;
    let open = Request::get("/open").header("Connection", "upgrade").header("Upgrade", "websocket");
    assert_eq!(world.send_bare(open.header("Sec-WebSocket-Protocol", &bearer)).await.status, 200);
    assert_eq!(world.only_received().head.header("sec-websocket-protocol"), None);

    // Unless it is set, a subprotocol is no token.
    let world = Plan::default().start(declining().await.unwrap()).await;
    assert_eq!(world.send_bare(ask(&bearer)).await.status, 401);
    assert!(world.finish().await.is_empty());
}
