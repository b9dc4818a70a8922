//! The bare statement: the same rows into the guide's table and a rollup of them, arrays in, one connection, nothing else.

use std::time::Instant;

use anyhow::{Context as _, Result};
use goldleaves_domain::{Epoch, UsageEvent};
use goldleaves_testkit::postgres::Postgres;
use sea_orm::sqlx::{self, Connection as _, PgConnection};
use uuid::Uuid;

use crate::{Arguments, Cpu, Measured, events};

/// The rows of one statement, as a worker's batch has.
const ROWS: usize = 1_000;

const TABLES: &str = "CREATE TABLE usage_events (id UUID PRIMARY KEY, request_id VARCHAR(255) UNIQUE NOT NULL, \
        tenant_id VARCHAR(255) NOT NULL, user_id VARCHAR(255) NOT NULL, route VARCHAR(500) NOT NULL, \
        action VARCHAR(255) NOT NULL, units FLOAT NOT NULL DEFAULT 1.0, cost_cents INTEGER, \
        ts TIMESTAMP WITH TIME ZONE NOT NULL, metadata VARCHAR(2000), created_at TIMESTAMP WITH TIME ZONE, \
        updated_at TIMESTAMP WITH TIME ZONE); \
    CREATE INDEX idx_usage_tenant_ts ON usage_events(tenant_id, ts); \
    CREATE INDEX idx_usage_user_ts ON usage_events(user_id, ts); \
    CREATE INDEX idx_usage_route_ts ON usage_events(route, ts); \
    CREATE TABLE rollups (tenant_id TEXT, hour TIMESTAMPTZ, route TEXT, action TEXT, events BIGINT, units FLOAT, \
        PRIMARY KEY (tenant_id, hour, route, action))";

const STATEMENT: &str = "WITH new AS (INSERT INTO usage_events \
        SELECT id, request_id, tenant_id, user_id, route, action, 1.0, 25, to_timestamp(ts / 1e6), metadata, now(), now() \
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[]) \
            AS u(id, request_id, tenant_id, user_id, route, action, ts, metadata) \
        ON CONFLICT DO NOTHING RETURNING tenant_id, ts, route, action, units) \
    INSERT INTO rollups AS r SELECT tenant_id, date_trunc('hour', ts), route, action, count(*), sum(units) FROM new \
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 \
        ON CONFLICT (tenant_id, hour, route, action) \
        DO UPDATE SET events = r.events + EXCLUDED.events, units = r.units + EXCLUDED.units";

/// Writes the rows into a database of its own.
pub(crate) async fn measure(postgres: &Postgres, arguments: &Arguments) -> Result<Measured> {
    let url = postgres.empty_database().await?;
    let name = url.rsplit('/').next().context("a database")?;
    postgres.execute_in(name, TABLES).await?;
    let epoch = Epoch::new(Uuid::now_v7());
    let rows: Result<Vec<(UsageEvent, String)>> = (0..arguments.events)
        .map(|number| {
            let event = events::event(number, epoch, arguments)?;
            let metadata = event.metadata_json();
            Ok((event, metadata))
        })
        .collect();
    let rows = rows?;
    let mut connection = PgConnection::connect(&url).await?;
    let before = Cpu::of_children(postgres)?;
    let start = Instant::now();
    for rows in rows.chunks(ROWS) {
        insert(&mut connection, rows).await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let postgres = (Cpu::of_children(postgres)? - before).micros_each(arguments.events);
    connection.close().await?;
    let events_per_second = arguments.events as f64 / seconds;
    Ok(Measured { events_per_second, publish_nats: 0.0, worker: 0.0, nats: 0.0, postgres })
}

async fn insert(connection: &mut PgConnection, rows: &[(UsageEvent, String)]) -> Result<()> {
    let texts = |of: fn(&UsageEvent) -> &str| rows.iter().map(|(event, _)| of(event)).collect::<Vec<&str>>();
    sqlx::query(STATEMENT)
        .bind(rows.iter().map(|(event, _)| *event.event_id.as_uuid()).collect::<Vec<Uuid>>())
        .bind(texts(|event| event.request_id.as_str()))
        .bind(texts(|event| event.tenant_id.as_str()))
        .bind(texts(|event| event.user_id.as_str()))
        .bind(texts(|event| event.route.as_str()))
        .bind(texts(|event| event.action.as_str()))
        .bind(rows.iter().map(|(event, _)| event.ts.unix_micros()).collect::<Vec<i64>>())
        .bind(rows.iter().map(|(_, metadata)| metadata.as_str()).collect::<Vec<&str>>())
        .execute(connection)
        .await
        .context("the bare statement")?;
    Ok(())
}
