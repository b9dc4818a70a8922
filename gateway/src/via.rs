//! The gateway's own name in `Via` (RFC 9110, 7.6.3), by which it knows a request that it has already forwarded.
//!
//! The name is random and made anew at each start: another gateway in the way of a request is no loop.

use http::header::VIA;
use http::{HeaderMap, HeaderValue, Version};
use uuid::Uuid;

/// The name, ready to be written.
#[derive(Debug, Clone)]
pub(crate) struct Via {
    name: String,
    http1: HeaderValue,
    h2: HeaderValue,
}

impl Via {
    /// A name of its own.
    pub(crate) fn new() -> Self {
        let name = format!("goldleaves-{:08x}", Uuid::new_v4().as_fields().0);
        // Letters, digits and a hyphen are legal in every header.
        let value = |version: &str| HeaderValue::try_from(format!("{version} {name}"));
        let http1 = value("1.1").unwrap_or(HeaderValue::from_static("1.1 goldleaves"));
        let h2 = value("2").unwrap_or(HeaderValue::from_static("2 goldleaves"));
        Self { name, http1, h2 }
    }

    /// Returns whether a request with these headers has passed this gateway before.
    pub(crate) fn was_here(&self, headers: &HeaderMap) -> bool {
        let is_own = |member: &[u8]| {
            let received_by = member.trim_ascii().split(u8::is_ascii_whitespace).nth(1);
            received_by == Some(self.name.as_bytes())
        };
        headers.get_all(VIA).iter().any(|value| value.as_bytes().split(|byte| *byte == b',').any(is_own))
    }

    /// Adds the gateway to the way of a request that came in this version.
    pub(crate) fn pass(&self, headers: &mut HeaderMap, version: Version) {
        let value = if version == Version::HTTP_2 { &self.h2 } else { &self.http1 };
        headers.append(VIA, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_name_is_a_loop() {
        let (via, other) = (Via::new(), Via::new());
        let mut headers = HeaderMap::new();
        assert!(!via.was_here(&headers));
        headers.append(VIA, HeaderValue::from_static("1.0 fred, 1.1 p.example.net (goldleaves)"));
        other.pass(&mut headers, Version::HTTP_2);
        assert!(!via.was_here(&headers) && other.was_here(&headers));
        via.pass(&mut headers, Version::HTTP_11);
        assert!(via.was_here(&headers));
    }
}
