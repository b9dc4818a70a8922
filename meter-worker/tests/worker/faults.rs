//! Whatever dies, hangs or lies: each event once in the ledger, and nobody stuck.

use std::time::Duration;

use goldleaves_domain::Delivery;
use goldleaves_meter_worker::{StreamMetrics, StreamWatch};
use goldleaves_runtime::Metrics;
use goldleaves_testkit::postgres::Postgres;

use crate::support::{
    Gateway, billed, connect, ledger, publish, publisher, start_worker, stream, wait_until_done, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_ledger_can_hold_is_set_aside_alone_and_nobody_waits_for_it() {
    let (ledger, _) = ledger(Postgres::shared().await.unwrap()).await;
    let (_server, connection) = stream().await;
    let worker = start_worker(connection.clone(), &ledger);
    let mut gateway = Gateway::new();
    let mut batch = gateway.events(500);
    let garbage = |id: &str, payload: &str| Delivery {
        subject: "usage.v1.acme".to_owned(),
        message_id: id.to_owned(),
        payload: payload.to_owned().into(),
        traceparent: None,
    };
    batch.insert(250, garbage("garbage", "not JSON"));
    let newer = r#"{"specversion":"1.0","type":"goldleaves.usage.v9","id":"0198c0de-0000-7000-8000-000000000001"}"#;
    batch.insert(100, garbage("newer", newer));
    publish(&publisher(&connection), batch).await;
    wait_until_done(&connection).await;
    assert_eq!(billed(&ledger).await, 500);
    assert_eq!(worker.metric("dead_letters_total"), 2.0);
    assert_eq!(worker.metric("worker_messages_total"), 502.0);
    assert!(worker.metric("worker_batches_total") >= 1.0);
    assert!(worker.metric("worker_batch_seconds_count") >= 1.0);
    assert_eq!(worker.health.trouble(), None);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_dies_is_waited_out_and_every_event_is_there_once() {
    let mut postgres = Postgres::start().await.unwrap();
    let (ledger, _) = ledger(&postgres).await;
    let (server, connection) = stream().await;
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(start_worker(connect(&server).await, &ledger));
    }
    let publisher = publisher(&connection);
    let mut gateway = Gateway::new();
    for round in 0..2 {
        publish(&publisher, gateway.events(1_500)).await;
        if round == 0 {
            postgres.kill().unwrap();
        } else {
            postgres.pause().unwrap();
        }
        publish(&publisher, gateway.packed(1_500)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if round == 0 {
            within(async {
                while !workers.iter().any(|worker| worker.health.trouble().is_some_and(|why| why.contains("ledger"))) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
            postgres.restart().await.unwrap();
        } else {
            postgres.resume().unwrap();
        }
        wait_until_done(&connection).await;
    }
    assert_eq!(billed(&ledger).await, 6_000);
    let inserted: f64 = workers.iter().map(|worker| worker.metric("worker_messages_total")).sum();
    assert!(inserted >= 3_048.0);
    for worker in workers {
        assert_eq!(worker.health.trouble(), None, "the ledger records again");
        worker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_killed_under_load_changes_nothing_in_the_ledger() {
    let (ledger, _) = ledger(Postgres::shared().await.unwrap()).await;
    let (mut server, connection) = stream().await;
    let workers = [start_worker(connect(&server).await, &ledger), start_worker(connect(&server).await, &ledger)];
    let publisher = publisher(&connection);
    let mut gateway = Gateway::new();
    for _ in 0..3 {
        publish(&publisher, gateway.events(700)).await;
        server.kill().await.unwrap();
        server.restart().await.unwrap();
        publish(&publisher, gateway.packed(300)).await;
    }
    within(async {
        while billed(&ledger).await < 3_000 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(billed(&ledger).await, 3_000);
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_database_a_stop_hands_back_and_another_worker_takes_over() {
    let mut postgres = Postgres::start().await.unwrap();
    let (ledger, _) = ledger(&postgres).await;
    let (server, connection) = stream().await;
    let first = start_worker(connect(&server).await, &ledger);
    postgres.kill().unwrap();
    publish(&publisher(&connection), Gateway::new().events(10)).await;
    within(async {
        while first.health.trouble().is_none_or(|why| !why.contains("ledger")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let unrecorded = first.stop().await.unwrap_err();
    assert!(unrecorded.to_string().contains("10 messages were not recorded"), "{unrecorded}");
    postgres.restart().await.unwrap();
    assert_eq!(billed(&ledger).await, 0);
    let second = start_worker(connect(&server).await, &ledger);
    wait_until_done(&connection).await;
    // What takes long may be handed out once more.
    assert!(second.metric("worker_redeliveries_total") >= 10.0);
    assert_eq!(billed(&ledger).await, 10);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn the_lag_of_all_workers_is_shown_while_it_is_known() {
    let (mut server, connection) = stream().await;
    let postgres = Postgres::shared().await.unwrap();
    let (ledger, _) = ledger(postgres).await;
    publish(&publisher(&connection), Gateway::new().events(7)).await;
    let metrics = Metrics::new();
    let watch = StreamWatch::new(connection, ledger, StreamMetrics::register(&metrics));
    let watching = tokio::spawn(watch.run());
    within(async {
        while !metrics.text().contains("goldleaves_stream_pending_messages 7\n") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let text = metrics.text();
    for name in
        ["consumer_present 1", "stream_messages 7", "stream_bytes_max 268435456", "stream_age_max_seconds 3888000"]
    {
        assert!(text.contains(&format!("goldleaves_{name}")), "{name}: {text}");
    }
    server.kill().await.unwrap();
    within(async {
        while metrics.text().contains("goldleaves_stream_pending_messages ") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let text = metrics.text();
    assert!(!text.contains("goldleaves_consumer_present ") && !text.contains("goldleaves_stream_bytes "), "{text}");
    watching.abort();
}

#[tokio::test]
async fn an_event_of_a_gateway_whose_clock_is_far_ahead_is_set_aside_and_acknowledged() {
    let (server, connection) = stream().await;
    let postgres = Postgres::shared().await.unwrap();
    let (ledger, _) = ledger(postgres).await;
    let mut events = Gateway::new().events(3);
    // The fields keep their width, so that nothing but the time changes.
    let ahead = String::from_utf8(events[1].payload.to_vec()).unwrap().replace("2026-11-24T05", "2126-11-24T05");
    events[1].payload = ahead.into();
    publish(&publisher(&connection), events).await;
    let worker = start_worker(connect(&server).await, &ledger);
    wait_until_done(&connection).await;
    assert_eq!((billed(&ledger).await, worker.metric("dead_letters_total")), (2, 1.0));
    let text = worker.metrics.text();
    assert!(text.contains("goldleaves_dead_letters_total{reason=\"clock\"} 1"), "{text}");
    let line = text.lines().find(|line| line.starts_with("goldleaves_event_clock_offset_seconds{direction=\"ahead\"}"));
    let seconds: f64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(seconds > 90.0 * 365.0 * 86_400.0, "{seconds}");
    worker.stop().await.unwrap();
}
