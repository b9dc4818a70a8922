//! The care for periods beside all calls: what was left out before the first ones is kept in mind, and where
//! `PERIOD_CLOSE_AFTER_HOURS` asks for it, they are closed by the clock.

use std::error::Error;
use std::time::Duration;

use goldleaves_billing::{Billing, DueClosed};
use tokio::time::sleep;

use crate::BillingMetrics;

/// The interval at which ends of periods are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// Cares for the periods of all tenants for as long as it is left running; closes them so many hours after their ends.
pub(crate) async fn keep_periods(billing: Billing, close_after_hours: Option<u32>, metrics: BillingMetrics) {
    loop {
        match billing.note_left_out().await {
            Ok(0) => {}
            Ok(tenants) => tracing::info!(
                tenants,
                "usage before the first periods of tenants, which an earlier version closed, stays unbilled; what comes later is billed"
            ),
            // What needs the database more says that it is away.
            Err(error) if error.is_transient() => {}
            Err(error) => {
                tracing::warn!(
                    cause = &error as &dyn Error,
                    "usage before first periods could not be looked at; retrying"
                );
            }
        }
        if let Some(after_hours) = close_after_hours {
            match billing.close_due_periods(after_hours).await {
                Ok(closed) => report(&closed, &metrics),
                Err(error) => tracing::warn!(cause = &error as &dyn Error, "periods could not be closed; retrying"),
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
            cause = error as &dyn Error,
            "a period is due and its bill would lack usage; it stays open until the rate card is there"
        );
    }
}
