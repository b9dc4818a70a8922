//! The settings of the billing API.

use std::net::SocketAddr;
use std::str::FromStr as _;

use goldleaves_https::Base;
use goldleaves_pricing::TimeZone;
use goldleaves_runtime::Secret;
use goldleaves_runtime::settings::{Common, Values, parse, table};
use goldleaves_stripe::Secrets;

/// The billing API's own settings.
#[derive(Debug, Clone)]
pub struct BillingConfig {
    /// `BILLING_ADDR`: where it listens.
    pub addr: SocketAddr,
    /// `ENABLE_DOCS`.
    pub docs: Docs,
    /// `BILLING_TIME_ZONE`: the zone of tenants that have none of their own.
    pub time_zone: TimeZone,
    /// `PERIOD_CLOSE_AFTER_HOURS`: how long after their ends periods are closed by themselves; `None` is never.
    pub close_after_hours: Option<u32>,
    /// The account at Stripe that usage is pushed to; `None` pushes nothing.
    pub stripe: Option<StripeConfig>,
}

/// The documentation of the API: the page at `/billing/docs` and `/billing/openapi.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Docs {
    /// It is served beside the API.
    Served,
    /// There is nothing at its paths.
    Hidden,
}

/// The settings of the push to Stripe.
#[derive(Debug, Clone)]
pub struct StripeConfig {
    /// `STRIPE_API_KEY`.
    pub key: Secret,
    /// `STRIPE_API_BASE`.
    pub base: Base,
    /// `STRIPE_CALLS_PER_SECOND`.
    pub calls_per_second: u32,
    /// `STRIPE_WEBHOOK_SECRET`; `None` takes no webhook.
    pub webhook: Option<Secrets>,
}

impl BillingConfig {
    /// Reads them; `default_addr` is the program's own.
    pub fn read(values: &mut Values, common: Option<&Common>, default_addr: SocketAddr) -> Option<Self> {
        let addr = values.or_default(table::BILLING_ADDR, parse::socket_address, default_addr);
        let docs =
            Common::read_enable_docs(common, values).map(|served| if served { Docs::Served } else { Docs::Hidden });
        let time_zone = values.or_default(table::BILLING_TIME_ZONE, str::parse, TimeZone::UTC);
        let close_after_hours = values.optional(table::PERIOD_CLOSE_AFTER_HOURS, parse::whole(1..=8_760));
        let stripe = StripeConfig::read(values);
        let (time_zone, close_after_hours) = (time_zone?, close_after_hours?);
        Some(Self { addr: addr?, docs: docs?, time_zone, close_after_hours, stripe: stripe? })
    }
}

const STRIPE_API_BASE: &str = "https://api.stripe.com";
const STRIPE_CALLS_PER_SECOND: u32 = 20;

impl StripeConfig {
    /// Reads it; the inner `None` is: nothing is pushed. What would do nothing then is refused.
    fn read(values: &mut Values) -> Option<Option<Self>> {
        let key = values.optional_discreet(table::STRIPE_API_KEY, key);
        let base = values.optional_discreet(table::STRIPE_API_BASE, Base::from_str);
        let webhook = values.optional_discreet(table::STRIPE_WEBHOOK_SECRET, Secrets::from_str);
        let calls = table::STRIPE_CALLS_PER_SECOND;
        let calls_per_second = values.or_default(calls, parse::whole(1..=1_000), STRIPE_CALLS_PER_SECOND);
        if key == Some(None) {
            for setting in [table::STRIPE_API_BASE, table::STRIPE_WEBHOOK_SECRET, calls] {
                if values.is_set(setting) {
                    values.mistake(setting, "does nothing without STRIPE_API_KEY: set that too, or unset this");
                }
            }
        }
        let (key, base, webhook, calls_per_second) = (key?, base?, webhook?, calls_per_second?);
        let Some(key) = key else { return Some(None) };
        let base = match base {
            Some(base) => base,
            None => STRIPE_API_BASE.parse().ok()?,
        };
        Some(Some(Self { key, base, calls_per_second, webhook }))
    }
}

/// A key as a header can hold it. Its prefix is not checked: Stripe knows best.
fn key(text: &str) -> Result<Secret, &'static str> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(Secret::new(text.to_owned()))
    } else {
        Err("is no key: it has blanks or characters that no key has")
    }
}
