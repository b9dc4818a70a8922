//! Many clients and an upstream that all do as they like: no call is lost, none is settled twice.

use std::collections::HashMap;
use std::time::Duration;

use goldleaves_domain::Outcome;
use goldleaves_testkit::client::{Connection, Request};
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::world::{BILLABLE, Plan, World, token};

fn answer(received: &Received) -> Answer {
    let drip = Duration::from_millis(3);
    match received.target().rsplit('/').next().unwrap_or_default() {
        "sized" => Answer::ok(vec![b'x'; 5_000]),
        "chunked" => Answer::chunked(vec![vec![b'x'; 700]; 4]).dripping(drip),
        "late" => Answer::ok("late").after(Duration::from_millis(15)),
        "none" => Answer::head_only(204),
        "error" => Answer::ok("no").status(500),
        "cut" => Answer::cut_short(50, "abc"),
        "cut-chunked" => Answer::cut_chunked("abc").dripping(drip),
        "closing" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        "dead" => Answer::raw(""),
        _ => Answer::silence(),
    }
}

/// One call; the event's id when the response was read to its end and had one.
async fn call(address: std::net::SocketAddr, id: String, mut dice: StdRng) -> Option<(String, String)> {
    let paths = ["sized", "chunked", "late", "none", "error", "cut", "cut-chunked", "closing", "dead", "silent"];
    let target = format!("{BILLABLE}/{}", paths[dice.random_range(0..paths.len())]);
    let request = match dice.random_range(0..4) {
        0 => Request::post(&target, vec![b'u'; 3_000]),
        1 => Request::new("PUT", &target).chunked(vec![vec![b'u'; 500]; 3]),
        2 => Request::new("HEAD", &target),
        _ => Request::get(&target),
    };
    let method = if request.wire("a").starts_with(b"HEAD") { "HEAD" } else { "GET" };
    let wire = request.header("X-Request-ID", &id).token(&token()).wire("a");
    let mut connection = Connection::open(address).await.ok()?;
    // Some leave in the middle of their own request.
    let sent = if dice.random_bool(0.2) { dice.random_range(1..wire.len()) } else { wire.len() };
    connection.write(&wire[..sent]).await.ok()?;
    let patience = if dice.random_bool(0.4) { dice.random_range(0..12) } else { 400 };
    let read = tokio::time::timeout(Duration::from_millis(patience), connection.read(method));
    let response = read.await.ok()?.ok()?;
    let event_id = response.header("x-usage-event-id")?.to_owned();
    response.body.complete.then_some((id, event_id))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_settled_once() {
    let upstream = Upstream::start(answer).await.unwrap();
    let plan = Plan::cores(2).and("SHUTDOWN_GRACE_SECS", "1").and("UPSTREAM_HEAD_TIMEOUT_SECS", "2");
    let world: World = plan.start(upstream).await;
    let address = world.gateway.address();
    let calls = std::env::var("CHAOS_CALLS").ok().and_then(|text| text.parse().ok()).unwrap_or(400_u64);
    let mut read_whole = HashMap::new();
    for round in 0..calls / 40 {
        let running: Vec<_> = (0..40)
            .map(|index| {
                let number = round * 40 + index;
                tokio::spawn(call(address, format!("call-{number}"), StdRng::seed_from_u64(number)))
            })
            .collect();
        for call in running {
            read_whole.extend(call.await.unwrap());
        }
    }
    let events = world.finish().await;
    let mut by_id = HashMap::new();
    for event in &events {
        let before = by_id.insert(event.request_id.to_string(), event);
        assert!(before.is_none(), "{} was settled twice", event.request_id);
    }
    assert!(read_whole.len() > 50, "{}", read_whole.len());
    for (request_id, event_id) in &read_whole {
        let event = by_id.get(request_id).unwrap_or_else(|| panic!("{request_id} was read whole and has no event"));
        assert_eq!((&event.event_id.to_string(), event.outcome), (event_id, Outcome::Completed), "{request_id}");
    }
    let outcomes: std::collections::HashSet<_> = events.iter().map(|event| event.outcome).collect();
    for outcome in [Outcome::Completed, Outcome::ClientAborted, Outcome::UpstreamAborted] {
        assert!(outcomes.contains(&outcome), "no call was {outcome}");
    }
}
