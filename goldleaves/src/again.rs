//! How the one process reads its settings again. What it brought itself stays: its billing API and its demo upstream.

use goldleaves_auth::TokenOptions;
use goldleaves_billing_api::BillingApi;
use goldleaves_gateway::{Origin, Reloaded, Reloading};
use goldleaves_runtime::LogSwitch;
use goldleaves_runtime::settings::{Mistakes, Setting, table};

use crate::config::Config;
use crate::secret;

/// The parts besides the settings that a reading has to do with.
pub(crate) struct Beside {
    /// The options that tokens are verified with since the start.
    pub(crate) tokens: TokenOptions,
    /// The demo, where it was started.
    pub(crate) demo: Option<Origin>,
    /// Verifies tokens too.
    pub(crate) api: BillingApi,
    /// Changes the logs.
    pub(crate) logs: LogSwitch,
}

/// Returns how the settings are read again; `None` when they are not those of the process.
pub(crate) fn reloading(config: &Config, beside: Beside) -> Option<Reloading> {
    let again = config.again.clone()?;
    let (load, before) = (again.clone(), config.read.clone());
    let Beside { tokens, demo, api, logs } = beside;
    let billing = config.gateway.billing.clone();
    let read = move |file| {
        let mut values = load.values(file);
        let config = Config::read(&mut values);
        values.refuse_changes(&before, needs_restart);
        let Config { mut gateway, mut taken, jwt, data_dir, .. } = values.finish(config)?;
        let tokens = secret::token_options(&jwt, &data_dir);
        (taken.tokens, _) = tokens.map_err(|error| Mistakes::one(table::JWT_SECRET.name, format!("{error:#}")))?;
        gateway.billing = billing.clone();
        if gateway.named_upstreams().is_none() {
            let none =
                || Mistakes::one(table::UPSTREAM_URL.name, "is gone, and the demo is started at the start alone");
            gateway.upstream = Some(demo.clone().ok_or_else(none)?);
        }
        Ok(Reloaded { config: gateway, taken })
    };
    let taken = goldleaves_gateway::Taken { tokens, ..config.taken.clone() };
    let verifies = Box::new(move |verifier| api.verify_with(verifier));
    Some(Reloading { again, read: Box::new(read), taken, logs, verifies })
}

/// Returns whether a running process cannot take another value: what a gateway cannot, what its billing API cannot, and what
/// was done at the start.
fn needs_restart(setting: &Setting) -> bool {
    let is_one = [
        table::ENABLE_DOCS,
        table::USAGE_RATE_CENTS,
        table::BILLING_URL,
        table::BILLING_TIME_ZONE,
        table::PERIOD_CLOSE_AFTER_HOURS,
    ]
    .contains(setting);
    is_one || setting.name.starts_with("STRIPE_") || goldleaves_gateway::needs_restart(setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings that a running process takes. A new one stands here, or `needs_restart` names it: what is read at the start
    /// alone would change without a word and without effect.
    const TAKEN: &str = "DEBUG ALLOWED_ORIGINS CORS_EXPOSE_HEADERS JWT_SECRET JWT_ALGORITHM JWT_EXPIRATION_MINUTES JWT_ISSUER \
        JWT_AUDIENCE BILLABLE_ROUTES PUBLIC_ROUTES BILLABLE_STATUSES LOG_LEVEL LOG_FORMAT UPSTREAM_URL CONFIG_WATCH_SECS \
        UPSTREAMS ROUTES BILLING_CA_FILE EVENT_CLIENT_INFO RATE_LIMIT_PER_SECOND CALLS_PER_TENANT_MAX \
        REQUEST_BODY_BYTES_MAX HEADER_BYTES_MAX HEADER_FIELDS_MAX CONNECTIONS_MAX UPSTREAM_CONNECTIONS_MAX \
        FIRST_BYTE_TIMEOUT_SECS HEADERS_TIMEOUT_SECS BODY_IDLE_TIMEOUT_SECS UPSTREAM_CONNECT_TIMEOUT_SECS \
        UPSTREAM_HEAD_TIMEOUT_SECS CALL_TIMEOUT_SECS DRAIN_DELAY_SECS SHUTDOWN_GRACE_SECS WEBSOCKET_TOKEN \
        TUNNEL_IDLE_TIMEOUT_SECS";

    #[test]
    fn each_setting_is_taken_or_refused_knowingly() {
        let taken: Vec<&str> =
            table::ALL.iter().filter(|setting| !needs_restart(setting)).map(|setting| setting.name).collect();
        assert_eq!(taken, TAKEN.split_whitespace().collect::<Vec<_>>(), "see \"A setting\" in docs/ADDING.md");
    }
}
