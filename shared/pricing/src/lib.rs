//! The rules of money, pure: rates, models, lines and shares. No I/O, no clock, no database.

#![doc = include_str!("../README.md")]

mod bill;
mod cards;
mod exact;
mod json;
mod model;
mod rate;
mod zone;

pub use bill::{Bill, Group, Used, share};
pub use cards::{Origin, Place, RateCard, RateCards, Selector};
pub use json::PricingError;
pub use model::{Package, Pricing, Quantity, Tier, Tiers, TiersError};
pub use rate::{Cents, Rate};
pub use zone::{CalendarError, Day, LocalDay, Month, TZDB_VERSION, TimeZone, TimeZoneError};
