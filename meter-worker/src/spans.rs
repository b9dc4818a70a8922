//! The spans of a batch: for each of its events a span in the event's own trace, and one span of each COMMIT.
//!
//! A batch is one transaction for events of many traces: its COMMIT lies below the first event's span and is linked to
//! the span of each, and each is linked to it. An attempt that did not get as far as the ledger's answer leaves nothing:
//! the same batch comes again.

use std::ops::Range;

use goldleaves_domain::wire::Message;
use goldleaves_domain::{Receiver, TraceContext, UsageEvent};
use goldleaves_ledger::Incoming;
use goldleaves_trace::{Moment, OpenSpan, Opening, SpanKind, Tracer, messaging};

/// The way a batch came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchArrival {
    pub(crate) through: Receiver,
    /// The time since when it is worked on.
    pub(crate) started: Moment,
}

/// The spans of one batch by the places of their events; empty when none of its traces is exported.
pub(crate) struct BatchSpans {
    tracer: Tracer,
    system: &'static str,
    events: Vec<(usize, OpenSpan)>,
}

/// The span of one transaction, and the events that it is linked to.
pub(crate) struct CommitSpan(Option<OpenSpan>, Range<usize>);

impl BatchSpans {
    /// For a batch that is recorded in a database of this `system`.
    pub(crate) fn begin(tracer: &Tracer, system: &'static str, batch: &[Incoming], arrival: BatchArrival) -> Self {
        let open = |(place, message): (usize, &Incoming)| {
            let Ok(Message::Event(event)) = &message.parsed else { return None };
            let parent = tracer.continued(event.traceparent.as_deref())?;
            Some((place, process(tracer, parent, event, arrival)?))
        };
        let events = batch.iter().enumerate().filter_map(open).collect();
        Self { tracer: tracer.clone(), system, events }
    }

    /// The span of one transaction that records the messages at these places.
    pub(crate) fn commit(&self, places: Range<usize>) -> CommitSpan {
        let mut events = self.events.iter().filter(|(place, _)| places.contains(place)).map(|(_, span)| span.context());
        let Some(first) = events.next() else { return CommitSpan(None, places) };
        let (name, started) = ("COMMIT usage".into(), Moment::now());
        let opening = Opening { parent: Some(first), kind: SpanKind::Client, name, started };
        let Some(mut span) = self.tracer.open(opening) else { return CommitSpan(None, places) };
        span.set("db.system.name", self.system);
        span.set("db.operation.name", "COMMIT");
        span.set("goldleaves.batch_size", i64::try_from(places.len()).unwrap_or(i64::MAX));
        span.link(first);
        events.for_each(|event| span.link(event));
        CommitSpan(Some(span), places)
    }

    /// Ends the span of a COMMIT: what these places had in common is committed, or comes again.
    pub(crate) fn end_commit_if(&mut self, is_committed: bool, commit: CommitSpan) {
        let CommitSpan(Some(span), places) = commit else { return };
        if is_committed {
            let events = self.events.iter_mut().filter(|(place, _)| places.contains(place));
            events.for_each(|(_, event)| event.link(span.context()));
        }
        end_if(span, is_committed);
    }

    /// Everything is committed, or the batch comes again.
    pub(crate) fn end_if(self, is_committed: bool) {
        self.events.into_iter().for_each(|(_, span)| end_if(span, is_committed));
    }
}

fn end_if(span: OpenSpan, is_committed: bool) {
    if is_committed {
        span.end();
    } else {
        span.discard();
    }
}

fn process(tracer: &Tracer, parent: TraceContext, event: &UsageEvent, arrival: BatchArrival) -> Option<OpenSpan> {
    let (name, started) = ("process usage".into(), arrival.started);
    let mut span = tracer.open(Opening { parent: Some(parent), kind: SpanKind::Consumer, name, started })?;
    messaging::say_event(&mut span, "process", event.event_id, arrival.through);
    span.set("goldleaves.request_id", event.request_id.to_string());
    span.set("goldleaves.outcome", event.outcome.as_str());
    Some(span)
}
