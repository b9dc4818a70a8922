//! One connection to the upstream, driven by whoever uses it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use goldleaves_web::{Alarm, BUFFER_BYTES, Buffers, Folded, Folds};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::io::{Heard, SharedIo, UpstreamIo};
use super::pool::PoolOptions;
use super::slots::Slot;
use super::two::Stream;
use super::upload::Upload;
use super::wire::Wire;

/// The reason there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The operating system said no.
    #[error("the upstream can't be reached")]
    Io(#[from] std::io::Error),
    /// Nobody said anything.
    #[error("the upstream did not take the connection within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Its certificate is not good, or it speaks no TLS.
    #[error("the upstream's TLS is refused")]
    Tls(#[source] std::io::Error),
    /// It is written as `https`, and its host is no name of a certificate.
    #[error("the upstream's host is no name that a certificate can have, and nothing is sent unencrypted to https")]
    Unnameable,
    /// It does not speak the HTTP that its entry says.
    #[error("the upstream did not choose h2, which its entry says it speaks")]
    Alpn,
    /// There are as many connections as there may be.
    #[error("the gateway has all the upstream connections it may have")]
    Busy,
    /// It was closed before it was of use.
    #[error("the upstream closed the connection at once")]
    Ended,
    /// hyper said no.
    #[error("the upstream connection can't be set up")]
    Handshake(#[source] hyper::Error),
}

impl ConnectError {
    /// The error with what it comes from, for logs.
    pub(crate) fn why(&self) -> String {
        let mut why = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let text = error.to_string();
            // An error of the operating system repeats its source's text.
            if !why.ends_with(&text) {
                why = format!("{why}: {text}");
            }
            source = error.source();
        }
        why
    }
}

/// The result of an attempt to send: an answer's head, or an error that may hand the request back.
pub(crate) type Sent = Result<http::Response<Incoming>, TrySendError<http::Request<Upload>>>;

/// The version of HTTP that is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1.1.
    One,
    /// HTTP/2, with prior knowledge or by ALPN.
    Two,
}

/// The connection of one call's request: an HTTP/1.1 connection of its own, or a stream of one that others use too. No
/// task of its own drives the former: the request that uses it polls it, so that no byte crosses between tasks; while
/// it is idle in the pool nobody polls it.
pub(crate) struct Connection {
    line: ConnectionKind,
    heard: Heard,
    alarm: Alarm,
    reused: bool,
}

enum ConnectionKind {
    One { sender: http1::SendRequest<Upload>, driver: Driver, folded: Folded, io: SharedIo },
    Two(Stream),
}

enum Driver {
    Serving(Box<http1::Connection<TokioIo<SharedIo>, Upload>>),
    Switching(Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>),
    Done,
}

impl Connection {
    /// Speaks HTTP/1.1 over what was connected.
    pub(crate) async fn open(
        stream: Wire,
        options: &PoolOptions,
        slot: Slot,
        buffers: Buffers,
    ) -> Result<Self, ConnectError> {
        let (heard, folded) = (Heard::default(), Folded::default());
        let folds = Folds::new(folded.clone(), options.header_fields_max);
        let io = SharedIo::new(UpstreamIo::new(stream, folds, heard.clone(), slot, buffers));
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES);
        let (sender, connection) =
            builder.handshake(TokioIo::new(io.clone())).await.map_err(ConnectError::Handshake)?;
        let line = ConnectionKind::One { sender, driver: Driver::Serving(Box::new(connection)), folded, io };
        let mut connection = Self { line, heard, alarm: Alarm::default(), reused: false };
        // hyper takes requests once it was polled; it may be long before it is asked to.
        std::future::poll_fn(|cx| {
            connection.drive(cx);
            Poll::Ready(())
        })
        .await;
        Ok(connection)
    }

    /// A stream of a connection that is there.
    pub(super) fn stream(stream: Stream) -> Self {
        Self { line: ConnectionKind::Two(stream), heard: Heard::default(), alarm: Alarm::default(), reused: false }
    }

    /// Starts sending; both the returned future and [`Self::drive`] must be polled.
    pub(crate) fn send(&mut self, request: http::Request<Upload>) -> impl Future<Output = Sent> + use<> {
        match &mut self.line {
            ConnectionKind::One { sender, .. } => {
                self.heard.reset();
                Either::Left(sender.try_send_request(request))
            }
            ConnectionKind::Two(stream) => Either::Right(stream.send(request)),
        }
    }

    /// Moves bytes both ways as far as they go.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        let ConnectionKind::One { driver, .. } = &mut self.line else { return };
        self.heard.polled();
        let polled = match driver {
            Driver::Serving(connection) => Pin::new(&mut **connection).poll(cx),
            Driver::Switching(connection) => connection.as_mut().poll(cx),
            Driver::Done => return,
        };
        if let Poll::Ready(ended) = polled {
            if let Err(error) = ended {
                tracing::debug!(%error, "an upstream connection ended");
            }
            *driver = Driver::Done;
        }
    }

    /// The answer's head came, if it did: what is read from now on is its body.
    pub(crate) fn headed(&self, sent: &mut Sent) {
        self.heard.headed();
        let ConnectionKind::One { folded, io, .. } = &self.line else { return };
        io.answered();
        if let Ok(response) = sent {
            folded.unfold(response.headers_mut());
        }
    }

    /// The socket, for an exchange past hyper; `None` where hyper is needed.
    pub(super) fn past_hyper(&self) -> Option<&SharedIo> {
        match &self.line {
            ConnectionKind::One { io, .. } if self.is_ready() => Some(io),
            ConnectionKind::One { .. } | ConnectionKind::Two(_) => None,
        }
    }

    /// Returns whether it can be used after it was idle: what came meanwhile, an end or stray bytes, is hyper's to judge.
    pub(super) fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.past_hyper().is_some_and(|io| io.is_quiet(cx)) {
            self.drive(cx);
        }
        self.is_ready()
    }

    /// Returns whether the wait for an answer has reached `deadline`; the task is woken when it does.
    pub(crate) fn waited_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        self.alarm.passed(deadline, cx)
    }

    /// Returns whether another request could be sent: the last exchange is over and the upstream did not close.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.line {
            ConnectionKind::One { sender, driver, .. } => matches!(driver, Driver::Serving(_)) && sender.is_ready(),
            ConnectionKind::Two(_) => false,
        }
    }

    /// Returns whether other calls use it, too.
    pub(crate) const fn is_shared(&self) -> bool {
        matches!(self.line, ConnectionKind::Two(_))
    }

    /// Lets an answer of 101 turn this connection into a tunnel; it is never pooled again.
    pub(crate) fn allow_upgrade(&mut self) {
        let ConnectionKind::One { driver, .. } = &mut self.line else { return };
        *driver = match std::mem::replace(driver, Driver::Done) {
            Driver::Serving(connection) => Driver::Switching(Box::pin(connection.with_upgrades())),
            other => other,
        };
    }

    /// Returns whether it served a request before this one.
    pub(crate) const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Returns whether any byte was read since the last request was sent.
    pub(crate) fn heard_anything(&self) -> bool {
        self.heard.any()
    }

    pub(crate) const fn mark_reused(&mut self) {
        self.reused = true;
    }

    /// Resolves when the connection was handed over to a tunnel, or ended.
    pub(crate) async fn finish(mut self) {
        std::future::poll_fn(|cx| {
            self.drive(cx);
            if matches!(self.line, ConnectionKind::One { driver: Driver::Done, .. }) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        self.heard.unbounded();
    }
}
