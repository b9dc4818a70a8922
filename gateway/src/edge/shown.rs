//! The effective table of routes, for `check-config`.

use std::sync::Arc;

use goldleaves_domain::{NormalPath, RouteClass};
use http::Method;

use super::EdgeSettings;
use super::config::{Access, ClientAbort, RouteEntry};
use super::routes::Bills;
use super::way::CallLimits;

/// One row: which calls, what they are, where they go, and what holds for them there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteShown {
    /// The path; `*` stands for all that no entry is for.
    pub path: String,
    /// `all`, or methods separated by commas.
    pub methods: String,
    /// `open`, `token` or `billed`.
    pub class: &'static str,
    /// The upstream's name.
    pub upstream: String,
    /// Time-outs, sizes and the like, in words.
    pub limits: String,
}

/// A row for each entry, and one for the rest.
pub(crate) fn route_table(config: &EdgeSettings<'_>) -> Vec<RouteShown> {
    let bills = Bills::new(Arc::clone(config.routes), &config.edge.routes);
    let limits = CallLimits::of(config.limits);
    let mut rows: Vec<RouteShown> = config.edge.routes.iter().map(|entry| row(config, entry, &bills, limits)).collect();
    let default = config.edge.upstreams.iter().any(|entry| entry.name == "default" && !entry.origins.is_empty());
    let default = if config.upstream.is_some() || default { "default" } else { "none: 404" };
    for pattern in bills.patterns() {
        if !config.edge.routes.iter().any(|entry| entry.path == *pattern) {
            let (path, upstream) = (pattern.to_string(), default.to_owned());
            rows.push(RouteShown { path, methods: "all".to_owned(), class: "billed", upstream, limits: words(limits) });
        }
    }
    let rest = RouteShown {
        path: "*".to_owned(),
        methods: "all".to_owned(),
        class: "token",
        upstream: default.to_owned(),
        limits: words(limits),
    };
    rows.push(rest);
    rows
}

fn row(config: &EdgeSettings<'_>, entry: &RouteEntry, bills: &Bills, limits: CallLimits) -> RouteShown {
    let own = CallLimits {
        head_timeout: entry.head_timeout.unwrap_or(limits.head_timeout),
        body_idle: entry.body_idle.unwrap_or(limits.body_idle),
        call_timeout: entry.call_timeout.unwrap_or(limits.call_timeout),
        body_bytes_max: entry.body_bytes_max.unwrap_or(limits.body_bytes_max),
        ..limits
    };
    let prefix =
        entry.prefix.as_ref().map(|prefix| format!(", prefix {}", if prefix.is_empty() { "/" } else { prefix }));
    let units = entry.units.map(|units| format!(", units {units}"));
    let finish = (entry.client_abort == ClientAbort::Finish).then(|| ", goes on without its client".to_owned());
    let more: String = [prefix, units, finish].into_iter().flatten().collect();
    RouteShown {
        path: entry.path.to_string(),
        methods: entry.shown_methods(),
        class: class(config, entry, bills),
        upstream: entry.upstream.clone(),
        limits: words(own) + &more,
    }
}

fn class(config: &EdgeSettings<'_>, entry: &RouteEntry, bills: &Bills) -> &'static str {
    let method = entry.methods.as_ref().and_then(|methods| methods.first()).unwrap_or(&Method::GET);
    let Ok(path) = NormalPath::normalise(entry.path.as_str()) else { return "token" };
    match RouteClass::billed_by(&path, || bills.pattern(&path, method)).opened_by(&path, config.public) {
        RouteClass::Local(_) | RouteClass::Open | RouteClass::Billing => "open",
        _ if entry.access == Some(Access::Open) => "open",
        RouteClass::Billable(_) => "billed",
        RouteClass::Unbilled => "token",
    }
}

fn words(limits: CallLimits) -> String {
    format!(
        "head {} s, body idle {} s, call {} s, body {} bytes",
        limits.head_timeout.as_secs_f64(),
        limits.body_idle.as_secs_f64(),
        limits.call_timeout.as_secs_f64(),
        limits.body_bytes_max
    )
}
