//! One body type with one concrete error: what travels through every layer.
//!
//! A boxed alias in its place makes `Service` bounds fail ("implementation of `Send` is not general enough"), and an
//! error behind a box could not be told apart by the layer that settles a call.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::exchange::Exchange;

/// The reason a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection it came over failed or was closed too early.
    #[error("the connection broke off within the body")]
    Connection(#[source] hyper::Error),
    /// The client closed its sending half within it, and waits for an answer.
    #[error("the client sent only a part of the body")]
    HalfClosed(#[source] hyper::Error),
    /// It is longer than allowed.
    #[error("the body has more than {bytes_max} bytes")]
    TooLarge {
        /// The number that was allowed.
        bytes_max: u64,
    },
    /// Nothing came for too long.
    #[error("the body stood still for too long")]
    Idle,
    /// The whole call took too long.
    #[error("the call took too long")]
    CallTimeout,
    /// The server stops.
    #[error("the server stops")]
    Stopped,
    /// The source of the body failed.
    #[error("the body could not be produced")]
    Source(#[source] Box<dyn Error + Send + Sync>),
}

/// A request's or response's body.
///
/// `is_end_stream` and `size_hint` are those of what is inside: hyper frames the message by them.
pub struct WebBody(BodyKind);

enum BodyKind {
    Empty,
    Full(Bytes),
    /// Another server's, which came whole.
    Passed(Bytes),
    Incoming(Incoming),
    Arriving(Incoming, Exchange),
    Boxed(UnsyncBoxBody<Bytes, BodyError>),
}

impl WebBody {
    /// No bytes.
    pub const fn empty() -> Self {
        Self(BodyKind::Empty)
    }

    /// These bytes, in one frame.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::empty() } else { Self(BodyKind::Full(bytes)) }
    }

    /// The bytes of another server's answer, in one frame: like [`Self::full`], but not made here.
    pub fn passed(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::empty() } else { Self(BodyKind::Passed(bytes)) }
    }

    /// A request's body, whose end the connection it comes over has to know of.
    pub(crate) const fn arriving(body: Incoming, exchange: Exchange) -> Self {
        Self(BodyKind::Arriving(body, exchange))
    }

    /// Any other body. Its error becomes [`BodyError::Source`], unless it is a [`BodyError`] already.
    pub fn boxed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        Self(BodyKind::Boxed(body.map_err(|error| BodyError::from_source(error.into())).boxed_unsync()))
    }
}

/// Returns whether this is a body that a server made itself, whole and at once.
pub(crate) fn is_whole<B: 'static>(body: &B) -> bool {
    let body: &dyn Any = body;
    body.downcast_ref::<WebBody>().is_some_and(|body| matches!(body.0, BodyKind::Full(_)))
}

/// The bytes of a body that is whole, and whether a server made it itself.
pub(crate) fn whole<B: 'static>(body: &B) -> Option<(&Bytes, bool)> {
    let body: &dyn Any = body;
    match &body.downcast_ref::<WebBody>()?.0 {
        BodyKind::Full(bytes) => Some((bytes, true)),
        BodyKind::Passed(bytes) => Some((bytes, false)),
        BodyKind::Empty | BodyKind::Incoming(_) | BodyKind::Arriving(..) | BodyKind::Boxed(_) => None,
    }
}

impl BodyError {
    fn from_source(error: Box<dyn Error + Send + Sync>) -> Self {
        match error.downcast::<Self>() {
            Ok(known) => *known,
            Err(other) => Self::Source(other),
        }
    }
}

impl From<Incoming> for WebBody {
    fn from(body: Incoming) -> Self {
        Self(BodyKind::Incoming(body))
    }
}

impl Default for WebBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl Body for WebBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            BodyKind::Empty => Poll::Ready(None),
            BodyKind::Full(bytes) | BodyKind::Passed(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            BodyKind::Incoming(body) => Pin::new(body).poll_frame(context).map_err(BodyError::Connection),
            BodyKind::Arriving(body, exchange) => {
                let sends_no_more = exchange.sends_no_more();
                let polled = Pin::new(&mut *body).poll_frame(context);
                if polled.is_pending() {
                    exchange.lacks_body(sends_no_more, context);
                }
                let ended = match &polled {
                    Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || body.is_end_stream(),
                    Poll::Ready(None) => true,
                    Poll::Ready(Some(Err(_))) | Poll::Pending => false,
                };
                if ended {
                    exchange.body_came();
                }
                polled.map_err(|error| match exchange.is_awaited() {
                    true => BodyError::HalfClosed(error),
                    false => BodyError::Connection(error),
                })
            }
            BodyKind::Boxed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodyKind::Empty => true,
            BodyKind::Full(bytes) | BodyKind::Passed(bytes) => bytes.is_empty(),
            BodyKind::Incoming(body) | BodyKind::Arriving(body, _) => body.is_end_stream(),
            BodyKind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodyKind::Empty => SizeHint::with_exact(0),
            BodyKind::Full(bytes) | BodyKind::Passed(bytes) => SizeHint::with_exact(bytes.len() as u64),
            BodyKind::Incoming(body) | BodyKind::Arriving(body, _) => body.size_hint(),
            BodyKind::Boxed(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for WebBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            BodyKind::Empty => "empty",
            BodyKind::Full(_) | BodyKind::Passed(_) => "full",
            BodyKind::Incoming(_) | BodyKind::Arriving(..) => "incoming",
            BodyKind::Boxed(_) => "boxed",
        };
        out.debug_tuple("WebBody").field(&kind).finish()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    #[test]
    fn end_and_size_are_those_of_what_is_inside() {
        assert!(WebBody::empty().is_end_stream());
        assert!(WebBody::full("").is_end_stream(), "an empty text is no body");
        for whole in [WebBody::full("four"), WebBody::passed(Bytes::from_static(b"four"))] {
            let full = WebBody::boxed(whole);
            assert!(!full.is_end_stream());
            assert_eq!(full.size_hint().exact(), Some(4));
        }
        let frames = futures_util::stream::iter([Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"x")))]);
        let streamed = WebBody::boxed(StreamBody::new(frames));
        assert!(!streamed.is_end_stream());
        assert_eq!(streamed.size_hint().exact(), None);
    }

    #[tokio::test]
    async fn errors_keep_their_kind_through_a_box() {
        let frames = futures_util::stream::iter([Err::<Frame<Bytes>, _>(BodyError::TooLarge { bytes_max: 3 })]);
        let twice = WebBody::boxed(WebBody::boxed(StreamBody::new(frames)));
        assert!(matches!(twice.collect().await, Err(BodyError::TooLarge { bytes_max: 3 })));
        let frames = futures_util::stream::iter([Err::<Frame<Bytes>, _>(std::io::Error::other("broken"))]);
        let other = WebBody::boxed(StreamBody::new(frames)).collect().await.unwrap_err();
        assert_eq!(other.source().map(ToString::to_string), Some("broken".to_owned()));
        assert!(!other.to_string().contains("broken"), "the source is not said twice");
    }

    #[test]
    fn is_send() {
        fn send<T: Send + 'static>() {}
        send::<WebBody>();
    }
}
