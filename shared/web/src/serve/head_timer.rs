//! hyper's timer of one HTTP/1 connection. hyper makes a sleep for every request's head and drops it when the head is
//! there; here the timer under it stays.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;

use crate::Alarm;

/// Gives out sleeps over one [`Alarm`]; a second one at the same time gets an alarm of its own.
#[derive(Debug, Clone)]
pub(super) struct HeadTimer {
    alarm: Arc<Mutex<Alarm>>,
    /// The moment until which the first head must be there, for hyper's first sleep: a part of it came before hyper had the connection.
    first: Arc<Mutex<Option<Instant>>>,
}

impl HeadTimer {
    pub(super) fn until(first: tokio::time::Instant) -> Self {
        Self { alarm: Arc::default(), first: Arc::new(Mutex::new(Some(first.into()))) }
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let alarm = std::mem::take(&mut *self.alarm.lock());
        let deadline = self.first.lock().take().map_or(deadline, |first| first.min(deadline));
        Box::pin(HeadSleep { alarm, deadline, home: Arc::clone(&self.alarm) })
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        if let Some(sleep) = sleep.as_mut().downcast_mut_pin::<HeadSleep>() {
            sleep.get_mut().deadline = deadline;
        }
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

#[derive(Debug)]
struct HeadSleep {
    alarm: Alarm,
    deadline: Instant,
    home: Arc<Mutex<Alarm>>,
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline.into();
        if self.alarm.passed(deadline, context) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        *self.home.lock() = std::mem::take(&mut self.alarm);
    }
}
