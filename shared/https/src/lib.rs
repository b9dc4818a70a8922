//! One lean HTTP client for calls to services of others: TLS with the machine's root certificates, deadlines on everything,
//! answers of bounded size, and errors that say whether a request may have arrived.
//!
//! What it does not do: it follows no redirect, keeps no cookie, retries nothing, and knows no service's protocol.

mod base;
mod client;

pub use base::{Base, BaseError};
pub use client::{Answer, CallError, CertificatesError, HttpsClient, Limits};
