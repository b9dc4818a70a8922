//! The carrier of bytes to an upstream: a TCP connection, encrypted or not, or a socket of this machine.

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
use super::origin::Origin;
use super::target::Target;
use super::tls::Tls;

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The way an address is connected to.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) target: Target,
    pub(crate) security: Security,
    pub(crate) timeout: Duration,
}

/// The way an address is spoken to. What was written as `https` is never [`Security::Plain`].
#[derive(Debug, Clone)]
pub(crate) enum Security {
    /// Neither encrypted nor wrapped: `http` or `unix`.
    Plain,
    /// Encrypted, by who has a certificate with this name.
    Tls(Arc<Tls>, ServerName<'static>),
    /// It would be encrypted, and no certificate could have its name. Settings that lead here are refused; nothing is sent.
    Unnameable,
}

impl Security {
    /// The security of an origin as it was written.
    pub(crate) fn of(origin: &Origin, tls: Option<&Arc<Tls>>) -> Self {
        if !origin.is_https() {
            return Self::Plain;
        }
        match tls.and_then(|tls| Some((tls, tls.name(origin)?))) {
            Some((tls, name)) => Self::Tls(Arc::clone(tls), name),
            None => Self::Unnameable,
        }
    }
}

impl Dial {
    /// Connects, within the time-out and within `left`.
    pub(crate) async fn connect(&self, speaks: Speaks, left: Duration) -> Result<Wire, ConnectError> {
        let timeout = self.timeout.min(left);
        let connected = tokio::time::timeout(timeout, self.connect_at_last(speaks)).await;
        connected.map_err(|_| ConnectError::TimedOut(timeout))?
    }

    async fn connect_at_last(&self, speaks: Speaks) -> Result<Wire, ConnectError> {
        let encrypts = match &self.security {
            Security::Plain => None,
            Security::Tls(tls, name) => Some((tls, name)),
            Security::Unnameable => return Err(ConnectError::Unnameable),
        };
        let stream = match &self.target {
            Target::Tcp(address) => TcpStream::connect(address).await?,
            Target::Unix(path) => return Ok(Wire::Unix(UnixStream::connect(path).await?)),
        };
        stream.set_nodelay(true)?;
        let Some((tls, name)) = encrypts else { return Ok(Wire::Tcp(stream)) };
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

    /// Returns whether there is surely nothing to read; the task is woken when there may be something.
    pub(super) fn is_quiet(&self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).is_pending(),
            Self::Unix(stream) => stream.poll_read_ready(cx).is_pending(),
            // Something may have been decrypted already.
            Self::Tls(_) => false,
        }
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::tls::TlsFiles;
    use super::*;

    #[tokio::test]
    async fn what_is_written_as_https_is_never_spoken_to_in_the_clear() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        let tls = Arc::new(Tls::read(TlsFiles::default()).unwrap());
        let name = |name: &str| ServerName::try_from(name.to_owned()).ok();
        let named = TlsFiles { server_name: name("db.internal"), ..TlsFiles::default() };
        let named = Arc::new(Tls::read(named).unwrap());
        let label = format!("https://{}.internal", "a".repeat(64));
        for host in ["https://10.1:8443", "https://db-.internal", &label] {
            let origin: Origin = host.parse().unwrap();
            for tls in [Some(&tls), None] {
                let security = Security::of(&origin, tls);
                let dial = Dial { target: target.clone(), security, timeout: Duration::from_secs(60) };
                let connected = dial.connect(Speaks::One, Duration::MAX).await;
                assert!(matches!(connected, Err(ConnectError::Unnameable)), "{host}: {connected:?}");
            }
            assert!(matches!(Security::of(&origin, Some(&named)), Security::Tls(_, _)), "{host}");
        }
        let no_tls = Security::of(&"https://db.internal".parse().unwrap(), None);
        assert!(matches!(no_tls, Security::Unnameable));
    }
}
