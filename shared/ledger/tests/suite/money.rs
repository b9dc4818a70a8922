//! Rates, prices and sums.

use goldleaves_billing::BillingError;
use goldleaves_domain::{Period, Units};
use goldleaves_pricing::{Pricing, Rate};

use crate::events::{at, batch, event};
use crate::harness::{Billed, Database, Kind, on_both};

on_both!(
    a_rate_makes_a_version_only_when_it_changed,
    concurrent_rates_make_one_version,
    a_row_is_priced_by_its_own_time,
    a_rows_cost_is_rounded_half_to_even_whatever_its_size,
    a_hundred_actions_cost_what_one_does,
    a_card_that_is_gone_is_named,
    twenty_thousand_of_the_largest_events_add_up,
);

async fn a_rate_makes_a_version_only_when_it_changed(database: Database) {
    let ledger = database.ledger().await;
    let rate = |text: &str| -> Rate { text.parse().unwrap() };
    let first = ledger.set_rate(rate("25"), at("2026-03-01")).await.unwrap();
    assert_eq!((first.version, first.effective_from), (1, at("0001-01-01")));
    assert_eq!(ledger.set_rate(rate("25.0"), at("2026-03-02")).await.unwrap(), first);
    let second = ledger.set_rate(rate("30"), at("2026-03-03")).await.unwrap();
    assert_eq!((second.version, second.effective_from), (2, at("2026-03-03")));
    // A clock that went back makes no version valid before an older one.
    let third = ledger.set_rate(rate("25"), at("2026-03-02")).await.unwrap();
    assert_eq!((third.version, third.effective_from), (3, at("2026-03-03")));
    assert_eq!(ledger.rate_cards().await.unwrap(), [first, second, third]);
    let mut event = event(1);
    event.ts = at("2026-03-03");
    ledger.record(&batch(&[event])).await.unwrap();
    assert_eq!(database.one("SELECT CAST(rate_version AS text) FROM usage_events").await, "3");
}

async fn concurrent_rates_make_one_version(database: Database) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let ledger = database.ledger().await;
        tasks.spawn(async move { ledger.set_rate("25".parse().unwrap(), at("2026-03-01")).await.unwrap().version });
    }
    assert_eq!(tasks.join_all().await, [1; 8]);
}

async fn a_row_is_priced_by_its_own_time(database: Database) {
    let ledger = database.priced().await;
    ledger.set_rate("100".parse().unwrap(), at("2026-03-10T10:00:02Z")).await.unwrap();
    let events: Vec<_> = (1..=3).map(event).collect();
    assert_eq!(ledger.record(&batch(&events)).await.unwrap().cost_cents.values().sum::<i64>(), 25 + 100 + 100);
    let period = Period::new(at("2026-03-01"), at("2026-04-01")).unwrap();
    let report = ledger.usage_report(&"acme".parse().unwrap(), &period).await.unwrap();
    assert_eq!(report.summary.total_cost_cents.0, 225);
    assert_eq!(report.summary.current_rate.unwrap().to_string(), "100");
}

async fn a_rows_cost_is_rounded_half_to_even_whatever_its_size(database: Database) {
    let ledger = database.ledger().await;
    let sizes = [0, 1, 499_999, 500_000, 500_001, 999_999, 1_000_000, 1_500_000, 2_500_000, 123_456_789_012_345];
    let units: Vec<u64> = sizes.into_iter().chain([1_000_000_000_000_000, 999_999_999_999_999]).collect();
    let rates = [0, 1, 500_000, 1_000_000, 1_500_000, 999_999, 25_000_001, 1_000_000_000_000, 999_999_999_999];
    let (mut number, mut expected) = (0, Vec::new());
    for (place, rate) in rates.into_iter().enumerate() {
        let rate = Rate::from_micro_cents(rate).unwrap();
        let from = at("2026-03-10").plus_micros(i64::try_from(place).unwrap() * 3_600_000_000).unwrap();
        ledger.set_rate(rate, from).await.unwrap();
        let mut events = Vec::new();
        for units in &units {
            number += 1;
            let mut event = event(number);
            event.ts = from;
            event.units = Units::from_micro(*units).unwrap();
            expected.push(vec![
                Some(event.event_id.to_string()),
                Some(Pricing::PerUnit(rate).cost(i128::from(*units)).to_string()),
            ]);
            events.push(event);
        }
        ledger.record(&batch(&events)).await.unwrap();
    }
    let rows = database.rows("SELECT CAST(id AS text), CAST(cost_cents AS text) FROM usage_events ORDER BY id").await;
    assert_eq!(rows, expected);
}

async fn a_hundred_actions_cost_what_one_does(database: Database) {
    let ledger = database.ledger().await;
    ledger.set_rate("0.4".parse().unwrap(), at("2026-03-01")).await.unwrap();
    let spread = |tenant: &str, first: u64, action: &dyn Fn(u64) -> String| {
        let mut events: Vec<_> = (first..first + 100).map(event).collect();
        for (event, number) in events.iter_mut().zip(0..) {
            event.tenant_id = tenant.parse().unwrap();
            event.action = action(number).parse().unwrap();
            event.route = format!("/r{}", number % 7).parse().unwrap();
        }
        batch(&events)
    };
    ledger.record(&spread("one", 1, &|_| "read".to_owned())).await.unwrap();
    ledger.record(&spread("many", 1_001, &|number| format!("a{number}"))).await.unwrap();
    let march = Period::new(at("2026-03-01"), at("2026-04-01")).unwrap();
    for tenant in ["one", "many"] {
        let report = ledger.usage_report(&tenant.parse().unwrap(), &march).await.unwrap();
        assert_eq!(report.summary.total_cost_cents.0, 40, "{tenant}");
        // 15 of 100 calls are 6 cents, 14 are 5.6: 5, and 6 for the first three of the five.
        let cents: Vec<i128> = report.routes.iter().map(|route| route.cost_cents.0).collect();
        assert_eq!(cents, [6, 6, 6, 6, 6, 5, 5], "{tenant}");
    }
}

async fn a_card_that_is_gone_is_named(database: Database) {
    let ledger = database.priced().await;
    ledger.set_rate("100".parse().unwrap(), at("2026-03-10T10:00:02Z")).await.unwrap();
    ledger.record(&batch(&(1..=3).map(event).collect::<Vec<_>>())).await.unwrap();
    database.execute("DELETE FROM rate_cards WHERE version = 2").await;
    let march = Period::new(at("2026-03-01"), at("2026-04-01")).unwrap();
    let error = ledger.usage_report(&"acme".parse().unwrap(), &march).await.unwrap_err();
    assert!(matches!(error, BillingError::MissingCard { version: 2 }), "{error:?}");
    assert!(error.to_string().contains("rate card version 2"), "{error}");
    // What it did not price can still be billed.
    let before = Period::new(at("2026-03-10T10:00:01Z"), at("2026-03-10T10:00:02Z")).unwrap();
    assert_eq!(ledger.usage_report(&"acme".parse().unwrap(), &before).await.unwrap().summary.total_cost_cents.0, 25);
}

async fn twenty_thousand_of_the_largest_events_add_up(database: Database) {
    let ledger = database.ledger().await;
    ledger.set_rate(Rate::from_micro_cents(1_000_000_000_000).unwrap(), at("2026-01-01")).await.unwrap();
    let events: Vec<_> = (1..=20_000)
        .map(|number| {
            let mut event = event(number);
            event.ts = at("2026-03-10T10:00:00Z").plus_micros(i64::try_from(number).unwrap()).unwrap();
            event.units = Units::from_micro(1_000_000_000_000_000).unwrap();
            event
        })
        .collect();
    for piece in events.chunks(2_000) {
        assert_eq!(ledger.record(&batch(piece)).await.unwrap().inserted, 2_000);
    }
    let tenant = "acme".parse().unwrap();
    // Once from the rollups, once from the events.
    for (start, end) in
        [("2026-03-10T10:00:00Z", "2026-03-10T11:00:00Z"), ("2026-03-10T10:00:00Z", "2026-03-10T10:59:59Z")]
    {
        let summary = ledger.usage_report(&tenant, &Period::new(at(start), at(end)).unwrap()).await.unwrap().summary;
        assert_eq!(summary.total_events, 20_000);
        assert_eq!(summary.total_units.to_string(), "20000000000000");
        assert_eq!(summary.total_cost_cents.0, 20_000 * 1_000_000_000_i128 * 1_000_000);
    }
    let period = Period::new(at("2026-03-10"), at("2026-03-11")).unwrap();
    let push = ledger.report_usage(&tenant, &period, at("2026-03-12")).await;
    assert_eq!(push.reported.to_string(), "20000000000000");
    if database.kind == Kind::Postgres {
        let units = database.one("SELECT SUM(units_micro)::text FROM usage_rollups").await;
        assert_eq!(units, "20000000000000000000");
    }
}
