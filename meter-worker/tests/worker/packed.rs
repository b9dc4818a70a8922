//! Messages with several events: each event by itself in the ledger, and the message done when all of them are.

use goldleaves_domain::wire::{self, EventBatch};
use goldleaves_domain::{Delivery, UsageEvent};
use goldleaves_ledger::StreamCourse;
use goldleaves_stream::{Footing, STREAM};
use goldleaves_testkit::postgres::Postgres;

use crate::support::{Gateway, billed, ledger, publish, publisher, start_worker, stream, wait_until_done};

/// A ledger that holds no event of this user.
async fn refuse_user(postgres: &Postgres, url: &str) {
    let sql = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            RAISE EXCEPTION 'no such text' USING ERRCODE = '22021'; END $$; \
        CREATE TRIGGER refuse BEFORE INSERT ON usage_events FOR EACH ROW WHEN (NEW.user_id = 'poison') \
            EXECUTE FUNCTION refuse()";
    postgres.execute_in(url.rsplit('/').next().unwrap(), sql).await.unwrap();
}

fn text(event: &UsageEvent) -> String {
    String::from_utf8(wire::encode_event(event).to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_bad_in_a_message_is_set_aside_alone_and_the_rest_of_it_recorded() {
    let postgres = Postgres::shared().await.unwrap();
    let (ledger, url) = ledger(postgres).await;
    refuse_user(postgres, &url).await;
    let (_server, connection) = stream().await;
    let mut gateway = Gateway::new();
    let mut events: Vec<String> = (0..5).map(|_| text(&gateway.usage())).collect();
    events[1] = events[1].replace("\"units\":\"1\"", "\"units\":\"many\"");
    events.push(text(&UsageEvent { user_id: "poison".parse().unwrap(), ..gateway.usage() }));
    // Twice in one message.
    events.push(events[0].clone());
    let before = gateway.events(30);
    let packed = Delivery {
        payload: format!(" [{}]\n", events.join(" , ")).into(),
        message_id: "several+7".to_owned(),
        ..gateway.event()
    };
    let after = gateway.events(30);
    let worker = start_worker(connection.clone(), &ledger);
    publish(&publisher(&connection), [before, vec![packed], after].concat()).await;
    wait_until_done(&connection).await;

    assert_eq!(billed(&ledger).await, 64);
    let text = worker.metrics.text();
    for line in [
        "dead_letters_total{reason=\"malformed\"} 1",
        "dead_letters_total{reason=\"refused\"} 1",
        "billed_events_total 64",
        "worker_messages_total 61",
    ] {
        assert!(text.contains(&format!("goldleaves_{line}\n")), "{line}: {text}");
    }
    assert!(worker.metric("replayed_messages_total") >= 1.0, "the second copy");
    let created = Footing::read(&connection).await.unwrap().unwrap().created;
    let course = StreamCourse { stream: STREAM.to_owned(), created };
    assert_eq!(ledger.progress(&course, 1).await.unwrap(), Some(61), "all of it is noted as recorded");
    let database = url.rsplit('/').next().unwrap();
    let alone = "DO $$ BEGIN ASSERT (SELECT count(*) FROM usage_dead_letters WHERE \
        convert_from(payload, 'UTF8') LIKE '{%}' AND length(payload) < 2000) = 2; END $$";
    postgres.execute_in(database, alone).await.unwrap();
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_packed_differently_before_changes_nothing() {
    let (ledger, _) = ledger(Postgres::shared().await.unwrap()).await;
    let (_server, connection) = stream().await;
    let worker = start_worker(connection.clone(), &ledger);
    let mut gateway = Gateway::new();
    let events: Vec<UsageEvent> = (0..100).map(|_| gateway.usage()).collect();
    let pack = |events: &[UsageEvent]| {
        let mut batch = EventBatch::of(&events[0]);
        assert!(events[1..].iter().all(|event| batch.add(event, usize::MAX)));
        batch.finish()
    };
    for size in [1, 7, 64, 10, 3] {
        publish(&publisher(&connection), events.chunks(size).map(pack).collect()).await;
    }
    wait_until_done(&connection).await;
    assert_eq!(billed(&ledger).await, 100);
    assert!(worker.metric("replayed_messages_total") >= 390.0);
    worker.stop().await.unwrap();
}
