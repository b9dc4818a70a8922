//! Set hashes and blocks: order does not matter, every immutable column does.

use goldleaves_domain::{Action, EventId, ImmutableColumns, Outcome, Seal, SetHash, UsageEvent};
use proptest::prelude::*;
use uuid::Uuid;

use crate::common;

fn hash_of<'a>(events: impl IntoIterator<Item = &'a UsageEvent>) -> SetHash {
    let mut hash = SetHash::EMPTY;
    events.into_iter().for_each(|event| hash.insert(event));
    hash
}

proptest! {
    #[test]
    fn a_set_hash_knows_no_order(
        (events, shuffled) in prop::collection::vec(common::any_event(), 0..12)
            .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
    ) {
        let whole = hash_of(&events);
        prop_assert_eq!(hash_of(&shuffled), whole);
        prop_assert_eq!(whole.to_string().parse(), Ok(whole));
        prop_assert_eq!(SetHash::from_bytes(*whole.as_bytes()), whole);
    }

    #[test]
    fn a_lost_event_shows(events in prop::collection::vec(common::any_event(), 1..8)) {
        prop_assert_ne!(hash_of(&events[1..]), hash_of(&events));
    }

    #[test]
    fn a_digest_is_the_same_on_both_sides_of_the_wire(event in common::any_event()) {
        let payload = goldleaves_domain::wire::encode_event(&event);
        let Ok(goldleaves_domain::wire::Message::Event(read)) = goldleaves_domain::wire::parse(&payload) else {
            panic!("no event");
        };
        prop_assert_eq!(read.digest(), event.digest());
        let metadata = read.metadata_json();
        prop_assert_eq!(ImmutableColumns::of(&read, &metadata).digest(), event.digest());
    }
}

#[test]
fn every_immutable_column_changes_the_digest_and_the_label_does_not() {
    let event = common::event(Outcome::Completed);
    let changed = |change: fn(&mut UsageEvent)| {
        let mut changed = event.clone();
        change(&mut changed);
        changed.digest()
    };
    let changes: [fn(&mut UsageEvent); 17] = [
        |event| event.event_id = EventId::new(Uuid::nil()),
        |event| event.tenant_id = "org_124".parse().unwrap(),
        |event| event.user_id = "user-8".parse().unwrap(),
        |event| event.ts = event.ts.plus_micros(1).unwrap(),
        |event| event.client_request_id = None,
        |event| event.client_request_id = Some("other".parse().unwrap()),
        |event| event.route = "/api/v1/cases".parse().unwrap(),
        |event| event.action = Action::of_method("GET"),
        |event| event.units = "2.500001".parse().unwrap(),
        |event| event.outcome = Outcome::ClientAborted,
        |event| event.fingerprint = None,
        |event| event.epoch = goldleaves_domain::Epoch::new(Uuid::nil()),
        |event| event.seq += 1,
        |event| event.metadata.status_code = 200,
        |event| event.metadata.user_agent = None,
        |event| event.metadata.response_bytes = 0,
        |event| event.metadata.processing_micros += 1,
    ];
    let mut digests: Vec<[u8; 32]> = changes.into_iter().map(changed).collect();
    digests.push(event.digest());
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 18);
    assert_eq!(changed(|event| event.request_id = "another-label".parse().unwrap()), event.digest());
}

#[test]
fn blocks_hold_1024_numbers_from_one() {
    assert_eq!([1, 2, 1_024, 1_025, 2_048, 2_049].map(Seal::block_of), [0, 0, 0, 1, 1, 2]);
}

#[test]
fn other_texts_are_no_set_hash() {
    for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"A".repeat(64), &"é".repeat(32)] {
        assert!(text.parse::<SetHash>().is_err(), "{text}");
    }
}
