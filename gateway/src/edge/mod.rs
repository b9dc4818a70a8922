//! The snapshot that a call is served by: its way, and everything on it, from the start of the call to its end.
//!
//! Immutable. A reload makes another one; calls that began under this one, tunnels too, end under it.

mod config;
mod opened;
mod routes;
mod shown;
mod together;
mod way;

use std::sync::{Arc, Weak};
use std::time::Duration;

use goldleaves_domain::{BillableRoutes, NormalPath, PublicRoutes, RouteClass, RoutePattern};
use http::Method;
use tokio::runtime::Handle;

pub(crate) use config::{ClientAbort, EdgeConfig, UpstreamEntry};
use routes::Routes;
pub(crate) use routes::{Bills, check};
pub use shown::RouteShown;
pub(crate) use shown::route_table;
pub(crate) use together::Urls;
pub(crate) use way::{CallLimits, Heading, Way};

use crate::destination::Destination;
use crate::error::GatewayError;
use crate::limits::{GatewayLimits, HEADER_FIELDS_NAMED};
use crate::transport::{Origin, PoolOptions, Tls, TlsFiles};
use crate::upstream::{Upstream, UpstreamSpec, Workshop, first_look_up};

/// The time for which an unused upstream connection is kept: less than the keep-alive time of common servers.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// The part of a reading of the settings that ways are made of.
pub(crate) struct EdgeSettings<'a> {
    /// `UPSTREAM_URL`.
    pub(crate) upstream: Option<&'a Origin>,
    /// `BILLING_URL`.
    pub(crate) billing: &'a Origin,
    pub(crate) billing_tls: Option<&'a Arc<Tls>>,
    /// `[[upstreams]]` and `[[routes]]`.
    pub(crate) edge: &'a EdgeConfig,
    pub(crate) routes: &'a Arc<BillableRoutes>,
    pub(crate) public: &'a PublicRoutes,
    pub(crate) limits: &'a GatewayLimits,
}

/// All ways that there are.
#[derive(Debug)]
pub(crate) struct Edge {
    upstreams: Vec<Arc<Upstream>>,
    /// Where calls go that no entry says anything of.
    default: Option<Arc<Way>>,
    /// Where `/billing` goes.
    billing: Arc<Way>,
    /// `None` = there is no entry.
    routes: Option<Routes>,
    bills: Bills,
    /// Held by every way, so that it is known whether a call is still under way on one.
    mark: Arc<()>,
}

impl Edge {
    /// Makes it of what is told, and of the one before what has not changed.
    pub(crate) fn build(config: &EdgeSettings<'_>, workshop: &Workshop, before: Option<&Self>) -> Self {
        let before = before.map(|edge| edge.upstreams.as_slice()).unwrap_or_default();
        let upstreams: Vec<Arc<Upstream>> =
            specs(config).into_iter().map(|spec| workshop.upstream(spec, before)).collect();
        let named = |name: &str| upstreams.iter().find(|upstream| upstream.name() == name).cloned();
        let limits = CallLimits::of(config.limits);
        let mark = Arc::new(());
        let way = |upstream| Arc::new(Way::plain(upstream, limits, &mark));
        let billing = named("billing").unwrap_or_else(|| workshop.upstream(billing_spec(config), before));
        let entries = config.edge.routes.iter().filter_map(|entry| {
            // Settings with an unknown upstream were refused.
            let upstream = named(&entry.upstream)?;
            Some((entry.clone(), Arc::new(Way::of(entry, upstream, limits, &mark))))
        });
        Self {
            default: named("default").map(way),
            billing: way(billing),
            routes: (!config.edge.routes.is_empty()).then(|| Routes::new(entries)),
            bills: Bills::new(Arc::clone(config.routes), &config.edge.routes),
            upstreams,
            mark: Arc::clone(&mark),
        }
    }

    /// Looks the names of new upstreams up, and keeps what is known of their addresses true from now on.
    pub(crate) fn start(&self, before: Option<&Self>) {
        let is_known = |upstream: &Arc<Upstream>| {
            before.is_some_and(|before| before.upstreams.iter().any(|other| Arc::ptr_eq(other, upstream)))
        };
        let new: Vec<_> = self.upstreams.iter().filter(|upstream| !is_known(upstream)).cloned().collect();
        first_look_up(&new);
        if let Ok(control) = Handle::try_current() {
            new.iter().for_each(|upstream| upstream.keep_up(&control));
        }
    }

    /// Returns a mark that lives for as long as anybody uses this edge.
    pub(crate) fn mark(&self) -> Weak<()> {
        Arc::downgrade(&self.mark)
    }

    /// All upstreams.
    pub(crate) fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// Returns the pattern that the calls of a path are billed as.
    pub(crate) fn billed_as(&self, path: &NormalPath, method: &Method) -> Option<RoutePattern> {
        self.bills.pattern(path, method)
    }

    /// Where a call goes, and whether its entry opens it.
    ///
    /// # Errors
    /// No entry leads there and there is no default, or the rewritten path would be read in two ways.
    pub(crate) fn head_for(
        &self,
        path: &NormalPath,
        method: &Method,
        class: &RouteClass,
    ) -> Result<(Heading, bool), GatewayError> {
        let units = if matches!(class, RouteClass::Billable(_)) { self.bills.units(path, method) } else { None };
        let (heading, is_opened) = self.head(path, method, *class == RouteClass::Billing)?;
        Ok((Heading { units, ..heading }, is_opened))
    }

    fn head(&self, path: &NormalPath, method: &Method, is_billing: bool) -> Result<(Heading, bool), GatewayError> {
        let otherwise = if is_billing { Some(&self.billing) } else { self.default.as_ref() };
        let allowed = match &self.routes {
            None => Vec::new(),
            // What is billing-api's is moved by nothing that is for all paths.
            Some(routes) => match routes.find(path, method, |way| !is_billing || way.is_of_billing) {
                Ok(found) => return Ok((found.way.toward(path, found.rest_bytes)?, routes::opens(&found))),
                Err(allowed) => allowed,
            },
        };
        match otherwise {
            Some(way) => Ok((Heading { way: Arc::clone(way), target: None, units: None }, false)),
            None => Err(routes::unserved(allowed)),
        }
    }
}

fn billing_spec(config: &EdgeSettings<'_>) -> UpstreamSpec {
    spec(config, "billing", config.edge.entry("billing"), Some(config.billing))
}

/// Returns the settings of all upstreams.
fn specs(config: &EdgeSettings<'_>) -> Vec<UpstreamSpec> {
    let entries = &config.edge.upstreams;
    let default = config.edge.entry("default");
    let has_default = config.upstream.is_some() || default.is_some_and(|entry| !entry.origins.is_empty());
    let default = has_default.then(|| spec(config, "default", default, config.upstream));
    let others = entries.iter().filter(|entry| !matches!(entry.name.as_str(), "default" | "billing"));
    let others = others.map(|entry| spec(config, &entry.name, Some(entry), None));
    default.into_iter().chain(std::iter::once(billing_spec(config))).chain(others).collect()
}

fn spec(config: &EdgeSettings<'_>, name: &str, entry: Option<&UpstreamEntry>, own: Option<&Origin>) -> UpstreamSpec {
    let written = entry.map(|entry| entry.origins.clone()).filter(|origins| !origins.is_empty());
    let own = || own.map(|origin| Arc::new(origin.clone())).into_iter().collect();
    let origins: Vec<Arc<Origin>> = written.unwrap_or_else(own);
    // What its entry says of certificates is in it.
    let own_tls = || config.billing_tls.cloned().filter(|_| name == "billing");
    UpstreamSpec {
        name: name.to_owned(),
        whom: if name == "billing" { Destination::Billing } else { Destination::Upstream },
        requests_max: entry.and_then(|entry| entry.requests_max),
        connect_timeout: entry
            .and_then(|entry| entry.connect_timeout)
            .unwrap_or(config.limits.upstream_connect_timeout),
        health: entry.and_then(|entry| entry.health.clone()),
        protocol: entry.and_then(|entry| entry.protocol),
        tls: own_tls().or_else(|| entry.and_then(|entry| entry.tls.clone())).or_else(|| system_tls(&origins)),
        pool: PoolOptions {
            idle_timeout: POOL_IDLE,
            header_fields_max: config.limits.header_fields_max + HEADER_FIELDS_NAMED,
        },
        origins,
    }
}

/// Returns the encryption of connections where no entry says more than `https`.
fn system_tls(origins: &[Arc<Origin>]) -> Option<Arc<Tls>> {
    let is_https = origins.iter().any(|origin| origin.is_https());
    // No file of the settings is read here that could be wrong.
    is_https.then(|| Tls::read(TlsFiles::default()).ok().map(Arc::new)).flatten()
}
