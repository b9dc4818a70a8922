//! Several events in one message: written as a CloudEvents JSON batch, taken apart whatever is in it.

use goldleaves_domain::wire::{self, BATCH_BYTES_MAX, BATCH_EVENTS_MAX, EventBatch};
use goldleaves_domain::{Delivery, EventId, Outcome, UsageEvent};
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use crate::{common, wire as wire_tests};

/// The event with this number, each with an id of its own.
pub(crate) fn numbered(number: u128) -> UsageEvent {
    let event = common::event(Outcome::Completed);
    let id = EventId::new(Uuid::from_u128(event.event_id.as_uuid().as_u128() + number));
    UsageEvent { event_id: id, seq: 41 + u64::try_from(number).unwrap(), ..event }
}

/// Read in one pass, everything is what it is by itself.
fn assert_same(payload: &[u8]) {
    let by_itself =
        wire::pieces(payload).into_iter().map(|place| wire::Part { read: wire::parse(&payload[place.clone()]), place });
    assert_eq!(wire::parse_all(payload), by_itself.collect::<Vec<_>>(), "{}", String::from_utf8_lossy(payload));
}

fn texts(payload: &[u8]) -> Vec<&str> {
    wire::pieces(payload).into_iter().map(|place| std::str::from_utf8(&payload[place]).unwrap()).collect()
}

#[test]
fn one_event_alone_is_not_wrapped() {
    assert_eq!(EventBatch::of(&numbered(0)).finish(), Delivery::of_event(&numbered(0)));
}

#[test]
fn a_message_holds_no_more_than_it_may() {
    let mut batch = EventBatch::of(&numbered(0));
    let stranger = UsageEvent { tenant_id: "other".parse().unwrap(), ..numbered(1) };
    assert!(!batch.add(&stranger, BATCH_BYTES_MAX), "another tenant's");
    let one = wire::encode_event(&numbered(0)).len();
    assert!(!batch.add(&numbered(1), 2 * one), "both, a comma and two brackets");
    let added = (1..100).filter(|number| batch.add(&numbered(*number), BATCH_BYTES_MAX)).count();
    assert_eq!(added, BATCH_EVENTS_MAX - 1);
    let delivery = batch.finish();
    assert_eq!(delivery.message_id, format!("{}+64", numbered(0).event_id));
    assert_eq!(wire::events_by_id(&delivery.message_id), 64);
    assert_eq!(delivery.traceparent, None);
    assert_eq!(wire::events_by_id("01935b1c-0000-7000-8000-000000000001"), 1);
    assert_eq!(wire::events_by_id("x+0"), 1);
    assert_eq!(wire::events_by_id("x+999999"), 64);
    let read = wire::pieces(&delivery.payload).into_iter().map(|place| wire_tests::read(&delivery.payload[place]));
    assert_eq!(read.collect::<Vec<_>>(), (0..64).map(numbered).collect::<Vec<_>>());
}

#[test]
fn large_events_make_small_batches() {
    let large = |number| {
        let mut event = numbered(number);
        event.metadata.user_agent = Some("a".repeat(10_000));
        event
    };
    let mut batch = EventBatch::of(&large(0));
    let added = (1..64).take_while(|number| batch.add(&large(*number), usize::MAX)).count();
    let delivery = batch.finish();
    assert!(added < 10 && delivery.payload.len() <= BATCH_BYTES_MAX, "{added}");
    assert_eq!(wire::pieces(&delivery.payload).len(), added + 1);
}

#[test]
fn what_is_damaged_costs_itself_alone() {
    for (payload, pieces) in [
        ("{}", vec!["{}"]),
        ("nonsense", vec!["nonsense"]),
        ("", vec![""]),
        (" [ {\"a\":\"],[\"} , {\"b\":[1,{}]}\n] ", vec!["{\"a\":\"],[\"}", "{\"b\":[1,{}]}"]),
        ("[1,\"a\\\"]\",{x},nul]", vec!["1", "\"a\\\"]\"", "{x}", "nul"]),
        ("[{},{} ,{\"cut", vec!["{}", "{}", "{\"cut"]),
        ("[{},{}", vec!["{}", "{}"]),
        ("[{}] more", vec!["{}", "more"]),
        ("[{},,{}]", vec!["{}", ",{}]"]),
        ("[]", vec!["[]"]),
        ("[ ,{}]", vec!["[ ,{}]"]),
        ("[", vec!["["]),
        ("[[{}],{}]", vec!["[{}]", "{}"]),
    ] {
        assert_eq!(texts(payload.as_bytes()), pieces, "{payload}");
        assert_same(payload.as_bytes());
    }
    let not_utf8 = b"[{\"a\":\"\xff\"},{\"b\":1}]";
    assert_eq!(&not_utf8[wire::pieces(not_utf8)[1].clone()], b"{\"b\":1}");
}

proptest! {
    #[test]
    fn every_event_of_a_batch_is_read_back(events in vec(common::any_event(), 1..20)) {
        let tenant = events[0].tenant_id.clone();
        let events: Vec<_> = events.into_iter().map(|event| UsageEvent { tenant_id: tenant.clone(), ..event }).collect();
        let mut batch = EventBatch::of(&events[0]);
        let added = 1 + events[1..].iter().take_while(|event| batch.add(event, usize::MAX)).count();
        let delivery = batch.finish();
        let pieces = wire::pieces(&delivery.payload);
        prop_assert_eq!(pieces.len(), added);
        for (place, event) in pieces.into_iter().zip(&events) {
            prop_assert_eq!(&delivery.payload[place], wire::encode_event(event));
        }
        assert_same(&delivery.payload);
    }

    #[test]
    fn damage_anywhere_in_a_batch_is_found_in_one_pass_as_piece_by_piece(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut batch = EventBatch::of(&numbered(0));
        assert!((1..4).all(|number| batch.add(&numbered(number), BATCH_BYTES_MAX)));
        let mut payload = batch.finish().payload.to_vec();
        let at = at.index(payload.len());
        payload[at] = byte;
        if cut {
            payload.truncate(at);
        }
        assert_same(&payload);
    }

    #[test]
    fn anything_has_pieces_that_follow_each_other(payload in prop_oneof!["[\\[\\]{},\"\\\\a ]{0,40}".prop_map(String::into_bytes), vec(any::<u8>(), 0..60)]) {
        let pieces = wire::pieces(&payload);
        prop_assert!(!pieces.is_empty());
        prop_assert!(pieces.iter().all(|place| place.start <= place.end && place.end <= payload.len()));
        prop_assert!(pieces.is_sorted_by(|a, b| a.end <= b.start));
        assert_same(&payload);
    }
}
