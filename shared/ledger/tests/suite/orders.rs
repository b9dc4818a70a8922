//! Whatever comes, in whatever order and however often: the tables are a function of the set of events.

use std::collections::BTreeMap;

use goldleaves_domain::{Outcome, Period, UsageEvent};
use goldleaves_ledger::Ledger;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::events::{at, batch, event, fingerprint, with_client_id};
use crate::harness::{Billed, Database, Verdicts, on_both};

on_both!(any_order_of_arrival_gives_the_same_tables, a_summary_is_the_plain_sum_for_any_bounds);

fn cases() -> Config {
    let cases = std::env::var("GOLDLEAVES_SOAK_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24);
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// Where an event of a test differs from an ordinary one.
#[derive(Debug, Clone)]
struct Shape {
    tenant: u8,
    client: u8,
    print: u8,
    outcome: usize,
    minutes: i64,
    units: u32,
    route: u8,
}

impl Shape {
    fn any() -> impl Strategy<Value = Self> {
        // Few values of everything, so that most events of a set meet; 50 hours, so that some do not.
        let outcome = prop_oneof![4 => Just(0_usize), 1 => Just(1), 1 => Just(2)];
        (0..2_u8, 0..3_u8, 0..2_u8, outcome, 0..3_000_i64, 0..3_000_000_u32, 0..2_u8).prop_map(
            |(tenant, client, print, outcome, minutes, units, route)| Self {
                tenant,
                client,
                print,
                outcome,
                minutes,
                units,
                route,
            },
        )
    }

    fn event(&self, number: u64) -> UsageEvent {
        let mut event = event(number);
        event.tenant_id = format!("tenant-{}", self.tenant).parse().unwrap();
        event.fingerprint = Some(fingerprint(self.print));
        event.outcome = [Outcome::Completed, Outcome::ClientAborted, Outcome::GatewayStopped][self.outcome];
        event.ts = at("2026-03-10").plus_micros(self.minutes * 60_000_000).unwrap();
        event.units = goldleaves_domain::Units::from_micro(u64::from(self.units)).unwrap();
        event.route = format!("/api/{}", self.route).parse().unwrap();
        if self.client == 0 { event } else { with_client_id(event, &format!("c{}", self.client)) }
    }
}

/// Events, an order of arrival in which each may come several times, and the size of batches.
fn arrivals() -> impl Strategy<Value = (Vec<UsageEvent>, Vec<UsageEvent>, usize)> {
    vec((Shape::any(), 1..3_usize), 1..20)
        .prop_map(|shapes| {
            let shapes = shapes.into_iter().zip(1_u64..);
            shapes.map(|((shape, copies), number)| (shape.event(number), copies)).collect::<Vec<_>>()
        })
        .prop_flat_map(|events| {
            let copies = events.iter().flat_map(|(event, copies)| std::iter::repeat_n(event.clone(), *copies));
            let copies = Just(copies.collect::<Vec<_>>()).prop_shuffle();
            let events: Vec<UsageEvent> = events.into_iter().map(|(event, _)| event).collect();
            (Just(events), copies, 1..8_usize)
        })
}

async fn record_all(ledger: &Ledger, events: &[UsageEvent], size: usize) {
    for piece in events.chunks(size) {
        ledger.record(&batch(piece)).await.unwrap();
    }
}

/// Everything that may not depend on the order: all but labels, times of writing and shards.
async fn essence(database: &Database) -> Vec<String> {
    let mut essence = database.dump_table("usage_events", &["request_id", "created_at", "updated_at"]).await;
    essence.extend(database.dump_table("usage_duplicates", &["created_at", "updated_at"]).await);
    essence.extend(database.dump_table("usage_receipts", &["created_at", "updated_at"]).await);
    essence
}

async fn any_order_of_arrival_gives_the_same_tables(database: Database) {
    let ledger = database.priced().await;
    let check = async |(events, copies, size): (Vec<UsageEvent>, Vec<UsageEvent>, usize)| {
        database.clear().await;
        record_all(&ledger, &copies, size).await;
        prop_assert_eq!(database.verdicts().await, Verdicts::of(&events));
        database.check_invariants().await;
        let one = essence(&database).await;
        database.clear().await;
        record_all(&ledger, &events, 100).await;
        prop_assert_eq!(essence(&database).await, one);
        Ok(())
    };
    run(&arrivals(), check);
}

/// Runs a property whose body waits for a database.
fn run<S: Strategy>(strategy: &S, check: impl AsyncFn(S::Value) -> Result<(), TestCaseError>) {
    tokio::task::block_in_place(|| {
        let handle = tokio::runtime::Handle::current();
        TestRunner::new(cases()).run(strategy, |value| handle.block_on(check(value))).unwrap();
    });
}

async fn a_summary_is_the_plain_sum_for_any_bounds(database: Database) {
    let ledger = database.ledger().await;
    // Three rates that leave fractions of a cent, changing within the events' two days.
    for (rate, from) in
        [("0.3", "2026-01-01"), ("0.7", "2026-03-10T13:20:00Z"), ("1.123457", "2026-03-11T00:00:00.000001Z")]
    {
        ledger.set_rate(rate.parse().unwrap(), at(from)).await.unwrap();
    }
    let cards = ledger.rate_cards().await.unwrap();
    let bound = || (-60..3_060_i64, 0..3_i64).prop_map(|(minutes, micros)| minutes * 60_000_000 + micros - 1);
    let strategy = (vec(Shape::any(), 1..30), vec((bound(), bound()), 12));
    let check = async |(shapes, bounds): (Vec<Shape>, Vec<(i64, i64)>)| {
        database.clear().await;
        let events: Vec<UsageEvent> = shapes.iter().zip(1..).map(|(shape, number)| shape.event(number)).collect();
        record_all(&ledger, &events, 5).await;
        let billed = Verdicts::of(&events).billed;
        for (one, other) in bounds {
            let bound = |micros| at("2026-03-10").plus_micros(micros).unwrap();
            let Ok(period) = Period::new(bound(one.min(other)), bound(one.max(other))) else { continue };
            let mut lines: BTreeMap<(String, i64), (i64, i128)> = BTreeMap::new();
            for event in &events {
                let is_in = period.start() <= event.ts && event.ts < period.end();
                let is_billed = billed.contains(&event.event_id.to_string());
                if is_in && is_billed && event.tenant_id.as_str() == "tenant-0" {
                    let version = cards.iter().rfind(|card| card.effective_from <= event.ts).unwrap().version;
                    let line = lines.entry((event.route.as_str().to_owned(), version)).or_default();
                    *line = (line.0 + 1, line.1 + i128::from(event.units.micro()));
                }
            }
            let cost: i128 = cards
                .iter()
                .map(|card| {
                    let of_card = lines.iter().filter(|((_, version), _)| *version == card.version);
                    card.pricing.cost(of_card.map(|(_, line)| line.1).sum()).0
                })
                .sum();
            let report = ledger.usage_report(&"tenant-0".parse().unwrap(), &period).await.unwrap();
            prop_assert_eq!(report.summary.total_events, lines.values().map(|line| line.0).sum::<i64>());
            prop_assert_eq!(report.summary.total_units.0, lines.values().map(|line| line.1).sum::<i128>());
            prop_assert_eq!(report.summary.total_cost_cents.0, cost);
            prop_assert_eq!(report.routes.iter().map(|route| route.cost_cents.0).sum::<i128>(), cost);
            let routes: std::collections::BTreeSet<&String> = lines.keys().map(|key| &key.0).collect();
            prop_assert_eq!(report.summary.unique_routes, routes.len() as u64);
            prop_assert!(report.routes.iter().map(|route| &route.route).eq(routes));
        }
        Ok(())
    };
    run(&strategy, check);
}
