//! The counters of the record side, moved where things happen. The spool's own figures are in `shown`.

use std::sync::atomic::AtomicU64;

use goldleaves_domain::Outcome;
use goldleaves_runtime::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::call::VoidReason;

type Label = [(&'static str, &'static str); 1];
pub(crate) type Count = Gauge<u64, AtomicU64>;

/// Where recording a call went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailedStep {
    /// The INTENT could not be written: the call is unrecorded.
    Intent,
    /// The SETTLE could not be written: the call is recovered as `unknown` at the next start.
    Settle,
    /// `strict`: the INTENT did not become durable.
    Durable,
    /// The call was dropped unsettled (a bug or a panic): it is recorded as `unknown`.
    Dropped,
    /// A settlement came after the epoch's last seal: the call is recovered as `unknown` at the next start.
    Late,
}

impl FailedStep {
    const ALL: [Self; 5] = [Self::Intent, Self::Settle, Self::Durable, Self::Dropped, Self::Late];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Settle => "settle",
            Self::Durable => "durable",
            Self::Dropped => "dropped",
            Self::Late => "late",
        }
    }
}

/// The outcome of an attempt of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// With a receipt.
    Confirmed,
    /// Without one: the same again.
    Retried,
    /// The receiver lost what it had confirmed.
    Rewound,
}

impl Attempt {
    const ALL: [Self; 3] = [Self::Confirmed, Self::Retried, Self::Rewound];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Retried => "retried",
            Self::Rewound => "rewound",
        }
    }
}

/// One counter for each of a few words, made once: counting takes no lock, and what never happened shows as 0.
#[derive(Debug, Clone)]
struct WordCounters<T>(Vec<(T, Counter)>);

impl<T: Copy + PartialEq> WordCounters<T> {
    fn of(family: &Family<Label, Counter>, all: &[T], label: impl Fn(T) -> (&'static str, &'static str)) -> Self {
        Self(all.iter().map(|word| (*word, family.get_or_create(&[label(*word)]).clone())).collect())
    }

    fn inc(&self, word: T) {
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == word) {
            counter.inc();
        }
    }
}

/// The numbers of one record side. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RecordMetrics {
    captured: WordCounters<Outcome>,
    voided: WordCounters<VoidReason>,
    failures: WordCounters<FailedStep>,
    attempts: WordCounters<Attempt>,
    /// Calls served without a record.
    pub(crate) unrecorded: Counter,
    /// Calls of earlier starts settled as unknown.
    pub(crate) recovered: Counter,
    /// Records handed over.
    pub(crate) relayed: Counter,
    /// Records that could not be read.
    pub(crate) unreadable: Counter,
    /// Records that were larger than the receiver takes.
    pub(crate) oversized: Counter,
    /// Failed attempts since the last receipt.
    pub(crate) failures_in_a_row: Count,
    /// Seals written.
    pub(crate) seals: Counter,
    /// Epochs without their last seal.
    pub(crate) epochs_open: Count,
    /// Epochs given their last seal.
    pub(crate) epochs_closed: Counter,
}

impl RecordMetrics {
    /// Registers everything the record side shows.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.register(name, help, Counter::default());
        let family = |name, help| metrics.register(name, help, Family::<Label, Counter>::default());
        let gauge = |name, help| metrics.register(name, help, Count::default());
        let captured = family("captured_events", "Usage events recorded in the spool, by outcome");
        let voided = family("voided_calls", "Announced calls that left no event, by reason");
        let failures = family("capture_failures", "Captures of usage that failed, by step");
        let attempts = family("relay_batches", "Batches the relay tried to hand over, by result");
        Self {
            captured: WordCounters::of(&captured, &Outcome::ALL, |outcome| ("outcome", outcome.as_str())),
            voided: WordCounters::of(&voided, &VoidReason::ALL, |reason| ("reason", reason.as_str())),
            failures: WordCounters::of(&failures, &FailedStep::ALL, |step| ("step", step.as_str())),
            attempts: WordCounters::of(&attempts, &Attempt::ALL, |result| ("result", result.as_str())),
            unrecorded: counter("unrecorded_calls", "Calls served without a record"),
            recovered: counter("recovered_calls", "Calls of earlier starts settled as unknown"),
            relayed: counter("relayed_records", "Records the relay handed over"),
            unreadable: counter("relay_unreadable_records", "Spool records forwarded undecoded"),
            oversized: counter(
                "relay_oversized_records",
                "Spool records larger than the receiver takes, whose bytes were set aside in parts",
            ),
            failures_in_a_row: gauge(
                "relay_failures_in_a_row",
                "Attempts of the relay that failed since the last receipt",
            ),
            seals: counter("seals", "Seals written"),
            epochs_open: gauge("epochs_open", "Epochs without their last seal"),
            epochs_closed: counter("epochs_closed", "Epochs given their last seal"),
        }
    }

    /// An event was recorded.
    pub(crate) fn captured(&self, outcome: Outcome) {
        self.captured.inc(outcome);
    }

    /// A call was settled as no event.
    pub(crate) fn voided(&self, reason: VoidReason) {
        self.voided.inc(reason);
    }

    /// Recording a call went wrong.
    pub(crate) fn failed(&self, step: FailedStep) {
        self.failures.inc(step);
    }

    /// The relay tried to hand a batch over.
    pub(crate) fn attempt(&self, attempt: Attempt) {
        self.attempts.inc(attempt);
    }
}
