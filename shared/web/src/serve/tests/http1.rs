//! HTTP/1.1: keep-alive, bodies, upgrades, several listeners on one address.

use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use super::*;

async fn converse() {
    let server = Server::start(ServeOptions::default(), echo);
    let mut client = http1_client(&server).await;
    for round in 0..3 {
        client.ready().await.unwrap();
        let response = client.send_request(get(&server, &format!("/{round}"))).await.unwrap();
        assert!(response.headers()["x-peer"].to_str().unwrap().starts_with("127.0.0.1:"));
        assert_eq!(text(response).await, (StatusCode::OK, format!("/{round}")));
    }
    let sent = "y".repeat(300_000);
    let frames =
        sent.as_bytes().chunks(1_000).map(|piece| Ok::<_, BodyError>(Frame::data(Bytes::copy_from_slice(piece))));
    let body = WebBody::boxed(StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>())));
    let request = Request::post("/up").header("host", "test").body(body).unwrap();
    client.ready().await.unwrap();
    assert_eq!(text(client.send_request(request).await.unwrap()).await.1, sent);
    assert_eq!(server.stats.accepted(), 1, "one connection served all");
    assert_eq!(server.stats.open(), 1, "one connection served all");
    drop(client);
    let stats = server.stats.clone();
    assert_eq!(server.stop().await, Served { left: 0 });
    assert_eq!(stats.open(), 0);
}

#[tokio::test]
async fn on_a_current_thread_runtime() {
    converse().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_multi_thread_runtime() {
    converse().await;
}

#[tokio::test]
async fn pipelined_requests_and_http_10() {
    let server = Server::start(ServeOptions::default(), echo);
    let two = "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = raw(&server, two.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert!(answer.find("/a").unwrap() < answer.find("/b").unwrap(), "{answer}");
    let answer = raw(&server, b"GET /old HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("/old"), "{answer}");
}

/// One after the other over one connection, the second cut anywhere: quotes in headers and bodies stay as they are.
#[tokio::test]
async fn what_a_target_should_have_encoded_is_encoded_in_every_request() {
    let server = Server::start(ServeOptions::default(), |request: Request<WebBody>| async move {
        let target = request.uri().to_string();
        let header =
            request.headers().get("x-quoted").map_or_else(String::new, |value| value.to_str().unwrap().to_owned());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let told = format!("{target} {header} {}.", String::from_utf8_lossy(&body));
        Response::new(WebBody::full(Bytes::from(told)))
    });
    let sent = b"POST /a?q=\"<b>\"\xE9 HTTP/1.1\r\nHost: x\r\nX-Quoted: /?\"<\r\nContent-Length: 5\r\n\r\n/?\"<>";
    let told = "/a?q=%22%3Cb%3E%22%E9 /?\"< /?\"<>.";
    let mut stream = server.connect().await;
    for cut in [sent.len(), 1, 9, 14, 30, 60, sent.len() - 2] {
        let (first, second) = sent.split_at(cut);
        stream.write_all(first).await.unwrap();
        if !second.is_empty() {
            tokio::task::yield_now().await;
            stream.write_all(second).await.unwrap();
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b".") {
            assert_ne!(
                patiently(stream.read_buf(&mut answer)).await.unwrap(),
                0,
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(told), "cut at {cut}: {answer}");
    }
}

/// The next request's head comes in part with the one before: what follows is not taken for the beginning of a head.
#[tokio::test]
async fn bodies_behind_pipelined_heads_stay_as_they_are() {
    let server = Server::start(ServeOptions::default(), echo);
    let bodies = [
        "a: b\r\n".repeat(70),
        "Hello <b> \"you\" HTTP/1.1\r\n".to_owned(),
        format!("G /?<\r\n{}", "a:b\n".repeat(200)),
    ];
    for first in [
        "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n/1\r\n0\r\n\r\n",
    ] {
        for body in &bodies {
            let length = body.len();
            let second = format!("POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
            for held in [2, 4, second.len() - 1] {
                let mut stream = server.connect().await;
                let (now, later) = second.split_at(second.len() - held);
                stream.write_all(format!("{first}{now}").as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"/1") {
                    assert_ne!(patiently(stream.read_buf(&mut answer)).await.unwrap(), 0);
                }
                answer.clear();
                stream.write_all(format!("{later}{body}").as_bytes()).await.unwrap();
                while !answer.ends_with(body.as_bytes()) {
                    let read = patiently(stream.read_buf(&mut answer)).await.unwrap();
                    assert_ne!(read, 0, "{held}: {}", String::from_utf8_lossy(&answer));
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_http_gets_400() {
    let server = Server::start(ServeOptions::default(), echo);
    for bytes in [
        &b"hello\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad\0header: x\r\n\r\n",
    ] {
        let answer = raw(&server, bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{bytes:?}: {answer}");
    }
}

#[tokio::test]
async fn an_upgrade_keeps_its_place_until_the_tunnel_closes() {
    let server = Server::start(ServeOptions::default(), |mut request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut tunnel = TokioIo::new(upgrade.await.unwrap());
            let (mut from, mut to) = tokio::io::split(&mut tunnel);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
        response.body(WebBody::empty()).unwrap()
    });
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(patiently(stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"over the tunnel").await.unwrap();
    let mut answer = [0; 15];
    patiently(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"over the tunnel");
    assert_eq!(server.stats.open(), 1);
    drop(stream);
    let stats = server.stats.clone();
    assert_eq!(server.stop().await, Served { left: 0 });
    assert_eq!(stats.open(), 0);
}

#[test]
fn listeners_share_an_address_one_for_each_core() {
    let shared = ListenerOptions { shared: true, ..ListenerOptions::default() };
    let first = shared.bind_std("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = first.local_addr().unwrap();
    let second = shared.bind_std(address).unwrap();
    assert!(ListenerOptions::default().bind_std(address).is_err(), "sharing must be asked for");
    let stop = Stop::default();
    let served: Vec<Arc<AtomicUsize>> = (0..2).map(|_| Arc::default()).collect();
    let cores: Vec<_> = [first, second]
        .into_iter()
        .zip(served.clone())
        .map(|(listener, served)| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async move {
                    let listener = TcpListener::from_std(listener).unwrap();
                    let service = tower::service_fn(move |_: Request<WebBody>| {
                        served.fetch_add(1, Ordering::Relaxed);
                        async { Ok::<_, Infallible>(Response::new(WebBody::empty())) }
                    });
                    serve(listener, service, ServeOptions::default(), stop).await
                })
            })
        })
        .collect();
    for _ in 0..100 {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    stop.graceful.cancel();
    assert!(cores.into_iter().all(|core| core.join().unwrap() == Served { left: 0 }));
    let counts: Vec<usize> = served.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert_eq!(counts.iter().sum::<usize>(), 100);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// Ready only when it was asked three times, and not to be called before.
#[derive(Clone)]
struct Reluctant(u8);

impl Service<Request<WebBody>> for Reluctant {
    type Response = Response<WebBody>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<WebBody>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.0 == 3 {
            return Poll::Ready(Ok(()));
        }
        self.0 += 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, _: Request<WebBody>) -> Self::Future {
        assert_eq!(std::mem::take(&mut self.0), 3, "called before it was ready");
        std::future::ready(Ok(Response::new(WebBody::full("at last"))))
    }
}

#[tokio::test]
async fn a_service_that_is_not_ready_is_waited_for() {
    let listener = bind("127.0.0.1:0".parse().unwrap(), ListenerOptions::default()).unwrap();
    let (address, stats, stop) = (listener.local_addr().unwrap(), ServeStats::default(), Stop::default());
    let running = tokio::spawn(serve(listener, Reluctant(0), ServeOptions::default(), stop.clone()));
    let server = Server { address, stop, stats, running };
    let mut client = http1_client(&server).await;
    for _ in 0..5 {
        client.ready().await.unwrap();
        let response = client.send_request(get(&server, "/")).await.unwrap();
        assert_eq!(text(response).await, (StatusCode::OK, "at last".to_owned()));
    }
}
