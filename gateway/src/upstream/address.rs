//! One address of an upstream: where it is, what is known of it, and each core's unused connections to it.

use std::fmt;
use std::sync::Arc;

use super::clock::{Clock, Moment};
use super::standing::Standing;
use crate::transport::{Dial, Origin, Pool, Target};

/// One address.
pub(crate) struct Address {
    pub(crate) dial: Dial,
    /// The origin as it was written: for `Host` of requests that had none, and for spans.
    pub(crate) origin: Arc<Origin>,
    /// Outlives the address where only the way to connect changes.
    pub(crate) standing: Arc<Standing>,
    /// One per core.
    pools: Box<[Arc<Pool>]>,
}

impl Address {
    pub(crate) fn new(dial: Dial, origin: Arc<Origin>, standing: Arc<Standing>, pools: Box<[Arc<Pool>]>) -> Arc<Self> {
        Arc::new(Self { dial, origin, standing, pools })
    }

    pub(crate) const fn target(&self) -> &Target {
        &self.dial.target
    }

    pub(crate) fn pools(&self) -> &[Arc<Pool>] {
        &self.pools
    }

    pub(crate) fn pool(&self, core: usize) -> Option<&Arc<Pool>> {
        self.pools.get(core)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Address({})", self.target())
    }
}

/// A call that is under way to an address.
#[derive(Debug)]
pub(crate) struct UnderWay {
    address: Arc<Address>,
    /// Set while it waits for an answer, where there are other addresses to compare with.
    waits: Option<Clock>,
}

impl UnderWay {
    /// To the only address that there is.
    pub(crate) fn alone(address: Arc<Address>) -> Self {
        address.standing.begin();
        Self { address, waits: None }
    }

    /// To one of several.
    pub(crate) fn chosen(address: Arc<Address>, clock: Clock, now: Moment) -> Self {
        address.standing.asked(now);
        let mut this = Self::alone(address);
        this.waits = Some(clock);
        this
    }

    pub(crate) const fn address(&self) -> &Arc<Address> {
        &self.address
    }

    /// There is an answer, or will be none.
    pub(crate) fn waited(&mut self) {
        if self.waits.take().is_some() {
            self.address.standing.waited();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(clock) = self.waits {
            self.address.standing.left(clock.now());
        }
        self.address.standing.end();
    }
}
