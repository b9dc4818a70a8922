//! The gateway's settings, read and checked at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use goldleaves_domain::{BillableRoutes, BillableStatuses};
use goldleaves_runtime::settings::{Common, GatewayLimits, Values, parse, table};

use crate::layers::AllowedOrigins;
use crate::proxy::Origin;

/// Where the gateway listens when nothing is said: everywhere, as a program of its own.
const EVERYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8080);
/// Where it listens in the one process: on this machine only.
const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// Which program the gateway runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployment {
    /// One process with everything: it may bring its own demo upstream.
    Embedded,
    /// A program of its own.
    Distributed,
}

/// What a gateway is told.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// `GATEWAY_ADDR`.
    pub address: SocketAddr,
    /// `UPSTREAM_URL`; `None` only in the one process.
    pub upstream: Option<Origin>,
    /// `BILLING_URL`.
    pub billing: Origin,
    /// `BILLABLE_ROUTES`.
    pub routes: Arc<BillableRoutes>,
    /// `BILLABLE_STATUSES`.
    pub statuses: Arc<BillableStatuses>,
    /// `ALLOWED_ORIGINS`; `None` = no CORS headers.
    pub origins: Option<Arc<AllowedOrigins>>,
    /// `EVENT_CLIENT_INFO`.
    pub client_info: bool,
    /// Sizes, counts and time-outs.
    pub limits: GatewayLimits,
    /// `SHUTDOWN_GRACE_SECS`.
    pub shutdown_grace: Duration,
    /// How many cores serve, each with a runtime, a listening socket and an upstream pool of its own.
    pub cores: NonZeroUsize,
}

impl GatewayConfig {
    /// Reads it; `None` when there was a mistake, which `values` holds then.
    pub fn read(values: &mut Values, common: Option<&Common>, deployment: Deployment) -> Option<Self> {
        let here = if deployment == Deployment::Embedded { HERE } else { EVERYWHERE };
        let address = values.or_default(table::GATEWAY_ADDR, parse::socket_address, here);
        let upstream = origin(values, table::UPSTREAM_URL);
        if upstream == Some(None) && deployment == Deployment::Distributed {
            values.mistake(table::UPSTREAM_URL, "is missing");
        }
        let billing = origin(values, table::BILLING_URL);
        let routes = values.required(table::BILLABLE_ROUTES, routes);
        let statuses = values.required(table::BILLABLE_STATUSES, BillableStatuses::parse);
        let origins = values.optional(table::ALLOWED_ORIGINS, parse::from_str::<AllowedOrigins>);
        let client_info = values.required(table::EVENT_CLIENT_INFO, parse::boolean);
        let limits = GatewayLimits::read(values);
        Some(Self {
            address: address?,
            upstream: upstream?,
            billing: billing??,
            routes: Arc::new(routes?),
            statuses: Arc::new(statuses?),
            origins: origins?.map(Arc::new),
            client_info: client_info?,
            limits: limits?,
            shutdown_grace: common?.shutdown_grace,
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        })
    }
}

/// Reads an address to call. What is wrong with it is told in words that repeat nothing: it might hold a password.
fn origin(values: &mut Values, setting: table::Setting) -> Option<Option<Origin>> {
    let parsed = values.optional(setting, |text| Ok::<_, Infallible>(text.trim().parse::<Origin>()))?;
    match parsed.transpose() {
        Ok(origin) => Some(origin),
        Err(error) => {
            values.mistake(setting, &format!("is wrong: {error}"));
            None
        }
    }
}

/// Every mistake of the list in one text.
fn routes(list: &str) -> Result<BillableRoutes, String> {
    BillableRoutes::parse(list).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)], deployment: Deployment) -> Result<GatewayConfig, String> {
        let mut values = Values::load(settings.iter().copied(), None);
        let common = Common::read(&mut values);
        let config = GatewayConfig::read(&mut values, common.as_ref(), deployment);
        values.finish(config).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn only_the_one_process_can_do_without_an_upstream() {
        let embedded = read(&[], Deployment::Embedded).unwrap();
        assert_eq!((embedded.upstream, embedded.address), (None, HERE));
        assert!(read(&[], Deployment::Distributed).unwrap_err().contains("UPSTREAM_URL"));
        let distributed = read(&[("UPSTREAM_URL", "http://h:9")], Deployment::Distributed).unwrap();
        assert_eq!((distributed.upstream.unwrap().port(), distributed.address), (9, EVERYWHERE));
        assert_eq!(distributed.origins, None);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let settings = [
            ("UPSTREAM_URL", "https://h"),
            ("BILLING_URL", "http://h/base"),
            ("BILLABLE_ROUTES", "/a/*/b,/a,/a"),
            ("BILLABLE_STATUSES", "2xx,abc"),
            ("ALLOWED_ORIGINS", "app.example"),
            ("EVENT_CLIENT_INFO", "perhaps"),
            ("GATEWAY_ADDR", "nowhere"),
            ("CONNECTIONS_MAX", "0"),
        ];
        let mistakes = read(&settings, Deployment::Distributed).unwrap_err();
        for (name, _) in settings {
            assert!(mistakes.contains(name), "{name} is not in\n{mistakes}");
        }
        assert!(mistakes.contains("https is not spoken"), "{mistakes}");
    }
}
