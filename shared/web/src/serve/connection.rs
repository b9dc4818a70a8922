//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::Service;

use super::fold::{Folded, Folds};
use super::h2_streams::{ConnectionVerdict, CountedStreams, Streams};
use super::h2_trailers::{FRAME_BYTES_MAX, Trailers};
use super::head_timer::HeadTimer;
use super::io::Socket;
use super::service::{ForHttp1, ForHyper};
use super::short::{Left, Rest, Rules, Short};
use super::sniff::{Sniffed, SniffedVersion, sniff};
use super::{
    BUFFER_BYTES, CONNECTION_WINDOW, Closing, Held, SEND_BUFFER_BYTES, STREAM_WINDOW, ServeOptions, Stop, prepare,
};
use crate::WebBody;
use crate::exchange::Exchange;

/// The time for which a client that says nothing is listened to once the server was asked to stop: what it sent a
/// moment before, or sends before it can know, is answered.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// The longest time an idle h2 client may take to say goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// The parts that one connection needs.
pub(super) struct ServedConnection {
    pub(super) peer: SocketAddr,
    pub(super) options: ServeOptions,
    pub(super) stop: Stop,
    pub(super) closing: Closing,
}

impl ServedConnection {
    /// Serves the connection until it ends, its limits end it, or the server stops.
    pub(super) async fn run<S, B>(self, mut stream: TcpStream, service: S, held: Held)
    where
        S: Service<Request<WebBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        prepare(&stream);
        let sniffed = tokio::select! {
            biased;
            sniffed = sniff(&mut stream, self.options.first_byte_timeout) => sniffed,
            // Whoever got in before the socket was handed on finds nobody else: the first request is waited for.
            () = self.last_words(), if !self.options.handed_over => return,
            () = self.stop.hard.cancelled() => return,
        };
        let (version, read_already) = match sniffed {
            Ok(Sniffed::Speaks(version, bytes)) => (version, bytes),
            Ok(Sniffed::TimedOut) => {
                self.options.stats.0.first_byte_timeouts.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(Sniffed::Left) | Err(_) => return,
        };
        match version {
            SniffedVersion::Http1 => {
                let rules = Rules {
                    silence_max: self.options.headers_timeout,
                    write_timeout: self.options.write_timeout,
                    closing: self.closing.clone(),
                };
                self.short(Short::new(read_already, stream, service, held, rules)).await;
            }
            SniffedVersion::H2 => {
                let trailers = Trailers::new(usize::try_from(self.options.header_bytes_max).unwrap_or(usize::MAX));
                let socket = self.socket(read_already, stream, Exchange::default(), held).with_trailers(trailers);
                self.h2(TokioIo::new(socket), ForHyper::new(service)).await;
            }
        }
    }

    fn socket(&self, read: BytesMut, stream: TcpStream, exchange: Exchange, held: Held) -> Socket {
        Socket::new(read, stream, exchange, self.options.write_timeout, held).within(self.options.buffers.clone())
    }

    /// Serves HTTP/1 past hyper while that goes, and by hyper from then on.
    async fn short<S, B>(&self, mut short: Short<S>)
    where
        S: Service<Request<WebBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let left = tokio::select! {
            // First: bytes that are there are read before it is decided that the connection is idle.
            biased;
            left = short.run() => left,
            () = self.last_words() => short.stop(),
        };
        match left {
            Left::Closed => return,
            Left::Writing => {
                tokio::select! {
                    _ = short.finish() => {}
                    () = self.stop.hard.cancelled() => {}
                }
                return;
            }
            Left::ToHyper => {}
        }
        let Rest { read, stream, held, service, given, silent_until } = short.into_rest();
        let (exchange, folded) = (Exchange::default(), Folded::default());
        let folds = Folds::new(folded.clone(), self.options.header_fields_max);
        let socket = self.socket(read, stream, exchange.clone(), held).with_heads(folds);
        let service = ForHttp1 {
            service: ForHyper::new(service),
            given: Mutex::new(given),
            exchange,
            folded,
            closing: self.closing.clone(),
            buffers: self.options.buffers.clone(),
        };
        self.http1(TokioIo::new(socket), service, HeadTimer::until(silent_until)).await;
    }

    async fn http1<S, B>(&self, socket: TokioIo<Socket>, service: ForHttp1<S>, timer: HeadTimer)
    where
        S: Service<Request<WebBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let connection = http1::Builder::new()
            .timer(timer)
            .header_read_timeout(self.options.headers_timeout)
            .max_buf_size(BUFFER_BYTES.max(usize::try_from(self.options.header_bytes_max).unwrap_or(usize::MAX)))
            .max_header_size(usize::try_from(self.options.header_bytes_max).unwrap_or(usize::MAX))
            .serve_connection(socket, service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            // First: bytes that are there are read before it is decided that the connection is idle.
            biased;
            ended = connection.as_mut() => ended,
            () = self.last_words() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.stop.hard.cancelled() => return,
                }
            }
        };
        self.report(ended);
    }

    async fn h2<S, B>(&self, socket: TokioIo<Socket>, service: ForHyper<S>)
    where
        S: Service<Request<WebBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let streams = Streams::new(self.options.write_timeout, self.options.stats.clone());
        let buffers = self.options.buffers.clone();
        let lent = buffers.lend(CONNECTION_WINDOW as usize);
        let window = lent.as_ref().map_or(STREAM_WINDOW, |_| CONNECTION_WINDOW);
        let connection = http2::Builder::new(streams.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(self.options.headers_timeout)
            .keep_alive_timeout(self.options.headers_timeout)
            .max_header_list_size(self.options.header_bytes_max)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_concurrent_streams(self.options.streams_max)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window)
            .serve_connection(socket, CountedStreams { service, streams: streams.clone(), buffers });
        tokio::pin!(connection);
        let mut stopping = false;
        loop {
            let again = match streams.judge(self.options.headers_timeout) {
                ConnectionVerdict::Keep(until) => until,
                ConnectionVerdict::Idle if stopping => return,
                ConnectionVerdict::Idle => {
                    connection.as_mut().graceful_shutdown();
                    stopping = true;
                    Instant::now() + GOODBYE_MAX
                }
            };
            tokio::select! {
                ended = connection.as_mut() => return self.report(ended),
                () = self.stop.hard.cancelled() => return,
                () = self.stop.graceful.cancelled(), if !stopping => {
                    connection.as_mut().graceful_shutdown();
                    stopping = true;
                }
                () = tokio::time::sleep_until(again) => {}
            }
        }
    }

    /// Resolves a little after the server was asked to stop.
    async fn last_words(&self) {
        self.stop.graceful.cancelled().await;
        tokio::time::sleep(LAST_WORDS).await;
    }

    /// A connection that broke off is the client's business; it is told for whoever looks into it.
    fn report(&self, ended: hyper::Result<()>) {
        if let Err(error) = ended {
            tracing::debug!(peer = %self.peer, error = %Chain(&error), "a connection broke off");
        }
    }
}

/// An error and what caused it, on one line.
struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(out, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
