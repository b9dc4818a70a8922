//! The metrics of the meter, always counted from rows and never from attempts.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use goldleaves_domain::wire::Message;
use goldleaves_ledger::{Incoming, LackingCards, Recorded, reasons_to_set_aside};
use goldleaves_runtime::{KnownGauge, LATE_CHANGES, LATE_CHANGES_HELP, Metrics};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

type Label = [(&'static str, String); 1];

/// The most reasons that are told apart; the ledger knows fewer.
const REASONS_MAX: usize = 32;

/// The most routes that are told apart; what comes later counts as [`OTHER_ROUTES`].
const ROUTES_MAX: usize = 64;
/// No pattern of a route is like this: they begin with `/`.
const OTHER_ROUTES: &str = "other";

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
    clocks: Family<Label, Gauge<f64, AtomicU64>>,
    went_back: Counter,
    stream_went_back: Counter,
    lacking: KnownGauge<u64>,
    gone: Counter,
    rate_card_retries: Counter,
    lacking_cards: Gauge,
    late_changes: Counter,
    revenue_cents: Family<Label, Gauge<i64, AtomicI64>>,
    routes: Arc<Mutex<BTreeSet<String>>>,
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
        let dead_letters = metrics.register("dead_letters", letters, Family::<Label, Counter>::default());
        for reason in reasons_to_set_aside() {
            // So that the first one is seen to be one more than none.
            drop(dead_letters.get_or_create(&[("reason", reason.to_owned())]));
        }
        let revenue = "What the rows billed since the start cost, by route, each rounded by itself; for watching, not for billing";
        Self {
            billed,
            repeats,
            replays: counter("replayed_messages", "Messages that were in the ledger before"),
            displaced: counter("displaced_events", "Earlier rows that changed between billed and repeat"),
            dead_letters,
            seals: counter("recorded_seals", "Seals the ledger read"),
            clocks: metrics.register(
                "event_clock_offset_seconds",
                "The most that times of the last batch's events lay ahead of or behind the moment they were stored",
                Family::default(),
            ),
            went_back: counter("ledger_went_back", "Times the ledger was found to have less than was confirmed by it"),
            stream_went_back: counter(
                "stream_went_back",
                "Times the stream was found to have lost messages that the ledger has",
            ),
            lacking: metrics.register(
                "ledger_lacking_messages",
                "Messages that the ledger confirmed and does not have, as of the last look",
                KnownGauge::default(),
            ),
            gone: counter("ledger_gone_messages", "Messages that the ledger lacks and the stream no longer holds"),
            failures: counter("meter_failures", "Batches that the ledger could not record and that come again"),
            rate_card_retries: counter(
                "rate_card_retries",
                "Transactions run again because a rate card appeared after their rows were priced",
            ),
            lacking_cards: metrics.register(
                "rate_cards_lacking",
                "Rate cards that usage was priced by and that the ledger does not have; nothing is priced until it has them",
                Gauge::default(),
            ),
            late_changes: metrics.shared_counter(LATE_CHANGES, LATE_CHANGES_HELP),
            revenue_cents: metrics.register("revenue_cents", revenue, Family::default()),
            routes: Arc::default(),
        }
    }

    /// Shows how many rate cards the ledger lacks.
    pub(crate) fn show_lacking_cards(&self, metrics: &Metrics, lacking: watch::Receiver<Option<LackingCards>>) {
        let shown = self.lacking_cards.clone();
        metrics.before_reading(move || {
            let count = lacking.borrow().as_ref().map_or(0, LackingCards::count);
            shown.set(i64::try_from(count).unwrap_or(i64::MAX));
        });
    }

    /// A batch was recorded.
    pub(crate) fn recorded(&self, recorded: &Recorded) {
        self.billed.inc_by(recorded.inserted);
        self.repeats.inc_by(recorded.duplicates);
        self.replays.inc_by(recorded.replays);
        self.displaced.inc_by(recorded.displaced);
        self.seals.inc_by(recorded.seals);
        self.rate_card_retries.inc_by(recorded.rate_card_retries);
        self.late_changes.inc_by(recorded.late_changes);
        for (route, cents) in &recorded.cost_cents {
            self.revenue_cents.get_or_create(&[("route", self.told_apart(route).to_owned())]).inc_by(*cents);
        }
        for (reason, count) in recorded.set_aside.iter().take(REASONS_MAX) {
            self.dead_letters.get_or_create(&[("reason", reason.clone())]).inc_by(*count);
        }
    }

    /// The route, or the name of all those beyond the most that are told apart: labels must stay few.
    fn told_apart<'a>(&self, route: &'a str) -> &'a str {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.contains(route) || (routes.len() < ROUTES_MAX && routes.insert(route.to_owned())) {
            route
        } else {
            OTHER_ROUTES
        }
    }

    /// Shows how far the gateways' clocks are from that of whatever stored their events.
    pub(crate) fn clocks(&self, incoming: &[Incoming]) {
        let offset = |message: &Incoming| match (&message.parsed, message.stored) {
            (Ok(Message::Event(event)), Some(stored)) => Some(event.ahead_of(stored) as f64 / 1e6),
            _ => None,
        };
        let offsets: Vec<f64> = incoming.iter().filter_map(offset).collect();
        if offsets.is_empty() {
            return;
        }
        for (direction, sign) in [("ahead", 1.0), ("behind", -1.0)] {
            let most = offsets.iter().map(|offset| offset * sign).fold(0.0, f64::max);
            self.clocks.get_or_create(&[("direction", direction.to_owned())]).set(most);
        }
    }

    /// The ledger has less than it confirmed.
    pub(crate) fn went_back(&self) {
        self.went_back.inc();
    }

    /// The stream lost messages that are in the ledger.
    pub(crate) fn stream_went_back(&self) {
        self.stream_went_back.inc();
    }

    /// Sets how many messages that it confirmed are not in the ledger; `None`: nobody knows.
    pub(crate) fn lacks(&self, messages: impl Into<Option<u64>>) {
        self.lacking.set(messages.into());
    }

    /// Counts messages that the ledger lacks and that are nowhere but in spools.
    pub(crate) fn gone(&self, messages: u64) {
        self.gone.inc_by(messages);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_shown_before_it_happens() {
        let metrics = Metrics::new();
        let meter = MeterMetrics::register(&metrics);
        let shown = || {
            let text = metrics.text();
            let lines = text.lines().filter_map(|line| line.strip_prefix("goldleaves_dead_letters_total{reason="));
            lines.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let reasons = ["clock", "malformed", "newer_version", "not_json", "refused", "unknown", "upstream_aborted"];
        assert_eq!(shown(), reasons.map(|reason| format!("\"{reason}\"}} 0")).into());
        meter.recorded(&Recorded { set_aside: [("refused".to_owned(), 2)].into(), ..Recorded::default() });
        assert!(shown().contains("\"refused\"} 2") && shown().len() == reasons.len(), "{:?}", shown());
    }

    #[test]
    fn late_changes_are_counted_with_those_of_corrections() {
        let metrics = Metrics::new();
        let meter = MeterMetrics::register(&metrics);
        metrics.shared_counter(LATE_CHANGES, LATE_CHANGES_HELP).inc();
        meter.recorded(&Recorded { late_changes: 2, ..Recorded::default() });
        assert!(metrics.text().contains("goldleaves_late_changes_total 3"), "{}", metrics.text());
    }

    #[test]
    fn revenue_has_few_labels() {
        let metrics = Metrics::new();
        let meter = MeterMetrics::register(&metrics);
        for number in 0..100 {
            let cost_cents = [(format!("/route-{number}"), 2)].into();
            meter.recorded(&Recorded { cost_cents, ..Recorded::default() });
        }
        let text = metrics.text();
        let shown = text.lines().filter(|line| line.starts_with("goldleaves_revenue_cents{")).count();
        assert_eq!(shown, ROUTES_MAX + 1);
        assert!(text.contains("goldleaves_revenue_cents{route=\"other\"} 72"), "{text}");
    }
}
