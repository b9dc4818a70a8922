//! An answer's body that tells its exchange when it is over, and waits while too much of it is unwritten.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::buffers::{Buffers, Flow};
use crate::body::is_whole;
use crate::exchange::{AnswerKind, Exchange};

impl Exchange {
    /// An answer that says when it is over.
    pub(super) fn watching<B: Body + 'static>(
        &self,
        response: Response<B>,
        end: OpenEnd,
        buffers: &Buffers,
    ) -> Response<Watched<B>> {
        self.answered(match (response.status(), end) {
            (StatusCode::SWITCHING_PROTOCOLS, _) => AnswerKind::Switches,
            _ if is_whole(response.body()) => AnswerKind::Own,
            (_, OpenEnd::InChunks) if has_open_end(&response) => AnswerKind::InChunks,
            (_, OpenEnd::ByClosing) if has_open_end(&response) => AnswerKind::UntilClose,
            (_, OpenEnd::NoBody | OpenEnd::InChunks | OpenEnd::ByClosing) => AnswerKind::Passed,
        });
        response.map(|body| Watched { body, flow: Flow::new(buffers.clone()), over: Over(self.clone()) })
    }
}

/// The end of an answer whose length is not known beforehand, as its client is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenEnd {
    /// To HEAD there is no body.
    NoBody,
    /// By the last of its chunks.
    InChunks,
    /// By the end of the connection: HTTP/1.0 knows no chunks.
    ByClosing,
}

impl OpenEnd {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        match (request.method(), request.version()) {
            (&Method::HEAD, _) => Self::NoBody,
            (_, Version::HTTP_09 | Version::HTTP_10) => Self::ByClosing,
            _ => Self::InChunks,
        }
    }
}

fn has_open_end<B: Body>(response: &Response<B>) -> bool {
    let unknown = response.body().size_hint().exact().is_none() && !response.body().is_end_stream();
    unknown && !response.headers().contains_key(CONTENT_LENGTH)
}

pin_project! {
    /// An answer's body.
    pub(super) struct Watched<B> {
        #[pin]
        body: B,
        flow: Flow,
        over: Over,
    }
}

/// Dropped with the body: hyper drops it as soon as it has taken its last frame.
struct Over(Exchange);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over();
    }
}

impl<B: Body<Data = Bytes>> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        ready!(this.flow.poll_room(cx));
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|piece| this.flow.hold(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
