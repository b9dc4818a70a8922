//! What is exported of a batch: for each of its events a span in the event's own trace, and in that one of each COMMIT.
//!
//! A batch is one transaction for events of many traces, so each event's trace shows it as its own. An attempt that did
//! not get as far as the ledger's answer leaves nothing: the same batch comes again.

use std::ops::Range;

use goldleaves_domain::wire::Message;
use goldleaves_domain::{Receiver, TraceContext, UsageEvent};
use goldleaves_ledger::Incoming;
use goldleaves_trace::{Moment, OpenSpan, Opening, SpanKind, Tracer, messaging, next_span};

/// How a batch came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) through: Receiver,
    /// Since when it is worked on.
    pub(crate) started: Moment,
}

/// The spans of one batch by the places of their events; empty when none of its traces is exported.
pub(crate) struct BatchSpans {
    tracer: Tracer,
    system: &'static str,
    events: Vec<(usize, OpenSpan)>,
}

/// The spans of one transaction.
pub(crate) struct CommitSpans(Vec<OpenSpan>);

impl BatchSpans {
    /// For a batch that is recorded in a database of this `system`.
    pub(crate) fn begin(tracer: &Tracer, system: &'static str, (batch, arrival): (&[Incoming], Arrival)) -> Self {
        let open = |(place, message): (usize, &Incoming)| {
            let Ok(Message::Event(event)) = &message.parsed else { return None };
            let parent = tracer.continued(event.traceparent.as_deref())?;
            Some((place, process(tracer, parent, (event, arrival))?))
        };
        let events = batch.iter().enumerate().filter_map(open).collect();
        Self { tracer: tracer.clone(), system, events }
    }

    /// The spans of one transaction that records the messages at these places.
    pub(crate) fn commit(&self, places: Range<usize>) -> CommitSpans {
        let started = Moment::now();
        let size = i64::try_from(places.len()).unwrap_or(i64::MAX);
        let events = self.events.iter().filter(|(place, _)| places.contains(place));
        CommitSpans(events.filter_map(|(_, span)| self.commit_of(span.context(), size, started)).collect())
    }

    fn commit_of(&self, parent: TraceContext, size: i64, started: Moment) -> Option<OpenSpan> {
        let (context, name, parent) = (next_span(Some(parent)), "COMMIT usage".into(), Some(parent));
        let mut span = self.tracer.open(Opening { context, parent, kind: SpanKind::Client, name, started })?;
        span.set("db.system.name", self.system);
        span.set("db.operation.name", "COMMIT");
        span.set("goldleaves.batch_size", size);
        Some(span)
    }

    /// Everything is committed, or the batch comes again.
    pub(crate) fn end_if(self, is_committed: bool) {
        self.events.into_iter().for_each(|(_, span)| end_if(span, is_committed));
    }
}

impl CommitSpans {
    /// It is committed, or comes again.
    pub(crate) fn end_if(self, is_committed: bool) {
        self.0.into_iter().for_each(|span| end_if(span, is_committed));
    }
}

fn end_if(span: OpenSpan, is_committed: bool) {
    if is_committed {
        span.end();
    } else {
        span.discard();
    }
}

fn process(tracer: &Tracer, parent: TraceContext, (event, arrival): (&UsageEvent, Arrival)) -> Option<OpenSpan> {
    let (context, name, parent) = (next_span(Some(parent)), "process usage".into(), Some(parent));
    let started = arrival.started;
    let mut span = tracer.open(Opening { context, parent, kind: SpanKind::Consumer, name, started })?;
    messaging::say_event(&mut span, "process", (event.event_id, arrival.through));
    span.set("goldleaves.request_id", event.request_id.to_string());
    span.set("goldleaves.outcome", event.outcome.as_str());
    Some(span)
}
