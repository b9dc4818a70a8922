//! The catalogue of both databases, and migrating them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use goldleaves_ledger::{Ledger, LedgerError, StoreError, StoreOptions, sqlite_url};
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::proxy::WireProxy;

use crate::events::{batch, event};
use crate::harness::{Database, Kind, TABLES, on_both};

on_both!(
    the_guides_columns_have_its_names_and_types,
    the_guides_indexes_and_keys_are_there,
    down_takes_everything_back_and_up_makes_it_again,
    billing_has_its_tables_and_refuses_what_is_half,
    a_wrong_schema_is_told_apart,
);

async fn the_guides_columns_have_its_names_and_types(database: Database) {
    let guide = [
        ("id", "uuid", "text"),
        ("request_id", "character varying(255)", "varchar(255)"),
        ("tenant_id", "character varying(255)", "varchar(255)"),
        ("user_id", "character varying(255)", "varchar(255)"),
        ("route", "character varying(500)", "varchar(500)"),
        ("action", "character varying(255)", "varchar(255)"),
        ("units", "numeric(20,6)", "numeric(20,6)"),
        ("cost_cents", "bigint", "bigint"),
        ("ts", "timestamp with time zone", "text"),
        ("metadata", "character varying(2000)", "varchar(2000)"),
        ("created_at", "timestamp with time zone", "text"),
        ("updated_at", "timestamp with time zone", "text"),
    ];
    let ours = [
        ("units_micro", "bigint", "bigint"),
        ("client_request_id", "character varying(255)", "varchar(255)"),
        ("fingerprint", "character varying(80)", "varchar(80)"),
        ("epoch", "uuid", "text"),
        ("seq", "bigint", "bigint"),
        ("outcome", "character varying(32)", "varchar(32)"),
        ("rate_version", "bigint", "bigint"),
    ];
    let expected = |columns: &[(&str, &str, &str)]| -> BTreeMap<String, String> {
        let kind =
            |column: &(&str, &str, &str)| if database.kind == Kind::Postgres { column.1 } else { column.2 }.to_owned();
        columns.iter().map(|column| (column.0.to_owned(), kind(column))).collect()
    };
    let events = [guide.as_slice(), ours.as_slice()].concat();
    assert_eq!(database.columns("usage_events").await, expected(&events));
    let duplicates = [events.as_slice(), &[("duplicate_of", "uuid", "text")]].concat();
    assert_eq!(database.columns("usage_duplicates").await, expected(&duplicates));
    let letters = [
        ("id", "character varying(64)", "varchar(64)"),
        ("tenant_id", "character varying(255)", "varchar(255)"),
        ("request_id", "character varying(255)", "varchar(255)"),
        ("reason", "character varying(64)", "varchar(64)"),
        ("detail", "character varying(500)", "varchar(500)"),
        ("payload", "bytea", "blob"),
        ("epoch", "uuid", "text"),
        ("seq", "bigint", "bigint"),
        ("ts", "timestamp with time zone", "text"),
        ("created_at", "timestamp with time zone", "text"),
    ];
    assert_eq!(database.columns("usage_dead_letters").await, expected(&letters));
    let rollups = database.columns("usage_rollups").await;
    let units = if database.kind == Kind::Postgres { "numeric(38,0)" } else { "integer" };
    assert_eq!((rollups["events"].as_str(), rollups["units_micro"].as_str()), ("bigint", units));
}

async fn the_guides_indexes_and_keys_are_there(database: Database) {
    let sql = match database.kind {
        Kind::Postgres => {
            "SELECT c.relname::text, i.indrelid::regclass::text, \
             (SELECT string_agg(a.attname, ',' ORDER BY k.n) FROM unnest(i.indkey) WITH ORDINALITY AS k(attnum, n) \
                 JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum), i.indisunique::text \
             FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid \
             WHERE i.indrelid::regclass::text IN ('usage_events', 'usage_duplicates', 'stripe_pushes')"
        }
        Kind::Sqlite => {
            "SELECT l.name, t.name, (SELECT group_concat(name, ',') FROM pragma_index_info(l.name)), \
             CASE l.\"unique\" WHEN 1 THEN 'true' ELSE 'false' END \
             FROM sqlite_schema AS t JOIN pragma_index_list(t.name) AS l WHERE t.type = 'table'"
        }
    };
    let rows = database.rows(sql).await;
    let rows: BTreeSet<[String; 4]> = rows
        .into_iter()
        .map(|row| row.into_iter().map(Option::unwrap).collect::<Vec<_>>().try_into().unwrap())
        .collect();
    for (name, table, columns) in [
        ("idx_usage_tenant_ts", "usage_events", "tenant_id,ts"),
        ("idx_usage_user_ts", "usage_events", "user_id,ts"),
        ("idx_usage_route_ts", "usage_events", "route,ts"),
        ("idx_usage_client_request", "usage_events", "tenant_id,client_request_id,fingerprint,outcome,ts,id"),
        (
            "idx_usage_duplicates_client_request",
            "usage_duplicates",
            "tenant_id,client_request_id,fingerprint,outcome,ts,id",
        ),
    ] {
        assert!(rows.contains(&[name, table, columns, "false"].map(str::to_owned)), "{name}: {rows:#?}");
    }
    let unique =
        |table: &str, columns: &str| rows.iter().any(|row| row[1] == table && row[2] == columns && row[3] == "true");
    assert!(unique("usage_events", "id") && unique("usage_events", "request_id"));
    assert!(unique("stripe_pushes", "tenant_id,meter,hour,revision"));
    assert!(!unique("usage_duplicates", "request_id"));
}

async fn billing_has_its_tables_and_refuses_what_is_half(database: Database) {
    let cards = database.columns("rate_cards").await;
    for column in ["id", "tenant_id", "route", "action", "model", "pricing", "origin", "actor", "reason"] {
        assert!(cards.contains_key(column), "rate_cards.{column}");
    }
    let pushes = database.columns("stripe_pushes").await;
    for column in ["key_suffix", "read_back_at", "absent_since", "origin"] {
        assert!(pushes.contains_key(column), "stripe_pushes.{column}");
    }
    let refused = async |sql: &str| {
        let raw = crate::harness::connect(&database.url).await;
        sea_orm::ConnectionTrait::execute_unprepared(&raw, sql).await.unwrap_err().to_string()
    };
    let correction = |kind: &str| {
        format!(
            "INSERT INTO usage_corrections (id, tenant_id, kind, ts, route, action, rate_version, events, units_micro, \
             cents, actor, reason) VALUES ('01935b1c-0000-7000-8000-000000000001', 't', '{kind}', \
             '2026-01-01T00:00:00.000000Z', '', '', 0, 0, 0, 5, 'a', 'r')"
        )
    };
    assert!(refused(&correction("void")).await.to_lowercase().contains("check"), "a void names an event");
    database.execute(&correction("amount")).await;
    let period = |number: i64, starts: &str| {
        format!(
            "INSERT INTO billing_periods VALUES ('t', {number}, '{starts}', '2026-02-01T00:00:00.000000Z', 'UTC', '2026a', \
             '5', '{hash}', 'a', 'r', '2026-02-01T02:00:00.000000Z')",
            hash = "0".repeat(64)
        )
    };
    database.execute(&period(1, "2026-01-01T00:00:00.000000Z")).await;
    assert!(refused(&period(2, "2026-01-01T00:00:00.000000Z")).await.to_lowercase().contains("unique"));
    assert!(refused(&period(3, "2026-02-01T00:00:00.000000Z")).await.to_lowercase().contains("check"));
}

async fn down_takes_everything_back_and_up_makes_it_again(database: Database) {
    let ledger = database.priced().await;
    ledger.record(&batch(&[event(1)])).await.unwrap();
    ledger.store().close().await;
    let lines = std::sync::Mutex::new(Vec::new());
    let progress = |line: &str| lines.lock().unwrap().push(line.to_owned());
    // Twice at once, and again: nothing to do.
    let (one, other) = tokio::join!(
        goldleaves_testkit::migrations::up(&database.url, &progress),
        goldleaves_testkit::migrations::up(&database.url, &progress)
    );
    one.and(other).unwrap();
    assert!(lines.lock().unwrap().iter().any(|line| line.starts_with("0 of")));
    assert_eq!(database.count("usage_events").await, 1);
    take_everything_back(&database).await;
    assert!(goldleaves_testkit::migrations::status(&database.url).await.unwrap().iter().all(|step| !step.applied));
    let tables = match database.kind {
        Kind::Postgres => "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'",
        Kind::Sqlite => "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    };
    let mut left = database.rows(tables).await;
    left.sort();
    assert_eq!(left, ["schema_steps", "seaql_migrations"].map(|table| vec![Some(table.to_owned())]));
    let (one, other) = tokio::join!(
        goldleaves_testkit::migrations::up(&database.url, &progress),
        goldleaves_testkit::migrations::up(&database.url, &progress)
    );
    one.and(other).unwrap();
    assert_eq!(database.rows(tables).await.len(), TABLES.len() + 1);
    assert!(goldleaves_testkit::migrations::status(&database.url).await.unwrap().iter().all(|step| step.applied));
}

/// Step by step, and none of them by accident.
async fn take_everything_back(database: &Database) {
    use goldleaves_testkit::migrations::{self, MigrationError};
    let applied = async || {
        let steps = migrations::status(&database.url).await.unwrap();
        steps.into_iter().filter(|step| step.applied).count()
    };
    let mut lost = Vec::new();
    while let Some((_, losses)) = migrations::losses(&database.url).await.unwrap() {
        let before = applied().await;
        let error = migrations::down(&database.url, losses.rows() + 1, &|_| ()).await.unwrap_err();
        assert!(matches!(&error, MigrationError::Losses { losses: found, .. } if *found == losses), "{error:?}");
        assert_eq!(applied().await, before, "refused, and undone all the same");
        migrations::down(&database.url, losses.rows(), &|_| ()).await.unwrap();
        assert_eq!(applied().await, before - 1);
        lost.push(losses.to_string());
    }
    // Steps that only add take nothing of what was there before them; the first has all the rest. The event is months old,
    // so that its hour is marked as late.
    let added = |lost: &String| lost.is_empty() || lost == "usage_late_hours 1";
    assert!(lost.iter().rev().skip(1).all(added), "{lost:?}");
    let first = lost.last().unwrap();
    assert_eq!(first, "rate_cards 1, usage_events 1, usage_receipts 1, usage_rollups 1");
}

async fn a_wrong_schema_is_told_apart(database: Database) {
    let ledger = database.ledger().await;
    database.execute("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m29990101_000001_later', 0)").await;
    let error = ledger.check_schema().await.unwrap_err();
    assert!(matches!(&error, StoreError::SchemaNewer { step } if step == "m29990101_000001_later"), "{error:?}");
    assert!(!error.is_transient());
    assert!(goldleaves_testkit::migrations::up(&database.url, &|_| ()).await.is_err());
    // A step that says that it only adds ends nobody who knows the step it names.
    database.execute("INSERT INTO schema_steps VALUES ('m29990101_000001_later', 'm20261130_000003_billing')").await;
    ledger.check_schema().await.unwrap();
    database
        .execute("UPDATE schema_steps SET compatible_since = 'm29980101_000001_unknown' WHERE step LIKE 'm2999%'")
        .await;
    assert!(matches!(ledger.check_schema().await, Err(StoreError::SchemaNewer { .. })));
    for change in ["DELETE FROM seaql_migrations", "DROP TABLE seaql_migrations"] {
        database.execute(change).await;
        let error = ledger.check_schema().await.unwrap_err();
        assert!(matches!(error, StoreError::SchemaMissing { .. }) && !error.is_transient(), "{change}: {error:?}");
    }
    ledger.store().ping().await.unwrap();
}

#[tokio::test]
async fn an_sqlite_file_is_its_owners_only_and_written_safely() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data%20 ?#ü/goldleaves.db");
    let url = sqlite_url(&path);
    let ledger = Ledger::connect(&url, StoreOptions::default()).await.unwrap();
    assert!(matches!(ledger.check_schema().await, Err(StoreError::SchemaMissing { .. })));
    goldleaves_testkit::migrations::up(&url, &|_| ()).await.unwrap();
    ledger.check_schema().await.unwrap();
    ledger.set_rate("1".parse().unwrap(), "2026-01-01".parse().unwrap()).await.unwrap();
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", entry.path().display());
    }
    let database = crate::harness::connect(&url).await;
    let one = async |sql| crate::harness::rows(&database, sql).await[0][0].clone().unwrap();
    assert_eq!(one("SELECT journal_mode FROM pragma_journal_mode").await, "wal");
    let version: Vec<u32> = one("SELECT sqlite_version()").await.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(version >= vec![3, 51, 3], "{version:?}");
}

#[tokio::test]
async fn urls_that_are_none_are_refused_without_showing_them() {
    for url in [
        "",
        "mysql://u:secret@h/d",
        "postgresql//secret",
        "sqlite:",
        "sqlite::memory:",
        "postgresql://u:secret@h:port/d",
    ] {
        let error = Ledger::connect(url, StoreOptions::default()).await.unwrap_err();
        assert!(matches!(error, StoreError::Url(_)) && !error.is_transient(), "{url}: {error:?}");
        assert!(!error.to_string().contains("secret"));
        let error = goldleaves_testkit::migrations::up(url, &|_| ()).await.unwrap_err();
        assert!(matches!(error, goldleaves_testkit::migrations::MigrationError::Url(_)), "{url}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_waited_for() {
    let mut server = Postgres::start().await.unwrap();
    let url = server.database().await.unwrap();
    let options = StoreOptions { acquire_timeout: Duration::from_millis(300), ..StoreOptions::default() };
    let ledger = Ledger::connect(&url, options.clone()).await.unwrap();
    ledger.set_rate("1".parse().unwrap(), "2026-01-01".parse().unwrap()).await.unwrap();
    server.kill().unwrap();
    assert!(ledger.record(&batch(&[event(1)])).await.unwrap_err().is_transient());
    for error in [ledger.store().ping().await, ledger.check_schema().await] {
        assert!(error.unwrap_err().is_transient());
    }
    // Connecting is no error either.
    let early = Ledger::connect(&url, options).await.unwrap();
    assert!(early.check_schema().await.unwrap_err().is_transient());
    server.restart().await.unwrap();
    for ledger in [ledger, early] {
        ledger.check_schema().await.unwrap();
        ledger.record(&batch(&[event(1)])).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_is_waited_for() {
    let server = Postgres::start().await.unwrap();
    let limit = Duration::from_millis(300);
    let options = StoreOptions {
        acquire_timeout: limit,
        work_timeout: limit,
        ping_timeout: limit,
        connections_max: 2,
        ..StoreOptions::default()
    };
    let ledger = Ledger::connect(&server.database().await.unwrap(), options).await.unwrap();
    ledger.set_rate("1".parse().unwrap(), "2026-01-01".parse().unwrap()).await.unwrap();
    server.pause().unwrap();
    for _ in 0..4 {
        let error = ledger.record(&batch(&[event(1)])).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
    }
    assert!(ledger.store().ping().await.is_err());
    server.resume().unwrap();
    let recorded = loop {
        match ledger.record(&batch(&[event(1), event(2)])).await {
            Ok(recorded) => break recorded,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    };
    // What was cut off may have been committed.
    assert_eq!(recorded.inserted + recorded.replays, 2);
}

/// A ledger over a wire that can go silent, and short deadlines.
async fn over_a_wire() -> (Postgres, WireProxy, Ledger) {
    let server = Postgres::start().await.unwrap();
    let wire = WireProxy::start(&format!("127.0.0.1:{}", server.port())).await.unwrap();
    let url = server.database().await.unwrap();
    let url = url.replace(&format!(":{}/", server.port()), &format!(":{}/", wire.address().port()));
    let limit = Duration::from_secs(1);
    let options =
        StoreOptions { work_timeout: limit, ping_timeout: limit, connections_max: 2, ..StoreOptions::default() };
    let ledger = Ledger::connect(&url, options).await.unwrap();
    ledger.set_rate("1".parse().unwrap(), "2026-01-01".parse().unwrap()).await.unwrap();
    (server, wire, ledger)
}

/// Records again and again, as a worker does; fails the test instead of hanging it.
async fn recorded_at_last(ledger: &Ledger, number: u64) {
    let recording = async {
        while let Err(error) = ledger.record(&batch(&[event(number)])).await {
            assert!(error.is_transient(), "{error:?}");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), recording).await.expect("recorded within a minute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_silently_are_replaced() {
    let (_server, wire, ledger) = over_a_wire().await;
    for round in 0..2_u64 {
        // Both are open, and under way when they go silent.
        let (one, other) = (batch(&[event(round * 10 + 1)]), batch(&[event(round * 10 + 2)]));
        let (one, other) = tokio::join!(ledger.record(&one), ledger.record(&other));
        one.and(other).unwrap();
        wire.forget();
        let asked = (ledger.store().ping(), ledger.store().ping(), ledger.check_schema());
        let _ = tokio::join!(asked.0, asked.1, asked.2);
        recorded_at_last(&ledger, round * 10 + 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_server_that_only_reads_are_left() {
    let (server, _wire, ledger) = over_a_wire().await;
    let read_only = |is: &str| format!("ALTER DATABASE test_0 SET default_transaction_read_only = {is}");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test_0'";
    server.execute(&read_only("on")).await.unwrap();
    server.execute(end).await.unwrap();
    let error = loop {
        match ledger.record(&batch(&[event(1)])).await.unwrap_err() {
            LedgerError::Store(StoreError::Database(error)) if error.to_string().contains("read-only") => break error,
            error => assert!(error.is_transient(), "{error:?}"),
        }
    };
    assert!(error.to_string().contains("read-only"), "{error}");
    // Who connects now gets a server that writes; the sessions there are stay what they are.
    server.execute(&read_only("off")).await.unwrap();
    recorded_at_last(&ledger, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_reads_is_none_where_one_that_writes_is_asked_for() {
    let server = Postgres::start().await.unwrap();
    let url = server.database().await.unwrap();
    server.execute("ALTER DATABASE test_0 SET default_transaction_read_only = on").await.unwrap();
    let reach = async |attributes: &str| {
        let ledger = Ledger::connect(&format!("{url}?{attributes}"), StoreOptions::default()).await.unwrap();
        ledger.store().reach().await
    };
    reach("target_session_attrs=any").await.unwrap();
    let refused = reach("target_session_attrs=read-write").await.unwrap_err();
    let said = std::iter::successors(Some(&refused as &dyn std::error::Error), |error| error.source());
    assert!(said.map(ToString::to_string).any(|said| said.contains("only reads")), "{refused:?}");
    server.execute("ALTER DATABASE test_0 RESET default_transaction_read_only").await.unwrap();
    reach("target_session_attrs=read-write").await.unwrap();
}
