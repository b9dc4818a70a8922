//! The wire format: what is written is read back, whatever it is; what is read fits the ledger, whatever was written.

use goldleaves_domain::Outcome;
use goldleaves_domain::wire::{self, Message, UnreadableReason};
use proptest::prelude::*;

use crate::common;

proptest! {
    #[test]
    fn any_event_comes_back_as_it_was(event in common::any_event()) {
        let payload = wire::encode_event(&event);
        let message = wire::parse(&payload).unwrap();
        prop_assert_eq!(message, Message::Event(Box::new(event)));
    }
}

#[test]
fn a_seal_comes_back_as_it_was() {
    let seal = common::seal();
    assert_eq!(wire::parse(&wire::encode_seal(&seal)).unwrap(), Message::Seal(Box::new(seal)));
}

#[test]
fn a_newer_version_keeps_what_it_says_about_itself() {
    let event = common::event(Outcome::Completed);
    let text = String::from_utf8(wire::encode_event(&event).to_vec()).unwrap();
    let unreadable = wire::parse(text.replace("usage.v1", "usage.v2").as_bytes()).unwrap_err();
    assert_eq!(unreadable.reason, UnreadableReason::NewerVersion);
    assert_eq!(unreadable.event_id, Some(event.event_id));
    assert_eq!(unreadable.tenant_id.as_deref(), Some("org_123"));
    assert_eq!(unreadable.request_id.as_deref(), Some("order-7.retry:1"));
    assert_eq!((unreadable.epoch, unreadable.seq, unreadable.ts), (Some(event.epoch), Some(41), Some(event.ts)));
}
