//! One request sent, one answer's head received, over a connection that is polled here.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::transport::{Connection, Upload, UploadWatch};

/// Why there is no head.
pub(crate) enum NoHead {
    /// The connection broke; the request comes back when none of it was sent.
    Broke { error: hyper::Error, unsent: Option<Box<Request<Upload>>> },
    /// The upstream said nothing for too long.
    Silent,
}

/// How long an answer's head may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// From the last byte that the client sent.
    pub(crate) timeout: Duration,
    /// The end of the whole call.
    pub(crate) call_deadline: Instant,
}

/// Sends `request` and waits for the head of its answer.
pub(crate) async fn exchange(
    connection: &mut Connection,
    request: Request<Upload>,
    watch: Option<&UploadWatch>,
    limits: HeadLimits,
) -> Result<Response<Incoming>, NoHead> {
    let mut answer = pin!(connection.send(request));
    let deadline_after = |moved: Instant| (moved + limits.timeout).min(limits.call_deadline);
    let mut deadline = deadline_after(Instant::now());
    std::future::poll_fn(|cx| {
        connection.drive(cx);
        if let Poll::Ready(mut sent) = answer.as_mut().poll(cx) {
            connection.headed(&mut sent);
            return Poll::Ready(sent.map_err(|mut failed| NoHead::Broke {
                unsent: failed.take_message().map(Box::new),
                error: failed.into_error(),
            }));
        }
        while connection.waited_until(deadline, cx) {
            // As long as the client sends, the upstream need not answer.
            deadline = watch.map_or(deadline, |watch| deadline_after(watch.moved()));
            if deadline <= Instant::now() {
                return Poll::Ready(Err(NoHead::Silent));
            }
        }
        Poll::Pending
    })
    .await
}
