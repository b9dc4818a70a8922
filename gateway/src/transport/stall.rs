//! A timer that runs only while nothing moves.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Measures the time since something last moved. Costs nothing until something first has to be waited for.
#[derive(Debug)]
pub(crate) struct Stall {
    limit: Duration,
    latest: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Stall {
    /// Waits at most `limit` at a time and for nothing after `latest`.
    pub(crate) const fn new(limit: Duration, latest: Instant) -> Self {
        Self { limit, latest, sleep: None, running: false }
    }

    /// The moment after which nothing is waited for.
    pub(crate) const fn latest(&self) -> Instant {
        self.latest
    }

    /// Something moved: the next wait starts afresh.
    pub(crate) const fn moved(&mut self) {
        self.running = false;
    }

    /// Called whenever nothing moved: whether that has been so for longer than the limit.
    pub(crate) fn expired(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.running {
            let deadline = (Instant::now() + self.limit).min(self.latest);
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(deadline),
                None => self.sleep = Some(Box::pin(sleep_until(deadline))),
            }
            self.running = true;
        }
        self.sleep.as_mut().is_some_and(|sleep| matches!(sleep.as_mut().poll(cx), Poll::Ready(())))
    }
}
