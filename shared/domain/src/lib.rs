//! The words and rules of Goldleaves: identities, units and money, billable routes, the repeat rule and the wire format.
//!
//! Everything here is pure: no I/O, no clock, no randomness. What a value may hold is checked once, where it is
//! parsed; a value that exists is valid.

mod decimal;
mod delivery;
mod event;
mod fingerprint;
mod identity;
mod money;
mod routes;
mod time;

pub use decimal::DecimalError;
pub use delivery::{Delivery, PublishError, PublishFuture, Publisher};
pub use event::{Action, ActionError, CallMetadata, Outcome, OutcomeError, UsageEvent};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use identity::{Epoch, EventId, IdentityError, RequestId, Source, TenantId, UserId};
pub use money::{Cents, Rate, Units, line_cost};
pub use routes::{RouteError, RoutePattern};
pub use time::{Period, PeriodError, Timestamp, TimestampError};
