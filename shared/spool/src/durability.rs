//! The wait of a task until a record is durable.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::error::SpoolError;
use crate::shared::SpoolShared;
use crate::waiters::Place;

/// The wait of a task.
pub(crate) struct DurabilityWait {
    shared: Arc<SpoolShared>,
    lsn: u64,
    place: Option<Place>,
}

impl DurabilityWait {
    pub(crate) fn new(shared: &Arc<SpoolShared>, lsn: u64) -> Self {
        Self { shared: Arc::clone(shared), lsn, place: None }
    }

    fn join(&mut self, waker: &Waker) {
        let waiters = &self.shared.syncing.waiters;
        if self.place.is_some_and(|place| waiters.renew(place, waker)) {
            return;
        }
        self.place = Some(waiters.join(self.lsn, waker.clone()));
        self.shared.syncing.bell.ring();
    }
}

impl Future for DurabilityWait {
    type Output = Result<(), SpoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.shared.syncing.outcome(self.lsn) {
            return Poll::Ready(outcome);
        }
        self.join(cx.waker());
        // Between the question and the joining it may have come about.
        self.shared.syncing.outcome(self.lsn).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for DurabilityWait {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shared.syncing.waiters.leave(place);
        }
    }
}
