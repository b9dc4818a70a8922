//! Rate cards go from one ledger to another, and what a ledger has is counted without changing it.

use goldleaves_domain::{Outcome, Period};
use goldleaves_ledger::{ImportError, Incoming, Ledger, StoreError, StoreOptions, read_rate_cards, write_rate_cards};
use goldleaves_pricing::RateCard;

use crate::events::{at, batch, event, incoming_seal, seal_of, with_client_id};
use crate::harness::{Billed, Database, Kind, on_both};

on_both!(
    a_rebuilt_ledger_bills_the_same_to_the_cent,
    cards_that_priced_something_never_change,
    an_import_again_changes_nothing,
    a_card_of_the_hour_comes_in_after_what_the_hour_has,
    a_price_that_was_set_again_and_priced_nothing_gives_way,
    a_lost_card_comes_back_and_prices_again,
    what_is_there_is_counted_and_nothing_changes,
);

pub(crate) fn cards(text: &str) -> Vec<RateCard> {
    let mut lines = String::new();
    for (version, line) in text.split(',').enumerate() {
        let (rate, from) = line.trim().split_once(" from ").unwrap();
        let (version, from) = (version + 1, at(from));
        lines.push_str(&format!(
            "{{\"version\":{version},\"card\":\"default\",\"cents_per_unit\":\"{rate}\",\"effective_from\":\"{from}\"}}\n"
        ));
    }
    read_rate_cards(&lines).unwrap()
}

async fn bill(ledger: &Ledger) -> String {
    let march = Period::new(at("2026-03-01"), at("2026-04-01")).unwrap();
    format!("{:?}", ledger.usage_report(&"acme".parse().unwrap(), &march).await.unwrap())
}

async fn a_rebuilt_ledger_bills_the_same_to_the_cent(database: Database) {
    let ledger = database.ledger().await;
    ledger.set_rate("0.333333".parse().unwrap(), at("2026-03-01")).await.unwrap();
    ledger.set_rate("30.5".parse().unwrap(), at("2026-03-10T10:00:10Z")).await.unwrap();
    ledger.set_rate("0.1".parse().unwrap(), at("2026-03-10T10:00:20.5Z")).await.unwrap();
    let mut events: Vec<_> = (1..=30).map(|number| with_client_id(event(number), "c")).collect();
    events.iter_mut().for_each(|event| event.units = "1.5".parse().unwrap());
    ledger.record(&batch(&events)).await.unwrap();
    let before = bill(&ledger).await;
    let file = write_rate_cards(&ledger.rate_cards().await.unwrap());

    // Another database, in which `migrate` has set a rate of its own.
    let rebuilt = Database::new(database.kind).await;
    let other = rebuilt.priced().await;
    let imported = other.import_rate_cards(&read_rate_cards(&file).unwrap()).await.unwrap();
    assert_eq!((imported.added.len(), imported.there.len(), imported.replaced.len()), (3, 0, 1));
    assert_eq!(imported.replaced[0].pricing.to_string(), "25 cents per unit");
    assert_eq!(write_rate_cards(&other.rate_cards().await.unwrap()), file);
    other.record(&batch(events.iter().rev())).await.unwrap();
    assert_eq!(bill(&other).await, before);
    assert_eq!(rebuilt.verdicts().await, database.verdicts().await);
}

async fn cards_that_priced_something_never_change(database: Database) {
    let ledger = database.priced().await;
    ledger.record(&batch(&[event(1)])).await.unwrap();
    let before = database.dump().await;
    let refusal = async |given: &str| match ledger.import_rate_cards(&cards(given)).await.unwrap_err() {
        ImportError::Store(error) => panic!("{error}"),
        refusal => refusal.to_string(),
    };
    let words = refusal("30 from 0001-01-01").await;
    assert!(words.contains("has version 1, 25 cents per unit from 0001"), "{words}");
    assert!(words.contains("the file has version 1, 30 cents per unit"), "{words}");
    let words = refusal("25 from 0001-01-01, 30 from 2026-03-10T10:00:00.5Z").await;
    assert!(words.contains("has usage of 2026-03-10T10:00:00.500000Z or later"), "{words}");
    assert!(words.contains("priced without the file's version 2, 30 cents"), "{words}");
    refusal("25 from 0001-01-01, 30 from 2026-03-01, 31 from 2026-04-01").await;
    assert_eq!(database.dump().await, before);
    // Only what comes is priced by it.
    let imported = ledger.import_rate_cards(&cards("25 from 0001-01-01, 30 from 2026-03-10T11:00:00Z")).await.unwrap();
    assert_eq!((imported.there.len(), imported.added.len()), (1, 1));
    assert_eq!(imported.replaced, []);
}

async fn an_import_again_changes_nothing(database: Database) {
    let ledger = database.ledger().await;
    let given = cards("25 from 0001-01-01, 30 from 2026-03-10T11:00:00Z");
    assert_eq!(ledger.import_rate_cards(&given).await.unwrap().added, given);
    ledger.record(&batch(&[event(1), event(5_000)])).await.unwrap();
    let before = database.dump().await;
    let again = ledger.import_rate_cards(&given).await.unwrap();
    assert_eq!((again.there, again.added, again.replaced), (given.clone(), vec![], vec![]));
    // A part of them is no contradiction.
    assert_eq!(ledger.import_rate_cards(&given[..1]).await.unwrap().there, given[..1]);
    assert_eq!(database.dump().await, before);
}

/// A ledger that was restored from a backup of the same hour in which the price changed.
async fn a_card_of_the_hour_comes_in_after_what_the_hour_has(database: Database) {
    let ledger = database.priced().await;
    let repeats: Vec<_> = [10, 20].map(|number| with_client_id(event(number), "c")).into();
    ledger.record(&batch(&repeats)).await.unwrap();
    let given = |from: &str| cards(&format!("25 from 0001-01-01, 50 from {from}"));
    for refused in ["2026-03-10T10:00:15Z", "2026-03-10T10:00:20Z", "2026-03-10T10:00:10Z"] {
        let refusal = ledger.import_rate_cards(&given(refused)).await.unwrap_err();
        assert!(matches!(refusal, ImportError::TooLate { .. }), "{refusal:?}");
    }
    let given = given("2026-03-10T10:00:20.000001Z");
    assert_eq!(ledger.import_rate_cards(&given).await.unwrap().added, given[1..]);
    ledger.record(&batch(&[event(30), event(19)])).await.unwrap();
    let sql = "SELECT CAST(rate_version AS text) FROM usage_events ORDER BY ts";
    let versions: Vec<String> = database.rows(sql).await.into_iter().flatten().flatten().collect();
    assert_eq!(versions, ["1", "1", "2"]);
}

/// `migrate` ran on a restored ledger before its cards were brought back.
async fn a_price_that_was_set_again_and_priced_nothing_gives_way(database: Database) {
    let ledger = database.priced().await;
    ledger.record(&batch(&[event(1)])).await.unwrap();
    ledger.set_rate("50".parse().unwrap(), at("2026-03-10T12:00:00Z")).await.unwrap();
    let lost = cards("25 from 0001-01-01, 50 from 2026-03-10T10:00:30Z, 60 from 2026-03-10T10:00:40Z");
    let imported = ledger.import_rate_cards(&lost).await.unwrap();
    assert_eq!((imported.added.as_slice(), imported.replaced.len()), (&lost[1..], 1));
    assert_eq!(ledger.rate_cards().await.unwrap(), lost);
    ledger.record(&batch(&[event(45)])).await.unwrap();
    let other = cards("25 from 0001-01-01, 50 from 2026-03-10T10:00:30Z, 61 from 2026-03-10T10:00:40Z");
    let refusal = ledger.import_rate_cards(&other).await.unwrap_err();
    assert!(matches!(&refusal, ImportError::Conflict { there, .. } if there.version == 3), "{refusal:?}");
}

async fn a_lost_card_comes_back_and_prices_again(database: Database) {
    let ledger = database.ledger().await;
    let given = cards(
        "25 from 0001-01-01, 50 from 2026-03-10T10:00:00Z, 30 from 2026-03-10T10:00:30Z, 40 from 2026-03-10T10:00:35Z",
    );
    ledger.import_rate_cards(&given[..3]).await.unwrap();
    ledger.record(&batch(&[event(1)])).await.unwrap();
    database.execute("DELETE FROM rate_cards WHERE version = 2").await;
    // A worker that started meanwhile knows the newest card, and not the one that is gone.
    let worker = database.ledger().await;
    worker.record(&batch(&[event(35)])).await.unwrap();
    // What comes back beside it may not price what is there.
    let refused = ledger.import_rate_cards(&given).await.unwrap_err();
    assert!(matches!(&refused, ImportError::TooLate { given } if given.version == 4), "{refused:?}");
    let imported = ledger.import_rate_cards(&given[..3]).await.unwrap();
    assert_eq!((imported.added, imported.there.len()), (vec![given[1].clone()], 2));
    let recorded = worker.record(&batch(&[event(2)])).await.unwrap();
    assert_eq!((recorded.rate_card_retries, recorded.cost_cents.values().sum::<i64>()), (1, 50));
    let sql = "SELECT CAST(rate_version AS text) FROM usage_events ORDER BY ts";
    let versions: Vec<String> = database.rows(sql).await.into_iter().flatten().flatten().collect();
    assert_eq!(versions, ["2", "2", "3"]);
}

async fn what_is_there_is_counted_and_nothing_changes(database: Database) {
    let ledger = database.priced().await;
    let mut events: Vec<_> = (1..=5).map(|number| with_client_id(event(number), "c")).collect();
    events[4].outcome = Outcome::Unknown;
    let garbage = |text: &str| Incoming::parse(text.to_owned().into_bytes().into());
    let mut recorded = batch(&events);
    recorded.push(garbage("no JSON"));
    recorded.push(incoming_seal(&seal_of(&events)));
    assert_eq!(ledger.count_known(&recorded).await.unwrap(), 0);
    assert_eq!(ledger.count_known(&[]).await.unwrap(), 0);
    ledger.record(&recorded).await.unwrap();
    let before = database.dump().await;
    // Billed, three repeats, one set aside, one unreadable; the seal does not count.
    assert_eq!(ledger.count_known(&recorded).await.unwrap(), 6);
    recorded.extend(batch(&[event(100), event(1)]));
    recorded.push(garbage("nor this"));
    assert_eq!(ledger.count_known(&recorded).await.unwrap(), 7, "one of them twice");
    assert_eq!(database.dump().await, before);
}

#[tokio::test]
async fn a_missing_file_is_made_only_for_who_asks() {
    let directory = tempfile::tempdir().unwrap();
    let url = goldleaves_ledger::sqlite_url(&directory.path().join("goldleaves.db"));
    let options = StoreOptions { create_missing: false, ..StoreOptions::default() };
    let error = Ledger::connect(&url, options).await.unwrap_err();
    assert!(matches!(error, StoreError::File { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let database = Database::new(Kind::Sqlite).await;
    Ledger::connect(&database.url, StoreOptions { create_missing: false, ..StoreOptions::default() }).await.unwrap();
}
