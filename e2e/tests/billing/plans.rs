//! How the database goes about what billing reads: of the tables that grow with usage no statement reads more than an index
//! gives it, on either database.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbBackend, Statement};
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use uuid::Uuid;

use crate::world::{Api, Kind, token};

/// Tables that grow with usage, as they are filled here.
const LARGE: [&str; 6] =
    ["usage_events", "usage_duplicates", "usage_dead_letters", "usage_rollups", "usage_corrections", "billing_lines"];
/// The conditions that ask for one call, and the index that finds it among those of a tenant.
const BY: [(&str, &str); 3] = [
    ("e.client_request_id = ", "idx_usage_client_request"),
    ("d.client_request_id = ", "idx_usage_duplicates_client_request"),
    ("l.request_id = ", "idx_usage_dead_letters_tenant_request"),
];
const ROWS: u32 = 60_000;

/// The statements that ran on this thread.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeSet<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Seen {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut self.clone());
    }
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "sql" {
            self.0.lock().unwrap().insert(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

impl Seen {
    /// The statements that ran since the last time and read a large table.
    fn take(&self) -> Vec<String> {
        let statements = std::mem::take(&mut *self.0.lock().unwrap());
        let statements = statements.into_iter().filter(|sql| !sql.starts_with("INSERT"));
        statements.filter(|sql| LARGE.iter().any(|table| sql.contains(table))).collect()
    }
}

#[tokio::test]
async fn every_read_goes_by_an_index_on_sqlite() {
    every_read_goes_by_an_index(Api::on(Kind::Sqlite).await).await;
}

#[tokio::test]
async fn every_read_goes_by_an_index_on_postgresql() {
    every_read_goes_by_an_index(Api::on(Kind::Postgres).await).await;
}

async fn every_read_goes_by_an_index(api: Api) {
    fill(&api).await;
    let mut one = ConnectOptions::new(api.url());
    one.max_connections(1).sqlx_logging(false);
    let database = Database::connect(one).await.unwrap();
    let seen = Seen::default();
    let _watching = tracing::subscriber::set_default(tracing_subscriber::registry().with(seen.clone()));
    let admin = token("ops", &["admin"]);
    let mut wrong = Vec::new();
    for (method, path, body) in calls() {
        seen.take();
        let answer = api.call(method, &path, &admin, body).await;
        assert!(matches!(answer.status, 200 | 201), "{path}: {answer:?}");
        let statements = seen.take();
        assert!(!statements.is_empty(), "{path} reads no large table");
        for sql in statements {
            let plan = plan(&database, &sql).await;
            let is_found =
                BY.iter().all(|(asked, index)| !sql.contains(asked) || plan.iter().any(|line| line.contains(index)));
            if !is_found || !goes_by_an_index(&sql, &plan, api.is_sqlite()) {
                wrong.push(format!("{method} {path}\n{sql}\n{}", plan.join("\n")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} read a whole table:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// The calls by which the billing team reads, and what it writes of events that it looked up.
fn calls() -> Vec<(&'static str, String, String)> {
    let month = "start_date=2026-01-01&end_date=2026-02-01";
    let cut = "start_date=2026-01-02T03:10:00Z&end_date=2026-01-20T05:50:00Z";
    let (event, voided) = (id(1), id(91));
    let reads = [
        format!("usage-summary/t-1?{month}"),
        format!("usage-report/t-1?{cut}"),
        format!("usage-report/t-1?{month}&group_by=day,route&time_zone=Asia/Kolkata"),
        format!("usage-report/t-1?{month}&group_by=user"),
        format!("usage-events/t-1?{month}"),
        format!("usage-events/t-1?{month}&order=desc&state=all"),
        format!("usage-events/t-1?{month}&state=void"),
        format!("usage-events/t-1?{month}&state=repeat"),
        format!("usage-events/t-1?{month}&state=set_aside"),
        format!("usage-events/t-1?{month}&format=csv&user_id=user-7"),
        format!("usage-events/t-1/{event}"),
        "usage-events/t-1/request-31?by=request".to_owned(),
        format!("usage-events/t-1/{voided}"),
        format!("corrections/t-1?{month}"),
        format!("corrections/t-1?{month}&format=csv"),
        "invoice/t-1".to_owned(),
        "invoice/t-1/1".to_owned(),
        "invoice/t-1/1?format=csv".to_owned(),
        format!("tenants?{month}"),
        format!("tenants?{month}&sort=tenant_id&limit=5"),
        format!("tenants?{cut}&sort=units"),
    ];
    let reads = reads.into_iter().map(|path| ("GET", format!("/billing/{path}"), String::new()));
    let preview = json!({"tenant_id": "t-1", "pricing": {"model": "per_unit", "cents_per_unit": "3"},
        "start_date": "2026-01-01", "end_date": "2026-02-01"});
    let void = json!({"kind": "void", "tenant_id": "t-1", "event_id": event, "reason": "r"});
    let writes = [
        ("POST", "/billing/rate-cards/preview".to_owned(), preview.to_string()),
        ("PUT", format!("/billing/corrections/{}", Uuid::now_v7()), void.to_string()),
        ("PUT", "/billing/periods/t-1/2".to_owned(), json!({"ends_at": "2026-02-01", "reason": "r"}).to_string()),
    ];
    reads.chain(writes).collect()
}

fn id(number: u32) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

/// The words in which the databases differ: `{rows}` and `{n}` stand for numbers.
struct Words {
    series: &'static str,
    id: &'static str,
    other: &'static str,
    hour: &'static str,
    hash: &'static str,
    bytes: &'static str,
}

const OF_SQLITE: Words = Words {
    series: "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n)",
    id: "printf('00000000-0000-0000-0000-%012x', {n})",
    other: "printf('00000000-0000-0000-0001-%012x', {n})",
    hour: "strftime('%Y-%m-%dT%H:%M:%f000Z', '2026-01-01', ({n}) || ' seconds')",
    hash: "printf('v1:%064x', i)",
    bytes: "x'7b7d'",
};
const OF_POSTGRESQL: Words = Words {
    series: "generate_series(1, {rows}) AS n(i)",
    id: "lpad(to_hex({n}), 32, '0')::uuid",
    other: "('00000000000000000001' || lpad(to_hex({n}), 12, '0'))::uuid",
    hour: "'2026-01-01T00:00:00Z'::timestamptz + ({n}) * interval '1 second'",
    hash: "'v1:' || md5(i::text) || md5(i::text)",
    bytes: "'{}'::bytea",
};

/// Rows of thirty tenants in all of these tables.
async fn fill(api: &Api) {
    let words = if api.is_sqlite() { OF_SQLITE } else { OF_POSTGRESQL };
    let Words { series, id, other, hour, hash, bytes } = words;
    let (from, time) = (|rows: u32| series.replace("{rows}", &rows.to_string()), hour.replace("{n}", "i * 44"));
    let event = format!(
        "'request-' || i, 't-' || (i % 30), 'user-' || (i % 900), '/api/' || (i % 4), 'read', 1, 25, {time}, 1000000, \
         'request-' || i, {hash}, {epoch}, i, 'completed', 1",
        epoch = id.replace("{n}", "7"),
    );
    let columns = "id, request_id, tenant_id, user_id, route, action, units, cost_cents, ts, units_micro, client_request_id, \
         fingerprint, epoch, seq, outcome, rate_version";
    let (id, other) = (id.replace("{n}", "i"), other.replace("{n}", "i"));
    let (units_column, units) =
        if api.is_sqlite() { ("units_micro_high, units_micro_low", "0, 1000000") } else { ("units_micro", "1000000") };
    let hour = hour.replace("{n}", "(i / 60) * 3600");
    let statements = [
        format!("INSERT INTO usage_events ({columns}) SELECT {id}, {event} FROM {}", from(ROWS)),
        format!(
            "INSERT INTO usage_duplicates ({columns}, duplicate_of) SELECT {other}, {event}, {id} FROM {}",
            from(ROWS / 4)
        ),
        format!(
            "INSERT INTO usage_dead_letters (id, tenant_id, request_id, reason, payload, ts) \
             SELECT 'letter-' || i, 't-' || (i % 30), 'request-' || i, 'unknown', {bytes}, {time} FROM {}",
            from(ROWS / 4)
        ),
        format!(
            "INSERT INTO usage_rollups (tenant_id, hour, route, action, rate_version, shard, events, {units_column}) \
             SELECT 't-' || (i % 30), {hour}, '/api/' || (i % 4), 'read', 1, 0, 1, {units} FROM {}",
            from(ROWS)
        ),
        format!(
            "INSERT INTO usage_corrections (id, tenant_id, kind, event_id, ts, route, action, rate_version, events, units_micro, \
                 cents, actor, reason) \
             SELECT {other}, 't-' || (i % 30), 'void', {id}, {time}, '/api/1', 'read', 1, -1, -1000000, 0, 'ada', 'r' \
             FROM {} WHERE i % 7 = 0",
            from(ROWS / 4)
        ),
        format!(
            "INSERT INTO billing_periods (tenant_id, number, starts_at, ends_at, time_zone, tzdb, total_cents, lines_hash, actor, \
                 reason, closed_at) SELECT 't-' || (i - 1), 1, {start}, {end}, 'UTC', '2026a', 0, '0', 'ada', 'r', {end} FROM {}",
            from(30),
            start = hour.replace("(i / 60) * 3600", "-2678400"),
            end = hour.replace("(i / 60) * 3600", "0"),
        ),
        format!(
            "INSERT INTO billing_lines (tenant_id, number, line, for_number, kind, route, action, rate_version, events, \
                 units_micro, cents) \
             SELECT 't-' || (i % 30), 1, i, 1, 'usage', '/api/1', 'read', 1, 1, 1000000, 25 FROM {}",
            from(ROWS / 4)
        ),
    ];
    for sql in statements {
        api.execute(&sql).await;
    }
    if !api.is_sqlite() {
        api.execute("VACUUM ANALYZE").await;
    }
}

/// Returns the plan of a statement, whatever its values are.
async fn plan(database: &DatabaseConnection, sql: &str) -> Vec<String> {
    let backend = database.get_database_backend();
    let (ask, column) = if backend == DbBackend::Sqlite {
        (format!("EXPLAIN QUERY PLAN {sql}"), "detail")
    } else {
        database.execute_unprepared("SET plan_cache_mode = force_generic_plan").await.unwrap();
        database.execute_unprepared(&format!("PREPARE asked AS {sql}")).await.unwrap();
        let count = (1..).take_while(|number| sql.contains(&format!("${number}"))).count();
        let values = vec!["NULL"; count].join(", ");
        (format!("EXPLAIN EXECUTE asked({values})"), "QUERY PLAN")
    };
    let rows = database.query_all_raw(Statement::from_string(backend, ask)).await.unwrap();
    if backend == DbBackend::Postgres {
        database.execute_unprepared("DEALLOCATE asked").await.unwrap();
    }
    rows.iter().map(|row| row.try_get("", column).unwrap()).collect()
}

fn goes_by_an_index(sql: &str, plan: &[String], is_sqlite: bool) -> bool {
    if is_sqlite {
        let words: Vec<&str> = sql.split([' ', ',', '(', ')']).filter(|word| !word.is_empty()).collect();
        // A table goes by its other name, where it has one.
        let names = words.windows(3).filter(|words| LARGE.contains(&words[0]));
        let names: Vec<&str> = names.map(|words| if words[1] == "AS" { words[2] } else { words[0] }).collect();
        return plan.iter().all(|line| {
            let name = line.strip_prefix("SCAN ").map(|rest| rest.split(' ').next().unwrap_or_default());
            name.is_none_or(|name| !names.contains(&name))
        });
    }
    let of_large = |line: &str| LARGE.iter().any(|table| line.contains(&format!(" on {table} ")));
    plan.iter().enumerate().filter(|(_, line)| of_large(line)).all(|(at, line)| {
        let mut below = plan[at + 1..].iter().take_while(|line| !line.contains("->"));
        line.contains("Bitmap Heap Scan") || line.contains("Index") && below.any(|line| line.contains("Index Cond"))
    })
}
