//! The meter on both databases: what it counts, and how it finds what no ledger can hold.

use bytes::Bytes;
use goldleaves_domain::{Delivery, Fingerprint, Outcome, PublishError, Publisher, Units, UsageEvent, wire};
use goldleaves_ledger::{Ledger, StoreOptions};
use goldleaves_meter_worker::Meter;
use goldleaves_runtime::Metrics;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::usage;

use crate::child;
use crate::database::{self, Row, Tables};

async fn meter(url: &str) -> (Meter, Metrics) {
    let metrics = Metrics::new();
    let ledger = Ledger::connect(url, StoreOptions::default()).await.unwrap();
    (Meter::new(ledger, &metrics), metrics)
}

fn event(seq: u64) -> UsageEvent {
    UsageEvent { tenant_id: "tenant-1".parse().unwrap(), ts: child::now(), seq, ..usage::event() }
}

fn payloads<'a>(events: impl IntoIterator<Item = &'a UsageEvent>) -> Vec<Bytes> {
    events.into_iter().map(wire::encode_event).collect()
}

#[track_caller]
fn assert_shows(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.text();
    for line in lines {
        assert!(text.lines().any(|shown| shown == format!("goldleaves_{line}")), "{line} is not in\n{text}");
    }
}

async fn every_number_moves(url: &str) {
    let (meter, metrics) = meter(url).await;
    let print: Fingerprint = format!("v1:{}", "0".repeat(64)).parse().unwrap();
    let mut events: Vec<_> = (1..=5).map(event).collect();
    for event in &mut events[..2] {
        event.request_id = "the-clients".parse().unwrap();
        event.client_request_id = Some(event.request_id.clone());
        event.fingerprint = Some(print.clone());
    }
    events[4].outcome = Outcome::UpstreamAborted;
    events[4].units = Units::ZERO;
    let mut batch = payloads(&events);
    batch.push(Bytes::from_static(b"no json"));
    let recorded = meter.record(batch.clone()).await.unwrap();
    assert_eq!(recorded.inserted, 3);
    assert_eq!(recorded.duplicates, 1);
    assert_eq!(recorded.replays, 0);
    meter.record(batch).await.unwrap();
    assert_shows(
        &metrics,
        &[
            "billed_events_total 3",
            "repeated_events_total 1",
            "replayed_messages_total 6",
            "dead_letters_total{reason=\"upstream_aborted\"} 1",
            "dead_letters_total{reason=\"not_json\"} 1",
            "revenue_cents{route=\"/api/v1/documents\"} 75",
            "repeat_share 0.25",
            "meter_failures_total 0",
        ],
    );
    let rows = Tables::open(url).await.rows().await;
    assert_eq!(rows.len(), 6);
}

/// A refusal of the database stands for whatever nobody thought of.
async fn poison_is_found_and_set_aside_alone(url: &str) {
    let tables = Tables::open(url).await;
    let postgres = "CREATE FUNCTION no_poison() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no poison' USING ERRCODE = '22003'; END $$;
        CREATE TRIGGER no_poison BEFORE INSERT ON usage_events FOR EACH ROW WHEN (NEW.route = '/poison')
        EXECUTE FUNCTION no_poison()";
    // Too big for a value.
    let sqlite = "CREATE TRIGGER no_poison BEFORE INSERT ON usage_events WHEN NEW.route = '/poison'
        BEGIN SELECT zeroblob(3000000000); END";
    tables.run(if url.starts_with("sqlite") { sqlite } else { postgres }).await;
    let (meter, metrics) = meter(url).await;
    let mut events: Vec<_> = (1..=50).map(event).collect();
    let poison = [7, 8, 33].map(|at: usize| {
        events[at].route = "/poison".parse().unwrap();
        events[at].event_id.to_string()
    });
    meter.record(payloads(&events)).await.unwrap();
    let rows = tables.rows().await;
    assert_eq!(rows.len(), 50);
    for (id, row) in rows {
        let (table, outcome) =
            if poison.contains(&id) { ("usage_dead_letters", "refused") } else { ("usage_events", "completed") };
        assert_eq!(row, Row { table: table.into(), outcome: outcome.into() });
    }
    assert_shows(&metrics, &["billed_events_total 47", "dead_letters_total{reason=\"refused\"} 3"]);
}

/// The server's errors about a value, and those about anything else: a constraint somebody made, a partition that is
/// missing, a column of another type.
async fn only_what_is_said_of_a_value_is_poison(url: &str) {
    let tables = Tables::open(url).await;
    let trigger = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = substr(NEW.route, 2); END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON usage_events FOR EACH ROW EXECUTE FUNCTION refuse()";
    tables.run(trigger).await;
    let (meter, _) = meter(url).await;
    let values = ["22001", "22003", "22007", "22008", "22021", "22P02", "22P03", "22P05", "54000"];
    let others = ["23502", "23503", "23505", "23514", "22012", "42804", "42703", "42501", "53100", "55000"];
    let mut set_aside = 0;
    for (number, code) in (1..).zip(values.into_iter().chain(others)) {
        let mut event = event(number);
        event.route = format!("/{code}").parse().unwrap();
        let recorded = meter.record(payloads(&[event])).await;
        assert_eq!(recorded.is_ok(), values.contains(&code), "{code}: {recorded:?}");
        set_aside += usize::from(recorded.is_ok());
        assert_eq!(tables.rows().await.len(), set_aside, "{code}");
    }
}

/// A row that somebody else made unreadable is no fault of the event that meets it.
async fn a_stored_row_that_cannot_be_read_is_no_poison(url: &str) {
    let tables = Tables::open(url).await;
    let (meter, metrics) = meter(url).await;
    let repeat = |number, minute: &str| {
        let mut event = event(number);
        event.client_request_id = Some("the-same".parse().unwrap());
        event.request_id = "the-same".parse().unwrap();
        event.fingerprint = Some(format!("v1:{}", "0".repeat(64)).parse().unwrap());
        event.ts = format!("2026-11-24T05:{minute}:00Z").parse().unwrap();
        event
    };
    meter.record(payloads(&[repeat(1, "30")])).await.unwrap();
    tables.run("UPDATE usage_events SET cost_cents = NULL").await;
    let earlier = payloads(&[repeat(2, "10")]);
    assert!(meter.record(earlier.clone()).await.is_err());
    assert_eq!(tables.rows().await.len(), 1, "nothing is set aside");
    tables.run("UPDATE usage_events SET cost_cents = 25").await;
    meter.record(earlier).await.unwrap();
    assert_eq!(tables.rows().await.len(), 2);
    assert_shows(&metrics, &["meter_failures_total 1"]);
}

/// A schema that is not there has nothing to do with the batch: nothing is set aside, the batch comes again.
async fn a_database_that_is_not_ready_is_no_poison(url: &str) {
    let tables = Tables::open(url).await;
    tables.run("ALTER TABLE usage_events RENAME TO usage_events_away").await;
    let (meter, metrics) = meter(url).await;
    let event = event(1);
    let deliveries = vec![Delivery::of_event(&event)];
    let refused = meter.publish(deliveries.clone()).await.unwrap_err();
    assert!(matches!(&refused, PublishError::Unconfirmed { reason } if reason.contains("usage_events")), "{refused}");
    assert_shows(&metrics, &["meter_failures_total 1", "billed_events_total 0"]);
    tables.run("ALTER TABLE usage_events_away RENAME TO usage_events").await;
    meter.publish(deliveries).await.unwrap();
    let rows = tables.rows().await;
    assert_eq!(rows.into_keys().collect::<Vec<_>>(), [event.event_id.to_string()]);
}

/// A batch may fail after its first transaction: what was billed then is counted, though it comes again as a replay.
async fn what_was_committed_before_a_failure_is_counted(url: &str) {
    let tables = Tables::open(url).await;
    let (meter, metrics) = meter(url).await;
    let postgres = "ALTER TABLE usage_dead_letters ADD CONSTRAINT deaf CHECK (false)";
    let sqlite = "CREATE TRIGGER deaf BEFORE INSERT ON usage_dead_letters BEGIN SELECT RAISE(ABORT, 'deaf'); END";
    tables.run(if url.starts_with("sqlite") { sqlite } else { postgres }).await;
    let mut batch = payloads(&[event(1), event(2)]);
    batch.push(Bytes::from_static(b"no json"));
    assert!(meter.record(batch).await.is_err());
    assert_shows(&metrics, &["billed_events_total 2", "meter_failures_total 1"]);
}

mod sqlite {
    use super::*;

    #[tokio::test]
    async fn what_was_committed_before_a_failure_is_counted() {
        let folder = Scratch::new("meter").unwrap();
        super::what_was_committed_before_a_failure_is_counted(&database::sqlite(folder.path()).await).await;
    }

    #[tokio::test]
    async fn a_stored_row_that_cannot_be_read_is_no_poison() {
        let folder = Scratch::new("meter").unwrap();
        super::a_stored_row_that_cannot_be_read_is_no_poison(&database::sqlite(folder.path()).await).await;
    }

    #[tokio::test]
    async fn every_number_moves() {
        let folder = Scratch::new("meter").unwrap();
        super::every_number_moves(&database::sqlite(folder.path()).await).await;
    }

    #[tokio::test]
    async fn poison_is_found_and_set_aside_alone() {
        let folder = Scratch::new("meter").unwrap();
        super::poison_is_found_and_set_aside_alone(&database::sqlite(folder.path()).await).await;
    }

    #[tokio::test]
    async fn a_database_that_is_not_ready_is_no_poison() {
        let folder = Scratch::new("meter").unwrap();
        super::a_database_that_is_not_ready_is_no_poison(&database::sqlite(folder.path()).await).await;
    }
}

mod postgres {
    use super::*;

    #[tokio::test]
    async fn what_was_committed_before_a_failure_is_counted() {
        super::what_was_committed_before_a_failure_is_counted(&database::postgres().await).await;
    }

    #[tokio::test]
    async fn a_stored_row_that_cannot_be_read_is_no_poison() {
        super::a_stored_row_that_cannot_be_read_is_no_poison(&database::postgres().await).await;
    }

    #[tokio::test]
    async fn only_what_is_said_of_a_value_is_poison() {
        super::only_what_is_said_of_a_value_is_poison(&database::postgres().await).await;
    }

    #[tokio::test]
    async fn every_number_moves() {
        super::every_number_moves(&database::postgres().await).await;
    }

    #[tokio::test]
    async fn poison_is_found_and_set_aside_alone() {
        super::poison_is_found_and_set_aside_alone(&database::postgres().await).await;
    }

    #[tokio::test]
    async fn a_database_that_is_not_ready_is_no_poison() {
        super::a_database_that_is_not_ready_is_no_poison(&database::postgres().await).await;
    }
}
