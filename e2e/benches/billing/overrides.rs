//! The price that the insert pays for rate cards of single tenants: the same batches in turns, into a ledger with none
//! and into one with many.

use std::time::Instant;

use anyhow::Result;
use goldleaves_ledger::{Ledger, StoreOptions};
use goldleaves_testkit::postgres::Postgres;
use sea_orm::{ConnectionTrait as _, Database};

use crate::fill;

const TURNS: usize = 30;
const BATCH: u32 = 1_000;

/// Microseconds per event, without overrides and with so many.
pub(crate) async fn measure(server: &Postgres, overrides: u32) -> Result<Vec<Vec<String>>> {
    let mut ledgers = Vec::new();
    for count in [0, overrides] {
        let url = server.database().await?;
        let ledger = Ledger::connect(&url, StoreOptions::default()).await?;
        ledger.set_rate("25".parse()?, "2026-01-01".parse()?).await?;
        let sql = format!(
            "INSERT INTO rate_cards (version, card, rate_micro_cents, effective_from, tenant_id, model, pricing, origin) \
             SELECT 1 + n, 'selector', 7000000, '2026-01-01T00:00:00Z', 'tenant-' || n, 'per_unit', \
                 '{{\"model\":\"per_unit\",\"cents_per_unit\":\"7\"}}', 'api' FROM generate_series(1, {count}) AS n"
        );
        Database::connect(&url).await?.execute_unprepared(&sql).await?;
        ledgers.push((count, ledger, Vec::new()));
    }
    for turn in 0..=TURNS {
        for (_, ledger, times) in &mut ledgers {
            let batch = fill::batch(BATCH, 10_000);
            let started = Instant::now();
            ledger.record(&batch).await?;
            // The first reads the cards.
            if turn > 0 {
                times.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH));
            }
        }
    }
    let row = |(count, _, mut times): (u32, Ledger, Vec<f64>)| {
        times.sort_by(f64::total_cmp);
        vec![count.to_string(), format!("{:.2}", times.get(times.len() / 2).copied().unwrap_or_default())]
    };
    Ok(ledgers.into_iter().map(row).collect())
}
