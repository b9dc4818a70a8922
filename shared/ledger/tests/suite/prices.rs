//! How a price comes to be: what the setting changes and when, which card prices a row, and that no worker prices by an
//! older one.

use goldleaves_domain::{Period, Timestamp, UsageEvent};
use goldleaves_ledger::{Leap, Ledger, RateChange, read_rate_cards, write_rate_cards};
use goldleaves_pricing::{Pricing, Rate};
use rand::{Rng as _, SeedableRng as _};

use crate::events::{at, batch, event};
use crate::harness::{Billed, Database, Kind, on_both};

on_both!(
    an_unset_price_changes_nothing,
    a_leap_of_the_price_is_refused,
    a_price_that_waits_for_its_day_stays,
    a_price_of_the_api_is_not_undone,
    a_price_is_valid_after_everything_that_was_priced,
    a_card_between_reading_and_pricing_is_noticed,
    a_row_is_priced_by_the_narrowest_card,
);

fn rate(text: &str) -> Option<Rate> {
    Some(text.parse().unwrap())
}

/// An event of acme at a time.
fn event_at(number: u64, ts: Timestamp) -> UsageEvent {
    let mut event = event(number);
    event.ts = ts;
    event
}

async fn an_unset_price_changes_nothing(database: Database) {
    let ledger = database.ledger().await;
    // Nobody says a price: an empty ledger gets one, and a start later changes nothing.
    let RateChange::First(first) = ledger.apply_rate(None, Leap::Refused).await.unwrap() else { panic!("the first") };
    assert_eq!(first.to_string(), "version 1, 25 cents per unit from 0001-01-01T00:00:00.000000Z");
    let RateChange::Changed { from, to } = ledger.apply_rate(rate("10"), Leap::Refused).await.unwrap() else {
        panic!("another price");
    };
    assert_eq!((from.version, to.version, to.pricing.short()), (1, 2, "10".to_owned()));
    for setting in [None, rate("10"), rate("10.000")] {
        let unchanged = ledger.apply_rate(setting, Leap::Refused).await.unwrap();
        assert_eq!(unchanged.to_string(), "price unchanged: 10 cents per unit, version 2");
    }
    let changed = ledger.apply_rate(rate("25"), Leap::Refused).await.unwrap().to_string();
    assert!(changed.starts_with("price: 10 → 25 from 2"), "{changed}");
    assert_eq!(database.count("rate_cards").await, 3);
}

async fn a_leap_of_the_price_is_refused(database: Database) {
    let ledger = database.ledger().await;
    // The first price may be any.
    ledger.apply_rate(rate("10"), Leap::Refused).await.unwrap();
    for wanted in ["40.000001", "2.499999", "0"] {
        let refused = ledger.apply_rate(rate(wanted), Leap::Refused).await.unwrap();
        assert!(matches!(refused, RateChange::TooFar { .. }), "{wanted}: {refused:?}");
        assert!(refused.to_string().contains(&format!("10 → {wanted} would be")), "{refused}");
        assert_eq!(database.count("rate_cards").await, 1);
    }
    for (wanted, leap) in [("40", Leap::Refused), ("10", Leap::Refused), ("0", Leap::Allowed), ("1", Leap::Allowed)] {
        let changed = ledger.apply_rate(rate(wanted), leap).await.unwrap();
        assert!(matches!(changed, RateChange::Changed { .. }), "{wanted}: {changed:?}");
    }
}

async fn a_price_that_waits_for_its_day_stays(database: Database) {
    let ledger = database.ledger().await;
    ledger.import_rate_cards(&crate::cards::cards("25 from 0001-01-01, 30 from 2100-01-01")).await.unwrap();
    let before = database.dump().await;
    for setting in [rate("25"), None, rate("30")] {
        let said = ledger.apply_rate(setting, Leap::Refused).await.unwrap().to_string();
        assert!(said.starts_with("price unchanged: 25 cents per unit, version 1; version 2, 30 cents"), "{said}");
    }
    assert_eq!(database.dump().await, before);
}

async fn a_price_of_the_api_is_not_undone(database: Database) {
    let ledger = database.priced().await;
    let file = write_rate_cards(&ledger.rate_cards().await.unwrap())
        + r#"{"version":2,"card":"default","cents_per_unit":"20","effective_from":"2026-03-01T00:00:00Z","origin":"api"}"#;
    ledger.import_rate_cards(&read_rate_cards(&file).unwrap()).await.unwrap();
    let said = ledger.apply_rate(rate("25"), Leap::Refused).await.unwrap().to_string();
    assert_eq!(said, "price unchanged: 20 cents per unit, version 2");
    // Another one than the setting said last is meant.
    let said = ledger.apply_rate(rate("26"), Leap::Refused).await.unwrap().to_string();
    assert!(said.starts_with("price: 20 → 26 from"), "{said}");
}

async fn a_price_is_valid_after_everything_that_was_priced(database: Database) {
    let ledger = database.priced().await;
    let start = at("2026-03-10T10:00:00Z");
    let later = |seconds: i64| start.plus_micros(seconds * 1_000_000).unwrap();
    // A billed row, and a repeat that is later than every billed one.
    let mut first = event_at(1, later(10));
    let mut repeat = event_at(2, later(3_700));
    for event in [&mut first, &mut repeat] {
        *event = crate::events::with_client_id(event.clone(), "c");
    }
    ledger.record(&batch(&[first.clone(), event_at(3, later(20))])).await.unwrap();
    let card = ledger.set_rate("50".parse().unwrap(), later(5)).await.unwrap();
    assert_eq!(card.effective_from, later(20).plus_micros(1).unwrap());
    ledger.record(&batch(std::slice::from_ref(&repeat))).await.unwrap();
    let card = ledger.set_rate("60".parse().unwrap(), later(30)).await.unwrap();
    assert_eq!(card.effective_from, later(3_700).plus_micros(1).unwrap());
    let last = event_at(4, card.effective_from);
    ledger.record(&batch(std::slice::from_ref(&last))).await.unwrap();
    // The same events and cards, in another order, are the same bill.
    let other = Database::new(database.kind).await;
    let rebuilt = other.ledger().await;
    rebuilt.import_rate_cards(&ledger.rate_cards().await.unwrap()).await.unwrap();
    rebuilt.record(&batch(&[last, repeat, event_at(3, later(20)), first])).await.unwrap();
    let march = Period::new(at("2026-03-01"), at("2026-04-01")).unwrap();
    let (acme, cents) = ("acme".parse().unwrap(), 25 + 25 + 60);
    assert_eq!(ledger.usage_report(&acme, &march).await.unwrap().summary.total_cost_cents.0, cents);
    assert_eq!(rebuilt.usage_report(&acme, &march).await.unwrap().summary.total_cost_cents.0, cents);
}

async fn a_card_between_reading_and_pricing_is_noticed(database: Database) {
    let worker = database.priced().await;
    let start = at("2026-03-10T10:00:00Z");
    // The worker has read the cards by now.
    worker.record(&batch(&[event_at(1, start)])).await.unwrap();
    let other = database.ledger().await;
    let card = other.set_rate("50".parse().unwrap(), start).await.unwrap();
    let recorded = worker.record(&batch(&[event_at(2, card.effective_from)])).await.unwrap();
    assert_eq!((recorded.inserted, recorded.rate_card_retries), (1, 1));
    assert_eq!(recorded.cost_cents.values().sum::<i64>(), 50);
    // Cards that gave way may have had the same versions; nothing was priced by them.
    database.clear().await;
    let worker = database.ledger().await;
    worker.check_cards().await.unwrap();
    let cards = crate::cards::cards("7 from 0001-01-01, 8 from 2026-03-10T10:00:00Z");
    assert_eq!(other.import_rate_cards(&cards).await.unwrap().replaced.len(), 2);
    let recorded = worker.record(&batch(&[event_at(3, start)])).await.unwrap();
    assert_eq!((recorded.rate_card_retries, recorded.cost_cents.values().sum::<i64>()), (1, 8));
    let again = worker.record(&batch(&[event_at(4, start)])).await.unwrap();
    assert_eq!((again.inserted, again.rate_card_retries), (1, 0));
}

async fn a_row_is_priced_by_the_narrowest_card(database: Database) {
    const CARDS: &str = r#"{"version":1,"card":"default","cents_per_unit":"25","effective_from":"0001-01-01T00:00:00Z"}
{"version":2,"card":"selector","tenant_id":"acme","pricing":{"model":"graduated","tiers":[{"up_to":"2","cents_per_unit":"0"},{"up_to":null,"cents_per_unit":"10"}]},"effective_from":"2026-03-01T00:00:00Z","origin":"api"}
{"version":3,"card":"selector","route":"/api/v1/ai","cents_per_unit":"100","effective_from":"2026-03-01T00:00:00Z","origin":"api"}
{"version":4,"card":"selector","tenant_id":"acme","route":"/api/v1/ai","pricing":{"model":"package","package_units":"10","cents_per_package":"70","free_units":"0"},"effective_from":"2026-03-01T00:00:00Z","origin":"api"}
{"version":5,"card":"selector","tenant_id":"acme","pricing":{"model":"inherit"},"effective_from":"2026-03-20T00:00:00Z","origin":"api"}"#;
    let ledger: Ledger = database.ledger().await;
    ledger.import_rate_cards(&read_rate_cards(CARDS).unwrap()).await.unwrap();
    let mut events = Vec::new();
    for (tenant, route, day) in [
        ("acme", "/api/v1/documents", 10),
        ("acme", "/api/v1/ai", 10),
        ("acme", "/api/v1/documents", 20),
        ("acme", "/api/v1/ai", 20),
        ("other", "/api/v1/documents", 10),
        ("other", "/api/v1/ai", 10),
    ] {
        for _ in 0..3 {
            let mut event = event_at(events.len() as u64 + 1, at(&format!("2026-03-{day}")));
            event.tenant_id = tenant.parse().unwrap();
            event.route = route.parse().unwrap();
            events.push(event);
        }
    }
    ledger.record(&batch(&events)).await.unwrap();
    let sql = "SELECT DISTINCT CAST(rate_version AS text), CAST(cost_cents AS text) FROM usage_events \
        WHERE tenant_id = 'acme' ORDER BY 1";
    let rows = database.rows(sql).await;
    let row = |version: &str, cents: &str| vec![Some(version.to_owned()), Some(cents.to_owned())];
    // A row alone is within the free tier, and a begun package.
    assert_eq!(rows, [row("1", "25"), row("2", "0"), row("4", "70")]);
    let march = Period::new(at("2026-03-01"), at("2026-04-01")).unwrap();
    for (tenant, total, documents, ai) in [("acme", 10 + 75 + 70, 85, 70), ("other", 75 + 300, 75, 300)] {
        let report = ledger.usage_report(&tenant.parse().unwrap(), &march).await.unwrap();
        assert_eq!(report.summary.total_cost_cents.0, total, "{tenant}");
        let routes: Vec<_> = report.routes.iter().map(|route| (route.route.as_str(), route.cost_cents.0)).collect();
        assert_eq!(routes, [("/api/v1/ai", ai), ("/api/v1/documents", documents)], "{tenant}");
        assert_eq!(report.summary.current_rate, Some("25".parse().unwrap()));
    }
    // The file has everything.
    let other = Database::new(database.kind).await;
    let rebuilt = other.ledger().await;
    let file = write_rate_cards(&ledger.rate_cards().await.unwrap());
    rebuilt.import_rate_cards(&read_rate_cards(&file).unwrap()).await.unwrap();
    assert_eq!(write_rate_cards(&rebuilt.rate_cards().await.unwrap()), file);
}

/// The price of units by a rater of another hand: PostgreSQL's NUMERIC.
const RATER: &str = "WITH input AS (SELECT UNITS * 0.000001 AS u, 'PRICING'::jsonb AS p),
    tiers AS (
        SELECT n, (t ->> 'up_to')::numeric AS up_to, (t ->> 'cents_per_unit')::numeric AS rate,
            COALESCE(LAG((t ->> 'up_to')::numeric) OVER (ORDER BY n), 0) AS lower
        FROM input, jsonb_array_elements(COALESCE(p -> 'tiers', '[]')) WITH ORDINALITY AS x(t, n)
    ),
    packages AS (
        SELECT GREATEST(u - (p ->> 'free_units')::numeric, 0) AS above, (p ->> 'package_units')::numeric AS size FROM input
    ),
    exact AS (
        SELECT CASE p ->> 'model'
            WHEN 'per_unit' THEN u * (p ->> 'cents_per_unit')::numeric
            WHEN 'graduated' THEN (SELECT SUM(GREATEST(LEAST(u, COALESCE(up_to, u)) - lower, 0) * rate) FROM tiers)
            WHEN 'volume' THEN u * (SELECT rate FROM tiers WHERE up_to IS NULL OR u <= up_to ORDER BY n LIMIT 1)
            WHEN 'package' THEN (SELECT DIV(above, size) + SIGN(MOD(above, size)) FROM packages)
                * (p ->> 'cents_per_package')::numeric
        END AS x FROM input
    )
    SELECT (CASE WHEN x - FLOOR(x) = 0.5 THEN FLOOR(x) + MOD(FLOOR(x), 2) ELSE ROUND(x) END)::numeric(60, 0)::text FROM exact";

#[tokio::test]
async fn rust_and_sql_agree_on_every_price() {
    let database = Database::new(Kind::Postgres).await;
    let mut random = rand::rngs::StdRng::seed_from_u64(20_261_130);
    for round in 0..400 {
        let decimal = |random: &mut rand::rngs::StdRng, digits: u32| {
            let digits = random.random_range(1..=digits);
            let micro = random.random_range(1..10_u64.pow(digits));
            format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
        };
        let pricing = match round % 4 {
            0 => format!(r#"{{"model":"per_unit","cents_per_unit":"{}"}}"#, decimal(&mut random, 12)),
            3 => format!(
                r#"{{"model":"package","package_units":"{}","cents_per_package":"{}","free_units":"{}"}}"#,
                decimal(&mut random, 14),
                decimal(&mut random, 12),
                decimal(&mut random, 14)
            ),
            model => {
                let mut limits: Vec<u64> =
                    (0..random.random_range(0..6)).map(|_| random.random_range(1..10_000)).collect();
                limits.sort_unstable();
                limits.dedup();
                let ends = limits.iter().map(|limit| format!("\"{limit}.5\"")).chain(["null".to_owned()]);
                let tier = |end| format!(r#"{{"up_to":{end},"cents_per_unit":"{}"}}"#, decimal(&mut random, 12));
                let tiers: Vec<String> = ends.map(tier).collect();
                let model = if model == 1 { "graduated" } else { "volume" };
                format!(r#"{{"model":"{model}","tiers":[{}]}}"#, tiers.join(","))
            }
        };
        let units = match round % 3 {
            // On halves of cents and the limits of tiers, in the middle, and as large as sums become.
            0 => random.random_range(1..20_000_i128) * 500_000,
            1 => random.random_range(1..10_i128.pow(12)),
            _ => random.random_range(1..10_i128.pow(24)),
        };
        let sql = RATER.replace("UNITS", &units.to_string()).replace("PRICING", &pricing);
        let rust = Pricing::from_text(&pricing).unwrap().cost(units);
        assert_eq!(database.one(&sql).await, rust.to_string(), "{units} millionths under {pricing}");
    }
}
