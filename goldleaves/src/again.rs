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
