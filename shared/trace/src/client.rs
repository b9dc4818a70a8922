//! The HTTP client that OpenTelemetry's exporter posts through: time-outs on everything, a few attempts, and word of what
//! became of a batch, which the exporter's own result does not give.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goldleaves_runtime::process::chain;
use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use parking_lot::Mutex;
use prost::Message;
use rustls::ClientConfig;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The longest time the collector may take to connect, and to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of times a batch is sent before it is dropped, and the pause after the first time, which doubles.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a collector may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// The longest answer that is looked at.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The fate of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchFate {
    /// The collector took it, but for so many of its spans.
    Taken { refused: u64 },
    /// The collector does not want it.
    Refused,
    /// The collector was away or too slow.
    Unsent,
}

/// The client. Clones share their connections, and the fate of the last batch.
#[derive(Debug, Clone)]
pub(crate) struct CollectorClient(Arc<ClientInner>);

#[derive(Debug)]
struct ClientInner {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    headers: HeaderMap,
    stop: CancellationToken,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    fate: Option<BatchFate>,
    /// True while the collector is away: the log has one line when it goes, and one when it is back.
    is_away: bool,
}

impl CollectorClient {
    /// Posts with these headers, and tries nothing again once `stop` is cancelled.
    pub(crate) fn new(tls: ClientConfig, headers: HeaderMap, stop: CancellationToken) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let connector = connector.wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self(Arc::new(ClientInner { client, headers, stop, last: Mutex::default() }))
    }

    /// Returns what became of the last batch; `None` when it was not even sent.
    pub(crate) fn fate(&self) -> Option<BatchFate> {
        self.0.last.lock().fate.take()
    }
}

#[async_trait::async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        head.headers.insert(USER_AGENT, HeaderValue::from_static(concat!("goldleaves/", env!("CARGO_PKG_VERSION"))));
        head.headers.extend(self.0.headers.clone());
        let sent = self.0.send(&Request::from_parts(head, body)).await;
        let fate = match &sent {
            Ok(response) => BatchFate::Taken { refused: refused(response.body()) },
            Err(error) if error.is_transient() => BatchFate::Unsent,
            Err(_) => BatchFate::Refused,
        };
        self.0.last.lock().fate = Some(fate);
        sent.map_err(Into::into)
    }
}

impl ClientInner {
    async fn send(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, PostError> {
        let (mut pause, mut attempt) = (PAUSE, 1);
        loop {
            let error = match self.post(request).await {
                Ok(response) => {
                    self.took();
                    return Ok(response);
                }
                Err(error) => error,
            };
            self.did_not_take(&error);
            if !error.is_transient() || attempt == ATTEMPTS || self.stop.is_cancelled() {
                return Err(error);
            }
            let asked = error.retry_after().unwrap_or_default();
            self.pause(pause.mul_f64(rand::random_range(0.5..=1.0)).max(asked)).await;
            pause *= 2;
            attempt += 1;
        }
    }

    /// Sends a batch once.
    async fn post(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, PostError> {
        timeout(ANSWER_TIMEOUT, self.exchange(request)).await.map_err(|_| PostError::TimedOut)?
    }

    async fn exchange(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, PostError> {
        let request = request.clone().map(Full::new);
        let response = self.client.request(request).await.map_err(PostError::Unreachable)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(PostError::Answer)?.to_bytes();
        if !head.status.is_success() {
            return Err(PostError::Status { status: head.status, retry_after: retry_after(&head.headers) });
        }
        Ok(Response::from_parts(head, body))
    }

    /// A stop cuts it short.
    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn took(&self) {
        if std::mem::take(&mut self.last.lock().is_away) {
            tracing::info!("the collector of traces takes spans again");
        }
    }

    fn did_not_take(&self, error: &PostError) {
        let cause = chain(error);
        if std::mem::replace(&mut self.last.lock().is_away, true) {
            tracing::debug!(cause, "the collector of traces did not take a batch");
        } else {
            tracing::warn!(cause, "the collector of traces does not take spans, what it misses is dropped and counted");
        }
    }
}

/// The reason a batch did not arrive.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error("no answer in time")]
    TimedOut,
    #[error("the collector can't be reached")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("the answer broke off")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the collector answered {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
}

impl PostError {
    /// Returns whether the same batch may be taken another time (OTLP 1.x, "Failures").
    fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502..=504),
            Self::TimedOut | Self::Unreachable(_) | Self::Answer(_) => true,
        }
    }

    /// Returns the time for which the collector wants to be left alone.
    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::TimedOut | Self::Unreachable(_) | Self::Answer(_) => None,
        }
    }
}

/// Returns the number of spans that the collector did not want. An answer that says nothing readable took everything.
fn refused(answer: &Bytes) -> u64 {
    let partial = ExportTraceServiceResponse::decode(answer.clone()).unwrap_or_default().partial_success;
    partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

/// A `Retry-After` in seconds; as a date it is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}
