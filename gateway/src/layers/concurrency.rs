//! Refuses a call whose tenant, or whose client address where there is none, has as many calls open as it may have.

use std::sync::Arc;

use super::{Inward, Step};
use crate::call::Admitted;
use crate::error::{Failure, GatewayError};
use crate::open_calls::OpenCalls;

/// The layer.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit(pub(crate) Arc<OpenCalls>);

impl Step<Admitted> for ConcurrencyLimit {
    type Out = Admitted;
    type After = ();
    type Error = Failure;

    fn inward(&self, mut call: Admitted) -> Inward<Admitted, (), Failure> {
        let (traced, tenant) = match &mut call {
            Admitted::Open { traced, .. } => (traced, None),
            Admitted::Unbilled { traced, caller, .. } => (traced, caller.tenant.as_ref()),
            Admitted::Billable { traced, caller, .. } => (traced, Some(&caller.tenant)),
        };
        let place = match tenant {
            Some(tenant) => self.0.of_tenant(tenant),
            None => self.0.of_address(&traced.facts.peer),
        };
        match place {
            Some(place) => traced.place = Some(place),
            None => return Inward::Refused(GatewayError::ConcurrencyLimited.into()),
        }
        Inward::On(call, ())
    }
}
