//! Answers that come before a client has sent all it wants to send, and clients that send nothing more.

use tokio::io::AsyncWrite as _;

use super::*;
use crate::serve::linger::Linger;

/// More than the buffers of two sockets hold.
const LARGE: usize = 16 << 20;

async fn refuse(_: Request<WebBody>) -> Response<WebBody> {
    Response::builder().status(401).body(WebBody::full("no")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_reaches_a_client_that_sends_all_before_it_reads() {
    let server = Server::start(ServeOptions::default(), refuse);
    let chunk = [format!("{:x}\r\n", 1 << 16).into_bytes(), vec![b'x'; 1 << 16], b"\r\n".to_vec()].concat();
    for (framing, body) in [
        (format!("Content-Length: {LARGE}"), vec![b'x'; LARGE]),
        ("Transfer-Encoding: chunked".to_owned(), [chunk.repeat(LARGE >> 16), b"0\r\n\r\n".to_vec()].concat()),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n").as_bytes()).await.unwrap();
        stream.write_all(&body).await.expect("the server reads on after its answer");
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.ends_with("\r\n\r\nno"), "{framing}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_http_is_answered_however_much_of_it_comes() {
    let server = Server::start(ServeOptions::default(), refuse);
    let mut stream = server.connect().await;
    stream.write_all(&vec![b'x'; LARGE]).await.expect("the server reads on after its answer");
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

async fn lingered(drip: Option<Duration>) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let writer = tokio::spawn(async move {
        while let Some(pause) = drip {
            tokio::time::sleep(pause).await;
            if client.write_all(b"x").await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    });
    let mut linger = Linger::new();
    std::future::poll_fn(|cx| linger.poll(&mut stream, cx)).await;
    writer.abort();
    let elapsed = began.elapsed();
    tokio::time::resume();
    elapsed
}

#[tokio::test]
async fn neither_silence_nor_a_drip_holds_a_connection_for_long() {
    assert_eq!(lingered(None).await.as_secs(), 5);
    assert_eq!(lingered(Some(Duration::from_secs(4))).await.as_secs(), 30);
}

/// Sends a whole request and that nothing more comes.
async fn half_closed(server: &Server, version: &str, body: &str) -> TcpStream {
    let mut stream = server.connect().await;
    let head = format!("POST / {version}\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut stream).poll_shutdown(cx)).await.unwrap();
    stream
}

/// Long enough that the server has seen the end of what the client sends, and looked after it several times.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test]
async fn a_client_that_only_closes_its_sending_half_is_answered() {
    let server = Server::start(ServeOptions::default(), |request| async {
        let answer = echo(request).await;
        a_while().await;
        answer
    });
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        for body in ["", "body"] {
            let answer = read_to_end(&mut half_closed(&server, version, body).await).await;
            let end = format!("\r\n\r\n{}", if body.is_empty() { "/" } else { body });
            assert!(answer.starts_with(&format!("{version} 200 OK\r\n")) && answer.ends_with(&end), "{answer}");
        }
    }
}

/// Sends a request, with the end of the client's sending half right behind it.
async fn with_the_end_behind(server: &Server, request: &[u8]) -> String {
    let mut stream = server.connect().await;
    stream.write_all(request).await.unwrap();
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut stream).poll_shutdown(cx)).await.unwrap();
    read_to_end(&mut stream).await
}

/// A POST with this body, with its length and in chunks.
fn posts(path: &str, body: &str) -> [Vec<u8>; 2] {
    let half = body.len() / 2;
    let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
    [
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
            chunk(&body[..half]),
            chunk(&body[half..])
        ),
    ]
    .map(String::into_bytes)
}

/// Takes the body, with a pause before each of its pieces, and tells its length or that it broke off.
async fn measure(request: Request<WebBody>) -> Response<WebBody> {
    let is_slow = request.uri().path() == "/slow";
    let mut body = request.into_body();
    let mut length = 0;
    loop {
        if is_slow {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match body.frame().await {
            Some(Ok(frame)) => length += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => return Response::builder().status(400).body(WebBody::full("broke off")).unwrap(),
            None => return Response::new(WebBody::full(format!("{length} bytes"))),
        }
    }
}

#[tokio::test]
async fn a_body_with_the_end_right_behind_it_is_taken_whole() {
    let server = Server::start(ServeOptions::default(), measure);
    for (path, length, times) in
        [("/fast", 5, 100), ("/slow", 5, 20), ("/fast", 300 << 10, 20), ("/slow", 300 << 10, 2)]
    {
        for request in posts(path, &"x".repeat(length)) {
            for _ in 0..times {
                let answer = with_the_end_behind(&server, &request).await;
                let is_whole =
                    answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(&format!("{length} bytes"));
                assert!(is_whole, "{path}, {length} bytes: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_the_end_cuts_off_is_told_from_a_whole_one() {
    let server = Server::start(ServeOptions::default(), measure);
    for (path, length) in [("/fast", 5), ("/slow", 5), ("/fast", 300 << 10), ("/slow", 300 << 10)] {
        for request in posts(path, &"x".repeat(length)) {
            let head = request.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            for sent in [head, head + 1, request.len() - 1] {
                let answer = with_the_end_behind(&server, &request[..sent]).await;
                assert!(answer.starts_with("HTTP/1.1 400 "), "{path}, {sent} of {}: {answer}", request.len());
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_nobody_takes_holds_no_answer_up() {
    let server = Server::start(ServeOptions::default(), |request| async move {
        let kept = (request.uri().path() == "/kept").then_some(request);
        a_while().await;
        drop(kept);
        Response::new(WebBody::full("not taken"))
    });
    for path in ["/kept", "/dropped"] {
        for request in posts(path, "body") {
            for missing in [0, 3] {
                let answer = with_the_end_behind(&server, &request[..request.len() - missing]).await;
                assert!(answer.ends_with("\r\n\r\nnot taken"), "{path}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn a_half_closed_client_gets_a_long_answer_with_pauses_whole() {
    let server = Server::start(ServeOptions::default(), |_| async {
        let frames = futures_util::stream::unfold(0, |round| async move {
            a_while().await;
            let frame = Frame::data(Bytes::from(format!("part {round};")));
            (round < 4).then_some((Ok::<_, BodyError>(frame), round + 1))
        });
        Response::new(WebBody::boxed(StreamBody::new(frames)))
    });
    let answer = read_to_end(&mut half_closed(&server, "HTTP/1.1", "").await).await;
    let (head, mut body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{answer}");
    let mut parts = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        parts.push_str(&rest[..size]);
        body = rest[size..].strip_prefix("\r\n").unwrap();
    }
    assert_eq!(parts, "part 0;part 1;part 2;part 3;");
}

#[tokio::test]
async fn a_client_that_leaves_is_told_from_one_that_listens() {
    let dropped = Arc::new(Notify::new());
    let answering = Arc::clone(&dropped);
    let server = Server::start(ServeOptions::default(), move |request| {
        let answer = (request.headers().contains_key("x-head")).then(|| silent_after_a_chunk(Arc::clone(&answering)));
        let tell = Tell(Arc::clone(&answering));
        async move {
            match answer {
                Some(answer) => {
                    std::mem::forget(tell);
                    answer
                }
                None => {
                    let _tell = tell;
                    std::future::pending().await
                }
            }
        }
    });
    for head in ["", "X-Head: 1\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{head}\r\n").as_bytes()).await.unwrap();
        a_while().await;
        if !head.is_empty() {
            let mut first = vec![0; 1_024];
            assert!(patiently(stream.read(&mut first)).await.unwrap() > 0);
        }
        drop(stream);
        patiently(dropped.notified()).await;
    }
}

struct Tell(Arc<Notify>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn silent_after_a_chunk(dropped: Arc<Notify>) -> Response<WebBody> {
    let tell = Tell(dropped);
    let first = futures_util::stream::iter([Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"first")))]);
    let frames = futures_util::StreamExt::chain(first, futures_util::stream::pending());
    let frames = futures_util::StreamExt::inspect(frames, move |_| {
        let _held = &tell;
    });
    Response::new(WebBody::boxed(StreamBody::new(frames)))
}
