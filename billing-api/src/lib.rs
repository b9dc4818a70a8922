//! The billing API: what a tenant used in a period, what it costs, and what is to be pushed to Stripe.
//!
//! It verifies tokens itself and trusts no header: whoever reaches its port sees only what the token allows. Handlers
//! never write SQL; they ask the ledger.

mod answer;
mod caller;
mod config;
mod docs;
mod health;
mod metrics;
mod query;
mod report_usage;
mod service;
mod tokens;
mod usage;

pub mod program;

pub use config::BillingConfig;
pub use metrics::BillingMetrics;
pub use service::BillingApi;
pub use tokens::token_options;
