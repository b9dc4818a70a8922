//! Answers that break off: no client, of whichever version of HTTP, takes what it has of one for the whole.

use super::*;

/// The bytes that a client reads of an answer, and how the connection ends.
async fn taken(server: &Server, request: &str) -> (String, std::io::Result<usize>) {
    let mut stream = server.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let ended = patiently(stream.read_to_end(&mut bytes)).await;
    (String::from_utf8_lossy(&bytes).into_owned(), ended)
}

/// Answers in three pieces of unknown length; `/cut` breaks off behind them.
async fn in_pieces(request: Request<WebBody>) -> Response<WebBody> {
    let is_cut = request.uri().path() == "/cut";
    let pieces = ["one,", "two,", "three"].map(|piece| Ok(Frame::data(Bytes::from(piece))));
    let end = is_cut.then(|| Err(BodyError::Source("the rows could not be read".into())));
    let frames = futures_util::stream::iter(pieces.into_iter().chain(end));
    // So that what came before the end is on its way when it comes.
    let frames = futures_util::StreamExt::then(frames, async |frame| {
        tokio::task::yield_now().await;
        frame
    });
    Response::new(WebBody::boxed(StreamBody::new(Box::pin(frames))))
}

#[tokio::test]
async fn a_broken_answer_has_no_clean_end_in_either_version() {
    let server = Server::start(ServeOptions::default(), in_pieces);
    let (text, ended) = taken(&server, "GET /whole HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(ended.is_ok() && text.ends_with("\r\n0\r\n\r\n"), "{text} {ended:?}");
    let (text, _) = taken(&server, "GET /cut HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200") && !text.ends_with("\r\n0\r\n\r\n"), "{text}");
    let (text, ended) = taken(&server, "GET /whole HTTP/1.0\r\nHost: x\r\n\r\n").await;
    assert!(ended.is_ok() && text.ends_with("\r\n\r\none,two,three"), "{text} {ended:?}");
    let (text, ended) = taken(&server, "GET /cut HTTP/1.0\r\nHost: x\r\n\r\n").await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{text}");
}

#[tokio::test]
async fn a_broken_answer_of_h2_is_reset() {
    let server = Server::start(ServeOptions::default(), in_pieces);
    let mut client = h2_client(&server, 65_535).await;
    let whole = client.send_request(get(&server, "/whole")).await.unwrap();
    assert_eq!(text(whole).await.1, "one,two,three");
    let cut = client.send_request(get(&server, "/cut")).await.unwrap();
    assert!(cut.into_body().collect().await.is_err());
}

#[tokio::test]
async fn an_answer_that_the_server_cuts_at_its_deadline_has_no_clean_end() {
    let dropped = Arc::new(Notify::new());
    let answered = Arc::clone(&dropped);
    let server = Server::start(hasty(), move |_| std::future::ready(endless(Arc::clone(&answered))));
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 17];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.0 200 OK\r\n");
    // A client that takes nothing for too long, and goes on then.
    patiently(dropped.notified()).await;
    let ended = patiently(stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

/// A client that closed its sending half is probed by a zero before a chunk; where there are no chunks, that would be a part of
/// its answer.
#[tokio::test]
async fn nothing_is_added_to_an_answer_without_chunks() {
    let server = Server::start(ServeOptions::default(), async |_| {
        let pieces = ["one,", "two"].map(|piece| Ok::<_, BodyError>(Frame::data(Bytes::from(piece))));
        let frames = futures_util::StreamExt::then(futures_util::stream::iter(pieces), async |frame| {
            // Longer than the server waits before it probes.
            tokio::time::sleep(Duration::from_millis(400)).await;
            frame
        });
        Response::new(WebBody::boxed(StreamBody::new(Box::pin(frames))))
    });
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let text = read_to_end(&mut stream).await;
    assert!(text.ends_with("\r\n\r\none,two"), "{text}");
}
