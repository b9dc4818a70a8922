//! The push to Stripe: which usage goes to which customer, the hourly rows and how far each has come, the lanes that
//! the programs share, and what is known of Stripe's side.
//!
//! The rules of a row are pure ([`rules`]); everything else here reads and writes the database. What it does not do: it calls
//! nobody. Whoever calls commits the attempt first and hands the answer in afterwards.

mod adopt;
mod books;
mod freeze;
mod hints;
#[cfg(test)]
mod histories;
mod lanes;
mod left;
mod mappings;
mod meters;
mod reports;
mod rows;
pub mod rules;
mod seal;
mod spans;
mod totals;

pub use adopt::{Adopted, Found};
pub use books::{Books, BooksClock};
pub use hints::StoredHint;
pub use lanes::{Claim, Lane, LaneKey, LaneWork, METER_UNFIT};
pub use left::{LeftFor, LeftHour};
pub use mappings::{Mapping, NewMapping};
pub use meters::{METER, NewMeter, StoredMeter};
pub use reports::{PushState, ReportOf, UsagePush};
pub use rows::{PushFilter, PushRow};
pub use seal::{LateAt, Sealed};
pub use totals::{BooksGauges, LaneReport};
