//! An event that no ledger can hold lies among good ones: it is set aside alone, soon, and nobody waits for it.

use bytes::Bytes;
use goldleaves_e2e::fleet::Fleet;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::upstream::{Answer, Upstream};
use uuid::Uuid;

use crate::used_stream::{connect, delivery, publish, recorded};

/// An event as gateways of version 1 wrote it, under another id and number.
pub(crate) fn event(number: u64) -> String {
    let golden = goldleaves_toolbox::workspace_root().join("shared/domain/tests/golden/event-v1-completed.json");
    let golden = std::fs::read_to_string(golden).unwrap();
    let event = golden.replace("01935b1c-0000-7000-8000-000000000001", &Uuid::now_v7().to_string());
    let request = format!("good-{number}");
    event.replace("\"seq\":41", &format!("\"seq\":{number}")).replace("order-7.retry:1", &request)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_among_five_hundred_is_set_aside_and_the_others_are_billed() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    let tables = fleet.tables().await.unwrap();
    let connection = connect(&fleet.nats[0]).await;
    let poisons = [
        "no JSON at all".to_owned(),
        // Neither a text that PostgreSQL holds, nor a number that any column does.
        event(1).replace("user-7", "user\\u00007"),
        event(1).replace("\"seq\":1,", "\"seq\":18446744073709551615,"),
    ];
    for (round, poison) in (1..).zip(poisons) {
        let mut payloads: Vec<String> = (0..499).map(|number| event(round * 1_000 + number)).collect();
        payloads.insert(250, poison.clone());
        let batch = payloads.into_iter().map(|payload| delivery(Bytes::from(payload))).collect();
        publish(&connection, batch).await;
        let consumer = recorded(&fleet.nats[0]).await;
        assert_eq!(consumer["ack_floor"]["stream_seq"], round * 500, "{consumer}");
        let contents = tables.contents().await.unwrap();
        let (rows, letters) = (contents.events.len() as u64, contents.dead_letters.len() as u64);
        assert_eq!((rows, letters), (round * 499, round), "{:?}", contents.dead_letters);
        let kept = "SELECT convert_from(payload, 'UTF8') FROM usage_dead_letters";
        assert!(tables.texts(kept).await.unwrap().contains(&poison), "its bytes are kept");
    }
}
