//! Where the programs that the tests need are found: nats-server, PostgreSQL, PgBouncer, nginx, haproxy, h2load, valgrind, Chromium and a
//! Python with httpbin and with parsers of formats.
//!
//! The test kit and `cargo xtask` share these rules, so that a test finds the same program whoever starts it. This crate
//! starts no server; installing is in [`Toolbox::install`] and only `cargo xtask` does it.

mod find;
mod install;
mod version;

use std::path::{Path, PathBuf};

pub use find::{Checkers, HttpbinTool, MissingTool};
pub use install::{InstallError, Installed};
pub use version::Version;

/// Environment variable naming the nats-server program.
pub const NATS_SERVER_BIN: &str = "NATS_SERVER_BIN";
/// Environment variable naming the directory that holds `postgres` and `initdb`.
pub const POSTGRES_BIN_DIR: &str = "POSTGRES_BIN_DIR";
/// Environment variable naming the PgBouncer program.
pub const PGBOUNCER_BIN: &str = "PGBOUNCER_BIN";
/// Environment variable naming the nginx program.
pub const NGINX_BIN: &str = "NGINX_BIN";
/// Environment variable naming the haproxy program.
pub const HAPROXY_BIN: &str = "HAPROXY_BIN";
/// Environment variable naming the h2load program of nghttp2.
pub const H2LOAD_BIN: &str = "H2LOAD_BIN";
/// Environment variable naming the valgrind program.
pub const VALGRIND_BIN: &str = "VALGRIND_BIN";
/// Environment variable naming the Chromium program.
pub(crate) const CHROMIUM_BIN: &str = "CHROMIUM_BIN";
/// Environment variable naming the Python interpreter that runs httpbin.
pub const HTTPBIN_PYTHON: &str = "HTTPBIN_PYTHON";
/// Environment variable naming the directory that clients and servers of gRPC and WebSocket were installed into.
pub const PEERS_SITE: &str = "PEERS_SITE";
/// Environment variable naming the directory that the parsers of other people's formats were installed into.
pub const CHECKERS_SITE: &str = "CHECKERS_SITE";
/// Environment variable naming the directory that Stripe's own client was installed into.
pub const STRIPE_SITE: &str = "STRIPE_SITE";
/// Environment variable naming the directory that httpbin and its WSGI server were installed into.
pub const HTTPBIN_SITE: &str = "HTTPBIN_SITE";
/// Environment variable naming the directory of the programs that whole-system tests run.
pub const GOLDLEAVES_BIN_DIR: &str = "GOLDLEAVES_BIN_DIR";

/// The folder of installed tools, and the rules for finding those that need no installing.
#[derive(Debug, Clone)]
pub struct Toolbox {
    root: PathBuf,
}

impl Toolbox {
    /// The toolbox in the target directory of the running program or test, else of this workspace.
    pub fn of_target() -> Self {
        Self { root: target_directory().join("tools") }
    }

    /// The folder that tools are installed into.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// The root of this workspace, as it was when this crate was compiled.
pub fn workspace_root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

/// The target directory: the one this program was built into (Cargo marks it with `CACHEDIR.TAG`), else `target`.
pub fn target_directory() -> PathBuf {
    let built_into = std::env::current_exe().ok().and_then(|program| {
        program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()).map(Path::to_path_buf)
    });
    built_into.unwrap_or_else(|| workspace_root().join("target"))
}
