//! Decides who calls, and for which tenant: only the verified token says so, and the header that chooses among its tenants.

use std::sync::Arc;
use std::time::{Duration, Instant};

use goldleaves_auth::{Principal, TenantChoiceError, TokenVerifier, wire_value};
use goldleaves_domain::TenantId;

use super::{Inward, Step, websocket};
use crate::call::{Admission, Admitted, BilledCaller, Caller, Routed, Told};
use crate::error::{Failure, GatewayError};
use crate::facts::Facts;
use crate::metrics::CoreMetrics;

/// Longer than `CALL_TIMEOUT_SECS` can be.
const FOREVER: Duration = Duration::from_hours(48);

/// The layer.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) verifier: TokenVerifier,
    pub(crate) websocket_tokens: bool,
    pub(crate) metrics: Arc<CoreMetrics>,
}

impl Step<Routed> for Auth {
    type Out = Admitted;
    type After = ();
    type Error = Failure;

    fn inward(&self, call: Routed) -> Inward<Admitted, (), Failure> {
        match self.admit(call) {
            Ok(admitted) => Inward::On(admitted, ()),
            Err(error) => Inward::Refused(error.into()),
        }
    }
}

impl Auth {
    fn admit(&self, call: Routed) -> Result<Admitted, GatewayError> {
        let Routed { mut traced, path, heading, admission } = call;
        // Also where nobody asks for it: the upstream's logs are no place for tokens.
        let offered = if self.websocket_tokens { websocket::take_token(&mut traced.request)? } else { None };
        if admission == Admission::Open {
            return Ok(Admitted::Open { traced, path, heading });
        }
        let headers = traced.request.headers();
        let principal = match &offered {
            Some(token) => self.verifier.verify_token(token)?,
            None => self.verifier.verify(headers)?,
        };
        let tenant = principal.choose_tenant(headers).map_err(|error| refused(error, &principal))?.cloned();
        let told = told(&principal, tenant.as_ref());
        let expires = expiry(&principal, &traced.facts);
        match (admission, tenant) {
            (Admission::Billable(route), Some(tenant)) => Ok(Admitted::Billable {
                traced,
                path,
                heading,
                caller: BilledCaller { user: principal.user.clone(), tenant, told, expires },
                route,
            }),
            (Admission::Billable(_), None) => {
                self.metrics.tenant_missing();
                Err(match choices(&principal) {
                    none if none.is_empty() => GatewayError::TenantMissing,
                    choices => GatewayError::TenantNotChosen { choices },
                })
            }
            (_, tenant) => Ok(Admitted::Unbilled { traced, path, heading, caller: Caller { tenant, told, expires } }),
        }
    }
}

/// Returns what the upstream is told of a caller who acts for this tenant: as a rule the token's own, whose name is
/// written already.
fn told(principal: &Principal, tenant: Option<&TenantId>) -> Told {
    let written = || principal.wire.tenant().cloned();
    let tenant = tenant.and_then(|tenant| match principal.tenant.as_ref() == Some(tenant) {
        true => written(),
        false => Some(wire_value(tenant.as_str())),
    });
    Told { user: principal.wire.user().clone(), tenant }
}

/// The token's `exp` on the clock that timers run by; `None` for one further off than any call lasts.
fn expiry(principal: &Principal, facts: &Facts) -> Option<Instant> {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit into 53 bits")]
    let now = facts.arrived_at.unix_micros() as f64 / 1e6;
    let left = (principal.expires - now).max(0.0);
    (left < FOREVER.as_secs_f64()).then(|| facts.arrived + Duration::from_secs_f64(left))
}

fn refused(error: TenantChoiceError, principal: &Principal) -> GatewayError {
    match error {
        TenantChoiceError::Ambiguous => GatewayError::TenantChosenTwice { choices: choices(principal) },
        TenantChoiceError::Foreign => GatewayError::TenantForbidden,
    }
}

/// The tenants that the token lets its user choose among, each once.
fn choices(principal: &Principal) -> Vec<TenantId> {
    let mut choices: Vec<TenantId> = Vec::new();
    for tenant in principal.tenants() {
        if !choices.contains(tenant) {
            choices.push(tenant.clone());
        }
    }
    choices
}
