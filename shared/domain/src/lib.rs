//! The words and rules of Goldleaves, pure: what every other crate shares. No I/O, no clock, no randomness.

#![doc = include_str!("../README.md")]

mod canonical;
mod class;
mod correction;
mod decimal;
mod delivery;
mod event;
mod fields;
mod fingerprint;
mod hex;
mod identity;
mod json;
mod metadata;
mod path;
mod public;
mod repeat;
mod routes;
mod seal;
mod segments;
mod statuses;
mod time;
mod trace;
mod units;
pub mod wire;

pub use canonical::ImmutableColumns;
pub use class::{LocalRoute, RouteClass};
pub use correction::{BilledRow, CorrectionPlace, Corrections, Difference};
pub use decimal::{DecimalError, Micro, parse_micro};
pub use delivery::{Delivery, PublishError, PublishFuture, Publisher, RECEIPT_BYTES_MAX, Receiver};
pub use event::{Action, ActionError, CallMetadata, Outcome, OutcomeError, UsageEvent};
pub use fields::{Canonical, EVENT_FIELDS, EventField, Kept};
pub use fingerprint::{Fingerprint, FingerprintBuilder, FingerprintError};
pub use hex::hex_text;
pub use identity::{Epoch, EventId, IdentityError, RequestId, Source, TenantId, UserId};
pub use path::{NormalPath, PathError};
pub use public::PublicRoutes;
pub use repeat::{Candidate, RANKED_MAX, Verdict, judge};
pub use routes::{BillableRoutes, RouteError, RouteFault, RoutePattern};
pub use seal::{Seal, SealBlock, SetHash, SetHashError};
pub use segments::{Case, SegmentMatch, SegmentTree};
pub use statuses::{BillableStatuses, StatusesError};
pub use time::{Period, PeriodError, Timestamp, TimestampError};
pub use trace::{TraceContext, TraceContextError};
pub use units::Units;
