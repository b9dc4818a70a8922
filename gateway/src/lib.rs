//! The gateway: what stands between clients and the upstream, and meters what it lets through.

pub mod record;
