//! Tests `compose.yaml`, `deploy/` and the two guides for operations against the programs and servers they speak of.
//!
//! No image is built or pulled by a test: `docker compose up --build` alone tries the Dockerfile and the named images.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails loudly")]

mod billing_guide;
mod compose;
mod database;
mod edge;
mod guide;
mod markdown;
mod nats;
mod ready;
mod replay;
mod upstream;

use std::path::PathBuf;

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    goldleaves_toolbox::workspace_root().join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
