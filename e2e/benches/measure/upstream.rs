//! The upstream that servers are measured with: answers made before, written in one go, on one thread.

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::load::Size;

/// Serves until it is killed. The first line printed is the address.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("binding")?;
    println!("upstream http://{}", listener.local_addr().context("the address")?);
    let answers: Vec<(&str, Vec<u8>)> = Size::ALL.iter().map(|size| (size.word(), answer(*size))).collect();
    let answers: &[(&str, Vec<u8>)] = Box::leak(answers.into_boxed_slice());
    loop {
        let (stream, _) = listener.accept().await.context("accepting")?;
        stream.set_nodelay(true).context("TCP_NODELAY")?;
        tokio::spawn(connection(stream, answers));
    }
}

/// Serves HTTP/2 until it is killed, 200 B each time. The first line printed is the address.
pub(crate) async fn serve_h2() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("binding")?;
    println!("upstream http://{}", listener.local_addr().context("the address")?);
    loop {
        let (stream, _) = listener.accept().await.context("accepting")?;
        stream.set_nodelay(true).context("TCP_NODELAY")?;
        tokio::spawn(connection_of_h2(stream));
    }
}

async fn connection_of_h2(stream: TcpStream) -> Option<()> {
    let body = bytes::Bytes::from(vec![b'x'; Size::Small.bytes()]);
    let mut connection = h2::server::Builder::new().max_concurrent_streams(128).handshake(stream).await.ok()?;
    while let Some(asked) = connection.accept().await {
        let (_, mut respond) = asked.ok()?;
        let head = http::Response::builder().header("content-type", "text/plain").header("content-length", body.len());
        let mut answer = respond.send_response(head.body(()).ok()?, false).ok()?;
        answer.send_data(body.clone(), true).ok()?;
    }
    Some(())
}

/// 200 B with a length, the larger ones in chunks of 16 KiB.
fn answer(size: Size) -> Vec<u8> {
    let body = vec![b'x'; size.bytes()];
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
    if size == Size::Small {
        return [head.as_bytes(), format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    }
    let mut answer = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(16 * 1024) {
        answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        answer.extend_from_slice(chunk);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    answer
}

/// Requests have no body here, so each ends with its head.
async fn connection(mut stream: TcpStream, answers: &[(&str, Vec<u8>)]) -> Option<()> {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let line: Vec<u8> = buffer.iter().copied().take_while(|byte| *byte != b'\r').collect();
        let line = String::from_utf8(line).ok()?;
        let path = line.split(' ').nth(1)?;
        let (_, answer) = answers.iter().find(|(word, _)| path.ends_with(word))?;
        buffer.drain(..end);
        stream.write_all(answer).await.ok()?;
    }
}
