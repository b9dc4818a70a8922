//! Rate cards that usage was priced by, and a ledger that has lost some of them: nothing is priced otherwise than it was.

use goldleaves_domain::{Period, UsageEvent};
use goldleaves_ledger::{CardsFile, Ledger, LedgerError, RememberedCards, read_rate_cards, write_rate_cards};
use goldleaves_pricing::RateCard;
use tempfile::TempDir;

use crate::cards::cards;
use crate::events::{at, batch, event};
use crate::harness::{Billed, Database, on_both, record};

const CARDS: &str = "25 from 0001-01-01, 50 from 2026-03-10T10:00:20Z";

on_both!(
    a_lost_card_comes_back_from_the_file_and_the_bill_is_the_same,
    what_contradicts_the_file_is_left_and_nothing_is_priced,
    a_price_that_was_set_again_gives_way_to_the_file,
    a_file_that_can_not_be_used_keeps_everything_from_being_priced,
    what_is_noted_elsewhere_keeps_a_lost_card_from_being_missed,
    a_note_that_leaves_cards_out_brings_none_back,
    what_was_priced_before_is_remembered_at_the_next_start,
);

async fn bill(ledger: &Ledger) -> String {
    let march = Period::new(at("2026-03-01"), at("2026-04-01")).unwrap();
    format!("{:?}", ledger.usage_report(&"acme".parse().unwrap(), &march).await.unwrap().routes)
}

fn events(numbers: std::ops::RangeInclusive<u64>) -> Vec<UsageEvent> {
    numbers.map(event).collect()
}

/// A ledger of this database that keeps its cards in a folder, as one process does after a start.
async fn started(database: &Database, folder: &TempDir) -> Ledger {
    database.ledger().await.keeping_cards_in(CardsFile::of(folder.path()))
}

fn file_of(folder: &TempDir) -> String {
    std::fs::read_to_string(CardsFile::of(folder.path()).path()).unwrap_or_default()
}

/// Usage by two prices, the second since second 20, and a third price that nothing has been priced by.
async fn priced_by_two(ledger: &Ledger) {
    ledger.import_rate_cards(&cards(CARDS)).await.unwrap();
    record(ledger, &batch(&events(1..=10))).await;
    record(ledger, &batch(&events(21..=30))).await;
}

/// The backup of before the second price is restored.
async fn go_back(database: &Database, ledger: &Ledger) {
    database.clear().await;
    database.execute("DELETE FROM rate_cards WHERE version > 1").await;
    record(ledger, &batch(&events(1..=5))).await;
}

async fn versions(ledger: &Ledger) -> Vec<i64> {
    ledger.rate_cards().await.unwrap().iter().map(|card| card.version).collect()
}

async fn a_lost_card_comes_back_from_the_file_and_the_bill_is_the_same(database: Database) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = started(&database, &folder).await;
    ledger.check_cards().await.unwrap();
    assert_eq!(file_of(&folder), "", "nothing was priced");
    priced_by_two(&ledger).await;
    assert_eq!(file_of(&folder), write_rate_cards(&cards(CARDS)));
    ledger.set_rate("60".parse().unwrap(), at("2026-03-10T10:00:50Z")).await.unwrap();
    record(&ledger, &batch(&events(31..=31))).await;
    assert_eq!(file_of(&folder), write_rate_cards(&cards(CARDS)), "what priced nothing may give way one day");
    let before = bill(&ledger).await;

    for restart in [false, true] {
        let somebody = database.ledger().await;
        go_back(&database, &somebody).await;
        let ledger = if restart { started(&database, &folder).await } else { ledger.clone() };
        record(&ledger, &batch(&events(1..=10))).await;
        record(&ledger, &batch(&events(21..=31))).await;
        assert_eq!(bill(&ledger).await, before, "after a restart: {restart}");
        assert_eq!(versions(&ledger).await, [1, 2]);
        assert_eq!(*ledger.lacking_cards().borrow(), None);
    }
    // All of it is lost: the file makes the ledger anew.
    database.clear().await;
    database.execute("DELETE FROM rate_cards").await;
    let ledger = started(&database, &folder).await;
    ledger.check_cards().await.unwrap();
    record(&ledger, &batch(&events(1..=10))).await;
    record(&ledger, &batch(&events(21..=31))).await;
    assert_eq!(bill(&ledger).await, before);
}

async fn what_contradicts_the_file_is_left_and_nothing_is_priced(database: Database) {
    let folder = tempfile::tempdir().unwrap();
    priced_by_two(&started(&database, &folder).await).await;
    let somebody = database.ledger().await;
    go_back(&database, &somebody).await;
    // Somebody who knows of no file priced by another card.
    let other = somebody.set_rate("30".parse().unwrap(), at("2026-03-10T10:00:15Z")).await.unwrap();
    record(&somebody, &batch(&events(16..=18))).await;
    let ledger = started(&database, &folder).await;
    let before = database.dump().await;
    for _ in 0..2 {
        let error = ledger.record(&batch(&events(21..=22))).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let LedgerError::CardsWentBack(lacking) = &error else { panic!("{error:?}") };
        assert_eq!((lacking.other.as_slice(), lacking.missing.as_slice()), ([2].as_slice(), [].as_slice()));
        let said = error.to_string();
        assert!(said.contains("other cards in it (2), and they can't be brought back: the ledger has usage"), "{said}");
        assert_eq!(ledger.lacking_cards().borrow().as_ref(), Some(lacking));
    }
    assert_eq!(database.dump().await, before);
    // The ledger's cards are the right ones: somebody says so.
    std::fs::remove_file(CardsFile::of(folder.path()).path()).unwrap();
    let ledger = started(&database, &folder).await;
    record(&ledger, &batch(&events(21..=22))).await;
    assert_eq!(*ledger.lacking_cards().borrow(), None);
    assert!(file_of(&folder).contains(&write_rate_cards(&[other])));
}

async fn a_price_that_was_set_again_gives_way_to_the_file(database: Database) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = started(&database, &folder).await;
    priced_by_two(&ledger).await;
    let before = bill(&ledger).await;
    let somebody = database.ledger().await;
    go_back(&database, &somebody).await;
    somebody.set_rate("50".parse().unwrap(), at("2026-03-11")).await.unwrap();
    let ledger = started(&database, &folder).await;
    ledger.check_cards().await.unwrap();
    assert_eq!(ledger.rate_cards().await.unwrap(), cards(CARDS));
    record(&ledger, &batch(&events(1..=10))).await;
    record(&ledger, &batch(&events(21..=30))).await;
    assert_eq!(bill(&ledger).await, before);
}

async fn a_file_that_can_not_be_used_keeps_everything_from_being_priced(database: Database) {
    let folder = tempfile::tempdir().unwrap();
    let file = CardsFile::of(folder.path());
    let ledger = started(&database, &folder).await;
    ledger.import_rate_cards(&cards(CARDS)).await.unwrap();
    let refused = async |ledger: &Ledger, words: &str| {
        let before = database.dump().await;
        let error = ledger.record(&batch(&events(1..=3))).await.unwrap_err();
        assert!(matches!(error, LedgerError::CardsNotKept(_)) && error.is_transient(), "{error:?}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(words), "{cause}");
        assert_eq!(database.dump().await, before, "{words}");
    };
    // Something stands where the new file is written, as a full disk does.
    let new = file.path().with_extension("jsonl.new");
    std::fs::create_dir(&new).unwrap();
    refused(&ledger, "rate-cards.jsonl can't be written").await;
    std::fs::remove_dir(&new).unwrap();
    record(&ledger, &batch(&events(1..=3))).await;
    assert_eq!(database.count("usage_events").await, 3);

    let whole = file_of(&folder);
    database.clear().await;
    let ledger = started(&database, &folder).await;
    std::fs::write(file.path(), whole.get(..whole.len() - 9).unwrap()).unwrap();
    refused(&ledger, "holds no rate cards that can be used: put an export of them in its place").await;
    // Without a restart.
    std::fs::write(file.path(), write_rate_cards(&cards(CARDS))).unwrap();
    record(&ledger, &batch(&events(1..=3))).await;
    // A copy of before the second card was used is no harm, and grows.
    std::fs::write(file.path(), &whole).unwrap();
    record(&started(&database, &folder).await, &batch(&events(21..=22))).await;
    assert_eq!(file_of(&folder), write_rate_cards(&cards(CARDS)));
}

async fn what_is_noted_elsewhere_keeps_a_lost_card_from_being_missed(database: Database) {
    let ledger = database.ledger().await;
    priced_by_two(&ledger).await;
    let before = bill(&ledger).await;
    let note = ledger.remembered_cards().borrow().note();
    assert_eq!(note, write_rate_cards(&cards(CARDS)));
    let somebody = database.ledger().await;
    go_back(&database, &somebody).await;
    let restarted = database.ledger().await;
    restarted.recall(&RememberedCards::of_note(&note).unwrap());
    for worker in [&ledger, &restarted] {
        let error = worker.record(&batch(&events(21..=30))).await.unwrap_err();
        assert!(error.to_string().ends_with("priced by versions that it lacks (2)"), "{error}");
    }
    // A worker may set no price: who may brings them back.
    let owner = database.ledger().await;
    owner.recall(&RememberedCards::of_note(&note).unwrap());
    assert_eq!(owner.lacks_cards().await.unwrap().unwrap().versions(), [2]);
    assert_eq!(owner.bring_back_cards().await.unwrap().added, cards(CARDS).split_off(1));
    assert_eq!(owner.bring_back_cards().await.unwrap().added, []);
    record(&restarted, &batch(&events(21..=30))).await;
    record(&ledger, &batch(&events(1..=10))).await;
    assert_eq!(bill(&ledger).await, before);
}

async fn a_note_that_leaves_cards_out_brings_none_back(database: Database) {
    let ledger = database.ledger().await;
    let all = cards("25 from 0001-01-01, 50 from 2026-03-10T10:00:20Z, 60 from 2026-03-10T10:00:40Z");
    ledger.import_rate_cards(&all[..1]).await.unwrap();
    record(&ledger, &batch(&events(1..=5))).await;
    let noted = |from: usize| all.iter().skip(from).cloned().collect::<RememberedCards>();
    let short = database.ledger().await;
    short.recall(&noted(2));
    let said = short.bring_back_cards().await.unwrap_err().to_string();
    assert!(said.contains("(3), and they can't be brought back: it may lack older cards as well"), "{said}");
    assert_eq!(versions(&ledger).await, [1]);
    ledger.import_rate_cards(&all[..2]).await.unwrap();
    let enough = database.ledger().await;
    enough.recall(&noted(1));
    assert_eq!(enough.bring_back_cards().await.unwrap().added, all[2..]);
}

async fn what_was_priced_before_is_remembered_at_the_next_start(database: Database) {
    let folder = tempfile::tempdir().unwrap();
    let earlier = database.ledger().await;
    priced_by_two(&earlier).await;
    let made = |line: &str| read_rate_cards(&format!("{}{line}", write_rate_cards(&cards(CARDS)))).unwrap();
    // One of the setting that nothing was priced by, and one that somebody made for next year.
    let unused = r#"{"version":3,"card":"default","cents_per_unit":"60","effective_from":"2026-03-11T00:00:00Z"}
{"version":4,"card":"selector","cents_per_unit":"1","effective_from":"2027-01-01T00:00:00Z","tenant_id":"acme","origin":"api"}"#;
    let all: Vec<RateCard> = made(unused);
    earlier.import_rate_cards(&all).await.unwrap();
    started(&database, &folder).await.check_cards().await.unwrap();
    let kept: Vec<i64> = read_rate_cards(&file_of(&folder)).unwrap().iter().map(|card| card.version).collect();
    assert_eq!(kept, [1, 2, 4]);
}
