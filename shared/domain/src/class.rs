//! The class of a path: the gateway answers it, lets it through, or asks for a token and maybe bills it.
//!
//! Local and open routes are matched strictly (the very segment, nothing cut), billable ones leniently: every doubt
//! ends where a token is asked for and the call is metered.

use crate::{BillableRoutes, NormalPath, RoutePattern};

/// The class of a path. Local, open and billing routes always win over billable ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteClass {
    /// Answered by the gateway itself.
    Local(LocalRoute),
    /// To the upstream without a token, never billed: `/docs`, `/openapi.json`, `/auth`, each with everything below it, and
    /// what lies below `/health`.
    Open,
    /// To the billing API, which decides itself: `/billing/*`.
    Billing,
    /// To the upstream with a valid token, not billed.
    Unbilled,
    /// To the upstream with a valid token and a tenant, billed under this pattern.
    Billable(RoutePattern),
}

/// The routes that the gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocalRoute {
    /// `/health`: 200.
    Health,
    /// `/metrics` and below: 404 on the public port.
    Metrics,
}

impl RouteClass {
    /// The class of this path; a trailing slash changes nothing.
    pub fn of(path: &NormalPath, routes: &BillableRoutes) -> Self {
        Self::billed_by(path, || routes.longest_match(path).cloned())
    }

    /// The same, where something else than a list of routes says what is billed.
    pub fn billed_by(path: &NormalPath, billed: impl FnOnce() -> Option<RoutePattern>) -> Self {
        let mut segments = path.segments();
        match (segments.next(), segments.next()) {
            (Some("health"), None) => Self::Local(LocalRoute::Health),
            (Some("metrics"), _) => Self::Local(LocalRoute::Metrics),
            (Some("health" | "docs" | "openapi.json" | "auth"), _) => Self::Open,
            (Some("billing"), _) => Self::Billing,
            _ => billed().map_or(Self::Unbilled, Self::Billable),
        }
    }
}
