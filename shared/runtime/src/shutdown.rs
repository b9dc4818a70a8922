//! The wish to stop, and who hears it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::signals::on_a_terminal;

/// Signals this close together are one wish: `timeout` and other supervisors signal a process and then its group.
const SAME_WISH: Duration = Duration::from_millis(300);

/// The wish to stop this process: first in order, then at once. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    asked: CancellationToken,
    hurried: CancellationToken,
    at_once: CancellationToken,
    delaying: Arc<AtomicUsize>,
    hangups: Arc<Hangups>,
}

/// SIGHUPs of a service manager or a script, and whether anybody does something at one.
#[derive(Debug, Default)]
struct Hangups {
    heard: Notify,
    is_heeded: AtomicBool,
}

/// Somebody waits in [`Shutdown::delay`].
struct Delaying(Arc<AtomicUsize>);

impl Drop for Delaying {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shutdown {
    /// Nobody asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens for SIGINT and SIGTERM: the first asks, a second one that is not close upon it ends a delay that
    /// is still running, else it asks at once. SIGHUP asks as well where the process sits on a terminal, whose window was
    /// closed then, and changes nothing elsewhere.
    ///
    /// # Errors
    /// The signals cannot be listened for.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let shutdown = Self::new();
        let heard = shutdown.clone();
        tokio::spawn(async move {
            let mut first: Option<Instant> = None;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {
                        if !on_a_terminal() {
                            heard.hung_up();
                            continue;
                        }
                    }
                }
                match first {
                    Some(first) if first.elapsed() < SAME_WISH => {}
                    Some(_) if heard.hurry() => {
                        tracing::info!("asked to stop a second time: no more calls are accepted from now on");
                        first = Some(Instant::now());
                    }
                    Some(_) => {
                        tracing::warn!("asked to stop a second time: stopping at once");
                        return heard.ask_at_once();
                    }
                    None => {
                        tracing::info!("asked to stop: finishing what is in flight");
                        heard.ask();
                        first = Some(Instant::now());
                    }
                }
            }
        });
        Ok(shutdown)
    }

    /// Resolves at the next SIGHUP that does not mean a closed window; several that come meanwhile are one.
    pub(crate) async fn hangup(&self) {
        self.hangups.is_heeded.store(true, Ordering::Relaxed);
        self.hangups.heard.notified().await;
    }

    fn hung_up(&self) {
        if self.hangups.is_heeded.load(Ordering::Relaxed) {
            self.hangups.heard.notify_one();
        } else {
            tracing::info!("heard SIGHUP: this program reads its settings at the start only, nothing changes");
        }
    }

    /// Asks to stop in order.
    pub fn ask(&self) {
        self.asked.cancel();
    }

    /// Ends the delays that are running; `false` when there is none.
    pub fn hurry(&self) -> bool {
        let delaying = self.delaying.load(Ordering::Relaxed) > 0;
        if delaying {
            self.hurried.cancel();
        }
        delaying
    }

    /// Waits for what may still be done once a stop was asked for: for as long as `delay`, or until asked again.
    pub async fn delay(&self, delay: Duration) {
        if delay.is_zero() {
            return;
        }
        self.delaying.fetch_add(1, Ordering::Relaxed);
        let _delaying = Delaying(Arc::clone(&self.delaying));
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.hurried.cancelled() => {}
            () = self.at_once.cancelled() => {}
        }
    }

    /// Asks to stop without waiting for anything.
    pub(crate) fn ask_at_once(&self) {
        self.asked.cancel();
        self.at_once.cancel();
    }

    /// Returns whether a stop was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// Returns whether a stop without waiting was asked for.
    #[cfg(test)]
    pub(crate) fn is_at_once(&self) -> bool {
        self.at_once.is_cancelled()
    }

    /// Resolves once a stop was asked for.
    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Resolves once a stop without waiting was asked for.
    pub async fn at_once(&self) {
        self.at_once.cancelled().await;
    }

    /// Cancelled once a stop without waiting was asked for. What cancels it itself must take a child of it.
    pub fn at_once_token(&self) -> CancellationToken {
        self.at_once.clone()
    }

    /// Cancelled once a stop was asked for, for what takes a token.
    pub fn token(&self) -> CancellationToken {
        self.asked.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn signals_ask_first_in_order_then_at_once() {
        use rustix::process::{Signal, getpid, kill_process};

        let shutdown = Shutdown::on_signals().unwrap();
        assert!(!shutdown.is_asked());
        kill_process(getpid(), Signal::TERM).unwrap();
        shutdown.asked().await;
        assert!(!shutdown.is_at_once());
        kill_process(getpid(), Signal::TERM).unwrap();
        tokio::time::sleep(SAME_WISH).await;
        assert!(!shutdown.is_at_once(), "the same wish, said to the process and to its group");
        kill_process(getpid(), Signal::INT).unwrap();
        shutdown.at_once().await;
        assert!(shutdown.at_once_token().is_cancelled());
    }

    #[tokio::test]
    async fn a_second_wish_ends_a_delay_first() {
        let shutdown = Shutdown::new();
        shutdown.ask();
        assert!(!shutdown.hurry(), "there is no delay to end");
        let delayed = shutdown.clone();
        let delay = tokio::spawn(async move { delayed.delay(Duration::from_secs(3_600)).await });
        while !shutdown.hurry() {
            tokio::task::yield_now().await;
        }
        delay.await.unwrap();
        assert!(!shutdown.hurry() && !shutdown.is_at_once(), "the next wish is one to stop at once");
    }

    #[tokio::test]
    async fn asks_in_order_then_at_once() {
        let shutdown = Shutdown::new();
        let other = shutdown.clone();
        assert!(!other.is_asked());
        shutdown.ask();
        other.asked().await;
        assert!(other.is_asked() && other.token().is_cancelled() && !other.is_at_once());
        shutdown.ask_at_once();
        other.at_once().await;
        assert!(other.is_at_once());
    }
}
