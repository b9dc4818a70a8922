//! Starting and stopping.

use std::time::Duration;

use goldleaves_domain::Outcome;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{BILLABLE, Plan, token};

/// Listening sockets of a port, as the kernel counts them.
fn listening(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let wanted = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(&wanted) && row[3] == "0A").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_core_listens_and_serves() {
    let upstream = Upstream::start(|_| Answer::ok("x")).await.unwrap();
    let world = Plan::cores(3).start(upstream).await;
    let port = world.gateway.address().port();
    assert_eq!(listening(port), 3);
    for _ in 0..60 {
        assert_eq!(world.send(Request::get(BILLABLE)).await.status, 200);
    }
    assert!(world.metric("goldleaves_upstream_connects_total") > 1.0, "more than one core had work");
    assert_eq!(world.metric("goldleaves_connections_accepted_total"), 60.0);
    let events = world.finish().await;
    assert_eq!((events.len(), listening(port)), (60, 0));
}

#[tokio::test]
async fn an_address_in_use_is_an_error_even_when_it_is_shared() {
    let upstream = Upstream::start(|_| Answer::ok("x")).await.unwrap();
    let world = Plan::default().start(upstream).await;
    let taken = world.gateway.address();
    let other = Upstream::start(|_| Answer::ok("x")).await.unwrap();
    let plan = Plan::with("GATEWAY_ADDR", taken);
    assert!(plan.try_start_before(&other.url()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_finished() {
    let upstream = Upstream::start(|_| {
        Answer::chunked(vec![b"x".to_vec(); 5]).after(Duration::from_millis(200)).dripping(Duration::from_millis(50))
    });
    let world = Plan::cores(2).start(upstream.await.unwrap()).await;
    let address = world.gateway.address();
    let load: Vec<_> = (0..40)
        .map(|_| tokio::spawn(async move { Request::get(BILLABLE).token(&token()).send(address).await }))
        .collect();
    while world.upstream().served().len() < 40 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.gateway.stop();
    for request in load {
        let response = request.await.unwrap().unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "xxxxx"));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(TcpStream::connect(address).await.is_err(), "nothing more is accepted");
    let outcomes = world.outcomes().await;
    assert_eq!(outcomes, vec![(Outcome::Completed, 200, "1".to_owned()); 40]);
}

#[tokio::test]
async fn what_does_not_finish_in_time_was_stopped_by_the_gateway() {
    let upstream = Upstream::start(|received| match received.target().ends_with("head") {
        true => Answer::silence(),
        false => Answer::chunked([b"xyz".to_vec(), b"def".to_vec()])
            .dripping(Duration::from_secs(60))
            .header("X-Usage-Units", "6"),
    });
    let world = Plan::with("SHUTDOWN_GRACE_SECS", "0.2").start(upstream.await.unwrap()).await;
    let mut streams = Vec::new();
    for path in ["head", "body"] {
        let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
        let request = Request::get(&format!("{BILLABLE}/{path}")).token(&token());
        stream.write_all(&request.wire("a")).await.unwrap();
        streams.push(stream);
    }
    let mut read = Vec::new();
    // No hexadecimal digits: those are in the ids of the head too.
    while !String::from_utf8_lossy(&read).contains("xyz") {
        read.push(streams[1].read_u8().await.unwrap());
    }
    while world.upstream().served().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Before the upstream's head there is no status that could be billed.
    assert_eq!(world.outcomes().await, [(Outcome::GatewayStopped, 200, "6".to_owned())]);
}
