//! An upstream that speaks only HTTP/2, with prior knowledge, over TLS or over a socket of this machine. A test answers each
//! stream by hand, so that it can refuse, reset, stall and leave as it wants.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// One call.
#[derive(Debug)]
pub struct H2Call {
    /// Its head, and its body as it comes.
    pub request: Request<RecvStream>,
    /// Where the answer goes.
    pub respond: SendResponse<Bytes>,
    /// The number of its connection, from 0.
    pub connection: usize,
    /// The number of the call, from 0.
    pub number: usize,
    /// Tells the connection to go away: it takes no further stream, and ends when its last one has.
    pub leave: Arc<tokio::sync::Notify>,
    /// Ends the connection at once.
    pub kill: AbortHandle,
}

impl H2Call {
    /// Sends the head of a 200 with these fields.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn head(&mut self, fields: &[(&'static str, &str)]) -> Result<SendStream<Bytes>> {
        let mut response = Response::new(());
        *response.headers_mut() = map(fields)?;
        self.respond.send_response(response, false).context("a head")
    }

    /// Reads the request's body to its end, giving the window back; also its trailers.
    ///
    /// # Errors
    /// The client broke off.
    pub async fn body(&mut self) -> Result<(Vec<u8>, Option<HeaderMap>)> {
        let body = self.request.body_mut();
        let mut all = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.context("a body")?;
            body.flow_control().release_capacity(piece.len()).context("a window")?;
            all.extend_from_slice(&piece);
        }
        Ok((all, body.trailers().await.context("trailers")?))
    }

    /// Answers 200 with this body and these trailers.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn answer(mut self, body: impl Into<Bytes>, trailers: &[(&'static str, &str)]) -> Result<()> {
        let mut stream = self.head(&[])?;
        stream.send_data(body.into(), trailers.is_empty()).context("a body")?;
        if !trailers.is_empty() {
            stream.send_trailers(map(trailers)?).context("trailers")?;
        }
        Ok(())
    }
}

/// Makes fields of names and values.
///
/// # Errors
/// A value is none.
pub fn map(fields: &[(&'static str, &str)]) -> Result<HeaderMap> {
    let field = |(name, value): &(&'static str, &str)| {
        Ok((http::HeaderName::from_static(name), http::HeaderValue::from_str(value).context("a field")?))
    };
    fields.iter().map(field).collect()
}

type Handler = dyn Fn(H2Call) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// The way it serves.
#[derive(Clone, Default)]
pub struct Options {
    /// Over TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The number of streams that a connection may have at once.
    pub streams_max: Option<u32>,
}

/// The running upstream. It ends with the value.
pub struct H2Upstream {
    address: Option<SocketAddr>,
    counts: Arc<H2Counts>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct H2Counts {
    connections: AtomicUsize,
    calls: AtomicUsize,
    alive: Mutex<Vec<AbortHandle>>,
}

impl H2Upstream {
    /// Starts on a free port.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start<F: Future<Output = ()> + Send + 'static>(
        options: Options,
        handler: impl Fn(H2Call) -> F + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the upstream")?;
        let address = listener.local_addr().context("the upstream's address")?;
        let (counts, handler) = (Arc::new(H2Counts::default()), boxed(handler));
        let served = Arc::clone(&counts);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).ok();
                let (options, counts, handler) = (options.clone(), Arc::clone(&served), Arc::clone(&handler));
                tokio::spawn(async move {
                    match options.tls.clone() {
                        None => serve(stream, &options, &counts, handler).await,
                        Some(tls) => {
                            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                                serve(stream, &options, &counts, handler).await;
                            }
                        }
                    }
                });
            }
        });
        Ok(Self { address: Some(address), counts, accepting })
    }

    /// Starts on a socket of this machine.
    ///
    /// # Errors
    /// The socket can't be made.
    pub fn start_at<F: Future<Output = ()> + Send + 'static>(
        path: &Path,
        handler: impl Fn(H2Call) -> F + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = UnixListener::bind(path).context("binding the upstream")?;
        let (counts, handler) = (Arc::new(H2Counts::default()), boxed(handler));
        let served = Arc::clone(&counts);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counts, handler) = (Arc::clone(&served), Arc::clone(&handler));
                tokio::spawn(async move { serve(stream, &Options::default(), &counts, handler).await });
            }
        });
        Ok(Self { address: None, counts, accepting })
    }

    /// `127.0.0.1:PORT`; empty where it listens at a path.
    pub fn authority(&self) -> String {
        self.address.map(|address| address.to_string()).unwrap_or_default()
    }

    /// Returns the number of connections that were made to it.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Returns the number of calls that came.
    pub fn calls(&self) -> usize {
        self.counts.calls.load(Ordering::SeqCst)
    }

    /// Ends every connection as a process that dies does.
    fn kill_connections(&self) {
        let mut alive = self.counts.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.drain(..).for_each(|connection| connection.abort());
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
        self.kill_connections();
    }
}

fn boxed<F: Future<Output = ()> + Send + 'static>(
    handler: impl Fn(H2Call) -> F + Send + Sync + 'static,
) -> Arc<Handler> {
    Arc::new(move |asked| Box::pin(handler(asked)))
}

async fn serve<S>(stream: S, options: &Options, counts: &Arc<H2Counts>, handler: Arc<Handler>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let number = counts.connections.fetch_add(1, Ordering::SeqCst);
    let mut builder = Builder::new();
    if let Some(max) = options.streams_max {
        builder.max_concurrent_streams(max);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let counts_of_calls = Arc::clone(counts);
    let leave = Arc::new(tokio::sync::Notify::new());
    let (tell, told) = tokio::sync::oneshot::channel::<AbortHandle>();
    let serving = tokio::spawn(async move {
        let Ok(kill) = told.await else { return };
        let mut leaving = false;
        loop {
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                () = leave.notified(), if !leaving => {
                    leaving = true;
                    connection.graceful_shutdown();
                    continue;
                }
            };
            let Some(Ok((request, respond))) = accepted else { return };
            let call = counts_of_calls.calls.fetch_add(1, Ordering::SeqCst);
            let (leave, kill) = (Arc::clone(&leave), kill.clone());
            tokio::spawn(handler(H2Call { request, respond, connection: number, number: call, leave, kill }));
        }
    });
    counts.alive.lock().unwrap_or_else(PoisonError::into_inner).push(serving.abort_handle());
    // Nobody waits for it where the task is gone already.
    let _ = tell.send(serving.abort_handle());
}
