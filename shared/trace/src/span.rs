//! One span: open while what it tells of lasts, then handed to the SDK.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use goldleaves_domain::TraceContext;
use opentelemetry::trace::{Span as _, Status};
use opentelemetry::{KeyValue, Value};

use crate::{SpanKind, sdk_context};

/// The attribute that says what went wrong.
const ERROR_TYPE: &str = "error.type";
/// The name of a span that is not exported after all: the SDK knows no other way to end one without handing it over.
pub(crate) const DISCARDED: &str = "";

/// A point in time, on the wall for the trace and on the steady clock for durations.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    wall: SystemTime,
    steady: Instant,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// One that was written down before, in microseconds since 1970.
    pub fn at(unix_micros: i64, steady: Instant) -> Self {
        let since = Duration::from_micros(u64::try_from(unix_micros).unwrap_or(0));
        Self { wall: UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH), steady }
    }

    pub(crate) const fn wall(self) -> SystemTime {
        self.wall
    }
}

/// The beginning of a span.
#[derive(Debug)]
pub struct Opening {
    /// The span above it.
    pub parent: Option<TraceContext>,
    /// Its part.
    pub kind: SpanKind,
    /// The name of what is done; few words are in use, whatever is asked.
    pub name: Cow<'static, str>,
    /// The time since when it runs.
    pub started: Moment,
}

/// A span that is not over. Dropped before [`OpenSpan::end`], it was cut off, and says so.
#[derive(Debug)]
pub struct OpenSpan {
    context: TraceContext,
    /// Until it was handed over.
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    span: opentelemetry_sdk::trace::Span,
    kind: SpanKind,
    started: Moment,
    has_failed: bool,
}

impl OpenSpan {
    pub(crate) fn new(
        context: TraceContext,
        kind: SpanKind,
        started: Moment,
        span: opentelemetry_sdk::trace::Span,
    ) -> Self {
        Self { context, open: Some(Box::new(Open { span, kind, started, has_failed: false })) }
    }

    /// Its place, for spans below it.
    pub const fn context(&self) -> TraceContext {
        self.context
    }

    /// Returns whether it asks something of another program.
    pub(crate) fn is_client(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.kind == SpanKind::Client)
    }

    /// Says something of it.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.open {
            open.span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Gives it another name.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.open {
            open.span.update_name(name);
        }
    }

    /// It has to do with another span, of whatever trace.
    pub fn link(&mut self, other: TraceContext) {
        if let Some(open) = &mut self.open {
            open.span.add_link(sdk_context(other, false), Vec::new());
        }
    }

    /// It did not go well: `why` is one of few words.
    pub fn fail(&mut self, why: impl Into<Value>) {
        if let Some(open) = &mut self.open {
            open.has_failed = true;
            open.span.set_status(Status::error(""));
            open.span.set_attribute(KeyValue::new(ERROR_TYPE, why));
        }
    }

    /// It is not exported after all.
    pub fn discard(mut self) {
        if let Some(mut open) = self.open.take() {
            open.span.update_name(DISCARDED);
        }
    }

    /// It came to its end.
    pub fn end(mut self) {
        self.hand_over();
    }

    fn hand_over(&mut self) {
        if let Some(mut open) = self.open.take() {
            let Moment { wall, steady } = open.started;
            open.span.end_with_timestamp(wall.checked_add(steady.elapsed()).unwrap_or(wall));
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if self.open.as_ref().is_some_and(|open| !open.has_failed) {
            self.fail("cut_off");
        }
        self.hand_over();
    }
}
