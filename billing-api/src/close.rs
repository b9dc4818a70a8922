//! Closing of periods by the clock, where `PERIOD_CLOSE_AFTER_HOURS` asks for it.

use std::time::Duration;

use goldleaves_billing::{Billing, DueClosed};
use tokio::time::sleep;

use crate::BillingMetrics;

/// How often ends of periods are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// Closes the periods of all tenants so many hours after their ends, for as long as it is left running.
pub async fn close_due_periods(billing: Billing, after_hours: u32, metrics: BillingMetrics) {
    loop {
        match billing.close_due_periods(after_hours).await {
            Ok(closed) => report(&closed, &metrics),
            Err(error) => {
                tracing::warn!(cause = &error as &dyn std::error::Error, "periods could not be closed; retrying");
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

fn report(closed: &DueClosed, metrics: &BillingMetrics) {
    if closed.count > 0 {
        metrics.closed(closed.count);
        tracing::info!(count = closed.count, "periods were due and are closed");
    }
    for (tenant, error) in &closed.failed {
        tracing::error!(
            %tenant,
            cause = error as &dyn std::error::Error,
            "a period is due and its bill would lack usage; it stays open until the rate card is there"
        );
    }
}
