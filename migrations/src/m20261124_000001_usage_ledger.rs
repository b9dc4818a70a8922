//! Every table of the ledger: events, repeats and what was set aside; sums, rates, proofs and the rows for Stripe.

use sea_orm_migration::prelude::*;

use crate::dialect;

/// The first step.
#[derive(DeriveMigrationName)]
pub(crate) struct Step;

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, &EVENTS).await?;
        dialect::run(manager, &SUMS).await?;
        dialect::run(manager, &PROOF).await?;
        dialect::run(manager, &STRIPE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = [
            "stripe_pushes",
            "usage_receipts",
            "usage_epochs",
            "rate_cards",
            "usage_rollups",
            "usage_dead_letters",
            "usage_duplicates",
            "usage_events",
        ];
        for table in tables {
            dialect::run(manager, &[&format!("DROP TABLE {table}")]).await?;
        }
        Ok(())
    }
}

/// An event's id is in exactly one of the first three tables. `units` and `cost_cents` are for reading; only
/// `units_micro` is ever summed.
const EVENTS: [&str; 11] = [
    "CREATE TABLE usage_events (
        id UUID PRIMARY KEY NOT NULL,
        request_id VARCHAR(255) UNIQUE NOT NULL,
        tenant_id VARCHAR(255) NOT NULL,
        user_id VARCHAR(255) NOT NULL,
        route VARCHAR(500) NOT NULL,
        action VARCHAR(255) NOT NULL,
        units NUMERIC(20,6) NOT NULL DEFAULT 1.0,
        cost_cents BIGINT,
        ts TIMESTAMPTZ NOT NULL,
        metadata VARCHAR(2000),
        created_at TIMESTAMPTZ DEFAULT now(),
        updated_at TIMESTAMPTZ DEFAULT now(),
        units_micro BIGINT NOT NULL,
        client_request_id VARCHAR(255),
        fingerprint VARCHAR(80),
        epoch UUID NOT NULL,
        seq BIGINT NOT NULL,
        outcome VARCHAR(32) NOT NULL,
        rate_version BIGINT NOT NULL
    )",
    "CREATE INDEX idx_usage_tenant_ts ON usage_events (tenant_id, ts)",
    "CREATE INDEX idx_usage_user_ts ON usage_events (user_id, ts)",
    "CREATE INDEX idx_usage_route_ts ON usage_events (route, ts)",
    // Rows without a client's id or a fingerprint repeat nothing: leaving them out keeps the index small.
    "CREATE INDEX idx_usage_client_request ON usage_events
        (tenant_id, client_request_id, fingerprint, outcome, ts, id) WHERE client_request_id IS NOT NULL",
    "CREATE TABLE usage_duplicates (
        id UUID PRIMARY KEY NOT NULL,
        request_id VARCHAR(255) NOT NULL,
        tenant_id VARCHAR(255) NOT NULL,
        user_id VARCHAR(255) NOT NULL,
        route VARCHAR(500) NOT NULL,
        action VARCHAR(255) NOT NULL,
        units NUMERIC(20,6) NOT NULL DEFAULT 1.0,
        cost_cents BIGINT,
        ts TIMESTAMPTZ NOT NULL,
        metadata VARCHAR(2000),
        created_at TIMESTAMPTZ DEFAULT now(),
        updated_at TIMESTAMPTZ DEFAULT now(),
        units_micro BIGINT NOT NULL,
        client_request_id VARCHAR(255),
        fingerprint VARCHAR(80),
        epoch UUID NOT NULL,
        seq BIGINT NOT NULL,
        outcome VARCHAR(32) NOT NULL,
        rate_version BIGINT NOT NULL,
        duplicate_of UUID NOT NULL
    )",
    "CREATE INDEX idx_usage_duplicates_client_request ON usage_duplicates
        (tenant_id, client_request_id, fingerprint, outcome, ts, id)",
    "CREATE TABLE usage_dead_letters (
        id VARCHAR(64) PRIMARY KEY NOT NULL,
        tenant_id VARCHAR(255),
        request_id VARCHAR(255),
        reason VARCHAR(64) NOT NULL,
        detail VARCHAR(500),
        payload BYTEA NOT NULL,
        epoch UUID,
        seq BIGINT,
        ts TIMESTAMPTZ,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )",
    "CREATE INDEX idx_usage_dead_letters_tenant_ts ON usage_dead_letters (tenant_id, ts)",
    "CREATE INDEX idx_usage_dead_letters_reason ON usage_dead_letters (reason, created_at)",
    "CREATE INDEX idx_usage_dead_letters_epoch_seq ON usage_dead_letters (epoch, seq)",
];

/// Sums an hour, a route, an action and a rate. A row of one shard may be negative, the sum over the shards never is.
/// SQLite has no wide integers: there the sum is kept in two parts that are added apart, and `units_micro` is computed.
const SUMS: [&str; 3] = [
    "postgres@CREATE TABLE usage_rollups (
        tenant_id VARCHAR(255) NOT NULL,
        hour TIMESTAMPTZ NOT NULL,
        route VARCHAR(500) NOT NULL,
        action VARCHAR(255) NOT NULL,
        rate_version BIGINT NOT NULL,
        shard SMALLINT NOT NULL,
        events BIGINT NOT NULL,
        units_micro NUMERIC(38,0) NOT NULL,
        PRIMARY KEY (tenant_id, hour, route, action, rate_version, shard)
    ) WITH (fillfactor = 70)",
    "sqlite@CREATE TABLE usage_rollups (
        tenant_id VARCHAR(255) NOT NULL,
        hour TEXT NOT NULL,
        route VARCHAR(500) NOT NULL,
        action VARCHAR(255) NOT NULL,
        rate_version BIGINT NOT NULL,
        shard SMALLINT NOT NULL,
        events BIGINT NOT NULL,
        units_micro_high BIGINT NOT NULL,
        units_micro_low BIGINT NOT NULL,
        units_micro INTEGER GENERATED ALWAYS AS (units_micro_high * 1000000000 + units_micro_low) VIRTUAL,
        PRIMARY KEY (tenant_id, hour, route, action, rate_version, shard)
    ) WITHOUT ROWID",
    "CREATE TABLE rate_cards (
        version BIGINT PRIMARY KEY NOT NULL,
        card VARCHAR(64) NOT NULL DEFAULT 'default',
        rate_micro_cents BIGINT NOT NULL,
        effective_from TIMESTAMPTZ NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )",
];

/// The blocks of 1,024 sequence numbers with what gateways say they handed out (`usage_epochs`, `expected_*`) beside
/// what arrived (`received_*`); `seqs` has a bit for each.
const PROOF: [&str; 4] = [
    "CREATE TABLE usage_epochs (
        epoch UUID PRIMARY KEY NOT NULL,
        source VARCHAR(64) NOT NULL,
        last_seq BIGINT NOT NULL,
        events BIGINT NOT NULL,
        unrecorded BIGINT NOT NULL,
        closed BOOLEAN NOT NULL,
        seal_id UUID NOT NULL,
        sealed_at TIMESTAMPTZ NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )",
    "CREATE INDEX idx_usage_epochs_source ON usage_epochs (source, sealed_at)",
    "postgres@CREATE TABLE usage_receipts (
        epoch UUID NOT NULL,
        block BIGINT NOT NULL,
        received_count INTEGER NOT NULL,
        received_hash BIT(256) NOT NULL,
        seqs BIT(1024) NOT NULL,
        expected_count INTEGER,
        expected_hash BIT(256),
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        PRIMARY KEY (epoch, block)
    ) WITH (fillfactor = 50)",
    "sqlite@CREATE TABLE usage_receipts (
        epoch UUID NOT NULL,
        block BIGINT NOT NULL,
        received_count INTEGER NOT NULL,
        received_hash BIT(256) NOT NULL,
        seqs BIT(1024) NOT NULL,
        expected_count INTEGER,
        expected_hash BIT(256),
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        PRIMARY KEY (epoch, block)
    ) WITHOUT ROWID",
];

/// The rows that Stripe is to be told: `units_micro` is the difference to the revisions before. `stripe_customer_id` to
/// `frozen_at` are written once, before the first attempt, and never again.
const STRIPE: [&str; 2] = [
    "CREATE TABLE stripe_pushes (
        id UUID PRIMARY KEY NOT NULL,
        tenant_id VARCHAR(255) NOT NULL,
        meter VARCHAR(100) NOT NULL,
        hour TIMESTAMPTZ NOT NULL,
        revision INTEGER NOT NULL,
        units_micro NUMERIC(38,0) NOT NULL,
        state VARCHAR(32) NOT NULL,
        stripe_customer_id VARCHAR(255),
        event_name VARCHAR(100),
        value VARCHAR(40),
        event_timestamp TIMESTAMPTZ,
        identifier VARCHAR(100) UNIQUE,
        frozen_at TIMESTAMPTZ,
        attempts INTEGER NOT NULL DEFAULT 0,
        first_attempt_at TIMESTAMPTZ,
        last_attempt_at TIMESTAMPTZ,
        next_attempt_at TIMESTAMPTZ,
        pushed_at TIMESTAMPTZ,
        confirmed_at TIMESTAMPTZ,
        last_error VARCHAR(1000),
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        UNIQUE (tenant_id, meter, hour, revision)
    )",
    "CREATE INDEX idx_stripe_pushes_state ON stripe_pushes (state, next_attempt_at)",
];
