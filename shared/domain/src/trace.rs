//! W3C Trace Context: which trace a call belongs to, and which span of it comes next above.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

/// A trace, one span of it, and whether anybody wants to see it: the text of a `traceparent`.
///
/// ```
/// use goldleaves_domain::TraceContext;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let client: TraceContext = text.parse().unwrap();
/// assert!(client.is_sampled());
/// let own = client.child(7.try_into().unwrap());
/// assert_eq!(own.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: NonZeroU128,
    span_id: NonZeroU64,
    sampled: bool,
    random: bool,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
pub struct TraceContextError;

impl TraceContext {
    /// The first span of a trace of one's own, which is wanted.
    pub const fn root(trace_id: NonZeroU128, span_id: NonZeroU64) -> Self {
        Self { trace_id, span_id, sampled: true, random: false }
    }

    /// Another span of the same trace.
    #[must_use]
    pub const fn child(self, span_id: NonZeroU64) -> Self {
        Self { span_id, ..self }
    }

    /// The trace.
    pub const fn trace_id(self) -> u128 {
        self.trace_id.get()
    }

    /// The span within it.
    pub const fn span_id(self) -> u64 {
        self.span_id.get()
    }

    /// Returns whether who started the trace wants it exported.
    pub const fn is_sampled(self) -> bool {
        self.sampled
    }

    /// The flags as `traceparent` has them: 1 is sampled, 2 a random trace id.
    pub const fn flags(self) -> u8 {
        self.sampled as u8 | ((self.random as u8) << 1)
    }

    /// The bytes of a `traceparent`. Every call has one, so they are written without the formatting machinery.
    pub fn header(self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(text.get_mut(3..19), (self.trace_id.get() >> 64) as u64);
        put_hex(text.get_mut(19..35), self.trace_id.get() as u64);
        put_hex(text.get_mut(36..52), self.span_id.get());
        put_hex(text.get_mut(53..), self.flags().into());
        text
    }

    /// The same span with flags that a sampler decided.
    #[must_use]
    pub const fn with_flags(self, flags: u8) -> Self {
        Self { sampled: flags & 1 != 0, random: flags & 2 != 0, ..self }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(std::str::from_utf8(&self.header()).unwrap_or_default())
    }
}

/// Writes the last digits of a number, as many as there are places.
fn put_hex(places: Option<&mut [u8]>, mut number: u64) {
    for place in places.into_iter().flatten().rev() {
        let digit = number as u8 & 15;
        *place = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        number >>= 4;
    }
}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    fn from_str(text: &str) -> Result<Self, TraceContextError> {
        let mut parts = text.splitn(5, '-');
        let mut hex = |digits| parts.next().and_then(|part| hex(part, digits)).ok_or(TraceContextError);
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        // Only later versions may say more.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return Err(TraceContextError);
        }
        let trace_id = NonZeroU128::new(trace).ok_or(TraceContextError)?;
        let span_id = u64::try_from(span).ok().and_then(NonZeroU64::new).ok_or(TraceContextError)?;
        Ok(Self { trace_id, span_id, sampled: flags & 1 != 0, random: flags & 2 != 0 })
    }
}

/// Reads a number of exactly this many lower-case hex digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(lower)).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_what_is_written() {
        let context: TraceContext = PARENT.parse().unwrap();
        assert_eq!(context.trace_id(), 0x4bf92f3577b34da6a3ce929d0e0e4736);
        assert_eq!(context.span_id(), 0x00f067aa0ba902b7);
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), PARENT);
        let unwanted = PARENT.replace("b7-01", "b7-00");
        assert_eq!(unwanted.parse::<TraceContext>().unwrap().to_string(), unwanted);
    }

    #[test]
    fn later_versions_may_say_more_and_unknown_flags_are_let_go() {
        let later = PARENT.replacen("00", "01", 1) + "-later-versions-say-more";
        assert_eq!(later.parse::<TraceContext>().unwrap().to_string(), PARENT);
        assert_eq!(PARENT.replace("b7-01", "b7-0d").parse::<TraceContext>().unwrap().to_string(), PARENT);
    }

    #[test]
    fn a_random_trace_id_stays_known_as_one() {
        let random = PARENT.replace("b7-01", "b7-03");
        let context: TraceContext = random.parse().unwrap();
        assert_eq!(
            context.child(7.try_into().unwrap()).to_string(),
            random.replace("00f067aa0ba902b7", "0000000000000007")
        );
    }

    #[test]
    fn anything_else_is_no_context() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(TraceContextError), "{bad:?}");
        }
    }
}
