//! The event that one billable request leaves behind.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Epoch, EventId, Fingerprint, RequestId, RoutePattern, Source, TenantId, Timestamp, Units, UserId};

/// The end of a call. This list is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The response was handed over to its last byte.
    Completed,
    /// The client left after the hand-over to the upstream.
    ClientAborted,
    /// The gateway stopped before the response's end.
    GatewayStopped,
    /// The upstream broke off or timed out after a head with a billable status. Set aside at 0 units.
    UpstreamAborted,
    /// The gateway died. Set aside at 0 units.
    Unknown,
}

/// A word that is not one of the five outcomes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not one of the outcomes completed, client_aborted, gateway_stopped, upstream_aborted, unknown")]
pub struct OutcomeError;

impl Outcome {
    /// All five.
    pub const ALL: [Self; 5] =
        [Self::Completed, Self::ClientAborted, Self::GatewayStopped, Self::UpstreamAborted, Self::Unknown];

    /// Returns whether events of this outcome are billed (or are repeats); the others are set aside.
    pub const fn is_billable(self) -> bool {
        matches!(self, Self::Completed | Self::ClientAborted | Self::GatewayStopped)
    }

    /// The word on the wire and in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientAborted => "client_aborted",
            Self::GatewayStopped => "gateway_stopped",
            Self::UpstreamAborted => "upstream_aborted",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = OutcomeError;

    fn from_str(text: &str) -> Result<Self, OutcomeError> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or(OutcomeError)
    }
}

/// The action of a call: the method's word, or what the upstream said, 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Action(Arc<str>);

/// A text that is no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an action has 1 to {} visible ASCII characters", Action::CHARS_MAX)]
pub struct ActionError;

impl Action {
    /// The most characters an action may have.
    pub(crate) const CHARS_MAX: usize = 255;

    /// The word for a method: `read`, `create`, `update`, `delete`, else `other`.
    pub fn of_method(method: &str) -> Self {
        let word = match method {
            "GET" | "HEAD" => "read",
            "POST" => "create",
            "PUT" | "PATCH" => "update",
            "DELETE" => "delete",
            _ => "other",
        };
        Self(word.into())
    }

    /// The action as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl FromStr for Action {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        let legal = (1..=Self::CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if legal { Ok(Self(text.into())) } else { Err(ActionError) }
    }
}

/// The circumstances of a call, which are kept beside its price: the guide's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallMetadata {
    /// The request's method.
    pub method: String,
    /// The status the client got; 499 when it left before one came.
    pub status_code: u16,
    /// The client's `User-Agent`, absent when not sent or not wanted.
    pub user_agent: Option<String>,
    /// The socket's peer, absent when not wanted.
    pub client_ip: Option<String>,
    /// Bytes of the response body handed over.
    pub response_bytes: u64,
    /// From the request's head to its settlement.
    pub processing_micros: u64,
}

/// One billable request, as it travels and as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEvent {
    /// Settles transport duplicates.
    pub event_id: EventId,
    /// The gateway it comes from.
    pub source: Source,
    /// The tenant whose usage it is.
    pub tenant_id: TenantId,
    /// The user that called.
    pub user_id: UserId,
    /// When the request's head arrived.
    pub ts: Timestamp,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
    /// The `X-Request-ID` of the response.
    pub request_id: RequestId,
    /// The same, when the client chose it; settles logical repeats.
    pub client_request_id: Option<RequestId>,
    /// The matched pattern.
    pub route: RoutePattern,
    /// The action of the call.
    pub action: Action,
    /// The units of the call.
    pub units: Units,
    /// The guide's metadata.
    pub metadata: CallMetadata,
    /// The way it ended.
    pub outcome: Outcome,
    /// The fingerprint of the request, for the repeat rule; `None` matches nothing.
    pub fingerprint: Option<Fingerprint>,
    /// The start of the gateway that settled it.
    pub epoch: Epoch,
    /// Its number within the epoch, from 1, gapless.
    pub seq: u64,
}

/// The time by which an event may lie ahead of the moment it was stored: further than any time zone set wrong.
const AHEAD_MICROS_MAX: i64 = 48 * 3_600 * 1_000_000;

impl UsageEvent {
    /// By how many microseconds its time lies ahead of the moment it was stored; less than 0 = behind.
    pub const fn ahead_of(&self, stored: Timestamp) -> i64 {
        self.ts.unix_micros().saturating_sub(stored.unix_micros())
    }

    /// Returns whether its gateway's clock can't have been right: a bill of a month that has not come would hold it.
    pub const fn is_from_a_wrong_clock(&self, stored: Timestamp) -> bool {
        self.ahead_of(stored) > AHEAD_MICROS_MAX
    }
}
