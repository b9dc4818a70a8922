//! Makes the upstreams of a reading of the settings, of those before what has not changed.

use std::sync::Arc;

use super::{Plumbing, Upstream, UpstreamSpec, Upstreams};

/// The parts that upstreams are made with.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) plumbing: Plumbing,
    pub(crate) counters: Upstreams,
}

impl Workshop {
    /// The upstream of these settings: the one before where nothing has changed.
    pub(crate) fn upstream(&self, spec: UpstreamSpec, before: &[Arc<Upstream>]) -> Arc<Upstream> {
        let same_name = before.iter().find(|upstream| upstream.name() == spec.name);
        match same_name {
            Some(upstream) if *upstream.spec() == spec => Arc::clone(upstream),
            other => Upstream::new(spec, self, other.map(|upstream| &**upstream)),
        }
    }
}
