//! The billing API: what a tenant used and what it costs, corrections and periods, and what is to be pushed to Stripe.
//!
//! It verifies tokens itself and trusts no header: whoever reaches its port sees only what the token allows. Handlers
//! never write SQL; they ask `goldleaves_billing`.

mod answer;
mod ask;
mod caller;
mod cell;
mod close;
mod config;
mod contract;
mod csv;
#[cfg(debug_assertions)]
mod driven;
mod long;
mod members;
mod metrics;
mod paging;
mod pulse;
pub mod push;
mod query;
mod router;
mod routes;
mod rows;
mod state;
mod turns;

pub mod program;

pub use config::{BillingConfig, Docs, StripeConfig};
pub use metrics::BillingMetrics;
pub use state::{BillingApi, StripeDesk};
