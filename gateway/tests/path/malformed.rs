//! Messages of HTTP/2 that are none: refused, whatever had been sent on of them, and never billed.

use std::time::Duration;

use bytes::Bytes;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::Answer;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::world::{BILLABLE, World, token};

type Frames = mpsc::Sender<Result<Frame<Bytes>, std::convert::Infallible>>;

/// A request over h2 that announces this length or none, and where its body's frames go.
async fn begin(world: &World, length: Option<usize>) -> (Frames, tokio::task::JoinHandle<bool>) {
    let stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (frames, body) = mpsc::channel(1);
    let body = futures_util::stream::unfold(body, |mut body| async move { Some((body.recv().await?, body)) });
    let mut request = hyper::Request::post(format!("http://a{BILLABLE}"))
        .header("authorization", format!("Bearer {}", token()))
        .body(StreamBody::new(Box::pin(body)))
        .unwrap();
    request.headers_mut().extend(length.map(|length| (http::header::CONTENT_LENGTH, length.into())));
    let answered = tokio::spawn(async move { sender.send_request(request).await.is_ok_and(|it| it.status() == 200) });
    (frames, answered)
}

fn data(bytes: &'static [u8]) -> Result<Frame<Bytes>, std::convert::Infallible> {
    Ok(Frame::data(Bytes::from_static(bytes)))
}

#[tokio::test]
async fn a_length_unlike_its_data_is_never_billed() {
    let world = World::answering(|_| Answer::silence()).await;
    for (length, pieces) in [(10, &[&b"abc"[..], b"de"][..]), (4, &[b"abc", b"defgh"]), (4, &[b"abc"])] {
        let before = world.metric("goldleaves_upstream_connects_total");
        let (frames, answered) = begin(&world, Some(length)).await;
        let (first, rest) = pieces.split_first().unwrap();
        frames.send(data(first)).await.unwrap();
        // It is announced and handed over by then.
        while world.metric("goldleaves_upstream_connects_total") == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        for piece in rest {
            let _ = frames.send(data(piece)).await;
        }
        drop(frames);
        assert!(!answered.await.unwrap(), "{length} announced, {pieces:?} sent");
    }
    // Another call over another connection is none the worse.
    assert!(world.outcomes().await.is_empty());
}

#[tokio::test]
async fn a_trailer_with_blanks_around_its_value_is_never_billed() {
    let world = World::answering(|received| Answer::ok(received.body.bytes.clone())).await;
    for (value, is_served) in [("b", true), (" b", false), ("b\t", false)] {
        let (frames, answered) = begin(&world, None).await;
        frames.send(data(b"abc")).await.unwrap();
        let trailers = http::HeaderMap::from_iter([(http::HeaderName::from_static("x-a"), value.parse().unwrap())]);
        frames.send(Ok(Frame::trailers(trailers))).await.unwrap();
        drop(frames);
        assert_eq!(answered.await.unwrap(), is_served, "{value:?}");
    }
    assert_eq!(world.outcomes().await.len(), 1);
}

#[tokio::test]
async fn only_the_gateway_says_which_event_a_call_is() {
    let world = World::answering(|_| {
        Answer::chunked([b"x".to_vec()])
            .header("Trailer", "X-Usage-Event-ID, X-Kept")
            .trailer("X-Usage-Event-ID", "forged")
            .trailer("X-Kept", "1")
    })
    .await;
    let over_h1 = world.send(Request::get(BILLABLE).header("TE", "trailers")).await;
    let over_h2 =
        Request::get(BILLABLE).header("TE", "trailers").token(&token()).send_h2(world.gateway.address()).await;
    for answer in [over_h1, over_h2.unwrap()] {
        let trailers = format!("{:?}", answer.body.trailers).to_ascii_lowercase();
        assert!(!trailers.contains("forged") && trailers.contains("x-kept"), "{trailers}");
        assert_ne!(answer.header("x-usage-event-id"), Some("forged"));
    }
    assert_eq!(world.outcomes().await.len(), 2);
}

#[tokio::test]
async fn whole_messages_of_known_length_go_through() {
    let world = World::answering(|received| Answer::ok(received.body.bytes.clone())).await;
    let (frames, answered) = begin(&world, Some(6)).await;
    frames.send(data(b"abc")).await.unwrap();
    frames.send(data(b"def")).await.unwrap();
    drop(frames);
    assert!(answered.await.unwrap());
    assert_eq!(world.outcomes().await.len(), 1);
}
