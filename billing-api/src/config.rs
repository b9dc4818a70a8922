//! What the billing API reads from the settings.

use std::net::SocketAddr;

use goldleaves_pricing::TimeZone;
use goldleaves_runtime::settings::{Common, Values, parse, table};

/// The billing API's own settings.
#[derive(Debug, Clone)]
pub struct BillingConfig {
    /// `BILLING_ADDR`: where it listens.
    pub addr: SocketAddr,
    /// `ENABLE_DOCS`: whether `/billing/docs` and `/billing/openapi.json` are served.
    pub docs: bool,
    /// `BILLING_TIME_ZONE`: the zone of tenants that have none of their own.
    pub time_zone: TimeZone,
    /// `PERIOD_CLOSE_AFTER_HOURS`: how long after their ends periods are closed by themselves; `None` is never.
    pub close_after_hours: Option<u32>,
}

impl BillingConfig {
    /// Reads them; `default_addr` is the program's own.
    pub fn read(values: &mut Values, common: Option<&Common>, default_addr: SocketAddr) -> Option<Self> {
        let addr = values.or_default(table::BILLING_ADDR, parse::socket_address, default_addr);
        let docs = Common::read_enable_docs(common, values);
        let time_zone = values.or_default(table::BILLING_TIME_ZONE, str::parse, TimeZone::UTC);
        let close_after_hours = values.optional(table::PERIOD_CLOSE_AFTER_HOURS, parse::whole(1..=8_760));
        Some(Self { addr: addr?, docs: docs?, time_zone: time_zone?, close_after_hours: close_after_hours? })
    }
}
