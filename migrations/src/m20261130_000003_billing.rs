//! The tables of billing: prices for some, tenants' zones, corrections, closed periods, Stripe's state, limits, archives
//! and the record of who changed what.
//!
//! It only adds, so that programs of the step before go on beside it. Statements that other writers wait for come last,
//! and each of them takes a moment however many rows there are.

use sea_orm_migration::prelude::*;

use crate::dialect;

/// The third step.
#[derive(DeriveMigrationName)]
pub(crate) struct Step;

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statements in [&PERIODS[..], &STRIPE, &LIMITS, &ARCHIVES, &CARDS, &PUSHES] {
            dialect::run(manager, statements).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, &UNDO).await?;
        for table in TABLES {
            dialect::run(manager, &[&format!("DROP TABLE {table}")]).await?;
        }
        Ok(())
    }
}

/// Made by this step, last first.
const TABLES: [&str; 16] = [
    "billing_audit",
    "usage_archived",
    "usage_archives",
    "limit_crossings",
    "budget_leases",
    "usage_limits",
    "stripe_events",
    "stripe_lanes",
    "stripe_mappings",
    "stripe_meters",
    "stripe_state",
    "billing_lines",
    "billing_periods",
    "usage_late_hours",
    "usage_corrections",
    "billing_tenants",
];

/// A correction is added to an hour and never changed. A period is closed once; its lines are what was billed then.
const PERIODS: [&str; 11] = [
    "CREATE TABLE billing_tenants (
        tenant_id VARCHAR(255) PRIMARY KEY NOT NULL,
        time_zone VARCHAR(64) NOT NULL,
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )",
    "CREATE TABLE usage_corrections (
        id UUID PRIMARY KEY NOT NULL,
        tenant_id VARCHAR(255) NOT NULL,
        kind VARCHAR(16) NOT NULL,
        event_id UUID,
        follows UUID,
        ts TIMESTAMPTZ NOT NULL,
        route VARCHAR(500) NOT NULL,
        action VARCHAR(255) NOT NULL,
        rate_version BIGINT NOT NULL,
        events BIGINT NOT NULL,
        units_micro BIGINT NOT NULL,
        cents BIGINT NOT NULL,
        actor VARCHAR(255) NOT NULL,
        reason VARCHAR(500) NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        CHECK (kind = 'amount' OR event_id IS NOT NULL)
    )",
    "CREATE INDEX idx_usage_corrections_tenant_ts ON usage_corrections (tenant_id, ts)",
    "CREATE INDEX idx_usage_corrections_event ON usage_corrections (event_id)",
    "CREATE TABLE usage_late_hours (
        tenant_id VARCHAR(255) NOT NULL,
        hour TIMESTAMPTZ NOT NULL,
        changes BIGINT NOT NULL,
        sealed BIGINT NOT NULL DEFAULT 0,
        changed_at TIMESTAMPTZ NOT NULL,
        PRIMARY KEY (tenant_id, hour)
    )",
    "CREATE INDEX idx_usage_late_hours_open ON usage_late_hours (changed_at) WHERE changes <> sealed",
    "CREATE TABLE billing_periods (
        tenant_id VARCHAR(255) NOT NULL,
        number BIGINT NOT NULL,
        starts_at TIMESTAMPTZ NOT NULL,
        ends_at TIMESTAMPTZ NOT NULL,
        time_zone VARCHAR(64) NOT NULL,
        tzdb VARCHAR(16) NOT NULL,
        total_cents NUMERIC(38,0) NOT NULL,
        lines_hash CHAR(64) NOT NULL,
        actor VARCHAR(255) NOT NULL,
        reason VARCHAR(500) NOT NULL,
        closed_at TIMESTAMPTZ NOT NULL,
        PRIMARY KEY (tenant_id, number),
        UNIQUE (tenant_id, starts_at),
        CHECK (starts_at < ends_at)
    )",
    "CREATE TABLE billing_lines (
        tenant_id VARCHAR(255) NOT NULL,
        number BIGINT NOT NULL,
        line INTEGER NOT NULL,
        for_number BIGINT NOT NULL,
        kind VARCHAR(16) NOT NULL,
        route VARCHAR(500) NOT NULL,
        action VARCHAR(255) NOT NULL,
        rate_version BIGINT NOT NULL,
        events BIGINT NOT NULL,
        units_micro NUMERIC(38,0) NOT NULL,
        cents NUMERIC(38,0) NOT NULL,
        PRIMARY KEY (tenant_id, number, line)
    )",
    "CREATE INDEX idx_billing_lines_for ON billing_lines (tenant_id, for_number)",
    "CREATE TABLE billing_audit (
        id UUID PRIMARY KEY NOT NULL,
        at TIMESTAMPTZ NOT NULL,
        actor VARCHAR(255) NOT NULL,
        roles VARCHAR(255) NOT NULL,
        request_id VARCHAR(255) NOT NULL,
        action VARCHAR(64) NOT NULL,
        tenant_id VARCHAR(255) NOT NULL,
        body VARCHAR(8000) NOT NULL
    )",
    "CREATE INDEX idx_billing_audit_at ON billing_audit (at)",
];

/// The customer of each tenant's usage, and how far the calls to Stripe have come.
const STRIPE: [&str; 6] = [
    "CREATE INDEX idx_billing_audit_tenant_at ON billing_audit (tenant_id, at)",
    "CREATE TABLE stripe_state (
        id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
        generation UUID NOT NULL,
        livemode BOOLEAN
    )",
    "CREATE TABLE stripe_meters (
        meter VARCHAR(100) PRIMARY KEY NOT NULL,
        event_name VARCHAR(100) UNIQUE NOT NULL,
        stripe_meter_id VARCHAR(255) NOT NULL,
        route VARCHAR(500) NOT NULL DEFAULT '',
        places SMALLINT NOT NULL,
        checked_at TIMESTAMPTZ,
        unfit VARCHAR(500)
    )",
    "CREATE TABLE stripe_mappings (
        tenant_id VARCHAR(255) NOT NULL,
        meter VARCHAR(100) NOT NULL,
        from_hour TIMESTAMPTZ NOT NULL,
        stripe_customer_id VARCHAR(255),
        actor VARCHAR(255) NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, meter, from_hour)
    )",
    "CREATE TABLE stripe_lanes (
        stripe_customer_id VARCHAR(255) NOT NULL,
        event_name VARCHAR(100) NOT NULL,
        owner UUID,
        leased_until TIMESTAMPTZ NOT NULL DEFAULT now(),
        checked_at TIMESTAMPTZ,
        blocked VARCHAR(64),
        blocked_at TIMESTAMPTZ,
        PRIMARY KEY (stripe_customer_id, event_name)
    )",
    "CREATE TABLE stripe_events (
        id VARCHAR(255) PRIMARY KEY NOT NULL,
        type VARCHAR(255) NOT NULL,
        related_id VARCHAR(255),
        received_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        processed_at TIMESTAMPTZ
    )",
];

/// The limits of what a tenant may spend, what gateways hold of it, and which thresholds were crossed.
const LIMITS: [&str; 5] = [
    "CREATE TABLE usage_limits (
        tenant_id VARCHAR(255) NOT NULL,
        period VARCHAR(16) NOT NULL,
        version BIGINT NOT NULL,
        soft_micro BIGINT,
        hard_micro BIGINT,
        soft_cents BIGINT,
        hard_cents BIGINT,
        actor VARCHAR(255) NOT NULL,
        reason VARCHAR(500) NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, period, version)
    )",
    "CREATE TABLE budget_leases (
        id UUID PRIMARY KEY NOT NULL,
        tenant_id VARCHAR(255) NOT NULL,
        period_start TIMESTAMPTZ NOT NULL,
        source VARCHAR(64) NOT NULL,
        epoch UUID NOT NULL,
        charge_micro BIGINT NOT NULL,
        through_seq BIGINT,
        expires_at TIMESTAMPTZ NOT NULL
    )",
    "CREATE INDEX idx_budget_leases_tenant ON budget_leases (tenant_id, period_start)",
    "CREATE INDEX idx_budget_leases_epoch ON budget_leases (epoch)",
    "CREATE TABLE limit_crossings (
        tenant_id VARCHAR(255) NOT NULL,
        period_start TIMESTAMPTZ NOT NULL,
        version BIGINT NOT NULL,
        threshold VARCHAR(16) NOT NULL,
        id UUID UNIQUE NOT NULL,
        crossed_at TIMESTAMPTZ NOT NULL,
        delivered_at TIMESTAMPTZ,
        attempts INTEGER NOT NULL DEFAULT 0,
        next_attempt_at TIMESTAMPTZ,
        PRIMARY KEY (tenant_id, period_start, version, threshold)
    )",
];

/// Hours whose rows lie in files, and what must still be known of these rows.
const ARCHIVES: [&str; 4] = [
    "CREATE TABLE usage_archives (
        id UUID PRIMARY KEY NOT NULL,
        from_hour TIMESTAMPTZ NOT NULL,
        to_hour TIMESTAMPTZ NOT NULL,
        state VARCHAR(16) NOT NULL,
        location VARCHAR(500) NOT NULL,
        manifest_sha256 CHAR(64) NOT NULL,
        rows BIGINT NOT NULL,
        units_micro NUMERIC(38,0) NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        verified_at TIMESTAMPTZ,
        dropped_at TIMESTAMPTZ,
        restored_at TIMESTAMPTZ
    )",
    "CREATE TABLE usage_archived (
        id UUID PRIMARY KEY NOT NULL,
        archive UUID NOT NULL,
        request_id VARCHAR(255),
        tenant_id VARCHAR(255),
        client_request_id VARCHAR(255),
        fingerprint VARCHAR(80),
        outcome VARCHAR(32),
        ts TIMESTAMPTZ,
        duplicate_of UUID
    )",
    "CREATE UNIQUE INDEX idx_usage_archived_request ON usage_archived (request_id) WHERE request_id IS NOT NULL",
    "CREATE INDEX idx_usage_archived_client_request ON usage_archived
        (tenant_id, client_request_id, fingerprint, outcome, ts, id) WHERE client_request_id IS NOT NULL",
];

/// A card may be for one tenant, route or action ('' is any), and hold more than one rate.
const CARDS: [&str; 11] = [
    "ALTER TABLE rate_cards ADD id UUID",
    "ALTER TABLE rate_cards ADD tenant_id VARCHAR(255) NOT NULL DEFAULT ''",
    "ALTER TABLE rate_cards ADD route VARCHAR(500) NOT NULL DEFAULT ''",
    "ALTER TABLE rate_cards ADD action VARCHAR(255) NOT NULL DEFAULT ''",
    "ALTER TABLE rate_cards ADD model VARCHAR(16) NOT NULL DEFAULT 'per_unit'",
    "ALTER TABLE rate_cards ADD pricing VARCHAR(4000)",
    "ALTER TABLE rate_cards ADD origin VARCHAR(16) NOT NULL DEFAULT 'setting'",
    "ALTER TABLE rate_cards ADD actor VARCHAR(255)",
    "ALTER TABLE rate_cards ADD reason VARCHAR(500)",
    "CREATE UNIQUE INDEX idx_rate_cards_id ON rate_cards (id)",
    "CREATE INDEX idx_rate_cards_place ON rate_cards (tenant_id, route, action, effective_from, version)",
];

const PUSHES: [&str; 5] = [
    "ALTER TABLE stripe_pushes ADD key_suffix INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE stripe_pushes ADD read_back_at TIMESTAMPTZ",
    "ALTER TABLE stripe_pushes ADD absent_since TIMESTAMPTZ",
    "ALTER TABLE stripe_pushes ADD origin VARCHAR(16) NOT NULL DEFAULT 'sealed'",
    "CREATE UNIQUE INDEX idx_stripe_pushes_minute ON stripe_pushes (stripe_customer_id, event_name, event_timestamp)",
];

const UNDO: [&str; 16] = [
    "DROP INDEX idx_stripe_pushes_minute",
    "ALTER TABLE stripe_pushes DROP COLUMN origin",
    "ALTER TABLE stripe_pushes DROP COLUMN absent_since",
    "ALTER TABLE stripe_pushes DROP COLUMN read_back_at",
    "ALTER TABLE stripe_pushes DROP COLUMN key_suffix",
    "DROP INDEX idx_rate_cards_place",
    "DROP INDEX idx_rate_cards_id",
    "ALTER TABLE rate_cards DROP COLUMN reason",
    "ALTER TABLE rate_cards DROP COLUMN actor",
    "ALTER TABLE rate_cards DROP COLUMN origin",
    "ALTER TABLE rate_cards DROP COLUMN pricing",
    "ALTER TABLE rate_cards DROP COLUMN model",
    "ALTER TABLE rate_cards DROP COLUMN action",
    "ALTER TABLE rate_cards DROP COLUMN route",
    "ALTER TABLE rate_cards DROP COLUMN tenant_id",
    "ALTER TABLE rate_cards DROP COLUMN id",
];
