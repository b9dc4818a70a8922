//! Why a call leaves no event, for who tries out a service behind the gateway. It decides nothing.

use http::HeaderValue;

use crate::call::Admitted;
use crate::destination::Destination;

/// The reason there is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// An open route is never billed.
    OpenRoute,
    /// None of `BILLABLE_ROUTES` matches.
    RouteNotBillable,
    /// The upstream's status is none of `BILLABLE_STATUSES`.
    StatusNotBillable,
    /// The spool took no record.
    NotRecorded,
}

impl Skipped {
    /// Returns the reason this call is not metered at all; the billing API's own routes say nothing.
    pub(crate) fn of(call: &Admitted) -> Option<Self> {
        match call {
            Admitted::Open { heading, .. } if heading.way.whom() == Destination::Upstream => Some(Self::OpenRoute),
            Admitted::Unbilled { .. } => Some(Self::RouteNotBillable),
            Admitted::Open { .. } | Admitted::Billable { .. } => None,
        }
    }

    /// Returns the reason a metered call has no event; `status_is_billable` tells whether its meter is still there.
    pub(crate) const fn metered(status_is_billable: Option<bool>) -> Option<Self> {
        match status_is_billable {
            Some(true) => Some(Self::NotRecorded),
            Some(false) => Some(Self::StatusNotBillable),
            None => None,
        }
    }

    /// Returns what `X-Usage-Skipped` says.
    pub(crate) const fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::OpenRoute => "open_route",
            Self::RouteNotBillable => "route_not_billable",
            Self::StatusNotBillable => "status_not_billable",
            Self::NotRecorded => "not_recorded",
        })
    }
}
