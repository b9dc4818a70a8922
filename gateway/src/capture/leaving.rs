//! The end of a call whose client leaves before the head of its answer: it is broken off with the future that serves
//! it, or, where its route says so, goes on by itself until the head and is settled by what that says.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use goldleaves_domain::Outcome;
use pin_project_lite::pin_project;
use tokio::sync::oneshot;

use super::{Answered, Headed};
use crate::core::Core;
use crate::edge::ClientAbort;
use crate::error::GatewayError;

pin_project! {
    /// A call on its way to its head.
    #[project = LeavingProjected]
    pub(super) enum Leaving<F> {
        /// It ends with the client.
        Cancel { #[pin] call: F },
        /// It goes on without the client.
        Finish { waiting: Waiting },
    }
}

/// The client's end of a call that goes on by itself.
pub(super) struct Waiting {
    core: Arc<Core>,
    answer: oneshot::Receiver<Answered>,
}

impl<F: Future<Output = Answered> + Send + 'static> Leaving<F> {
    pub(super) fn new(call: F, rule: ClientAbort, core: &Arc<Core>) -> Self {
        if rule == ClientAbort::Cancel {
            return Self::Cancel { call };
        }
        let (tell, answer) = oneshot::channel();
        let task = Arc::clone(core);
        core.finishing.spawn(async move {
            if let Err(unheard) = tell.send(call.await) {
                settle(unheard, &task);
            }
        });
        Self::Finish { waiting: Waiting { core: Arc::clone(core), answer } }
    }
}

impl<F: Future<Output = Answered>> Future for Leaving<F> {
    type Output = Answered;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        match self.project() {
            LeavingProjected::Cancel { call } => call.poll(cx),
            // A call that ended without a word ran into a fault.
            LeavingProjected::Finish { waiting } => {
                let heard = std::task::ready!(Pin::new(&mut waiting.answer).poll(cx));
                Poll::Ready(match heard {
                    Ok(answered) => answered,
                    Err(_) => Err(GatewayError::Panic.into()),
                })
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.answer.close();
        // The head and the client's end may have crossed.
        if let Ok(unheard) = self.answer.try_recv() {
            settle(unheard, &self.core);
        }
    }
}

/// The client is gone: what the head says is what the call costs.
fn settle(answered: Answered, core: &Core) {
    // What failed is settled already.
    let Ok(served) = answered else { return };
    let Headed { meter, .. } = Headed::of(served, None, core);
    if let Some(mut meter) = meter {
        meter.settle(Outcome::ClientAborted);
    }
}
