//! The record side: the only door from a request to the spool, and the relay out of it.
//!
//! A billable call is announced with an INTENT before the upstream hears of it ([`Recorder::intend`]) and settled
//! exactly once before the response ends ([`AnnouncedCall::publish`] or [`AnnouncedCall::void`]). Everything behind that door runs off
//! the request path. Nothing here knows HTTP, and nothing here waits for NATS or a database.

mod call;
mod clock;
mod codec;
mod config;
mod delivery;
mod gather;
mod memo;
mod metrics;
mod open;
mod outage;
mod packing;
mod recorder;
mod recovery;
mod relay;
mod seal;
mod sealer;
mod shown;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use call::{CallIntent, Durability, Settlement, VoidReason};
pub use clock::{Clock, now};
pub use config::spool_directory;
pub use open::{RecordOpenError, RecordOptions, RecordSide, RelayStart, open};
pub use recorder::{AnnouncedCall, NotDurable, PreparedCall, RecordHealth, Recorder, Unrecorded};
pub use recovery::RecoverError;
pub use relay::RelayPace;
