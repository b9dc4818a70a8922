//! From an upstream to a connection: an address is chosen, an unused connection to it taken or a new one made, and where none
//! can be made, another address is tried, for nothing of the call was sent yet.

use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;

use super::answer::{Held, Lease};
use crate::edge::Way;
use crate::error::{GatewayError, UpstreamError};
use crate::metrics::CoreMetrics;
use crate::transport::{ConnectError, Connection, Pool, Speaks};
use crate::upstream::{Address, CallResult, NoPick, RETRIES_MAX, Request, RetryReason, UnderWay, Upstream};

/// The attempts of a call so far.
pub(crate) struct Course<'a> {
    way: &'a Arc<Way>,
    upstream: &'a Arc<Upstream>,
    core: usize,
    metrics: &'a CoreMetrics,
    latest: Instant,
    tried: Vec<Arc<Address>>,
    retries: usize,
    speaks: Speaks,
    request: Option<Request>,
}

/// A connection that the call's request goes over.
pub(crate) struct Reached {
    pub(crate) connection: Connection,
    pool: Arc<Pool>,
    under_way: UnderWay,
}

/// The connections that will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// An unused one, or a new one.
    Any,
    /// A new one: what was unused may be as dead as the one before.
    New,
}

impl<'a> Course<'a> {
    /// The course of a call that begins.
    pub(crate) fn begin(
        way: &'a Arc<Way>,
        core: usize,
        metrics: &'a CoreMetrics,
        speaks: Speaks,
        latest: Instant,
    ) -> Result<Self, GatewayError> {
        let upstream = &way.upstream;
        upstream.called(std::time::Instant::now());
        let request = upstream.request().map_err(|none| no_address(none, upstream, core))?;
        Ok(Self { way, upstream, core, metrics, latest, tried: Vec::new(), retries: 0, speaks, request: Some(request) })
    }

    /// A connection to send the request over.
    pub(crate) async fn reach(&mut self, mut wanted: Wanted) -> Result<Reached, GatewayError> {
        loop {
            let under_way = self.upstream.pick(self.core, &self.tried);
            let mut under_way = under_way.map_err(|none| no_address(none, self.upstream, self.core))?;
            let address = Arc::clone(under_way.address());
            let Some(pool) = address.pool(self.core).cloned() else {
                return Err(no_address(NoPick::NoAddress, self.upstream, self.core));
            };
            if wanted == Wanted::Any
                && let Some(connection) = std::future::poll_fn(|cx| Poll::Ready(pool.take(self.speaks, cx))).await
            {
                return Ok(Reached { connection, pool, under_way });
            }
            self.metrics.upstream_connecting();
            match pool.connect(self.speaks, self.latest).await {
                Ok(connection) => {
                    self.upstream.connected(&address);
                    return Ok(Reached { connection, pool, under_way });
                }
                Err(ConnectError::Busy) => {
                    self.upstream.metrics().called(self.core, CallResult::Busy);
                    return Err(UpstreamError::Busy.of(self.upstream.whom()));
                }
                Err(error) => {
                    self.upstream.connect_failed(&address, &error);
                    under_way.waited();
                    drop(under_way);
                    self.tried.push(address);
                    self.connect_again(error)?;
                    wanted = Wanted::Any;
                }
            }
        }
    }

    /// Decides whether another address is tried after a connection could not be made.
    fn connect_again(&mut self, error: ConnectError) -> Result<(), GatewayError> {
        let is_alone = !self.upstream.has_untried(self.core, &self.tried);
        if !is_alone && self.may_retry(RetryReason::Connect) {
            return Ok(());
        }
        self.upstream.metrics().called(self.core, CallResult::Unreachable);
        let error =
            if self.tried.len() > 1 { UpstreamError::NoneReached(error) } else { UpstreamError::Unreachable(error) };
        Err(error.of(self.upstream.whom()))
    }

    /// Returns whether the request may be sent once more; it counts as sent again then.
    pub(crate) fn may_retry(&mut self, reason: RetryReason) -> bool {
        let may = self.retries < RETRIES_MAX && Instant::now() < self.latest && self.upstream.may_retry();
        if may {
            self.retries += 1;
            self.metrics.upstream_retried();
            self.upstream.metrics().retried(reason);
        }
        may
    }

    /// The connection did not serve the call; others are asked first from now on.
    pub(crate) fn give_up(&mut self, reached: Reached) {
        self.tried.push(Arc::clone(reached.under_way.address()));
    }

    /// The connection with what the call holds, until its answer has ended.
    pub(crate) fn lease(&mut self, reached: Reached) -> Lease {
        let Reached { connection, pool, under_way } = reached;
        let request = self.request.take();
        Lease { connection, pool, held: Held { _under_way: under_way, _request: request, _way: Arc::clone(self.way) } }
    }
}

impl Reached {
    pub(crate) const fn address(&self) -> &Arc<Address> {
        self.under_way.address()
    }

    /// There is an answer, or will be none.
    pub(crate) fn waited(&mut self) {
        self.under_way.waited();
    }

    /// Where it was unused.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The request was not sent after all.
    pub(crate) fn give_back(self) {
        self.pool.put(self.connection);
    }
}

fn no_address(none: NoPick, upstream: &Upstream, core: usize) -> GatewayError {
    let (result, error) = match none {
        NoPick::NoAddress => (CallResult::Unreachable, UpstreamError::NoAddress),
        NoPick::Busy => (CallResult::Busy, UpstreamError::RequestsMax),
    };
    upstream.metrics().called(core, result);
    error.of(upstream.whom())
}
