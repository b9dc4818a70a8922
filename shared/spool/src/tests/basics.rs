//! The spool on a real directory: what a caller sees.

use std::time::Duration;

use crate::*;

pub(super) fn options(directory: &std::path::Path) -> SpoolOptions {
    SpoolOptions {
        bytes_max: 1 << 20,
        segment_bytes: SEGMENT_BYTES_MIN,
        sync_pause: Duration::ZERO,
        settlement_slack: 256,
        ..SpoolOptions::new(directory)
    }
}

fn open(directory: &std::path::Path) -> (Spool, Recovered) {
    Spool::open(options(directory), RealFileSystem).unwrap()
}

fn drain(reader: &mut Reader) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        let batch = reader.next_batch(7, 10_000).unwrap();
        if batch.is_empty() {
            return all;
        }
        all.extend(batch);
    }
}

/// Appends never wait for the next segment, so a test that outruns the disk must.
async fn intend(spool: &Spool) -> IntentId {
    loop {
        match spool.intent(1, b"may cost something") {
            Ok(intent) => return intent,
            Err(AppendError::Behind) => tokio::time::sleep(Duration::from_millis(2)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn records_come_back_in_order_and_only_until_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, recovered) = open(directory.path());
    assert!(recovered.orphans.is_empty() && recovered.epochs.is_empty());
    let mut expected = Vec::new();
    for number in 0..2000_u32 {
        let intent = intend(&spool).await;
        if number % 10 == 3 {
            spool.void(intent, b"refused").unwrap();
            continue;
        }
        let payload = number.to_le_bytes();
        let appended = spool.publish(intent, 2, &payload).unwrap();
        expected.push((appended.seq, payload.to_vec()));
    }
    let note = spool.note(3, b"a seal").unwrap();
    spool.durable(note).await.unwrap();
    let mut reader = spool.reader();
    reader.wait_ready().await.unwrap();
    let records = drain(&mut reader);
    let published: Vec<_> = records
        .iter()
        .filter_map(|record| match record.kind {
            RecordKind::Publish { seq } => Some((seq, record.payload.to_vec())),
            RecordKind::Note => None,
        })
        .collect();
    assert_eq!(published, expected);
    assert_eq!(expected.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=1800).collect::<Vec<_>>());
    assert_eq!(records.last().unwrap().kind, RecordKind::Note);
    assert!(spool.stats().unsent_records == 1801 && spool.stats().open_intents == 0);

    spool.advance(records[999].next_lsn);
    assert_eq!(spool.stats().unsent_records, 801);
    let (id, epoch) = (spool.id(), spool.epoch());
    drop(reader);
    spool.close();
    assert_eq!(spool.intent(1, b"x"), Err(AppendError::Closed));
    drop(spool);

    let (spool, recovered) = open(directory.path());
    assert_eq!(spool.id(), id);
    assert_eq!(recovered.unsent, 801);
    assert_eq!(recovered.epochs.len(), 1);
    assert_eq!(recovered.epochs[0].epoch, epoch);
    assert_eq!(recovered.epochs[0].last_seq, 1800);
    assert_eq!(recovered.quarantined, 0);
    let again = drain(&mut spool.reader());
    assert_eq!(again, records[1000..]);
    spool.rewind().unwrap();
    let all = drain(&mut spool.reader());
    assert!(all.len() >= again.len() && all.ends_with(&again));
}

#[tokio::test]
async fn orphans_stay_until_they_are_settled() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let first = spool.intent(4, b"first").unwrap();
    let second = spool.intent(4, b"second").unwrap();
    spool.unrecorded();
    spool.unrecorded();
    let dead = spool.epoch();
    drop(spool);

    for _ in 0..3 {
        let (spool, recovered) = open(directory.path());
        let orphans: Vec<_> = recovered.orphans.iter().map(|orphan| (orphan.intent, orphan.payload.to_vec())).collect();
        assert_eq!(orphans, vec![(first, b"first".to_vec()), (second, b"second".to_vec())]);
        let epochs: Vec<_> =
            recovered.epochs.iter().map(|epoch| (epoch.epoch, epoch.last_seq, epoch.unrecorded)).collect();
        assert_eq!(epochs, vec![(dead, 0, 2)]);
        drop(spool);
    }

    let (spool, _) = open(directory.path());
    assert_eq!(spool.publish(first, 1, b"unknown").unwrap().seq, 1);
    assert_eq!(spool.publish(first, 1, b"unknown"), Err(AppendError::NotOpen(first)));
    spool.close_epoch(dead).unwrap();
    let own = spool.epoch();
    drop(spool);

    let (spool, recovered) = open(directory.path());
    assert_eq!(recovered.orphans.iter().map(|orphan| orphan.intent).collect::<Vec<_>>(), vec![second]);
    assert_eq!(recovered.epochs.iter().map(|epoch| (epoch.epoch, epoch.last_seq)).collect::<Vec<_>>(), vec![(own, 1)]);
    let records = drain(&mut spool.reader());
    assert_eq!(records.iter().map(|record| record.payload.to_vec()).collect::<Vec<_>>(), vec![b"unknown".to_vec()]);
}

#[test]
fn a_second_process_is_refused_and_an_onlooker_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let intent = spool.intent(1, b"i").unwrap();
    spool.intent(1, b"j").unwrap();
    spool.publish(intent, 1, b"p").unwrap();
    assert!(matches!(Spool::open(options(directory.path()), RealFileSystem), Err(OpenError::InUse { .. })));
    let seen = inspect(directory.path()).unwrap();
    assert_eq!(seen.id, Some(spool.id()));
    assert!(seen.in_use);
    assert_eq!(seen.unsent_records, 1);
    assert_eq!(seen.open_intents, 1);
    assert_eq!(seen.damaged_regions, 0);
    assert_eq!(seen.epochs, vec![(spool.epoch(), 1, 0)]);
    drop(spool);
    let seen = inspect(directory.path()).unwrap();
    assert!(!seen.in_use);
    assert_eq!(seen.unsent_records, 1);
    assert_eq!(seen.open_intents, 1);
}

#[test]
fn bad_options_are_refused_with_what_would_be_right() {
    let directory = tempfile::tempdir().unwrap();
    let small = SpoolOptions { bytes_max: 3 * SEGMENT_BYTES_MIN, ..options(directory.path()) };
    let error = Spool::open(small, RealFileSystem).unwrap_err();
    assert!(error.to_string().contains("at least four segments, 262144"), "{error}");
    let odd = SpoolOptions { segment_bytes: SEGMENT_BYTES_MIN + 1, ..options(directory.path()) };
    assert!(matches!(Spool::open(odd, RealFileSystem), Err(OpenError::Options { .. })));
    let file = directory.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    assert!(matches!(Spool::open(options(&file), RealFileSystem), Err(OpenError::Io { .. })));
}

#[test]
fn payloads_over_the_limit_are_refused_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let limit = usize::try_from(SEGMENT_BYTES_MIN / 16).unwrap();
    let refused = spool.intent(1, &vec![1; limit + 1]);
    assert_eq!(refused, Err(AppendError::TooLarge { bytes: limit + 1, bytes_max: limit }));
    assert_eq!(spool.stats().open_intents, 0);
    spool.intent(1, &vec![1; limit]).unwrap();
}

#[tokio::test]
async fn a_memo_comes_back_with_the_cursor_it_was_given_for() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, recovered) = open(directory.path());
    assert!(recovered.memo.is_empty());
    for number in 0..10_u32 {
        let note = spool.note(1, &number.to_le_bytes()).unwrap();
        spool.durable(note).await.unwrap();
    }
    let records = drain(&mut spool.reader());
    spool.advance_with(records[3].next_lsn, "up to the fourth".into()).unwrap();
    let refused = spool.advance_with(records[9].next_lsn, vec![0; MEMO_BYTES_MAX + 1].into());
    assert_eq!(refused, Err(MemoTooLarge { bytes: MEMO_BYTES_MAX + 1 }), "and the cursor does not move");
    spool.close();
    drop(spool);

    let (spool, recovered) = open(directory.path());
    assert_eq!(recovered.memo, "up to the fourth");
    let records = drain(&mut spool.reader());
    assert_eq!(records.len(), 6);
    spool.rewind().unwrap();
    let again = drain(&mut spool.reader());
    spool.advance_with(again[0].next_lsn, vec![7; MEMO_BYTES_MAX].into()).unwrap();
    for _ in 0..MEMO_BYTES_MAX {
        spool.unrecorded();
    }
    spool.close();
    drop(spool);

    let (_, recovered) = open(directory.path());
    assert_eq!(recovered.memo, vec![7; MEMO_BYTES_MAX], "the largest one fits beside the counts");
    assert_eq!(recovered.epochs.last().map(|epoch| epoch.unrecorded), Some(MEMO_BYTES_MAX as u64));
}

#[test]
fn a_closed_epoch_stays_closed_when_its_closing_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.unrecorded();
    let counted = spool.epoch();
    drop(spool);
    let (spool, recovered) = open(directory.path());
    assert_eq!(recovered.epochs[0].epoch, counted);
    assert_eq!(recovered.epochs[0].unrecorded, 1);
    spool.close_epoch(counted).unwrap();
    // As after a kill: whatever the threads would still do to the state comes too late.
    let state = std::fs::read(directory.path().join("state")).unwrap();
    drop(spool);
    std::fs::write(directory.path().join("state"), state).unwrap();
    for _ in 0..3 {
        let (spool, recovered) = open(directory.path());
        assert!(recovered.epochs.is_empty(), "{:?}", recovered.epochs);
        // Moves the cursor past everything, so that the next start need not read it.
        assert!(drain(&mut spool.reader()).is_empty());
        spool.close();
    }
}
