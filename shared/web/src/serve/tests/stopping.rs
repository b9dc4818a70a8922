//! Stopping: what is in flight finishes, what does not is dropped and counted.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;

/// Clients that call without a pause until the server is gone; what they got whole, and what broke within an answer.
async fn load(server: &Server, clients: usize, connect_h2: bool) -> Vec<JoinHandle<(usize, usize)>> {
    let mut loads = Vec::new();
    for _ in 0..clients {
        let uri = format!("http://{}/", server.address);
        let request = move || Request::builder().uri(&uri).header("host", "x").body(WebBody::empty()).unwrap();
        let (mut whole, mut broken) = (0, 0);
        if connect_h2 {
            let mut client = h2_client(server, 1 << 20).await;
            loads.push(tokio::spawn(async move {
                while let Ok(response) = client.send_request(request()).await {
                    let body = response.into_body().collect().await;
                    if body.is_ok_and(|body| body.to_bytes() == "done") { whole += 1 } else { broken += 1 }
                }
                (whole, broken)
            }));
        } else {
            let mut client = http1_client(server).await;
            loads.push(tokio::spawn(async move {
                while client.ready().await.is_ok() {
                    let Ok(response) = client.send_request(request()).await else { break };
                    let body = response.into_body().collect().await;
                    if body.is_ok_and(|body| body.to_bytes() == "done") { whole += 1 } else { broken += 1 }
                }
                (whole, broken)
            }));
        }
    }
    loads
}

async fn under_load(connect_h2: bool) {
    let begun = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicUsize::new(0));
    let counts = (Arc::clone(&begun), Arc::clone(&ended));
    let options = ServeOptions { grace: PATIENCE, ..ServeOptions::default() };
    let server = Server::start(options, move |_| {
        let (begun, ended) = counts.clone();
        async move {
            begun.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(30)).await;
            ended.fetch_add(1, Ordering::Relaxed);
            Response::new(WebBody::full("done"))
        }
    });
    let clients = load(&server, 20, connect_h2).await;
    while ended.load(Ordering::Relaxed) < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let address = server.address;
    assert_eq!(server.stop().await, Served { left: 0 });
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    let (mut whole, mut broken) = (0, 0);
    for client in clients {
        let (more_whole, more_broken) = patiently(client).await.unwrap();
        whole += more_whole;
        broken += more_broken;
    }
    assert_eq!(broken, 0);
    let begun = begun.load(Ordering::Relaxed);
    assert_eq!(whole, begun, "every request that began was answered whole");
    assert_eq!(ended.load(Ordering::Relaxed), begun, "every request that began was answered whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_finish_http1() {
    under_load(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_finish_h2() {
    under_load(true).await;
}

#[tokio::test]
async fn idle_and_silent_connections_do_not_hold_a_stop_up() {
    let options = ServeOptions { grace: PATIENCE * 10, ..ServeOptions::default() };
    let server = Server::start(options, echo);
    let mut idle = http1_client(&server).await;
    assert!(idle.send_request(get(&server, "/")).await.is_ok());
    let idle_h2 = h2_client(&server, 1 << 20).await;
    let silent = server.connect().await;
    while server.stats.open() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.stop().await, Served { left: 0 });
    drop((idle, idle_h2, silent));
}

/// Notes at its drop whether the server had said that it stops.
struct Guard {
    hard: CancellationToken,
    said: Arc<AtomicBool>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.said.store(self.hard.is_cancelled(), Ordering::Relaxed);
    }
}

async fn never_ending(options: ServeOptions, connect_h2: bool, end: impl Fn(&Stop)) -> (Served, bool) {
    let said = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(Notify::new());
    let stop = Stop::default();
    let (hard, noted, started) = (stop.hard.clone(), Arc::clone(&said), Arc::clone(&begun));
    let server = Server::start_with(options, stop, move |_| {
        let guard = Guard { hard: hard.clone(), said: Arc::clone(&noted) };
        started.notify_one();
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    let request = get(&server, "/");
    let call = if connect_h2 {
        let mut client = h2_client(&server, 1 << 20).await;
        tokio::spawn(async move { client.send_request(request).await.is_err() })
    } else {
        let mut client = http1_client(&server).await;
        tokio::spawn(async move { client.send_request(request).await.is_err() })
    };
    patiently(begun.notified()).await;
    end(&server.stop);
    let served = patiently(server.running).await.unwrap();
    assert!(patiently(call).await.unwrap(), "the client sees that it was cut off");
    (served, said.load(Ordering::Relaxed))
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_dropped_and_counted() {
    for connect_h2 in [false, true] {
        let ended = never_ending(hasty(), connect_h2, |stop| stop.graceful.cancel()).await;
        assert_eq!(ended, (Served { left: 1 }, true), "h2: {connect_h2}");
    }
}

#[tokio::test]
async fn a_stop_at_once_does_not_wait() {
    for connect_h2 in [false, true] {
        let options = ServeOptions { grace: PATIENCE * 10, ..ServeOptions::default() };
        let ended = never_ending(options, connect_h2, |stop| {
            stop.graceful.cancel();
            stop.hard.cancel();
        });
        assert_eq!(ended.await, (Served { left: 1 }, true), "h2: {connect_h2}");
    }
}

/// Asks once over this connection; `None` = the server took it and said nothing.
async fn only_request(mut stream: TcpStream) -> Option<String> {
    stream.write_all(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ok()?;
    let answer = read_to_end(&mut stream).await;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

#[tokio::test]
async fn whom_the_kernel_let_in_is_answered_after_the_stop() {
    let server = Server::start(ServeOptions { grace: PATIENCE, ..ServeOptions::default() }, echo);
    // Nobody polls the server in between: they wait in the listening socket's queue.
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let stream = std::net::TcpStream::connect(server.address).unwrap();
        stream.set_nonblocking(true).unwrap();
        waiting.push(TcpStream::from_std(stream).unwrap());
    }
    server.stop.graceful.cancel();
    let answers: Vec<_> = waiting.into_iter().map(|stream| tokio::spawn(only_request(stream))).collect();
    for answer in answers {
        let answer = patiently(answer).await.unwrap().expect("each of them has its answer");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(server.stop().await, Served { left: 0 });
}

/// Connects and asks again and again, each time over a new connection: how often nobody answered one who got in.
async fn newcomers(address: SocketAddr) -> (usize, usize) {
    let (mut answered, mut lost) = (0, 0);
    while let Ok(stream) = TcpStream::connect(address).await {
        match only_request(stream).await {
            Some(_) => answered += 1,
            None => lost += 1,
        }
    }
    (answered, lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_connect_without_a_pause_lose_nothing_at_a_stop() {
    for _ in 0..5 {
        let server = Server::start(ServeOptions { grace: PATIENCE, ..ServeOptions::default() }, echo);
        let clients: Vec<_> = (0..16).map(|_| tokio::spawn(newcomers(server.address))).collect();
        while server.stats.accepted() < 300 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(server.stop().await, Served { left: 0 });
        for client in clients {
            let (answered, lost) = patiently(client).await.unwrap();
            assert!(answered > 0 && lost == 0, "{answered} answered, {lost} lost");
        }
    }
}

#[tokio::test]
async fn a_request_that_has_begun_is_finished_after_the_stop() {
    let server = Server::start(ServeOptions { grace: PATIENCE, ..ServeOptions::default() }, echo);
    let mut streams = Vec::new();
    for begun in ["", "GET /la"] {
        let mut stream = server.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        streams.push((stream, begun));
    }
    while server.stats.accepted() < 2 {
        tokio::task::yield_now().await;
    }
    server.stop.graceful.cancel();
    tokio::task::yield_now().await;
    for (mut stream, begun) in streams {
        let rest = "GET /last HTTP/1.1\r\nHost: x\r\n\r\n".strip_prefix(begun).unwrap();
        stream.write_all(rest.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("/last"), "after {begun:?}: {answer}");
    }
    assert_eq!(server.stop().await, Served { left: 0 });
}

/// The answers fill what is between both, so that the last one is still being written when the server is asked to stop, with
/// another request unread behind it.
#[tokio::test]
async fn an_answer_in_writing_at_a_stop_reaches_a_client_that_sends_on() {
    const BODY: usize = 8_000;
    let called = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&called);
    let server = Server::start(ServeOptions { grace: PATIENCE, ..ServeOptions::default() }, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Response::new(WebBody::passed(Bytes::from_static(&[b'x'; BODY]))))
    });
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    let mut asked = 0;
    let is_called = async |asked| {
        while called.load(Ordering::Relaxed) < asked {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    loop {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        asked += 1;
        // One that comes late on a busy machine only makes this test see less.
        if tokio::time::timeout(Duration::from_millis(300), is_called(asked)).await.is_err() {
            break;
        }
    }
    server.stop.graceful.cancel();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut all = Vec::new();
    patiently(stream.read_to_end(&mut all)).await.expect("the server closes in order");
    let answers = String::from_utf8(all).unwrap();
    assert!(answers.matches("HTTP/1.1 200").count() >= asked - 1, "each one that was called for is there");
    assert_eq!(answers.matches('x').count(), answers.matches("HTTP/1.1 200").count() * BODY, "and whole");
    drop(stream);
    assert_eq!(server.stop().await, Served { left: 0 });
}

#[tokio::test]
async fn a_draining_server_serves_on_and_keeps_nobody() {
    let server = Server::start(ServeOptions::default(), echo);
    let mut kept = http1_client(&server).await;
    let response = kept.send_request(get(&server, "/before")).await.unwrap();
    assert!(!response.headers().contains_key("connection"));
    text(response).await;
    server.stop.draining.cancel();
    tokio::task::yield_now().await;
    kept.ready().await.unwrap();
    let response = kept.send_request(get(&server, "/within")).await.unwrap();
    assert_eq!(response.headers()["connection"], "close");
    text(response).await;
    let mut new = http1_client(&server).await;
    let response = new.send_request(get(&server, "/new")).await.unwrap();
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(text(response).await.0, StatusCode::OK);
    assert_eq!(server.stop().await, Served { left: 0 });
}
