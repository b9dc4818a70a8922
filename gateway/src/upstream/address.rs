//! One address of an upstream: where it is, what is known of it, and each core's unused connections to it.

use std::fmt;
use std::sync::Arc;

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
pub(crate) struct UnderWay(Arc<Address>);

impl UnderWay {
    pub(crate) fn new(address: Arc<Address>) -> Self {
        address.standing.begin();
        Self(address)
    }

    pub(crate) const fn address(&self) -> &Arc<Address> {
        &self.0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.standing.end();
    }
}
