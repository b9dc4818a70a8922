//! h2 with prior knowledge.

use super::*;

const WINDOW: u32 = 1 << 20;

#[tokio::test]
async fn many_streams_in_one_connection() {
    let server = Server::start(ServeOptions::default(), echo);
    let client = h2_client(&server, WINDOW).await;
    let calls = (0..100).map(|number| {
        let mut client = client.clone();
        let request = get(&server, &format!("/{number}"));
        async move { (number, text(client.send_request(request).await.unwrap()).await) }
    });
    for (number, answer) in futures_util::future::join_all(calls).await {
        assert_eq!(answer, (StatusCode::OK, format!("/{number}")));
    }
    assert_eq!(server.stats.accepted(), 1);
    drop(client);
    assert_eq!(server.stop().await, Served { left: 0 });
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let options = ServeOptions { header_bytes_max: 8 << 10, ..ServeOptions::default() };
    let server = Server::start(options, echo);
    let mut client = h2_client(&server, WINDOW).await;
    let mut request = get(&server, "/");
    request.headers_mut().insert("x-long", "a".repeat(20 << 10).parse().unwrap());
    // 431 where the client sends it at all, a reset stream or connection otherwise; never a 200.
    if let Ok(response) = patiently(client.send_request(request)).await {
        assert_eq!(response.status(), 431);
    }
    let mut client = h2_client(&server, WINDOW).await;
    assert_eq!(text(client.send_request(get(&server, "/next")).await.unwrap()).await.1, "/next");
}

#[tokio::test]
async fn an_idle_connection_is_let_go() {
    let server = Server::start(hasty(), echo);
    let mut client = h2_client(&server, WINDOW).await;
    assert_eq!(text(client.send_request(get(&server, "/")).await.unwrap()).await.0, StatusCode::OK);
    let closed = async {
        while server.stats.open() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    patiently(closed).await;
    assert!(client.ready().await.is_err());
}

#[tokio::test]
async fn a_connection_without_any_request_is_let_go() {
    let server = Server::start(hasty(), echo);
    let client = h2_client(&server, WINDOW).await;
    let closed = async {
        while server.stats.open() > 0 || server.stats.accepted() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    patiently(closed).await;
    drop(client);
}

#[tokio::test]
async fn a_stream_whose_peer_gives_no_window_is_reset() {
    let dropped = Arc::new(Notify::new());
    let told = Arc::clone(&dropped);
    let server = Server::start(hasty(), move |_| std::future::ready(endless(Arc::clone(&told))));
    let mut client = h2_client(&server, 0).await;
    let response = client.send_request(get(&server, "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    patiently(dropped.notified()).await;
    drop(response);
}

#[tokio::test]
async fn a_slow_answer_is_no_stalled_peer() {
    let server = Server::start(hasty(), |_| async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        let (sender, frames) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, BodyError>>(1);
        tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(400)).await;
                sender.send(Ok(Frame::data(Bytes::from_static(b"tick")))).await.unwrap();
            }
        });
        let frames =
            futures_util::stream::unfold(frames, |mut frames| async move { Some((frames.recv().await?, frames)) });
        Response::new(WebBody::boxed(StreamBody::new(Box::pin(frames))))
    });
    let mut client = h2_client(&server, WINDOW).await;
    let response = client.send_request(get(&server, "/")).await.unwrap();
    assert_eq!(text(response).await.1, "tickticktick");
}

#[tokio::test]
async fn a_stalled_stream_is_reset_alone() {
    let server = Server::start(ServeOptions { headers_timeout: PATIENCE, ..hasty() }, |request| async move {
        if request.uri().path() == "/stalled" { endless(Arc::default()) } else { echo(request).await }
    });
    let mut client = h2_client(&server, 1_024).await;
    let stalled = client.send_request(get(&server, "/stalled")).await.unwrap();
    // Siblings: one that is open all the while, and short ones one after the other.
    let (sender, frames) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, BodyError>>(1);
    let frames = futures_util::stream::unfold(frames, |mut frames| async move { Some((frames.recv().await?, frames)) });
    let upload =
        Request::post(get(&server, "/").uri()).body(WebBody::boxed(StreamBody::new(Box::pin(frames)))).unwrap();
    let sibling = tokio::spawn(client.send_request(upload));
    sender.send(Ok(Frame::data(Bytes::from_static(b"begun ")))).await.unwrap();
    let mut body = stalled.into_body();
    // It takes the first frames, and gives no more window.
    let first = patiently(body.frame()).await.unwrap().unwrap();
    let broken = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(text(client.send_request(get(&server, "/short")).await.unwrap()).await.1, "/short");
            if server.stats.streams_reset() > 0 {
                break;
            }
        }
    };
    patiently(broken).await;
    drop((first, body));
    sender.send(Ok(Frame::data(Bytes::from_static(b"and ended")))).await.unwrap();
    drop(sender);
    assert_eq!(text(patiently(sibling).await.unwrap().unwrap()).await.1, "begun and ended");
    assert_eq!(server.stats.accepted(), 1, "nothing else was touched");
    assert_eq!(server.stats.streams_reset(), 1, "nothing else was touched");
}

#[tokio::test]
async fn an_answer_of_the_servers_own_has_five_seconds_to_be_taken() {
    let options = ServeOptions { write_timeout: PATIENCE * 10, headers_timeout: PATIENCE * 10, ..Default::default() };
    let server = Server::start(options, |_| async { Response::new(WebBody::full("refused")) });
    let mut client = h2_client(&server, 0).await;
    let answers: Vec<_> = futures_util::future::join_all((0..50).map(|_| client.send_request(get(&server, "/")))).await;
    for answer in answers {
        let ended = patiently(answer.unwrap().into_body().collect()).await;
        assert!(ended.is_err(), "its stream is reset");
    }
    assert_eq!(server.stats.streams_reset(), 50);
}
