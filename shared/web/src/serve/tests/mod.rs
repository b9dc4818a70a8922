//! The serve loop over real sockets, with hyper's clients and with raw TCP.

mod cut;
mod early;
mod h2;
mod http1;
mod limits;
mod ops;
mod silence;
mod stopping;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::{BodyError, WebBody};

/// Far longer than anything here takes: a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of a test.
struct Server {
    address: SocketAddr,
    stop: Stop,
    stats: ServeStats,
    running: JoinHandle<Served>,
}

impl Server {
    fn start<S, F>(options: ServeOptions, handler: S) -> Self
    where
        S: Fn(Request<WebBody>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<WebBody>> + Send + 'static,
    {
        Self::start_with(options, Stop::default(), handler)
    }

    fn start_with<S, F>(options: ServeOptions, stop: Stop, handler: S) -> Self
    where
        S: Fn(Request<WebBody>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<WebBody>> + Send + 'static,
    {
        let listener = bind("127.0.0.1:0".parse().unwrap(), ListenerOptions::default()).unwrap();
        let address = listener.local_addr().unwrap();
        let stats = options.stats.clone();
        let service_for = move |peer: SocketAddr| {
            let handler = handler.clone();
            tower::service_fn(move |mut request: Request<WebBody>| {
                request.extensions_mut().insert(peer);
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            })
        };
        let running = tokio::spawn(serve_peers(listener, service_for, options, stop.clone()));
        Self { address, stop, stats, running }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) -> Served {
        self.stop.graceful.cancel();
        patiently(self.running).await.unwrap()
    }
}

async fn patiently<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes far too long")
}

/// Short time-outs.
fn hasty() -> ServeOptions {
    ServeOptions {
        first_byte_timeout: Duration::from_millis(200),
        headers_timeout: Duration::from_millis(300),
        write_timeout: Duration::from_millis(300),
        grace: Duration::from_millis(300),
        ..ServeOptions::default()
    }
}

/// Answers with what was sent, or the path, and tells the peer.
async fn echo(request: Request<WebBody>) -> Response<WebBody> {
    let peer = *request.extensions().get::<SocketAddr>().unwrap();
    let path = request.uri().path().to_owned();
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let body = if bytes.is_empty() { Bytes::from(path) } else { bytes };
    Response::builder().header("x-peer", peer.to_string()).body(WebBody::full(body)).unwrap()
}

/// Answers with a body that never ends; `dropped` is told when it is dropped.
fn endless(dropped: Arc<Notify>) -> Response<WebBody> {
    struct Tell(Arc<Notify>);

    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    let tell = Tell(dropped);
    let frames = futures_util::stream::repeat_with(move || {
        let _held = &tell;
        Ok::<_, BodyError>(Frame::data(Bytes::from_static(&[b'x'; 16_384])))
    });
    Response::new(WebBody::boxed(StreamBody::new(frames)))
}

/// Everything the server says until it closes.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is a way to close, too.
    let _ = patiently(stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends raw bytes and reads until the server closes.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect().await;
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    read_to_end(&mut stream).await
}

async fn http1_client(server: &Server) -> conn::http1::SendRequest<WebBody> {
    let io = TokioIo::new(server.connect().await);
    let (client, connection) = conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    client
}

async fn h2_client(server: &Server, stream_window: u32) -> conn::http2::SendRequest<WebBody> {
    let io = TokioIo::new(server.connect().await);
    let mut builder = conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(stream_window).max_header_list_size(1 << 20);
    let (client, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    client
}

fn get(server: &Server, path: &str) -> Request<WebBody> {
    let uri = format!("http://{}{path}", server.address);
    Request::builder().uri(uri).header("host", "test").body(WebBody::empty()).unwrap()
}

async fn text<B: Body>(response: Response<B>) -> (StatusCode, String)
where
    B::Error: std::fmt::Debug,
{
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}
