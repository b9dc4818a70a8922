//! Webhooks are worked off here: each only says what is to be read now.

use goldleaves_billing::BillingError;
use goldleaves_billing::stripe::StoredHint;

use super::Pusher;

/// Types that something follows from.
const REPORT: &str = "v1.billing.meter.error_report_triggered";
const NO_METER: &str = "v1.billing.meter.no_meter_found";
const METER_CHANGED: [&str; 3] =
    ["v1.billing.meter.deactivated", "v1.billing.meter.reactivated", "v1.billing.meter.updated"];

/// Returns whether anything follows from a webhook of this type.
pub(crate) fn is_heeded(kind: &str) -> bool {
    kind == REPORT || kind == NO_METER || METER_CHANGED.contains(&kind)
}

impl Pusher {
    pub(super) async fn work_off_hints(&self) -> Result<(), BillingError> {
        // Whoever sends and whoever reads both come here, and one of them is enough.
        let Ok(_turn) = self.inner.hints.try_lock() else { return Ok(()) };
        let hints = self.inner.books.open_hints().await?;
        for hint in &hints {
            self.work_off(hint).await?;
            self.inner.books.hint_done(&hint.id).await?;
        }
        if !hints.is_empty() {
            self.wake();
        }
        Ok(())
    }

    async fn work_off(&self, hint: &StoredHint) -> Result<(), BillingError> {
        let books = &self.inner.books;
        let related = hint.related_id.as_deref();
        match (hint.kind.as_str(), related) {
            (REPORT, Some(meter)) => {
                let rows = books.read_all_of(meter).await?;
                tracing::warn!(rows, meter, "Stripe reports errors of a meter; its rows are read back now");
                self.note_samples(&hint.id).await
            }
            (NO_METER, _) => books.uncheck(None).await,
            (kind, Some(meter)) if METER_CHANGED.contains(&kind) => books.uncheck(Some(meter)).await,
            _ => Ok(()),
        }
    }

    /// Stripe's words for the rows that it names; where the key may not read events there are none.
    async fn note_samples(&self, event: &str) -> Result<(), BillingError> {
        self.inner.calls.turn().await;
        let report = self.inner.stripe.event(event).await;
        self.inner.metrics.called("event", if report.is_ok() { "ok" } else { "refused" });
        let Ok(report) = report else { return Ok(()) };
        for sample in report.samples() {
            self.inner.books.note(&sample.key, &format!("{}: {}", sample.code, sample.message)).await?;
        }
        Ok(())
    }
}
