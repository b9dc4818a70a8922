//! The addresses that look-ups of an upstream's names gave, and which of them are used.
//!
//! Of a name's IPv4 and IPv6 addresses one family is used, the first in the resolver's order of which an address answers:
//! `localhost` is one server, not two.

use std::net::SocketAddr;
use std::sync::Arc;

use super::address::Address;
use super::standing::Standing;
use super::{Plumbing, Upstream, UpstreamSpec};
use crate::transport::{Dial, Origin, Pool, Security, Target};

/// More addresses of one name than these are not used.
const ADDRESSES_MAX: usize = 256;

/// All that is known.
pub(super) struct Known(Vec<Named>);

/// The addresses behind one that was written.
struct Named {
    origin: Arc<Origin>,
    /// The family that the resolver named first, and the other one.
    families: [Vec<Arc<Address>>; 2],
}

impl Known {
    /// Nothing, but for what the upstream before knew of the same addresses. Where it made connections in another way, those
    /// that it has are not used again.
    pub(super) fn new(spec: &UpstreamSpec, plumbing: &Plumbing, before: Option<&Upstream>) -> Self {
        let connects_alike = before.is_some_and(|before| before.spec.connects_like(spec));
        let known = before.map(|before| before.known.lock());
        let again = |address: &Arc<Address>| match connects_alike {
            true => Arc::clone(address),
            false => address_of(spec, plumbing, address.target().clone(), &address.origin, &address.standing),
        };
        let named = |origin: &Arc<Origin>| {
            let same = known.as_ref().and_then(|known| known.0.iter().find(|named| named.origin == *origin));
            let families = same.map(|named| named.families.each_ref().map(|family| family.iter().map(again).collect()));
            Named { origin: Arc::clone(origin), families: families.unwrap_or_default() }
        };
        Self(spec.origins.iter().map(named).collect())
    }

    /// The addresses that calls may go to, each once.
    pub(super) fn in_use(&self) -> Vec<Arc<Address>> {
        let mut list: Vec<Arc<Address>> = Vec::new();
        for address in self.0.iter().flat_map(Named::in_use) {
            if !list.iter().any(|other| other.target() == address.target()) {
                list.push(Arc::clone(address));
            }
        }
        list
    }

    /// Every address, also of the family that is not used.
    pub(super) fn all(&self) -> Vec<Arc<Address>> {
        self.0.iter().flat_map(|named| named.families.iter().flatten()).cloned().collect()
    }
}

impl Named {
    fn in_use(&self) -> Box<dyn Iterator<Item = &Arc<Address>> + '_> {
        let answers =
            |family: &&Vec<Arc<Address>>| family.iter().any(|address| !address.standing.outage.is_unreachable());
        match self.families.iter().find(answers) {
            Some(family) => Box::new(family.iter()),
            None => Box::new(self.families.iter().flatten()),
        }
    }
}

impl Upstream {
    /// Takes the addresses that were written as such.
    pub(super) fn learn_what_is_written(&self) {
        for (index, origin) in self.spec.origins.iter().enumerate() {
            if let Some(target) = origin.target() {
                self.learn(index, vec![target]);
            }
        }
    }

    /// Takes what a look-up said; one that said nothing changes nothing.
    pub(super) fn learned(&self, index: usize, mut found: Vec<SocketAddr>) {
        if found.len() > ADDRESSES_MAX {
            tracing::warn!(upstream = self.name(), found = found.len(), "a name has too many addresses; 256 are used");
            found.truncate(ADDRESSES_MAX);
        }
        if !found.is_empty() {
            self.learn(index, found.into_iter().map(Target::Tcp).collect());
        }
    }

    fn learn(&self, index: usize, targets: Vec<Target>) {
        let mut known = self.known.lock();
        let Some(named) = known.0.get_mut(index) else { return };
        let first_is_v4 = targets.first().is_some_and(is_v4);
        let before = std::mem::take(&mut named.families);
        for target in targets {
            let family = usize::from(is_v4(&target) != first_is_v4);
            let is_there = |address: &&Arc<Address>| *address.target() == target;
            let address = before.iter().flatten().find(is_there).map(Arc::clone);
            let address = address.unwrap_or_else(|| self.address(target, &named.origin));
            if let Some(family) = named.families.get_mut(family) {
                family.push(address);
            }
        }
        drop(known);
        self.refresh();
    }

    fn address(&self, target: Target, origin: &Arc<Origin>) -> Arc<Address> {
        address_of(&self.spec, &self.plumbing, target, origin, &Arc::default())
    }
}

fn address_of(
    spec: &UpstreamSpec,
    plumbing: &Plumbing,
    target: Target,
    origin: &Arc<Origin>,
    standing: &Arc<Standing>,
) -> Arc<Address> {
    let security = Security::of(origin, spec.tls.as_ref());
    let dial = Dial { target, security, timeout: spec.connect_timeout };
    let pool = |buffers| Pool::new(dial.clone(), spec.pool, &plumbing.slots, buffers);
    let pools = plumbing.buffers.iter().map(pool).collect();
    Address::new(dial, Arc::clone(origin), Arc::clone(standing), pools)
}

const fn is_v4(target: &Target) -> bool {
    matches!(target, Target::Tcp(SocketAddr::V4(_)))
}
