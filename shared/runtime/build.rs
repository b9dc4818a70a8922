//! Tells the programs when they are built and from which commit: `GOLDLEAVES_COMMIT`, else what the checkout's files say. It runs
//! no program, so that an image builder without git knows it too.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=GOLDLEAVES_COMMIT");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rustc-env=GOLDLEAVES_BUILT={}", built());
    let given = env::var("GOLDLEAVES_COMMIT").ok().filter(|commit| !commit.trim().is_empty());
    let commit = given.or_else(of_checkout).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=GOLDLEAVES_COMMIT={}", commit.trim());
    // A debug build is asked for its commit far less often than it is built: it names the commit of its first build and
    // says that it is a debug build, instead of compiling every program anew after each commit.
    let debug = env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    println!("cargo::rustc-env=GOLDLEAVES_PROFILE={}", if debug { ", debug build" } else { "" });
}

/// When this is built, seconds since 1970; `SOURCE_DATE_EPOCH` makes builds that are the same to the byte.
fn built() -> u64 {
    let given = env::var("SOURCE_DATE_EPOCH").ok().and_then(|secs| secs.trim().parse().ok());
    given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// The commit that is checked out, `None` outside a checkout.
fn of_checkout() -> Option<String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?).join("../..");
    let folder = git_folder(&root)?;
    let head = read(&folder.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return Some(head) };
    // A worktree has its own HEAD; branches are kept once for all.
    let common = fs::read_to_string(folder.join("commondir")).ok();
    let common = common.map_or_else(|| folder.clone(), |to| folder.join(to.trim()));
    read(&common.join(name)).or_else(|| packed(&read(&common.join("packed-refs"))?, name))
}

/// The folder that holds HEAD: `.git`, or where the file `.git` of a worktree points.
fn git_folder(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = fs::read_to_string(git).ok()?;
    Some(root.join(text.strip_prefix("gitdir:")?.trim()))
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    Some(text.trim().to_owned())
}

fn packed(refs: &str, name: &str) -> Option<String> {
    refs.lines().find_map(|line| Some(line.strip_suffix(name)?.strip_suffix(' ')?.to_owned()))
}
