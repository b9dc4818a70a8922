//! What bytes go over to an upstream: a TCP connection, encrypted or not, or a socket of this machine.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connection::{ConnectError, Speaks};
use super::tls::Tls;
use crate::upstream::Target;

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// How an address is connected to.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) target: Target,
    /// The name that its certificate must have, where it is encrypted.
    pub(crate) tls: Option<(Arc<Tls>, ServerName<'static>)>,
    pub(crate) timeout: Duration,
}

impl Dial {
    /// Connects, within the time-out and within `left`.
    pub(crate) async fn connect(&self, speaks: Speaks, left: Duration) -> Result<Wire, ConnectError> {
        let timeout = self.timeout.min(left);
        let connected = tokio::time::timeout(timeout, self.connect_at_last(speaks)).await;
        connected.map_err(|_| ConnectError::TimedOut(timeout))?
    }

    async fn connect_at_last(&self, speaks: Speaks) -> Result<Wire, ConnectError> {
        let stream = match &self.target {
            Target::Tcp(address) => TcpStream::connect(address).await?,
            Target::Unix(path) => return Ok(Wire::Unix(UnixStream::connect(path).await?)),
        };
        stream.set_nodelay(true)?;
        let Some((tls, name)) = &self.tls else { return Ok(Wire::Tcp(stream)) };
        let connector = TlsConnector::from(tls.config(speaks));
        let stream = connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?;
        if speaks == Speaks::Two && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ConnectError::Alpn);
        }
        Ok(Wire::Tls(Box::new(stream)))
    }
}

impl Wire {
    pub(super) const fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
