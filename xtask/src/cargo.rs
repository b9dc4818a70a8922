//! Starting Cargo from a program that Cargo itself started.

use std::env;
use std::process::Command;

/// Cargo, in the workspace's root, without the variables that `cargo run` set for this program: some build scripts would
/// take them for their own and build everything again.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(goldleaves_toolbox::workspace_root());
    for (name, _) in env::vars_os() {
        let own =
            name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
        if own {
            command.env_remove(name);
        }
    }
    command
}
