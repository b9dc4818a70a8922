//! What the billing API reads from the settings.

use std::net::SocketAddr;

use goldleaves_runtime::settings::{Common, Values, parse, table};

/// The billing API's own settings.
#[derive(Debug, Clone)]
pub struct BillingConfig {
    /// `BILLING_ADDR`: where it listens.
    pub addr: SocketAddr,
    /// `ENABLE_DOCS`: whether `/billing/docs` and `/billing/openapi.json` are served.
    pub docs: bool,
}

impl BillingConfig {
    /// Reads them; `default_addr` is the program's own.
    pub fn read(values: &mut Values, common: Option<&Common>, default_addr: SocketAddr) -> Option<Self> {
        let addr = values.or_default(table::BILLING_ADDR, parse::socket_address, default_addr);
        let docs = Common::read_enable_docs(common, values);
        Some(Self { addr: addr?, docs: docs? })
    }
}
