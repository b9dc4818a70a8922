//! The conversation with Stripe: four calls (send a meter event, read a meter, sums of a meter, an event), what their
//! answers mean, and the signature of a webhook.
//!
//! What it does not do: it decides nothing about a row, retries nothing, and knows neither database nor clock. The key is in
//! the one header that needs it and in no text that this crate makes.

mod answer;
mod client;
mod reading;
mod webhook;

pub use answer::{Block, Refused, Sent};
pub use client::{Mode, NewEvent, Stripe};
pub use reading::{ReadError, Report, Sample, StripeMeter, Sum, SumsPage, Window};
pub use webhook::{Hint, Secrets, SecretsError, SignatureError};

/// The version of Stripe's API that is spoken.
pub const VERSION: &str = "2026-10-28.endive";
