//! Idle connections to one address of an upstream, one pool per core.
//!
//! Invariant: a connection is either in the pool or owned by exactly one request. The lock is taken by the thread of one
//! core, and by others only when there is no room for another connection: it is hardly ever waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};

use goldleaves_web::Buffers;
use parking_lot::Mutex;

use super::connection::{ConnectError, Connection, Speaks};
use super::slots::Slots;
use super::two::{Stream, TwoConnection};
use super::wire::Dial;

/// The calls that hyper carries after one that could not be short, before another is tried as a short one.
const LONG_CALLS: u32 = 8;

/// The way connections are made and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolOptions {
    /// The time for which an unused connection is kept. Shorter than what upstreams allow, because a connection that
    /// the upstream closes while a request is on its way costs an error.
    pub(crate) idle_timeout: Duration,
    /// The most header fields of an answer that are read.
    pub(crate) header_fields_max: usize,
}

/// Idle connections, the last used first out.
pub(crate) struct Pool {
    dial: Dial,
    options: PoolOptions,
    slots: Slots,
    buffers: Buffers,
    idle: Mutex<Vec<Idle>>,
    /// Connections of HTTP/2, which many calls use at once.
    shared: Mutex<Vec<Arc<TwoConnection>>>,
    /// Held by who makes one of them, so that calls that come together share it.
    opening: tokio::sync::Mutex<()>,
    /// The number of calls that are not tried as short ones.
    long_calls: AtomicU32,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(dial: Dial, options: PoolOptions, slots: &Slots, buffers: &Buffers) -> Arc<Self> {
        let (slots, buffers) = (slots.clone(), buffers.clone());
        let (idle, shared, opening) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        let pool = Self { dial, options, slots, buffers, idle, shared, opening, long_calls: AtomicU32::new(0) };
        let pool = Arc::new(pool);
        pool.slots.share_with(&pool);
        pool
    }

    /// A connection that the upstream had not closed a moment ago. Where something came while it was idle, it is polled once,
    /// which reads that: an end or stray bytes.
    pub(crate) fn take(&self, speaks: Speaks, cx: &mut Context<'_>) -> Option<Connection> {
        if speaks == Speaks::Two {
            let mut connection = Connection::stream(self.stream()?);
            connection.mark_reused();
            return Some(connection);
        }
        loop {
            let mut idle = self.idle.lock();
            let Idle { mut connection, since } = idle.pop()?;
            if since.elapsed() >= self.options.idle_timeout {
                // Those below were put back even earlier.
                let stale = std::mem::take(&mut *idle);
                drop(idle);
                drop(stale);
                return None;
            }
            drop(idle);
            if connection.is_usable(cx) {
                return Some(connection);
            }
        }
    }

    /// Returns whether the next call may be a short one: what an upstream answers at length costs more when that is tried. Cores
    /// share no pool, so that nothing is lost between looking and counting.
    pub(crate) fn tries_short(&self) -> bool {
        let left = self.long_calls.load(Ordering::Relaxed);
        if left > 0 {
            self.long_calls.store(left - 1, Ordering::Relaxed);
        }
        left == 0
    }

    /// A call that might have been short was not.
    pub(crate) fn was_long(&self) {
        self.long_calls.store(LONG_CALLS, Ordering::Relaxed);
    }

    /// A new connection, made within the time-out and before `latest`.
    pub(crate) async fn connect(
        &self,
        speaks: Speaks,
        latest: tokio::time::Instant,
    ) -> Result<Connection, ConnectError> {
        let left = latest.saturating_duration_since(tokio::time::Instant::now());
        if speaks == Speaks::Two {
            // Who waits for another's attempt waits no longer than for an own one.
            let timeout = self.dial.timeout.min(left);
            let opened = tokio::time::timeout(timeout, self.share(left)).await;
            return opened.map_err(|_| ConnectError::TimedOut(timeout))?;
        }
        let slot = self.slots.take().ok_or(ConnectError::Busy)?;
        let wire = self.dial.connect(speaks, left).await?;
        Connection::open(wire, &self.options, slot, self.buffers.clone()).await
    }

    /// A stream of a connection that another call made meanwhile, or of a new one.
    async fn share(&self, left: Duration) -> Result<Connection, ConnectError> {
        let _opening = self.opening.lock().await;
        if let Some(stream) = self.stream() {
            return Ok(Connection::stream(stream));
        }
        let slot = self.slots.take().ok_or(ConnectError::Busy)?;
        let wire = self.dial.connect(Speaks::Two, left).await?;
        let shared = TwoConnection::open(wire, slot, &self.dial.target).await?;
        let stream = shared.stream().ok_or(ConnectError::Busy)?;
        self.shared.lock().push(shared);
        Ok(Connection::stream(stream))
    }

    /// A stream of a connection of HTTP/2 that allows one more.
    fn stream(&self) -> Option<Stream> {
        self.shared.lock().iter().find_map(TwoConnection::stream)
    }

    /// Tries whether a connection can be made now; it is closed at once.
    pub(crate) async fn try_connect(&self, speaks: Speaks) -> Result<(), ConnectError> {
        let _slot = self.slots.take().ok_or(ConnectError::Busy)?;
        self.dial.connect(speaks, Duration::MAX).await.map(drop)
    }

    /// Closes the connection that has been unused for the longest; whether there was one.
    pub(crate) fn close_oldest(&self) -> bool {
        let mut idle = self.idle.lock();
        let oldest = if idle.is_empty() { None } else { Some(idle.remove(0)) };
        drop(idle);
        oldest.is_some() || self.close_unused()
    }

    /// Keeps a connection for the next request, or closes it.
    pub(crate) fn put(&self, mut connection: Connection) {
        if !connection.is_ready() {
            return;
        }
        connection.mark_reused();
        self.idle.lock().push(Idle { connection, since: Instant::now() });
    }

    /// Closes what has not been used for too long.
    pub(crate) fn sweep(&self) {
        let mut idle = self.idle.lock();
        let stale = idle.iter().take_while(|entry| entry.since.elapsed() >= self.options.idle_timeout).count();
        let stale: Vec<Idle> = idle.drain(..stale).collect();
        drop(idle);
        drop(stale);
        self.shared.lock().retain(|shared| !shared.is_spent());
    }

    fn close_unused(&self) -> bool {
        let mut shared = self.shared.lock();
        let unused = shared.iter().position(|shared| shared.is_unused());
        let unused = unused.map(|index| shared.swap_remove(index));
        drop(shared);
        unused.is_some()
    }
}
