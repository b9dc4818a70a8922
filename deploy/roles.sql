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

-- A worker writes what was used, and reads the rates: it can't set one.
GRANT SELECT ON seaql_migrations, rate_cards TO goldleaves_worker;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON usage_events, usage_duplicates, usage_dead_letters, usage_rollups, usage_receipts, usage_epochs
    TO goldleaves_worker;

-- billing-api reads what was used, and makes the rows for Stripe: it can't change a bill.
GRANT SELECT ON seaql_migrations, rate_cards, usage_events, usage_rollups, stripe_pushes TO goldleaves_billing;
GRANT INSERT ON stripe_pushes TO goldleaves_billing;
