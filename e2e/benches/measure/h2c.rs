//! The load over HTTP/2 without TLS: few connections, several requests at once on each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::load::{Seen, Size};

const CONNECTIONS: usize = 8;
/// Requests that each connection has open.
const STREAMS: usize = 8;

/// Asks for 200 B for so long, each stream in turn with each of the tokens.
pub(crate) async fn run(server: SocketAddr, path: &str, tokens: &[String], duration: Duration) -> Result<Seen> {
    let start = Instant::now();
    let deadline = start + duration;
    let requests: Vec<Request<()>> = tokens.iter().map(|token| request(path, token)).collect::<Result<_>>()?;
    let (mut connections, mut streams) = (JoinSet::new(), JoinSet::new());
    for connection in 0..CONNECTIONS {
        let stream = TcpStream::connect(server).await.context("connecting")?;
        stream.set_nodelay(true).context("TCP_NODELAY")?;
        let (sender, driver) = h2::client::handshake(stream).await.context("an h2 connection")?;
        connections.spawn(driver);
        for stream in 0..STREAMS {
            let skip = (connection * STREAMS + stream) * requests.len() / (CONNECTIONS * STREAMS);
            streams.spawn(ask(sender.clone(), requests.clone(), skip, deadline));
        }
    }
    let mut micros = Vec::new();
    while let Some(done) = streams.join_next().await {
        micros.extend(done.context("a stream")??);
    }
    Ok(Seen::of(micros, start.elapsed()))
}

fn request(path: &str, token: &str) -> Result<Request<()>> {
    let target = format!("http://bench.test{path}{}", Size::Small.word());
    let request =
        Request::get(target).version(http::Version::HTTP_2).header("authorization", format!("Bearer {token}"));
    request.body(()).context("a request")
}

async fn ask(
    sender: SendRequest<bytes::Bytes>,
    requests: Vec<Request<()>>,
    skip: usize,
    deadline: Instant,
) -> Result<Vec<u32>> {
    let mut micros = Vec::new();
    for request in requests.iter().cycle().skip(skip) {
        let start = Instant::now();
        if start >= deadline {
            break;
        }
        let mut sender = sender.clone().ready().await.context("a stream")?;
        let (answer, _) = sender.send_request(request.clone(), true).context("asking")?;
        let answer = answer.await.context("an answer")?;
        ensure!(answer.status() == 200, "status {}", answer.status());
        let mut body = answer.into_body();
        let mut bytes = 0;
        while let Some(data) = body.data().await {
            let data = data.context("a body")?;
            bytes += data.len();
            body.flow_control().release_capacity(data.len()).context("a window")?;
        }
        ensure!(bytes == Size::Small.bytes(), "a body of {bytes} bytes");
        micros.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(micros)
}
