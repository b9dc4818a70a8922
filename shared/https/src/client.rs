//! The client over hyper-util's pool and rustls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::base::Base;

/// The limits of a call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Until the connection is there.
    pub connect: Duration,
    /// Until the whole answer is there, the connection included.
    pub answer: Duration,
    /// The bytes of an answer's body.
    pub answer_bytes_max: usize,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The reason there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There was no connection: nothing was sent.
    #[error("no connection to {host}")]
    NotConnected {
        /// Where to.
        host: String,
        /// The reason.
        source: hyper_util::client::legacy::Error,
    },
    /// No answer in time; the request may have arrived.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The connection broke; the request may have arrived.
    #[error("the connection broke before the answer")]
    Broken(#[source] hyper_util::client::legacy::Error),
    /// The head came and the body did not; the request arrived.
    #[error("the answer {status} broke off or is too long")]
    BodyBroken {
        /// The status that came.
        status: StatusCode,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// No encrypted connection could be made to anybody.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The machine has no root certificates.
    #[error("the machine's root certificates can't be read: install ca-certificates, or set SSL_CERT_FILE")]
    Roots(#[from] std::io::Error),
    /// The library lacks what it needs.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
}

/// The client. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct HttpsClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    limits: Limits,
}

impl HttpsClient {
    /// A client for this service.
    ///
    /// # Errors
    /// It needs the machine's root certificates, and there are none.
    pub fn for_base(base: &Base, limits: Limits) -> Result<Self, CertificatesError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(limits.connect));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let provider = Arc::new(ring::default_provider());
        let connector = if base.is_https() {
            let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?;
            builder.https_only().enable_http1().wrap_connector(tcp)
        } else {
            // Never used: the base is plain http.
            let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            let tls = tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp)
        };
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client, limits })
    }

    /// Sends a request once and reads the whole answer.
    ///
    /// # Errors
    /// There is none; the error says whether the request may have arrived.
    pub async fn call(&self, request: Request<Full<Bytes>>) -> Result<Answer, CallError> {
        let limit = self.limits.answer;
        timeout(limit, self.exchange(request)).await.map_err(|_| CallError::TimedOut(limit))?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, CallError> {
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let response = self.client.request(request).await.map_err(|source| match source.is_connect() {
            true => CallError::NotConnected { host, source },
            false => CallError::Broken(source),
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.limits.answer_bytes_max).collect().await;
        let body = body.map_err(|source| CallError::BodyBroken { status: head.status, source })?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl CallError {
    /// Returns whether certainly nothing was sent.
    pub const fn is_before_sending(&self) -> bool {
        matches!(self, Self::NotConnected { .. })
    }

    /// The status, where a head came.
    pub const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::BodyBroken { status, .. } => Some(*status),
            _ => None,
        }
    }
}
