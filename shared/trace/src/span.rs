//! One span: open while what it tells of lasts, then handed to its tracer.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use goldleaves_domain::TraceContext;

use crate::Tracer;

/// The attribute that says what went wrong.
const ERROR_TYPE: &str = "error.type";

/// What a span's part in a trace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Answers a request from outside.
    Server,
    /// Asks something of another program.
    Client,
    /// Hands a message over.
    Producer,
    /// Works on a message.
    Consumer,
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A whole number.
    Number(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

/// A point in time, on the wall for the trace and on the steady clock for durations.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    unix_nanos: u64,
    steady: Instant,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix_nanos: nanos(since), steady: Instant::now() }
    }

    /// One that was written down before, in microseconds since 1970.
    pub fn at(unix_micros: i64, steady: Instant) -> Self {
        Self { unix_nanos: u64::try_from(unix_micros).unwrap_or(0).saturating_mul(1_000), steady }
    }
}

/// How a span begins.
#[derive(Debug)]
pub struct Opening {
    /// Its own place.
    pub context: TraceContext,
    /// The span above it.
    pub parent: Option<TraceContext>,
    /// Its part.
    pub kind: SpanKind,
    /// What is done; few words are in use, whatever is asked.
    pub name: Cow<'static, str>,
    /// Since when.
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
    tracer: Tracer,
    span: Span,
    steady: Instant,
}

/// A span as it is exported.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) context: TraceContext,
    pub(crate) parent: Option<TraceContext>,
    pub(crate) kind: SpanKind,
    pub(crate) name: Cow<'static, str>,
    pub(crate) start_unix_nanos: u64,
    pub(crate) end_unix_nanos: u64,
    pub(crate) attributes: Vec<(&'static str, Value)>,
    pub(crate) failed: bool,
}

impl OpenSpan {
    pub(crate) fn new(tracer: Tracer, opening: Opening) -> Self {
        let Opening { context, parent, kind, name, started } = opening;
        let (start_unix_nanos, attributes) = (started.unix_nanos, Vec::with_capacity(8));
        let span = Span { context, parent, kind, name, start_unix_nanos, end_unix_nanos: 0, attributes, failed: false };
        Self { context, open: Some(Box::new(Open { tracer, span, steady: started.steady })) }
    }

    /// Its place, for spans below it.
    pub const fn context(&self) -> TraceContext {
        self.context
    }

    /// Its part, while it is open.
    pub(crate) fn kind(&self) -> Option<SpanKind> {
        self.open.as_ref().map(|open| open.span.kind)
    }

    /// Says something of it.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.open {
            open.span.attributes.push((name, value.into()));
        }
    }

    /// Gives it another name.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.open {
            open.span.name = name.into();
        }
    }

    /// It did not go well: `why` is one of few words.
    pub fn fail(&mut self, why: impl Into<Value>) {
        if let Some(open) = &mut self.open {
            open.span.failed = true;
            open.span.attributes.push((ERROR_TYPE, why.into()));
        }
    }

    /// It is not exported after all.
    pub fn discard(mut self) {
        self.open = None;
    }

    /// It came to its end.
    pub fn end(mut self) {
        self.hand_over();
    }

    fn hand_over(&mut self) {
        if let Some(open) = self.open.take() {
            let Open { tracer, mut span, steady } = *open;
            span.end_unix_nanos = span.start_unix_nanos.saturating_add(nanos(steady.elapsed()));
            tracer.hand_over(span);
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if self.open.as_ref().is_some_and(|open| !open.span.failed) {
            self.fail("cut_off");
        }
        self.hand_over();
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
