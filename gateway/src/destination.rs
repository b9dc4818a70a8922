//! The far side of a call: whose answer it is, and whose fault.

use std::fmt;

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The domain service.
    Upstream,
    /// The billing API.
    Billing,
}

/// Writes the name that errors use.
impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Upstream => "the upstream",
            Self::Billing => "billing-api",
        })
    }
}
