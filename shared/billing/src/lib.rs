//! The part of the database that billing reads and writes: usage and what it costs, corrections, periods, zones, the rows for
//! Stripe and the record of who changed what. A file per subject.
//!
//! **Reading.** Whole hours come from the rollups, cut hours from the events, corrections by their time, in one statement and
//! so in one snapshot. Money is made in `goldleaves_pricing` alone.
//!
//! **Writing.** Rows of corrections, periods and lines are added and never changed. Every write leaves its row in
//! `billing_audit` in the same transaction. Writers wait for each other in [`locks`], and for workers only where both judge the
//! same events.
//!
//! What it does not do: it writes no event, repeat or rollup, it knows no HTTP, and it migrates nothing.

mod audit;
mod billing;
mod cards;
mod corrections;
mod entities;
mod error;
mod event_state;
mod events;
mod items;
mod late;
mod left_out;
mod limits;
mod lines;
mod list;
mod locks;
mod lookup;
mod periods;
mod rates;
mod related;
mod report;
mod schema;
mod source;
pub mod stripe;
mod stripe_states;
mod tenants;
mod transfer;
mod usage;

pub use goldleaves_cards::StoredCard;

pub use audit::{AuditRow, Author};
pub use billing::Billing;
pub use cards::Card;
pub use corrections::{Corrected, Correction, CorrectionKind, NewCorrection, Wanted};
pub use error::{BillingError, Refusal, RefusalCode};
pub use event_state::EventState;
pub use events::{EventFilter, Order};
pub use items::EventItem;
pub use late::LateHour;
pub use limits::AnswerLimits;
pub use lines::{Invoice, InvoiceLine, LineKind, PeriodState};
pub use list::{Cursor, CursorError, Page, PageOf};
pub use lookup::{By, Match, PeriodOfEvent};
pub use periods::{ClosedPeriod, DueClosed, NewPeriod};
pub use rates::{Difference, NewCard, Preview};
pub use report::{Groups, Report, RouteUsage, Summary};
pub use stripe::{METER, PushState, ReportOf, UsagePush};
pub use stripe_states::{HourState, MeterState};
pub use tenants::{TenantSort, TenantUsage};
pub use transfer::{ImportStep, TableImport, Transfer};
pub use usage::{Dimension, UnitsTotal};

/// The result of a write: something was made, or was found there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put<T> {
    /// True if it is new.
    pub is_new: bool,
    /// The stored value.
    pub stored: T,
}
