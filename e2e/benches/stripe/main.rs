//! Measures the push of usage to Stripe: many tenants with usage in one hour, how long it takes until all rows are there, how
//! fast they are sent, and what the program holds in memory meanwhile.
//!
//! Stripe is the test kit's double. Started by `cargo xtask bench stripe`, which builds the program first. It prints Markdown.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use goldleaves_e2e::process::own_memory_kib;
use goldleaves_e2e::tables::Tables;
use goldleaves_ledger::{Ledger, StoreOptions};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::program::Launch;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::stripe::StripeDouble;
use sea_orm::{ConnectionTrait as _, Database};

const METER: &str = "goldleaves_units";
/// The longest time rows may take to be there.
const PATIENCE: Duration = Duration::from_secs(300);

/// The arguments that say what to measure.
#[derive(Parser)]
#[command(name = "cargo xtask bench stripe --")]
struct Arguments {
    /// Tenants with usage in the hour, each with a customer of its own.
    #[arg(long, default_value_t = 100_000)]
    tenants: u32,
    /// `STRIPE_CALLS_PER_SECOND`.
    #[arg(long, default_value_t = 100)]
    calls_per_second: u32,
    /// The time for which the push is watched.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The flag that Cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let (server, double) = (Postgres::start().await?, StripeDouble::start().await?);
    let url = server.database().await?;
    double.add_meter("mtr_units", METER);
    (1..=arguments.tenants).for_each(|number| double.add_customer(&format!("cus_{number}")));
    fill(&url, arguments.tenants).await?;
    let scratch = Scratch::new("bench-stripe")?;
    let settings = [
        ("DATABASE_URL", url.clone()),
        ("JWT_SECRET", "a-secret-for-measuring-of-enough-bytes-0123456789".to_owned()),
        ("BILLING_ADDR", "127.0.0.1:0".to_owned()),
        ("OPS_ADDR", "127.0.0.1:0".to_owned()),
        ("STRIPE_API_KEY", "rk_test_double".to_owned()),
        ("STRIPE_API_BASE", double.url()),
        ("STRIPE_CALLS_PER_SECOND", arguments.calls_per_second.to_string()),
    ];
    let mut program = Launch::new("billing-api", scratch.path()).settings(settings).start()?;
    program.address("billing listens on").await?;
    let (tables, started, mut most) = (Tables::open(&url).await?, Instant::now(), 0);
    let memory = || own_memory_kib(program.id()).map(|kib| kib / 1024);
    let before = memory()?;
    wait_for("a row for each tenant", PATIENCE, async || {
        most = most.max(memory()?);
        let rows = tables.number("SELECT COUNT(*) FROM stripe_pushes").await?;
        Ok((rows == i64::from(arguments.tenants)).then_some(()))
    })
    .await?;
    let sealed = started.elapsed();
    let calls = || double.calls("send") + double.calls("summaries") + double.calls("meter");
    let (sent, called, started, at_sealing) = (double.calls("send"), calls(), Instant::now(), memory()?);
    let (length, mut middle) = (Duration::from_secs(arguments.seconds), None);
    while started.elapsed() < length {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = memory()?;
        most = most.max(now);
        middle = middle.or((started.elapsed() >= length / 2).then_some(now));
    }
    let rate = |count: u64| format!("{:.1}", count as f64 / started.elapsed().as_secs_f64());
    println!("\n### Push of one hour of {} tenants\n\n| what | measured |\n|---|---:|", arguments.tenants);
    println!("| until every row was there | {:.1} s |", sealed.as_secs_f64());
    println!("| calls to Stripe per second, of {} allowed | {} |", arguments.calls_per_second, rate(calls() - called));
    println!("| of these, events sent per second | {} |", rate(double.calls("send") - sent));
    let (middle, end) = (middle.unwrap_or_default(), memory()?);
    println!(
        "| memory at the start, when all rows were there, in the middle of the push and at its end | {before}, {at_sealing}, {middle}, {end} MiB |"
    );
    println!("| the most that was held | {most} MiB |");
    ensure!(double.violations().is_empty(), "{:?}", double.violations());
    Ok(())
}

/// An hour of usage of each tenant, and whose customer each is.
async fn fill(url: &str, tenants: u32) -> Result<()> {
    Ledger::connect(url, StoreOptions::default()).await?.set_rate("25".parse()?, "2026-01-01".parse()?).await?;
    let database = Database::connect(url).await?;
    let hour = "date_trunc('hour', now()) - interval '2 hours'";
    for sql in [
        format!(
            "INSERT INTO usage_rollups (tenant_id, hour, route, action, rate_version, shard, events, units_micro) \
             SELECT 'tenant-' || n, {hour}, '/api/v1/documents', 'read', 1, 0, n % 90 + 1, (n % 90 + 1) * 1000000 \
             FROM generate_series(1, {tenants}) AS n"
        ),
        format!(
            "INSERT INTO stripe_meters (meter, event_name, stripe_meter_id, places) VALUES ('{METER}', '{METER}', 'mtr_units', 6)"
        ),
        format!(
            "INSERT INTO stripe_mappings (tenant_id, meter, from_hour, stripe_customer_id, actor) \
             SELECT 'tenant-' || n, '{METER}', {hour}, 'cus_' || n, 'bench' FROM generate_series(1, {tenants}) AS n"
        ),
        "VACUUM ANALYZE".to_owned(),
    ] {
        database.execute_unprepared(&sql).await?;
    }
    Ok(())
}
