//! `PUBLIC_ROUTES`: what they open, and which billable routes they leave without a bill.

use goldleaves_domain::{BillableRoutes, NormalPath, PublicRoutes, RouteClass};

fn class(raw: &str, public: &PublicRoutes) -> RouteClass {
    let path = NormalPath::normalise(raw).unwrap();
    RouteClass::of(&path, &BillableRoutes::parse("/").unwrap()).opened_by(&path, public)
}

#[test]
fn they_open_whole_segments_and_nothing_that_only_looks_like_them() {
    let public = PublicRoutes::parse("/static, /api/v1/status/*").unwrap();
    for open in ["/static", "/static/", "/static/app.js", "/api/v1/status", "/api/v1/status/7", "/%73tatic"] {
        assert_eq!(class(open, &public), RouteClass::Open, "{open}");
    }
    for closed in ["/", "/statics", "/Static", "/static;x/a", "/api/v1", "/api/v1/status-x"] {
        assert_eq!(class(closed, &public), RouteClass::Billable("/".parse().unwrap()), "{closed}");
    }
    assert_eq!(class("/billing/health", &public), RouteClass::Billing);
    assert_eq!(class("/static", &PublicRoutes::default()), RouteClass::Billable("/".parse().unwrap()));
}

#[test]
fn what_opens_too_much_or_nothing_is_refused() {
    let errors = PublicRoutes::parse("/,/billing/health,/metrics,static,/a,/a/").unwrap_err();
    let faults: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "the route pattern \"/\" would open everything",
            "the route pattern \"/billing/health\" is never the upstream's",
            "the route pattern \"/metrics\" is never the upstream's",
            "the route pattern \"static\" does not start with /",
            "the route pattern \"/a/\" is listed twice",
        ]
    );
}

#[test]
fn a_billable_route_that_is_open_can_never_be_billed() {
    let routes = BillableRoutes::parse("/,/health,/docs,/auth/login,/metrics,/billing,/static/paid,/api").unwrap();
    let never = |public: &PublicRoutes| {
        let mut found: Vec<_> = routes.never_billed(public).iter().map(ToString::to_string).collect();
        found.sort();
        found
    };
    let always = ["/auth/login", "/billing", "/docs", "/health", "/metrics"];
    assert_eq!(never(&PublicRoutes::default()), always);
    let public = PublicRoutes::parse("/static").unwrap();
    assert_eq!(never(&public), [&always[..], &["/static/paid"]].concat());
    assert!(BillableRoutes::default().never_billed(&public).is_empty());
}
