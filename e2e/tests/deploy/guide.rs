//! `docs/DEPLOYMENT.md`: its SQL runs, its schema is the schema, its variables, metrics and files exist.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use goldleaves_runtime::settings::table;
use goldleaves_testkit::postgres::Postgres;
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, DbBackend, Statement};
use serde_yaml_ng::Value;

use crate::markdown::blocks;
use crate::{file, text};

const GUIDES: [&str; 2] = ["docs/DEPLOYMENT.md", "docs/REPLAY.md"];
async fn rows(connection: &DatabaseConnection, sql: &str) -> Vec<String> {
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    let rows = connection.query_all_raw(statement).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index::<String>(0).unwrap()).collect()
}

#[tokio::test]
async fn every_statement_of_the_guides_runs() {
    let server = Postgres::shared().await.unwrap();
    let connection = Database::connect(server.database().await.unwrap()).await.unwrap();
    let mut count = 0;
    for guide in GUIDES {
        let document = text(guide);
        for block in blocks(&document).iter().filter(|block| block.language == "sql") {
            let ran = connection.execute_unprepared(&block.text).await;
            assert!(ran.is_ok(), "{guide}:{}: {}", block.line, ran.unwrap_err());
            count += 1;
        }
    }
    assert!(count >= 14, "only {count} blocks of SQL were found");
}

#[tokio::test]
async fn the_schema_of_the_guide_is_what_migrate_makes() {
    let server = Postgres::shared().await.unwrap();
    let columns = "SELECT concat_ws(' ', column_name, data_type, character_maximum_length, numeric_precision, \
         numeric_scale, is_nullable, column_default) FROM information_schema.columns \
         WHERE table_name = 'usage_events' ORDER BY ordinal_position";
    let indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'usage_events' ORDER BY indexname";
    let document = text("docs/DEPLOYMENT.md");
    let found = blocks(&document);
    let schema = found.iter().find(|block| block.language == "sql schema").unwrap();
    let written = Database::connect(server.empty_database().await.unwrap()).await.unwrap();
    written.execute_unprepared(&schema.text).await.unwrap();
    let made = Database::connect(server.database().await.unwrap()).await.unwrap();
    for question in [columns, indexes] {
        let wanted = rows(&made, question).await;
        assert!(wanted.len() > 5);
        assert_eq!(rows(&written, question).await, wanted);
    }
    let tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'";
    for table in rows(&made, tables).await {
        assert!(document.contains(&format!("`{table}`")), "{table} is not in the guide");
    }
}

/// Words of capitals, such as variables.
fn variables(text: &str) -> BTreeSet<&str> {
    let words = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
    words.filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_') && !name.is_empty()).collect()
}

#[test]
fn every_variable_of_the_guide_is_a_setting() {
    let document = text("docs/DEPLOYMENT.md");
    let found = blocks(&document);
    let names: BTreeSet<&str> =
        found.iter().filter(|block| block.language == "bash").flat_map(|block| variables(&block.text)).collect();
    assert!(names.contains("USAGE_RATE_CENTS") && names.contains("JWT_SECRET"), "{names:?}");
    for name in names.into_iter().filter(|name| *name != "TOKEN") {
        assert!(table::ALL.iter().any(|setting| setting.name == name), "{name} is no setting");
    }
}

/// Every `goldleaves_…` of a text that is a metric's name: not a database's, a login's or a program's.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter_map(|word| word.strip_prefix("goldleaves_"));
    names.filter(|name| !["worker", "billing"].contains(name)).collect()
}

/// The sources of programs that register metrics, whichever crate they are of.
fn sources_with_metrics(folder: &Path) -> Vec<String> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_other =
            name.starts_with('.') || ["target", "tests", "benches", "e2e", "xtask", "testkit"].contains(&&*name);
        if path.is_dir() && !is_other {
            sources.extend(sources_with_metrics(&path));
        } else if name.ends_with(".rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            sources.extend(source.contains("Metrics").then_some(source));
        }
    }
    sources
}

#[test]
fn every_metric_of_guides_and_alerts_is_one_that_a_program_shows() {
    let mut registered: BTreeSet<String> = BTreeSet::new();
    for source in sources_with_metrics(&file("")) {
        // Registered names are literals of their own; odd parts of a split at quotes are inside them.
        registered.extend(source.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    let mut seen = BTreeSet::new();
    for path in GUIDES.into_iter().chain(["deploy/alerts.yaml", "deploy/alerts.test.yaml"]) {
        let document = text(path);
        for name in metrics_in(&document) {
            let bare = ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            assert!(registered.contains(bare.unwrap_or(name)), "{path}: goldleaves_{name} is shown by no program");
            seen.insert(bare.unwrap_or(name).to_owned());
        }
    }
    assert!(seen.len() > 30, "{seen:?}");
}

#[test]
fn alerts_are_rules_and_each_is_explained() {
    let alerts: Value = serde_yaml_ng::from_str(&text("deploy/alerts.yaml")).unwrap();
    let document = text("docs/DEPLOYMENT.md");
    let rules = alerts["groups"][0]["rules"].as_sequence().unwrap();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(document.contains(&format!("`{name}`")), "{name} is not explained");
        let expression = rule["expr"].as_str().unwrap();
        assert_eq!(expression.matches('(').count(), expression.matches(')').count(), "{name}");
        assert!(rule["annotations"]["summary"].is_string() && rule["labels"]["severity"].is_string(), "{name}");
    }
    assert!(rules.len() >= 10);
}

/// Checks everywhere that each alert has a test; the tests run where `promtool` is installed, which is not among
/// the tools that the tests install.
#[test]
fn every_alert_speaks_up_when_its_tests_say() {
    let (rules, tests) = (text("deploy/alerts.yaml"), text("deploy/alerts.test.yaml"));
    for name in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let (mut silent, mut speaks) = (false, false);
        for (place, _) in tests.match_indices(&format!("alertname: {name}")) {
            let after = tests[place..].lines().take(2).collect::<String>();
            let expects = after.contains("exp_alerts");
            (silent, speaks) = (silent || !expects, speaks || expects);
        }
        assert!(silent && speaks, "{name} needs a time when it speaks up and one when it does not");
    }
    let Ok(ran) = Command::new("promtool").args(["test", "rules"]).arg(file("deploy/alerts.test.yaml")).output() else {
        eprintln!("promtool is not installed: the rules are not tried");
        return;
    };
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

/// The name by which a heading is linked to.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c)).collect::<String>().replace(' ', "-")
}

#[test]
fn every_linked_file_is_here() {
    for guide in GUIDES {
        let document = text(guide);
        let links = document.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("https://")) {
            let (path, place) = link.split_once('#').unwrap_or((link, ""));
            assert!(path.is_empty() || file("docs").join(path).exists(), "{guide}: {link}");
            if path.ends_with(".md") && !place.is_empty() {
                let headings = text(&format!("docs/{path}"));
                let mut headings = headings.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(headings.any(|heading| heading == place), "{guide}: {link}");
            }
        }
    }
}
