//! Seals as a receiver hears them, against the events it heard, over crashes with segments deleted in between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use goldleaves_domain::{Epoch, EventId, Seal, SetHash, UsageEvent};

use super::receiver::*;
use super::recording::copy_files;
use crate::{Durability, RelayPace};

/// The last word of the seals on every block, and on every epoch.
type Blocks = BTreeMap<(Epoch, u64), (u32, SetHash)>;
type Epochs = BTreeMap<Epoch, (u64, u64, bool)>;

fn sealed(seals: &[Seal]) -> (Blocks, Epochs) {
    let (mut blocks, mut epochs) = (Blocks::new(), Epochs::new());
    for seal in seals {
        blocks.extend(seal.blocks.iter().map(|block| ((seal.epoch, block.block), (block.count, block.hash))));
        epochs.insert(seal.epoch, (seal.last_seq, seal.count, seal.closed));
    }
    (blocks, epochs)
}

fn received(events: &[UsageEvent]) -> (Blocks, Epochs) {
    let (mut blocks, mut epochs, mut known) = (Blocks::new(), Epochs::new(), BTreeSet::new());
    for event in events.iter().filter(|event| known.insert((event.epoch, event.seq))) {
        let (count, hash) = blocks.entry((event.epoch, Seal::block_of(event.seq))).or_default();
        *count += 1;
        hash.insert(event);
        let (last_seq, count, closed) = epochs.entry(event.epoch).or_default();
        (*last_seq, *count, *closed) = ((*last_seq).max(event.seq), *count + 1, true);
    }
    (blocks, epochs)
}

#[tokio::test]
async fn an_open_epoch_is_sealed_by_the_timer_when_something_changed_and_closed_at_the_stop() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let pace = RelayPace { seal: Duration::from_millis(20), ..NEVER };
    let running = Running::start(directory.path(), &receiver, pace).await;
    capture(&running.recorder, 5).await;
    until(|| receiver.seals().last().is_some_and(|seal| seal.count == 5)).await;
    let so_far = receiver.seals().len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(receiver.seals().len(), so_far, "nothing changed, nothing is sealed");
    assert!(receiver.seals().iter().all(|seal| !seal.closed));
    capture(&running.recorder, 1).await;
    assert_eq!(running.stop().await, 0);
    let seals = receiver.seals();
    assert_eq!(seals.iter().filter(|seal| seal.closed).count(), 1);
    assert_eq!(sealed(&seals), received(&receiver.events()));
}

#[tokio::test]
async fn an_idle_gateway_seals_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    for _ in 0..3 {
        let running = Running::start(directory.path(), &receiver, NEVER).await;
        assert!(running.shows("goldleaves_epochs_open 1"), "closed epochs do not come back");
        assert_eq!(running.stop().await, 0);
    }
    assert_eq!(receiver.messages(), []);
}

#[tokio::test]
async fn many_blocks_are_sealed_before_the_timer_so_that_the_checkpoint_stays_small() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let mut options = options(directory.path(), Durability::Available);
    (options.spool.segment_bytes, options.spool.bytes_max) = (4 << 20, 64 << 20);
    let running = Running::start_with(options, &receiver, NEVER).await;
    capture(&running.recorder, 18 * 1_024).await;
    until(|| receiver.counts().1 > 0).await;
    assert_eq!(running.stop().await, 0);
    assert_eq!(sealed(&receiver.seals()), received(&receiver.events()));
}

/// Every round ends as `kill -9` leaves it: some events relayed and their segments deleted, some not, calls open, seals
/// written or not.
#[tokio::test]
async fn after_any_crash_the_seals_of_every_epoch_are_those_of_what_arrived() {
    let mut directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let mut ids: BTreeSet<String> = BTreeSet::new();
    for round in 0..6_u64 {
        let pace = RelayPace { seal: Duration::from_millis(if round % 2 == 0 { 5 } else { 3_600_000 }), ..NEVER };
        let running = Running::start(directory.path(), &receiver, pace).await;
        ids.extend(capture(&running.recorder, 500).await.iter().map(EventId::to_string));
        until(|| running.shows("goldleaves_spool_unsent_records 0")).await;
        if round % 3 == 0 {
            receiver.becomes(Mood::Away);
        }
        ids.extend(capture(&running.recorder, 500).await.iter().map(EventId::to_string));
        if round % 3 != 0 {
            until(|| receiver.message_ids().is_superset(&ids)).await;
        }
        let open_call = announce(&running.recorder).await;
        ids.insert(open_call.event_id().to_string());
        std::mem::forget(open_call);
        running.kill().await;
        receiver.becomes(Mood::Confirms);
        let copy = tempfile::tempdir().unwrap();
        copy_files(directory.path(), copy.path());
        directory = copy;
    }
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    assert_eq!(running.stop().await, 0);
    let events = receiver.events();
    assert_eq!(events.iter().map(|event| event.event_id.to_string()).collect::<BTreeSet<_>>(), ids);
    let (received, sealed) = (received(&events), sealed(&receiver.seals()));
    assert_eq!(sealed.1, received.1);
    assert_eq!(sealed.0, received.0);
    assert_eq!(received.1.len(), 7);
}
