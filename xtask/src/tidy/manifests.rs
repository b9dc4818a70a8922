//! Manifests: versions and lints live once, in the workspace's; floors of `deny.toml` hold in `Cargo.lock`; what the profile
//! `release` optimizes less, `dist` takes back.

use std::path::Path;

use anyhow::Context;
use toml::{Table, Value};

use super::TidyProblem;
use super::tree::Tree;

/// The kinds of dependencies a manifest may list.
pub(crate) const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// The workspace's manifest.
const ROOT: &str = "Cargo.toml";

/// Checks every member's manifest and the lock file.
pub(crate) fn check(tree: &Tree, problems: &mut Vec<TidyProblem>) -> anyhow::Result<()> {
    for (folder, text) in tree.manifests() {
        let path = folder.join("Cargo.toml");
        let manifest: Table = text.parse().with_context(|| path.display().to_string())?;
        let line = |word: &str| 1 + text.lines().position(|line| line.trim_start().starts_with(word)).unwrap_or(0);
        if manifest.get("lints").and_then(|lints| lints.get("workspace")) != Some(&Value::Boolean(true)) {
            problems.push(TidyProblem::new(
                &path,
                line("[lints"),
                "lints are not inherited: write `[lints] workspace = true`",
            ));
        }
        for kind in KINDS {
            for (name, value) in manifest.get(kind).and_then(Value::as_table).into_iter().flatten() {
                if value.get("workspace") != Some(&Value::Boolean(true)) {
                    let what = format!(
                        "{name} has a version of its own: name it in the root manifest, here `{name}.workspace = true`"
                    );
                    problems.push(TidyProblem::new(&path, line(name), what));
                }
            }
        }
    }
    check_profiles(tree, problems)?;
    check_floors(tree, problems)
}

/// A package that `release` compiles for a fast build must be shipped as fast as all others: `dist` inherits what it does not
/// take back.
fn check_profiles(tree: &Tree, problems: &mut Vec<TidyProblem>) -> anyhow::Result<()> {
    let Some(text) = tree.text(ROOT) else { return Ok(()) };
    let root: Table = text.parse().context(ROOT)?;
    let packages = |profile: &str| root.get("profile")?.get(profile)?.get("package")?.as_table();
    for (name, _) in packages("release").into_iter().flatten() {
        let level = packages("dist").and_then(|dist| dist.get(name)?.get("opt-level")?.as_integer());
        if level != Some(3) {
            let what =
                format!("profile `dist` ships {name} as `release` compiles it: write `{name}.opt-level = 3` there");
            let line = 1 + text.lines().position(|line| line.starts_with(&format!("{name}."))).unwrap_or(0);
            problems.push(TidyProblem::new(Path::new(ROOT), line, what));
        }
    }
    Ok(())
}

/// `deny.toml` bans what lies below a floor; its tool may not be at hand, the lock file always is.
fn check_floors(tree: &Tree, problems: &mut Vec<TidyProblem>) -> anyhow::Result<()> {
    let (Some(deny), Some(lock)) = (tree.text("deny.toml"), tree.text("Cargo.lock")) else {
        problems.push(TidyProblem::new(
            Path::new("deny.toml"),
            1,
            "deny.toml and Cargo.lock belong into the repository",
        ));
        return Ok(());
    };
    let deny: Table = deny.parse().context("deny.toml")?;
    let lock: Table = lock.parse().context("Cargo.lock")?;
    let banned = deny.get("bans").and_then(|bans| bans.get("deny")).and_then(Value::as_array);
    let packages = lock.get("package").and_then(Value::as_array);
    for ban in banned.into_iter().flatten() {
        let Some((name, floor)) = ban.get("crate").and_then(Value::as_str).and_then(|ban| ban.split_once("@<")) else {
            continue;
        };
        for package in packages.into_iter().flatten() {
            let is = |key, value| package.get(key).and_then(Value::as_str) == Some(value);
            let version = package.get("version").and_then(Value::as_str).unwrap_or_default();
            if is("name", name) && numbers(version) < numbers(floor) {
                let what = format!("{name} {version} is banned by deny.toml: at least {floor} is right");
                problems.push(TidyProblem::new(Path::new("Cargo.lock"), 1, what));
            }
        }
    }
    Ok(())
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        let others = files.iter().map(|(path, text)| ((*path).into(), (*text).to_owned())).collect();
        let mut problems = Vec::new();
        check(&Tree { sources: Vec::new(), others }, &mut problems).unwrap();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn versions_lints_and_floors_are_held() {
        let deny = ("deny.toml", "[bans]\ndeny = [{ crate = \"h2@<0.4.20\" }]");
        let good = "[lints]\nworkspace = true\n[dependencies]\nx.workspace = true\n";
        let lock = "[[package]]\nname = \"h2\"\nversion = \"0.4.20\"\n";
        assert!(problems(&[deny, ("a/Cargo.toml", good), ("Cargo.lock", lock)]).is_empty());
        let found = problems(&[
            deny,
            ("a/Cargo.toml", "[dependencies]\nx = \"1\"\n"),
            ("Cargo.lock", "[[package]]\nname = \"h2\"\nversion = \"0.4.9\"\n"),
        ]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().any(|line| line.starts_with("a/Cargo.toml:2: x has a version")), "{found:?}");
    }

    #[test]
    fn dist_takes_back_what_release_saves() {
        let files = [("deny.toml", ""), ("Cargo.lock", "")];
        let with = |root: &str| problems(&[files[0], files[1], ("Cargo.toml", root)]);
        let release = "[profile.release.package]\na.opt-level = 1\nb.opt-level = 1\n";
        assert!(with(&format!("{release}[profile.dist.package]\na.opt-level = 3\nb.opt-level = 3\n")).is_empty());
        let found = with(&format!("{release}[profile.dist.package]\na.opt-level = 3\nb.opt-level = 2\n"));
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with("Cargo.toml:3: profile `dist` ships b")),
            "{found:?}"
        );
        assert_eq!(with(release).len(), 2);
    }
}
