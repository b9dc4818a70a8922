//! The response's body: settles its call before the frame that ends it is handed to hyper.
//!
//! What the end is: a frame after which nothing can follow (Content-Length reached), trailers, or the poll that
//! answers `None`. hyper drops a body after such a frame without polling it again, so that only a drop before it is
//! an abort. No frame is ever held back. An answer that breaks off is settled at once; the client learns of it one poll
//! later, so that hyper has handed over what came before.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use goldleaves_web::BodyError;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::meter::CallMeter;
use super::usage::Usage;
use crate::headers::is_hop_by_hop_trailer;
use crate::proxy::{AnswerBody, AnswerError};

/// An answer and, when it is billable, the guard that owes its settlement.
pub(crate) struct ResponseBody {
    answer: AnswerBody,
    meter: Option<CallMeter>,
    ended: bool,
    broken: Option<BodyError>,
}

impl ResponseBody {
    pub(crate) const fn new(answer: AnswerBody, meter: Option<CallMeter>) -> Self {
        Self { answer, meter, ended: false, broken: None }
    }

    fn handed(&mut self, data: &Bytes) {
        let ended = self.answer.is_end_stream();
        if let Some(meter) = &mut self.meter {
            meter.handed(data.len() as u64);
            if ended {
                meter.completed();
            }
        }
    }

    /// Trailers without what only the gateway may know; `None` when nothing is left of them.
    fn trailers(&mut self, mut trailers: HeaderMap) -> Option<Frame<Bytes>> {
        let usage = Usage::take(&mut trailers);
        let removed: Vec<_> = trailers.keys().filter(|name| is_hop_by_hop_trailer(name)).cloned().collect();
        for name in removed {
            trailers.remove(name);
        }
        if let Some(meter) = &mut self.meter {
            meter.said(usage);
        }
        self.end();
        (!trailers.is_empty()).then(|| Frame::trailers(trailers))
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(meter) = &mut self.meter {
            meter.completed();
        }
    }

    fn broke(&mut self, error: AnswerError) -> BodyError {
        self.ended = true;
        if let Some(meter) = &mut self.meter {
            meter.broke(&error);
        }
        match error {
            AnswerError::Broke(error) => BodyError::Connection(error),
            AnswerError::Short => BodyError::Source("the upstream's answer is shorter than it said".into()),
            AnswerError::Silent => BodyError::Idle,
            AnswerError::CallTimeout => BodyError::CallTimeout,
            AnswerError::Upload(failure) => BodyError::Source(failure.into()),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.answer.poll(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                // On an error hyper closes the connection with what it has not written yet, the head of a short answer
                // included. It writes whenever a body has nothing to give.
                self.broken = Some(self.broke(error));
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {
                self.end();
                return Poll::Ready(None);
            }
        };
        if let Some(data) = frame.data_ref() {
            self.handed(data);
            return Poll::Ready(Some(Ok(frame)));
        }
        let trailers = frame.into_trailers().unwrap_or_default();
        Poll::Ready(self.trailers(trailers).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && (self.ended || self.answer.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}
