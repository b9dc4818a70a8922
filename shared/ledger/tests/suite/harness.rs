//! A fresh, migrated database for each test, and its tables as text.

use std::collections::{BTreeMap, BTreeSet};

use goldleaves_billing::stripe::{Books, BooksClock, METER, ReportOf, UsagePush};
use goldleaves_billing::{Billing, BillingError, Report};
use goldleaves_domain::{Candidate, EventId, Outcome, Period, TenantId, Timestamp, UsageEvent, Verdict, judge};
use goldleaves_ledger::{Incoming, Ledger, Recorded, StoreOptions, sqlite_url};
use goldleaves_pricing::TimeZone;
use goldleaves_testkit::postgres::Postgres;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use tempfile::TempDir;

/// The database that a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// The reading of a ledger by billing.
pub(crate) trait Billed {
    async fn usage_report(&self, tenant: &TenantId, period: &Period) -> Result<Report, BillingError>;
    async fn report_usage(&self, tenant: &TenantId, period: &Period, now: Timestamp) -> UsagePush;
}

impl Billed for Ledger {
    async fn usage_report(&self, tenant: &TenantId, period: &Period) -> Result<Report, BillingError> {
        billing(self).report(tenant, period, &[], TimeZone::UTC).await
    }

    async fn report_usage(&self, tenant: &TenantId, period: &Period, now: Timestamp) -> UsagePush {
        let books = Books::new(billing(self), BooksClock::Database);
        books.report_usage(&ReportOf { tenant, meter: METER, period }, now).await.unwrap()
    }
}

fn billing(ledger: &Ledger) -> Billing {
    Billing::new(ledger.store().clone(), TimeZone::UTC)
}

/// A database of its own.
pub(crate) struct Database {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    raw: DatabaseConnection,
    _directory: Option<TempDir>,
}

impl Database {
    pub(crate) async fn new(kind: Kind) -> Self {
        let (url, directory) = match kind {
            Kind::Postgres => (Postgres::shared().await.unwrap().database().await.unwrap(), None),
            Kind::Sqlite => {
                let directory = tempfile::tempdir().unwrap();
                let url = sqlite_url(&directory.path().join("data dir/goldleaves.db"));
                goldleaves_testkit::migrations::up(&url, &|_| ()).await.unwrap();
                (url, Some(directory))
            }
        };
        let raw = connect(&url).await;
        Self { kind, url, raw, _directory: directory }
    }

    pub(crate) async fn ledger(&self) -> Ledger {
        let ledger = Ledger::connect(&self.url, StoreOptions::default()).await.unwrap();
        ledger.check_schema().await.unwrap();
        ledger
    }

    /// A ledger with a rate of 25 cents.
    pub(crate) async fn priced(&self) -> Ledger {
        let ledger = self.ledger().await;
        ledger.set_rate("25".parse().unwrap(), "2026-01-01".parse().unwrap()).await.unwrap();
        ledger
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.raw.execute_unprepared(sql).await.unwrap();
    }

    /// The rows of a query whose columns are all text.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        rows(&self.raw, sql).await
    }

    pub(crate) async fn one(&self, sql: &str) -> String {
        let rows = self.rows(sql).await;
        rows[0][0].clone().unwrap_or_else(|| "NULL".to_owned())
    }

    pub(crate) async fn count(&self, table: &str) -> usize {
        self.one(&format!("SELECT CAST(COUNT(*) AS text) FROM {table}")).await.parse().unwrap()
    }

    /// Every row of every table, every column, as text.
    pub(crate) async fn dump(&self) -> Vec<String> {
        let mut dump = Vec::new();
        for table in TABLES {
            dump.extend(self.dump_table(table, &[]).await.into_iter().map(|row| format!("{table}: {row}")));
        }
        dump
    }

    /// Every row of a table but for some columns.
    pub(crate) async fn dump_table(&self, table: &str, without: &[&str]) -> Vec<String> {
        let columns: Vec<String> = self.columns(table).await.into_keys().collect();
        let columns = columns.iter().filter(|column| !without.contains(&column.as_str()));
        let cells: Vec<String> = columns.map(|column| format!("CAST({column} AS text)")).collect();
        let rows = self.rows(&format!("SELECT {} FROM {table}", cells.join(", "))).await;
        let mut rows: Vec<String> = rows.into_iter().map(|row| format!("{row:?}")).collect();
        rows.sort();
        rows
    }

    /// The columns of a table and their types, in lower case.
    pub(crate) async fn columns(&self, table: &str) -> BTreeMap<String, String> {
        let sql = match self.kind {
            Kind::Postgres => format!(
                "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
                 WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
            ),
            Kind::Sqlite => format!("SELECT name, lower(type) FROM pragma_table_xinfo('{table}')"),
        };
        let rows = self.rows(&sql).await;
        rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect()
    }

    /// Empties every table but the rate cards and what the schema says of itself.
    pub(crate) async fn clear(&self) {
        for table in TABLES.iter().filter(|table| !["rate_cards", "schema_steps"].contains(table)) {
            self.execute(&format!("DELETE FROM {table}")).await;
        }
    }

    /// The billed events, and the repeats with what they repeat.
    pub(crate) async fn verdicts(&self) -> Verdicts {
        let billed = self.rows("SELECT CAST(id AS text) FROM usage_events").await;
        let repeats = self.rows("SELECT CAST(id AS text), CAST(duplicate_of AS text) FROM usage_duplicates").await;
        Verdicts {
            billed: billed.into_iter().map(|row| row[0].clone().unwrap()).collect(),
            repeats: repeats.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect(),
        }
    }

    /// No event in two tables, one bare label for each client id that was billed, and sums that are those of the rows.
    pub(crate) async fn check_invariants(&self) {
        let twice = "SELECT CAST(id AS text) FROM ( \
                SELECT CAST(id AS text) AS id FROM usage_events \
                UNION ALL SELECT CAST(id AS text) FROM usage_duplicates \
                UNION ALL SELECT id FROM usage_dead_letters \
            ) AS every GROUP BY id HAVING COUNT(*) > 1";
        assert_eq!(self.rows(twice).await, Vec::<Vec<_>>::new(), "an event in two tables");
        let labels = self.rows("SELECT request_id, CAST(id AS text) FROM usage_events").await;
        let bare: Vec<String> = labels.iter().filter_map(|row| row[0].clone()).filter(|id| !id.contains('~')).collect();
        for row in &labels {
            let (label, id) = (row[0].clone().unwrap(), row[1].clone().unwrap());
            if let Some((request, own)) = label.split_once('~') {
                assert_eq!(own, id);
                assert!(bare.iter().any(|bare| bare == request), "nobody has the label {request}");
            }
        }
        let hour = match self.kind {
            Kind::Postgres => "date_trunc('hour', ts AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'",
            Kind::Sqlite => "substr(ts, 1, 13) || ':00:00.000000Z'",
        };
        let sums = self
            .rows(&format!(
                "SELECT tenant_id, CAST(hour AS text), route, action, CAST(rate_version AS text), \
                 CAST(SUM(events) AS text), CAST(SUM(units) AS text) FROM ( \
                     SELECT tenant_id, hour, route, action, rate_version, -events AS events, -units_micro AS units \
                     FROM usage_rollups \
                     UNION ALL SELECT tenant_id, {hour}, route, action, rate_version, 1, units_micro FROM usage_events \
                 ) AS every GROUP BY tenant_id, hour, route, action, rate_version \
                 HAVING SUM(events) <> 0 OR SUM(units) <> 0"
            ))
            .await;
        assert_eq!(sums, Vec::<Vec<_>>::new(), "rollups differ from the events");
    }
}

/// Every table of the ledger.
pub(crate) const TABLES: [&str; 26] = [
    "usage_events",
    "usage_duplicates",
    "usage_dead_letters",
    "usage_rollups",
    "rate_cards",
    "usage_epochs",
    "usage_receipts",
    "stripe_pushes",
    "ledger_progress",
    "schema_steps",
    "billing_tenants",
    "usage_corrections",
    "usage_late_hours",
    "billing_periods",
    "billing_lines",
    "billing_audit",
    "stripe_state",
    "stripe_meters",
    "stripe_mappings",
    "stripe_lanes",
    "stripe_events",
    "usage_limits",
    "budget_leases",
    "limit_crossings",
    "usage_archives",
    "usage_archived",
];

pub(crate) async fn connect(url: &str) -> DatabaseConnection {
    let mut options = sea_orm::ConnectOptions::new(url.to_owned());
    options.max_connections(2).sqlx_logging(false);
    sea_orm::Database::connect(options).await.unwrap()
}

pub(crate) async fn rows(raw: &impl ConnectionTrait, sql: &str) -> Vec<Vec<Option<String>>> {
    let rows = raw.query_all_raw(Statement::from_string(raw.get_database_backend(), sql)).await.unwrap();
    let cells = |row: &sea_orm::QueryResult| {
        (0..row.column_names().len()).map(|at| row.try_get_by_index(at).unwrap()).collect()
    };
    rows.iter().map(cells).collect()
}

/// The verdicts on a set of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdicts {
    pub(crate) billed: BTreeSet<String>,
    pub(crate) repeats: BTreeMap<String, String>,
}

impl Verdicts {
    /// Returns what the rule of the domain says of these events, each counted once.
    pub(crate) fn of<'a>(events: impl IntoIterator<Item = &'a UsageEvent>) -> Self {
        let mut sets: BTreeMap<_, BTreeMap<EventId, Candidate>> = BTreeMap::new();
        for event in events.into_iter().filter(|event| event.outcome.is_billable()) {
            let set = match (&event.client_request_id, &event.fingerprint) {
                (Some(id), Some(print)) => (event.tenant_id.as_str(), id.as_str().to_owned(), print.as_str()),
                _ => (event.tenant_id.as_str(), event.event_id.to_string(), ""),
            };
            let completed = event.outcome == Outcome::Completed;
            let candidate = Candidate { event_id: event.event_id, ts: event.ts, completed };
            sets.entry(set).or_default().insert(event.event_id, candidate);
        }
        let mut verdicts = Self { billed: BTreeSet::new(), repeats: BTreeMap::new() };
        for set in sets.into_values() {
            for (id, verdict) in judge(&mut set.into_values().collect::<Vec<_>>()) {
                match verdict {
                    Verdict::Billed => drop(verdicts.billed.insert(id.to_string())),
                    Verdict::RepeatOf(of) => drop(verdicts.repeats.insert(id.to_string(), of.to_string())),
                }
            }
        }
        verdicts
    }
}

/// Records a batch as a worker does: again and again while the error is transient.
pub(crate) async fn record(ledger: &Ledger, batch: &[Incoming]) -> Recorded {
    for _ in 0..20 {
        match ledger.record(batch).await {
            Ok(recorded) => return recorded,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
    panic!("twenty transient errors in a row");
}

/// Runs a test on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::harness::Database::new(crate::harness::Kind::Sqlite).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::harness::Database::new(crate::harness::Kind::Postgres).await).await;
            })*
        }
    };
}
pub(crate) use on_both;
