//! Receipts and seals: what arrived beside what was handed out.

use goldleaves_domain::{Epoch, Outcome, Seal, SealBlock, SetHash, UsageEvent};
use goldleaves_ledger::{Incoming, Ledger};
use rand::seq::SliceRandom as _;
use uuid::Uuid;

use crate::events::{at, batch, event, incoming, incoming_seal, seal_of};
use crate::harness::{Database, Kind, on_both};

on_both!(
    a_receipt_is_written_for_every_number_and_only_once,
    the_same_event_under_other_numbers_has_a_receipt_for_each,
    receipts_are_what_the_seal_expects,
    seals_in_any_order_leave_the_latest,
);

/// Count, hash in hex and set bits of each block's receipt.
async fn receipts(database: &Database) -> Vec<(String, usize, String, usize)> {
    let rows = database
        .rows(
            "SELECT CAST(epoch AS text), CAST(block AS text), CAST(received_count AS text), \
             CAST(received_hash AS text), CAST(seqs AS text) FROM usage_receipts ORDER BY epoch, block",
        )
        .await;
    let digits = |text: &str| -> String {
        if database.kind == Kind::Sqlite {
            return text.to_owned();
        }
        let nibbles = text.as_bytes().chunks(4).map(|four| std::str::from_utf8(four).unwrap());
        nibbles.map(|four| format!("{:x}", u8::from_str_radix(four, 2).unwrap())).collect()
    };
    rows.into_iter()
        .map(|row| {
            let [epoch, block, count, hash, seqs] = row.try_into().unwrap();
            let bits = digits(&seqs.unwrap()).chars().map(|hex| hex.to_digit(16).unwrap().count_ones()).sum::<u32>();
            let place = format!("{}/{}", epoch.unwrap(), block.unwrap());
            (place, count.unwrap().parse().unwrap(), digits(&hash.unwrap()), usize::try_from(bits).unwrap())
        })
        .collect()
}

fn hash<'a>(events: impl IntoIterator<Item = &'a UsageEvent>) -> String {
    let mut hash = SetHash::EMPTY;
    events.into_iter().for_each(|event| hash.insert(event));
    hash.to_string()
}

fn place(epoch: Epoch, block: u64) -> String {
    format!("{epoch}/{block}")
}

async fn record_shuffled(ledger: &Ledger, messages: &mut [Incoming], size: usize) {
    messages.shuffle(&mut rand::rng());
    for piece in messages.chunks(size) {
        ledger.record(piece).await.unwrap();
    }
}

async fn a_receipt_is_written_for_every_number_and_only_once(database: Database) {
    let ledger = database.priced().await;
    // Two blocks, all three tables.
    let events: Vec<UsageEvent> = (1000..=1060)
        .map(|number| {
            let mut event = event(number);
            event.outcome = Outcome::ALL[usize::try_from(number).unwrap() % 5];
            event
        })
        .collect();
    let mut messages = batch(events.iter().chain(&events[..20]));
    for size in [1, 5, 40, 100] {
        record_shuffled(&ledger, &mut messages, size).await;
        let blocks = [(0, &events[..25]), (1, &events[25..])];
        let expected =
            blocks.map(|(block, events)| (place(events[0].epoch, block), events.len(), hash(events), events.len()));
        assert_eq!(receipts(&database).await, expected);
    }
}

async fn the_same_event_under_other_numbers_has_a_receipt_for_each(database: Database) {
    let ledger = database.priced().await;
    let first = event(1);
    let restored = UsageEvent { epoch: Epoch::new(Uuid::from_u128(0xe1)), seq: 9, ..first.clone() };
    let again = UsageEvent { seq: 1024, ..restored.clone() };
    for messages in [vec![&first], vec![&restored, &again], vec![&again, &first, &restored], vec![&first, &first]] {
        ledger.record(&batch(messages)).await.unwrap();
    }
    let expected =
        [(place(first.epoch, 0), 1, hash([&first]), 1), (place(restored.epoch, 0), 2, hash([&restored, &again]), 2)];
    assert_eq!(receipts(&database).await, expected);
    assert_eq!(database.count("usage_events").await, 1);
    assert_eq!(database.one("SELECT CAST(seq AS text) FROM usage_events").await, "1");
}

async fn receipts_are_what_the_seal_expects(database: Database) {
    let ledger = database.priced().await;
    let events: Vec<UsageEvent> = (1..=50).map(event).collect();
    let seal = incoming_seal(&seal_of(&events));
    let matches = "SELECT CAST(COUNT(*) AS text) FROM usage_receipts \
                   WHERE received_count = expected_count AND received_hash = expected_hash";
    // The seal may come before the events, between them and after them.
    ledger.record(&batch(&events[..10])).await.unwrap();
    assert_eq!(ledger.record(&[seal]).await.unwrap().seals, 1);
    assert_eq!(database.one(matches).await, "0");
    ledger.record(&batch(&events)).await.unwrap();
    assert_eq!(database.one(matches).await, "1");
    // One altered event is enough to show.
    database.execute("DELETE FROM usage_receipts").await;
    database.execute("DELETE FROM usage_events").await;
    let mut altered = events.clone();
    altered[7].units = "2".parse().unwrap();
    let messages: Vec<Incoming> = batch(&altered).into_iter().chain([incoming_seal(&seal_of(&events))]).collect();
    ledger.record(&messages).await.unwrap();
    assert_eq!(database.one(matches).await, "0");
}

async fn seals_in_any_order_leave_the_latest(database: Database) {
    let ledger = database.priced().await;
    let seal = |step: u64| Seal {
        id: Uuid::from_u128(u128::from(step)),
        ts: at("2026-03-10").plus_micros(i64::try_from(step).unwrap()).unwrap(),
        last_seq: step * 1000,
        count: step * 1000,
        unrecorded: step / 2,
        closed: step == 4,
        blocks: vec![
            SealBlock {
                block: 0,
                count: u32::try_from(step * 100).unwrap(),
                hash: SetHash::from_bytes([u8::try_from(step).unwrap(); 32]),
            },
            SealBlock { block: step, count: 1, hash: SetHash::EMPTY },
        ],
        ..seal_of(&[event(1)])
    };
    let mut messages: Vec<Incoming> = (1..=4).chain(1..=4).map(|step| incoming_seal(&seal(step))).collect();
    messages.push(incoming(&event(1)));
    let mut first = None;
    for size in [1, 2, 9, 3, 1, 9] {
        database.clear().await;
        record_shuffled(&ledger, &mut messages, size).await;
        let mut dump = database.dump_table("usage_epochs", &["created_at", "updated_at"]).await;
        dump.extend(database.dump_table("usage_receipts", &["created_at", "updated_at"]).await);
        assert_eq!(&dump, first.get_or_insert(dump.clone()));
        let before = database.dump().await;
        record_shuffled(&ledger, &mut messages, size).await;
        assert_eq!(database.dump().await, before);
    }
    let numbers =
        "SELECT CAST(last_seq AS text), CAST(events AS text), CAST(unrecorded AS text), source FROM usage_epochs";
    let expected = ["4000", "4000", "2", &crate::events::source().to_string()].map(|text| Some(text.to_owned()));
    assert_eq!(database.rows(numbers).await, [expected]);
    assert_eq!(database.one("SELECT CAST(COUNT(*) AS text) FROM usage_epochs WHERE closed").await, "1");
    let block = "SELECT CAST(expected_count AS text) FROM usage_receipts ORDER BY block LIMIT 1";
    assert_eq!(database.one(block).await, "400");
}
