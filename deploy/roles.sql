-- The programs' own logins, run by the owner of the tables after `migrate`. Doing it again changes nothing but passwords.
-- psql fills the passwords in: psql -v worker_password=… -v billing_password=… -f deploy/roles.sql

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'goldleaves_worker') THEN
        CREATE ROLE goldleaves_worker LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'goldleaves_billing') THEN
        CREATE ROLE goldleaves_billing LOGIN;
    END IF;
END
$$;
ALTER ROLE goldleaves_worker PASSWORD :'worker_password';
ALTER ROLE goldleaves_billing PASSWORD :'billing_password';

-- A worker writes what was used, and reads the rates: it can't set one. Of billing's tables it reads which rows are void,
-- adds what follows from that, and marks hours that changed after their end.
GRANT SELECT ON seaql_migrations, schema_steps, rate_cards, usage_corrections, usage_late_hours, usage_archived
    TO goldleaves_worker;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON usage_events, usage_duplicates, usage_dead_letters, usage_rollups, usage_receipts, usage_epochs,
       ledger_progress
    TO goldleaves_worker;
GRANT INSERT ON usage_corrections TO goldleaves_worker;
GRANT INSERT, UPDATE ON usage_late_hours TO goldleaves_worker;

-- billing-api reads what was used. A bill changes only by rows it adds: it can't alter or remove one, nor an event.
GRANT SELECT ON
    seaql_migrations, schema_steps, rate_cards, usage_events, usage_duplicates, usage_dead_letters, usage_rollups,
    usage_epochs, usage_receipts, usage_corrections, usage_late_hours, usage_archives, usage_archived, billing_tenants,
    billing_periods, billing_lines, billing_audit, stripe_pushes, stripe_state, stripe_meters, stripe_mappings,
    stripe_lanes, stripe_events, usage_limits, budget_leases, limit_crossings
    TO goldleaves_billing;
GRANT INSERT ON
    rate_cards, usage_corrections, billing_periods, billing_lines, billing_audit, usage_limits, limit_crossings,
    stripe_mappings, stripe_pushes
    TO goldleaves_billing;
-- State that is written again: none of it is part of a bill.
GRANT INSERT, UPDATE ON
    billing_tenants, usage_late_hours, stripe_state, stripe_meters, stripe_lanes, stripe_events, budget_leases
    TO goldleaves_billing;
GRANT UPDATE ON limit_crossings TO goldleaves_billing;
-- How far a row for Stripe has come; never whose, of when or how much it is.
GRANT UPDATE
    (state, stripe_customer_id, event_name, value, event_timestamp, identifier, frozen_at, attempts, first_attempt_at,
     last_attempt_at, next_attempt_at, pushed_at, confirmed_at, last_error, updated_at, key_suffix, read_back_at,
     absent_since, origin)
    ON stripe_pushes TO goldleaves_billing;
GRANT DELETE ON budget_leases, stripe_events TO goldleaves_billing;
