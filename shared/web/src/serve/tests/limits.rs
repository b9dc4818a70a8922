//! Tests what a client may not do: be silent, slow, long-winded, deaf or one too many.

use super::*;

#[tokio::test]
async fn a_silent_client_is_let_go() {
    let server = Server::start(hasty(), echo);
    let answer = raw(&server, b"").await;
    assert_eq!(answer.as_str(), "");
    assert_eq!(server.stats.first_byte_timeouts(), 1);
}

#[tokio::test]
async fn half_an_h2_preface_is_let_go() {
    let server = Server::start(hasty(), echo);
    assert_eq!(raw(&server, b"PRI * HTTP/2.0\r\n").await, "");
    assert_eq!(server.stats.first_byte_timeouts(), 1);
}

#[tokio::test]
async fn headers_that_drip_are_let_go() {
    let server = Server::start(hasty(), echo);
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let drip = async {
        while stream.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    patiently(drip).await;
    assert_eq!(server.stats.first_byte_timeouts(), 0, "the first byte did come");
}

/// The time for a head is one, whoever reads it: a head of which a part came late has no more of it than one that came at once.
#[tokio::test]
async fn a_head_that_begins_late_has_no_longer() {
    let headers_timeout = Duration::from_millis(1_500);
    let server = Server::start(ServeOptions { headers_timeout, ..ServeOptions::default() }, echo);
    let mut early = server.connect().await;
    early.write_all(b"GET /once HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(early.read(&mut [0; 512]).await.unwrap() > 0);
    tokio::time::sleep(headers_timeout / 2).await;
    let mut late = server.connect().await;
    late.write_all(b"GET / HT").await.unwrap();
    tokio::time::sleep(headers_timeout / 10).await;
    early.write_all(b"GET / HT").await.unwrap();
    let first = patiently(async {
        tokio::select! {
            biased;
            _ = read_to_end(&mut early) => "early",
            _ = read_to_end(&mut late) => "late",
        }
    });
    assert_eq!(first.await, "early", "it was connected first, and waited for since its answer");
}

#[tokio::test]
async fn an_idle_connection_is_let_go() {
    let server = Server::start(hasty(), echo);
    let mut stream = server.connect().await;
    stream.write_all(b"GET /once HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("/once"), "{answer}");
}

#[tokio::test]
async fn a_slow_body_is_no_slow_header() {
    let server = Server::start(hasty(), echo);
    let mut stream = server.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\n").await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        stream.write_all(b"z").await.unwrap();
    }
    assert!(read_to_end(&mut stream).await.ends_with("zzzzzzzzzz"));
}

#[tokio::test]
async fn a_head_that_is_too_long_gets_431() {
    let options = ServeOptions { header_bytes_max: 8 << 10, ..ServeOptions::default() };
    let server = Server::start(options, echo);
    let head = |bytes: usize| {
        format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: {}\r\n\r\n", "a".repeat(bytes))
    };
    assert!(raw(&server, head(7 << 10).as_bytes()).await.starts_with("HTTP/1.1 200"));
    for bytes in [9 << 10, 300 << 10] {
        let answer = raw(&server, head(bytes).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    }
    let many: String = (0..150).map(|number| format!("X-{number}: y\r\n")).collect();
    let answer = raw(&server, format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_head_without_end_is_cut_at_the_limit() {
    let options = ServeOptions { header_bytes_max: 8 << 10, ..ServeOptions::default() };
    let server = Server::start(options, echo);
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nX-Endless: ").await.unwrap();
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(&[b'a'; 4_096]).await.is_ok() {
        sent += 4_096;
        tokio::task::yield_now().await;
    }
    assert!(sent < 64 << 20, "the server reads on without limit");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    let dropped = Arc::new(Notify::new());
    let told = Arc::clone(&dropped);
    let server = Server::start(hasty(), move |_| std::future::ready(endless(Arc::clone(&told))));
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    patiently(dropped.notified()).await;
    drop(stream);
}

#[tokio::test]
async fn one_connection_too_many_waits_for_a_place() {
    let options = ServeOptions { connections: ConnectionLimit::new(2), ..ServeOptions::default() };
    let server = Server::start(options, echo);
    let mut first = http1_client(&server).await;
    let mut second = http1_client(&server).await;
    for client in [&mut first, &mut second] {
        assert!(client.send_request(get(&server, "/")).await.is_ok());
    }
    let mut third = http1_client(&server).await;
    let answer = tokio::spawn(third.send_request(get(&server, "/third")));
    while server.stats.at_limit() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!answer.is_finished());
    assert_eq!(server.stats.open(), 2);
    assert_eq!(server.stats.accepted(), 2);
    drop(first);
    assert_eq!(text(patiently(answer).await.unwrap().unwrap()).await.1, "/third");
    second.ready().await.unwrap();
    assert!(second.send_request(get(&server, "/")).await.is_ok(), "the others are as before");
}
