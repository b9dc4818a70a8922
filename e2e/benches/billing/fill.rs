//! A ledger full of events: written as SQL, because recording ten million one by one would take longer than what is measured.

use anyhow::Result;
use bytes::Bytes;
use goldleaves_e2e::tables::Tables;
use goldleaves_ledger::{Incoming, Ledger, StoreOptions};
use sea_orm::{ConnectionTrait as _, Database};
use serde_json::json;
use uuid::Uuid;

/// Tenants beside the largest.
const TENANTS: u64 = 2_000;
/// Events of one statement.
const AT_ONCE: u64 = 500_000;
/// The number of events that are looked up.
const SAMPLES: u64 = 200;

/// The contents of a filled ledger.
pub(crate) struct Filled {
    pub(crate) month: &'static str,
    pub(crate) largest: &'static str,
    /// Events of the largest tenant.
    pub(crate) of_largest: u64,
    /// Tenant, event and request.
    pub(crate) samples: Vec<(String, String, String)>,
}

/// Fills the ledger: every tenth event is the largest tenant's, the rest is spread over a month and the other tenants.
pub(crate) async fn fill(url: &str, events: u64) -> Result<Filled> {
    let ledger = Ledger::connect(url, StoreOptions::default()).await?;
    ledger.set_rate("25".parse()?, "2026-01-01".parse()?).await?;
    let database = Database::connect(url).await?;
    let mut from = 0;
    let largest = (events / 2).min(super::CSV_ROWS_MAX);
    let every = (events / largest.max(1)).max(1);
    while from < events {
        let until = (from + AT_ONCE).min(events);
        let sql = format!(
            "INSERT INTO usage_events (id, request_id, tenant_id, user_id, route, action, units, cost_cents, ts, metadata, \
                 units_micro, client_request_id, fingerprint, epoch, seq, outcome, rate_version) \
             SELECT lpad(to_hex(n + 1), 32, '0')::uuid, 'request-' || n, \
                 CASE WHEN n % {every} = 0 AND n / {every} < {largest} THEN 'largest' ELSE 'tenant-' || (n * 7919 % {TENANTS}) END, \
                 'user-' || n % 5000, '/api/v1/' || (ARRAY['documents', 'ai', 'search', 'analytics'])[1 + n % 4], \
                 (ARRAY['read', 'create'])[1 + n % 2], 1.5, 38, \
                 '2026-01-01T00:00:00Z'::timestamptz + (n::float8 / {events} * 31 * 86400) * interval '1 second', \
                 '{{\"method\":\"GET\",\"status_code\":200,\"user_agent\":\"Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0\",\
                   \"client_ip\":\"192.0.2.7\",\"response_size\":\"1024\",\"processing_time\":0.0015}}', \
                 1500000, 'request-' || n, 'v1:' || md5(n::text) || md5(n::text), \
                 '00000000-0000-7000-8000-000000000001', n + 1, 'completed', 1 \
             FROM generate_series({from}::bigint, {until}::bigint - 1) AS n"
        );
        database.execute_unprepared(&sql).await?;
        from = until;
        eprintln!("{from} of {events} events are in the ledger, which has {} MiB", disk_mib(url).await?);
    }
    let rollups = "INSERT INTO usage_rollups (tenant_id, hour, route, action, rate_version, shard, events, units_micro) \
         SELECT tenant_id, date_trunc('hour', ts), route, action, rate_version, 0, COUNT(*), SUM(units_micro) \
         FROM usage_events GROUP BY 1, 2, 3, 4, 5";
    database.execute_unprepared(rollups).await?;
    database.execute_unprepared("VACUUM ANALYZE").await?;
    let step = (events / SAMPLES).max(1);
    let sql = format!(
        "SELECT tenant_id || ' ' || id::text || ' ' || request_id FROM usage_events \
         WHERE seq % {step} IN (1, 2) AND tenant_id <> 'largest' LIMIT {SAMPLES}"
    );
    let samples = Tables::open(url).await?.texts(&sql).await?;
    let sample = |text: String| {
        let mut words = text.split(' ').map(str::to_owned);
        Some((words.next()?, words.next()?, words.next()?))
    };
    let samples = samples.into_iter().filter_map(sample).collect();
    Ok(Filled { month: "2026-01", largest: "largest", of_largest: largest, samples })
}

/// The room that the ledger takes on its disk.
pub(crate) async fn disk_mib(url: &str) -> Result<i64> {
    Tables::open(url).await?.number("SELECT pg_database_size(current_database()) / 1048576").await
}

/// Events as a gateway sends them now, of so many tenants.
pub(crate) fn batch(size: u32, tenants: u32) -> Vec<Incoming> {
    let event = |number: u32| {
        let id = Uuid::now_v7();
        let tenant = format!("tenant-{}", number % tenants);
        let event = json!({
            "specversion": "1.0", "id": id, "type": "goldleaves.usage.v1", "source": format!("gateway-{}", Uuid::nil()),
            "subject": tenant, "time": format!("2026-02-{:02}T{:02}:00:00Z", 1 + number % 28, number % 24),
            "datacontenttype": "application/json",
            "data": {
                "request_id": id.to_string(), "client_request_id": null, "user_id": format!("user-{number}"),
                "route": "/api/v1/documents", "action": "read", "units": "1", "method": "GET", "status_code": 200,
                "response_size": "1024", "processing_time": 0.0015, "outcome": "completed", "fingerprint": null,
                "epoch": id, "seq": 1, "part": null,
            },
        });
        Incoming::parse(Bytes::from(event.to_string()))
    };
    (0..size).map(event).collect()
}
