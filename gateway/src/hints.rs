//! The hints for operators who put a service of their own behind the gateway: what is billed, and that nothing was.

use std::sync::Arc;
use std::time::Duration;

use goldleaves_domain::RoutePattern;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::GatewayConfig;
use crate::metrics::{CoreMetrics, ServedCalls};

/// The interval at which it is looked whether calls are served and none is billable.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Patterns that one line names.
const NAMED_MAX: usize = 20;

/// Returns what is billed, in words: the patterns and the statuses.
pub(crate) fn billed(config: &GatewayConfig) -> String {
    let patterns = config.billed_patterns();
    let patterns: Vec<&str> = patterns.iter().map(RoutePattern::as_str).collect();
    let named = patterns.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = patterns.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{named}{more} (BILLABLE_ROUTES), answered with {} (BILLABLE_STATUSES)", config.statuses)
}

/// Says each minute that calls were served of which none can be billed.
pub(crate) async fn watch(cores: Vec<Arc<CoreMetrics>>, billed: String, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = ServedCalls::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = ServedCalls::of(&cores);
        if let Some(calls) = none_billable(before, now) {
            tracing::warn!(
                calls,
                "calls were served in the last minute, and the route of none is billed: billed is {billed}. The header \
                 X-Usage-Skipped of an answer says why it is not"
            );
        }
        before = now;
    }
}

/// Returns the number of calls that were served between two looks, if none of them was on a billable route.
const fn none_billable(before: ServedCalls, now: ServedCalls) -> Option<u64> {
    let unbilled = now.unbilled.saturating_sub(before.unbilled);
    if unbilled > 0 && now.billable == before.billable { Some(unbilled) } else { None }
}

#[cfg(test)]
mod tests {
    use goldleaves_runtime::Metrics;
    use http::StatusCode;

    use super::*;
    use crate::metrics::{RequestClass, register};

    #[test]
    fn only_served_calls_of_which_none_is_billable_are_said() {
        let cores = register(&Metrics::new(), 2);
        let start = ServedCalls::of(&cores);
        assert_eq!(none_billable(start, start), None);
        for (class, status) in [
            (RequestClass::Unbilled, StatusCode::UNAUTHORIZED),
            (RequestClass::Open, StatusCode::OK),
            (RequestClass::Local, StatusCode::OK),
        ] {
            cores[0].request(class, status);
        }
        assert_eq!(none_billable(start, ServedCalls::of(&cores)), None, "nobody expects a bill for these");
        cores[0].request(RequestClass::Unbilled, StatusCode::OK);
        cores[1].request(RequestClass::Unbilled, StatusCode::NOT_FOUND);
        let second = ServedCalls::of(&cores);
        assert_eq!(none_billable(start, second), Some(2));
        cores[1].request(RequestClass::Unbilled, StatusCode::OK);
        cores[1].request(RequestClass::Billable, StatusCode::OK);
        assert_eq!(none_billable(second, ServedCalls::of(&cores)), None, "one of them was");
    }
}
