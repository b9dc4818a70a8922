//! One request sent, one answer's head received, over a connection that is polled here.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;

use super::answer::Source;
use crate::transport::{Connection, Upload, UploadWatch};

/// The reason there is no head.
pub(crate) enum NoHead {
    /// The connection broke; the request comes back when none of it was sent.
    Broke { error: hyper::Error, unsent: Option<Box<Request<Upload>>> },
    /// The upstream said nothing for too long.
    Silent,
}

/// The longest time an answer's head may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// From when it began, or from the last byte that the client sent.
    pub(crate) timeout: Duration,
    pub(crate) began: Instant,
    /// The end of the whole call.
    pub(crate) call_deadline: Instant,
}

impl HeadLimits {
    /// When an answer is late to a request that began, or whose client last sent something, at this moment.
    pub(crate) fn deadline(&self, moved: Instant) -> Instant {
        (moved + self.timeout).min(self.call_deadline)
    }
}

/// Sends `request` and waits for the head of its answer.
pub(crate) async fn exchange(
    connection: &mut Connection,
    request: Request<Upload>,
    watch: Option<&UploadWatch>,
    limits: HeadLimits,
) -> Result<Response<Source>, NoHead> {
    let mut answer = pin!(connection.send(request));
    let mut deadline = limits.deadline(limits.began);
    std::future::poll_fn(|cx| {
        connection.drive(cx);
        if let Poll::Ready(mut sent) = answer.as_mut().poll(cx) {
            connection.headed(&mut sent);
            let head = sent.map(|response| match connection.is_shared() {
                true => response.map(|body| Source::of_stream(body, cx)),
                false => response.map(Source::Streamed),
            });
            return Poll::Ready(head.map_err(|mut failed| NoHead::Broke {
                unsent: failed.take_message().map(Box::new),
                error: failed.into_error(),
            }));
        }
        while connection.waited_until(deadline, cx) {
            // As long as the client sends, the upstream need not answer.
            deadline = watch.map_or(deadline, |watch| limits.deadline(watch.moved()));
            if deadline <= Instant::now() {
                return Poll::Ready(Err(NoHead::Silent));
            }
        }
        Poll::Pending
    })
    .await
}
