//! Bytes that were once written: they are written the same way for ever, and read for ever.
//!
//! A change here breaks streams, spools and ledgers that exist. A new format gets new files beside these. To write a
//! file that is not there yet, set `GOLDLEAVES_GOLDEN=write`.

use std::path::PathBuf;

use goldleaves_domain::wire::{self, Message};
use goldleaves_domain::{Outcome, SetHash, UsageEvent};

use crate::common;
use crate::fingerprints::fingerprint;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares with the file, or writes one that is not there yet.
fn assert_golden(name: &str, written: &str) {
    let writes = std::env::var_os("GOLDLEAVES_GOLDEN").is_some_and(|value| value == "write");
    if writes && !path(name).exists() {
        std::fs::write(path(name), format!("{written}\n")).unwrap();
    }
    assert_eq!(written, golden(name).trim_end_matches('\n'), "{name}");
}

fn text(payload: &[u8]) -> String {
    String::from_utf8(payload.to_vec()).unwrap()
}

/// An event with nothing that may be missing.
fn bare_event() -> UsageEvent {
    let mut event = common::event(Outcome::Completed);
    (event.traceparent, event.client_request_id, event.fingerprint) = (None, None, None);
    (event.metadata.user_agent, event.metadata.client_ip) = (None, None);
    event.tenant_id = "Zoë's \"Büro\" \\ 🍃".parse().unwrap();
    event
}

#[test]
fn events_of_every_outcome() {
    for outcome in Outcome::ALL {
        let event = common::event(outcome);
        let name = format!("event-v1-{outcome}.json");
        assert_golden(&name, &text(&wire::encode_event(&event)));
        assert_eq!(wire::parse(golden(&name).as_bytes()), Ok(Message::Event(Box::new(event))));
    }
    assert_golden("event-v1-bare.json", &text(&wire::encode_event(&bare_event())));
}

#[test]
fn several_events_of_a_tenant() {
    let events = [0, 1, 2].map(crate::batches::numbered);
    let mut batch = wire::EventBatch::of(&events[0]);
    assert!(events[1..].iter().all(|event| batch.add(event, wire::BATCH_BYTES_MAX)));
    let delivery = batch.finish();
    assert_golden("batch-v1.json", &text(&delivery.payload));
    let written = format!("{} {} {}", wire::BATCH_CONTENT_TYPE, delivery.subject, delivery.message_id);
    assert_golden("batch-v1.txt", &written);
    let golden = golden("batch-v1.json");
    let read = wire::pieces(golden.as_bytes()).into_iter().map(|place| crate::wire::read(&golden.as_bytes()[place]));
    assert_eq!(read.collect::<Vec<_>>(), events);
}

#[test]
fn seals() {
    assert_golden("seal-v1.json", &text(&wire::encode_seal(&common::seal())));
    let read = wire::parse(golden("seal-v1.json").as_bytes());
    assert_eq!(read, Ok(Message::Seal(Box::new(common::seal()))));
}

#[test]
fn an_event_that_other_tools_wrote_again() {
    // Sorted, indented, with more members, another offset and an exponent, as jq and its like leave it.
    let read = wire::parse(golden("event-v1-rewritten.json").as_bytes());
    assert_eq!(read, Ok(Message::Event(Box::new(common::event(Outcome::Completed)))));
}

#[test]
fn an_event_of_a_newer_version() {
    let unreadable = wire::parse(golden("event-v2.json").as_bytes()).unwrap_err();
    assert_eq!(unreadable.reason.as_str(), "newer_version");
    assert_eq!(unreadable.event_id, Some(common::event(Outcome::Completed).event_id));
    assert_eq!(unreadable.tenant_id.as_deref(), Some("org_123"));
    assert_eq!(unreadable.request_id, None, "it has another place there");
}

#[test]
fn subjects() {
    let longest = "🍃".repeat(255);
    let tenants = ["org_123", "Az09_-", "a.b*c>d e=f", "Zoë", "=2E", "🍃", &longest];
    let lines = tenants.map(|tenant| format!("{tenant}\t{}", wire::event_subject(&tenant.parse().unwrap())));
    let seal = wire::seal_subject(&common::seal().source);
    assert_golden("subjects.tsv", &format!("{}\n{}\t{seal}", lines.join("\n"), common::seal().source));
}

#[test]
fn fingerprints() {
    let lines = [
        fingerprint("user-7", "GET /api/v1/documents", None, &[]),
        fingerprint("user-7", "GET /api/v1/documents", Some(""), &[]),
        fingerprint("user-7", "GET /api/v1/documents/", Some("q=a%20b&q=c"), &[]),
        fingerprint("Zoë 🍃", "POST //api/v1/./documents/%61;p=1", Some("x"), &[b"{\"n\":", b"1}"]),
    ];
    assert_golden("fingerprints-v1.txt", &lines.map(|line| line.to_string()).join("\n"));
}

#[test]
fn digests() {
    let events = [common::event(Outcome::Completed), common::event(Outcome::Unknown), bare_event()];
    let lines = events.each_ref().map(|event| {
        let hex: String = event.canonical_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}\t{hex}", SetHash::from_bytes(event.digest()))
    });
    assert_golden("digests-v1.tsv", &lines.join("\n"));
    let mut set = SetHash::EMPTY;
    events.iter().for_each(|event| set.insert(event));
    assert_golden("set-hash-v1.txt", &set.to_string());
    assert_golden("metadata.txt", &events.each_ref().map(UsageEvent::metadata_json).join("\n"));
}
