//! The edges between the crates: what each may use of ours, and what it never uses of others.
//!
//! The table is the architecture. A new edge is a decision: change the table and `docs/ARCHITECTURE.md` together.

use std::path::Path;

use anyhow::Context;
use toml::{Table, Value};

use super::TidyProblem;
use super::manifests::KINDS;
use super::tree::Tree;

/// The crates that one crate may use.
struct Edges {
    folder: &'static str,
    /// The crates of ours, by the name after `goldleaves-`.
    ours: &'static [&'static str],
    /// The crates of others; those that only some of ours may use are in [`ONLY_IN`].
    never: &'static [&'static str],
}

const TABLE: &[Edges] = &[
    Edges {
        folder: "shared/domain",
        ours: &[],
        never: &["tokio", "hyper", "sea-orm", "async-nats", "figment", "axum", "rand"],
    },
    Edges {
        folder: "shared/pricing",
        ours: &["domain"],
        never: &["tokio", "hyper", "sea-orm", "async-nats", "figment", "axum", "rand"],
    },
    Edges { folder: "shared/spool", ours: &[], never: &["hyper", "sea-orm", "async-nats", "figment", "axum"] },
    Edges {
        folder: "shared/record",
        ours: &["domain", "spool", "runtime", "trace"],
        never: &["http", "hyper", "sea-orm", "async-nats", "figment", "axum"],
    },
    Edges {
        folder: "shared/auth",
        ours: &["domain", "runtime"],
        never: &["tokio", "hyper", "sea-orm", "async-nats", "figment", "axum"],
    },
    Edges { folder: "shared/web", ours: &["domain", "auth"], never: &["sea-orm", "async-nats"] },
    Edges { folder: "shared/stream", ours: &["domain", "runtime"], never: &["sea-orm", "hyper", "axum"] },
    Edges { folder: "shared/store", ours: &["domain", "runtime"], never: &["async-nats", "hyper", "axum"] },
    Edges { folder: "shared/cards", ours: &["domain", "pricing", "store"], never: &["async-nats", "hyper", "axum"] },
    Edges {
        folder: "shared/ledger",
        ours: &["domain", "pricing", "store", "cards"],
        never: &["async-nats", "hyper", "axum"],
    },
    Edges {
        folder: "shared/billing",
        ours: &["domain", "pricing", "store", "cards"],
        never: &["async-nats", "hyper", "axum"],
    },
    Edges { folder: "shared/runtime", ours: &[], never: &["hyper", "sea-orm", "async-nats", "axum"] },
    Edges { folder: "shared/https", ours: &[], never: &["sea-orm", "async-nats", "axum"] },
    Edges { folder: "shared/stripe", ours: &["https", "runtime"], never: &["hyper", "sea-orm", "async-nats", "axum"] },
    Edges { folder: "shared/trace", ours: &["domain", "runtime"], never: &["sea-orm", "async-nats", "axum"] },
    Edges { folder: "shared/toolbox", ours: &[], never: &["tokio", "hyper"] },
    Edges { folder: "shared/testkit", ours: &["domain", "migrations", "toolbox"], never: &["async-nats"] },
    Edges { folder: "migrations", ours: &["runtime"], never: &["hyper", "async-nats", "axum"] },
    Edges {
        folder: "gateway",
        ours: &["domain", "auth", "web", "spool", "record", "runtime", "stream", "trace"],
        never: &["sea-orm", "async-nats", "axum"],
    },
    Edges {
        folder: "meter-worker",
        ours: &["domain", "web", "ledger", "runtime", "stream", "trace"],
        never: &["hyper", "sea-orm", "async-nats", "axum"],
    },
    Edges {
        folder: "billing-api",
        ours: &[
            "domain", "pricing", "auth", "web", "store", "billing", "https", "stripe", "runtime", "stream", "trace",
        ],
        never: &["sea-orm", "async-nats"],
    },
    Edges {
        folder: "goldleaves",
        ours: &[
            "domain",
            "pricing",
            "auth",
            "web",
            "spool",
            "record",
            "stream",
            "store",
            "ledger",
            "billing",
            "runtime",
            "trace",
            "migrations",
            "gateway",
            "meter-worker",
            "billing-api",
        ],
        never: &["async-nats", "sea-orm"],
    },
    Edges {
        folder: "e2e",
        ours: &[
            "domain",
            "pricing",
            "auth",
            "web",
            "spool",
            "record",
            "stream",
            "store",
            "ledger",
            "billing",
            "https",
            "stripe",
            "runtime",
            "trace",
            "migrations",
            "gateway",
            "meter-worker",
            "billing-api",
            "testkit",
            "toolbox",
        ],
        never: &["async-nats"],
    },
    Edges { folder: "xtask", ours: &["toolbox"], never: &["tokio", "hyper"] },
];

/// Crates of others that only these crates of ours may use, tests included.
const ONLY_IN: [(&str, &[&str]); 3] = [
    ("async-nats", &["shared/stream"]),
    (
        "sea-orm",
        &["shared/store", "shared/ledger", "shared/testkit", "migrations", "e2e", "shared/billing", "shared/cards"],
    ),
    ("figment", &["shared/runtime"]),
];

/// Crates of others that none of ours names, and what is used instead.
const INSTEAD: [(&str, &str); 1] = [("time", "chrono holds calendar and clock values")];

/// Where the stream may be named: in one file of each of these, the one that wires it.
const STREAM_WIRED_ONCE: [&str; 3] = ["gateway/src", "meter-worker/src", "billing-api/src"];

/// Crates of ours that only the tests of another may use: they read what was written as billing does.
const FOR_TESTS: [(&str, &[&str]); 2] = [("shared/ledger", &["billing"]), ("meter-worker", &["billing", "pricing"])];

/// The crates that are pure.
const PURE: [&str; 2] = ["shared/domain/src", "shared/pricing/src"];

/// The paths that a pure crate does not touch.
const IMPURE: [&str; 7] = ["std::fs", "std::net", "std::env", "std::process", "std::thread", "SystemTime", "Instant"];

/// Checks manifests and uses against the table.
pub(crate) fn check(tree: &Tree, problems: &mut Vec<TidyProblem>) -> anyhow::Result<()> {
    for (folder, text) in tree.manifests() {
        let path = folder.join("Cargo.toml");
        let manifest: Table = text.parse().with_context(|| path.display().to_string())?;
        let Some(edges) = TABLE.iter().find(|edges| Path::new(edges.folder) == folder) else {
            problems.push(TidyProblem::new(
                &path,
                1,
                "a crate that the table in xtask/src/tidy/edges.rs does not know: add its edges",
            ));
            continue;
        };
        for kind in KINDS {
            for (name, _) in manifest.get(kind).and_then(Value::as_table).into_iter().flatten() {
                if let Some(what) = edges.objection(kind, name) {
                    let line = text.lines().position(|line| line.starts_with(name.as_str())).map_or(1, |at| at + 1);
                    problems.push(TidyProblem::new(&path, line, what));
                }
            }
        }
    }
    check_purity(tree, problems);
    check_wiring(tree, problems);
    Ok(())
}

impl Edges {
    /// Returns the reason this crate must not depend on `name`.
    fn objection(&self, kind: &str, name: &str) -> Option<String> {
        let own = self.folder.rsplit('/').next().unwrap_or(self.folder);
        if let Some(ours) = name.strip_prefix("goldleaves-") {
            let more = FOR_TESTS.iter().find(|(folder, _)| *folder == self.folder).map_or(&[][..], |(_, more)| more);
            let for_tests = kind == "dev-dependencies" && (ours == "testkit" || more.contains(&ours));
            let allowed = for_tests || self.ours.contains(&ours);
            return (!allowed).then(|| format!("{own} must not use {name}: it may use [{}]", self.ours.join(", ")));
        }
        if kind == "dependencies" && self.never.contains(&name) {
            return Some(format!("{own} never uses {name}: find the crate of ours whose task that is"));
        }
        if let Some((_, instead)) = INSTEAD.iter().find(|(unused, _)| *unused == name) {
            return Some(format!("no crate of ours uses {name}: {instead}"));
        }
        let only = ONLY_IN.iter().find(|(only, _)| *only == name)?.1;
        (!only.contains(&self.folder)).then(|| format!("only {} may use {name}", only.join(", ")))
    }
}

fn check_purity(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    let pure = |source: &&super::source::SourceFile| PURE.iter().any(|folder| source.path.starts_with(folder));
    for source in tree.sources.iter().filter(pure) {
        let production: String = source.code.iter().take(source.production_end()).collect();
        for (number, line) in production.lines().enumerate() {
            for impure in IMPURE {
                let (module, name) = impure.split_once("::").unwrap_or(("", impure));
                let grouped = !module.is_empty()
                    && line.contains("std::{")
                    && line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
                if line.contains(impure) || grouped {
                    let what =
                        format!("{impure} in a pure crate, which does no I/O and knows no clock: take a value instead");
                    problems.push(TidyProblem::new(&source.path, number + 1, what));
                }
            }
        }
    }
}

fn check_wiring(tree: &Tree, problems: &mut Vec<TidyProblem>) {
    for folder in STREAM_WIRED_ONCE {
        let uses = |source: &&super::source::SourceFile| {
            source.path.starts_with(folder) && !source.words("goldleaves_stream").is_empty()
        };
        for source in tree.sources.iter().filter(uses).skip(1) {
            let line = source.words("goldleaves_stream").first().map_or(1, |at| source.line(*at));
            problems.push(TidyProblem::new(
                &source.path,
                line,
                "the stream is wired in one file of a crate; this is another",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objections(folder: &str, kind: &str, name: &str) -> Option<String> {
        TABLE.iter().find(|edges| edges.folder == folder).unwrap().objection(kind, name)
    }

    #[test]
    fn the_table_forbids_and_allows() {
        assert!(objections("gateway", "dependencies", "goldleaves-ledger").is_some());
        assert!(objections("gateway", "dependencies", "goldleaves-web").is_none());
        assert!(objections("gateway", "dev-dependencies", "goldleaves-testkit").is_none());
        assert!(objections("gateway", "dependencies", "goldleaves-testkit").is_some());
        assert!(objections("shared/ledger", "dev-dependencies", "goldleaves-billing").is_none());
        assert!(objections("shared/ledger", "dependencies", "goldleaves-billing").is_some());
        assert!(objections("shared/domain", "dependencies", "tokio").is_some());
        assert!(objections("shared/web", "dev-dependencies", "async-nats").is_some());
        assert!(objections("e2e", "dependencies", "time").is_some_and(|what| what.contains("chrono")));
    }

    #[test]
    fn impure_uses_are_found_grouped_or_not() {
        let text =
            "//! Why.\nuse std::fs;\nuse std::{fmt, net};\nuse std::fmt;\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        let source = super::super::source::SourceFile::new("shared/domain/src/x.rs".into(), text.to_owned());
        let mut problems = Vec::new();
        check_purity(&Tree { sources: vec![source], others: Vec::new() }, &mut problems);
        assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [2, 3]);
    }
}
