//! A timer that is set for every request and hardly ever rings, kept over many requests.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings at a deadline that mostly moves later. Registering a timer and taking it away again for each request costs more
/// than to let an early one ring for nothing, once in a while: what it wakes looks at its own deadline.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Returns whether the deadline has passed; when it has not, the task is woken at the latest when it does.
    pub fn passed(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    async fn rings(alarm: &mut Alarm, deadline: Instant) {
        std::future::poll_fn(|cx| if alarm.passed(deadline, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    async fn looks(alarm: &mut Alarm, deadline: Instant) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(alarm.passed(deadline, cx))).await
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_each_deadline_and_never_before() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        // Later, later still, and, when something else is waited for, earlier than what it was set to.
        for seconds in [1, 5, 6, 60] {
            let deadline = start + Duration::from_secs(seconds);
            assert!(!looks(&mut alarm, deadline).await);
            assert!(!looks(&mut alarm, deadline + Duration::from_secs(600)).await);
            rings(&mut alarm, deadline).await;
            let late = Instant::now().duration_since(deadline);
            assert!(late < Duration::from_millis(5), "{late:?} late");
        }
        assert!(looks(&mut alarm, start).await, "what has passed has passed");
    }
}
