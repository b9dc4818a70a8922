//! What the meter counts, always from rows and never from attempts.

use std::sync::atomic::{AtomicI64, AtomicU64};

use goldleaves_ledger::Recorded;
use goldleaves_runtime::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

type Label = [(&'static str, String); 1];

/// The most reasons that are told apart; the ledger knows fewer.
const REASONS_MAX: usize = 32;

/// The numbers of one meter. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct MeterMetrics {
    billed: Counter,
    repeats: Counter,
    replays: Counter,
    displaced: Counter,
    dead_letters: Family<Label, Counter>,
    seals: Counter,
    failures: Counter,
    revenue_cents: Gauge<i64, AtomicI64>,
}

impl MeterMetrics {
    /// Registers everything the meter shows.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.register(name, help, Counter::default());
        let (billed, repeats) = (
            counter("billed_events", "Events billed, from rows"),
            counter("repeated_events", "Events recognised as repeats of a client's request, from rows"),
        );
        show_share(metrics, billed.clone(), repeats.clone());
        let letters = "Messages set aside in usage_dead_letters, by reason";
        let revenue =
            "What the rows billed since the start cost, each rounded by itself; for watching, not for billing";
        Self {
            billed,
            repeats,
            replays: counter("replayed_messages", "Messages that were in the ledger before"),
            displaced: counter("displaced_events", "Earlier rows that changed between billed and repeat"),
            dead_letters: metrics.register("dead_letters", letters, Family::default()),
            seals: counter("recorded_seals", "Seals the ledger read"),
            failures: counter("meter_failures", "Batches that the ledger could not record and that come again"),
            revenue_cents: metrics.register("revenue_cents", revenue, Gauge::default()),
        }
    }

    /// A batch was recorded.
    pub(crate) fn recorded(&self, recorded: &Recorded) {
        self.billed.inc_by(recorded.inserted);
        self.repeats.inc_by(recorded.duplicates);
        self.replays.inc_by(recorded.replays);
        self.displaced.inc_by(recorded.displaced);
        self.seals.inc_by(recorded.seals);
        self.revenue_cents.inc_by(recorded.cost_cents);
        for (reason, count) in recorded.set_aside.iter().take(REASONS_MAX) {
            self.dead_letters.get_or_create(&[("reason", reason.clone())]).inc_by(*count);
        }
    }

    /// A batch could not be recorded.
    pub(crate) fn failed(&self) {
        self.failures.inc();
    }
}

/// Shows which part of what was recorded since the start is repeats.
fn show_share(metrics: &Metrics, billed: Counter, repeats: Counter) {
    let help = "Part of the events since the start that were repeats, 0 to 1";
    let share = metrics.register("repeat_share", help, Gauge::<f64, AtomicU64>::default());
    metrics.before_reading(move || {
        let (billed, repeats) = (billed.get() as f64, repeats.get() as f64);
        share.set(if repeats > 0.0 { repeats / (billed + repeats) } else { 0.0 });
    });
}
