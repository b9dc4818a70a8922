//! Route classes: local, open and billing routes win over whatever is billable.

use goldleaves_domain::{BillableRoutes, LocalRoute, NormalPath, RouteClass};

#[test]
fn open_routes_win_over_billable_ones() {
    let routes = BillableRoutes::parse("/,/auth,/auth/login,/docs,/billing,/health,/metrics,/openapi.json").unwrap();
    let class = |raw: &str| RouteClass::of(&NormalPath::normalise(raw).unwrap(), &routes);
    assert_eq!(class("/health"), RouteClass::Local(LocalRoute::Health));
    assert_eq!(class("/metrics"), RouteClass::Local(LocalRoute::Metrics));
    for open in
        ["/docs", "/docs/oauth2-redirect", "/openapi.json", "/openapi.json/", "/auth", "/auth/login/7", "/health/x"]
    {
        assert_eq!(class(open), RouteClass::Open, "{open}");
    }
    for billing in ["/billing", "/billing/health", "/billing/docs"] {
        assert_eq!(class(billing), RouteClass::Billing, "{billing}");
    }
    // What only looks open asks for a token, and is billed if it is billable.
    for (raw, route) in [("/auth;x/login", "/auth/login"), ("/DOCS/x", "/docs"), ("/Auth", "/auth"), ("/healthz", "/")]
    {
        assert_eq!(class(raw), RouteClass::Billable(route.parse().unwrap()), "{raw}");
    }
}

#[test]
fn what_is_neither_open_nor_billable_is_unbilled() {
    let routes = BillableRoutes::default();
    let path = NormalPath::normalise("/api/v1/users/7").unwrap();
    assert_eq!(RouteClass::of(&path, &routes), RouteClass::Unbilled);
}
