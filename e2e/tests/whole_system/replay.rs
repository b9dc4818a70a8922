//! The stream comes again, in another order, while everybody works: no table changes but for what is new.
//!
//! Some hundreds of calls as a rule; `GOLDLEAVES_SOAK=1` makes it 50,000.

use std::collections::BTreeSet;

use goldleaves_e2e::deployment::PATIENCE;
use goldleaves_e2e::load::Load;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use rand::seq::SliceRandom as _;

use crate::soak;
use crate::used_stream::{assert_same, connect, delivery, epochs, publish, rows_of_others, stored, used};

const LIVE: &str = "live";
const ROUNDS: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_five_times_in_any_order_changes_nothing_but_for_live_events() {
    let (_upstream, mut fleet) = used(if soak() { 50_000 } else { 400 }).await;
    let tables = fleet.tables().await.unwrap();
    let connection = connect(&fleet.nats[0]).await;
    let originals = stored(&connection).await;
    let epochs = epochs(&tables).await;
    let before = rows_of_others(&tables, LIVE, &epochs).await;
    assert!(before.len() > 400 && epochs.len() >= 2, "{} rows, {epochs:?}", before.len());

    fleet.start_gateway().await.unwrap();
    let (gateway, token) = (fleet.address().borrow().unwrap(), fleet.token(LIVE).unwrap());
    let live = Load::start(gateway, 2, move |client, number| {
        let request = Request::get("/api/v1/documents").token(&token);
        // Half of them under ids that other tenants used before.
        let id = if number % 2 == 0 { format!("again-{}", number % 30) } else { format!("live-{client}-{number}") };
        request.header("X-Request-ID", &id)
    });
    for _ in 0..ROUNDS {
        let mut shuffled: Vec<_> = originals.iter().map(|original| delivery(original.payload.clone())).collect();
        shuffled.shuffle(&mut rand::rng());
        publish(&connection, shuffled).await;
    }
    wait_for("live calls", PATIENCE, async || Ok((live.finished() > 20).then_some(()))).await.unwrap();
    let receipts = live.receipts().await.unwrap();
    fleet.relayed(PATIENCE).await.unwrap();
    assert!(fleet.stop_gateway().await.unwrap().success());
    fleet.recorded(PATIENCE * 15).await.unwrap();

    let delivered = fleet.consumer().await.unwrap()["delivered"]["stream_seq"].as_u64().unwrap();
    assert!(delivered > originals.len() as u64 * (ROUNDS + 1), "only {delivered}");
    assert_same(&rows_of_others(&tables, LIVE, &epochs).await, &before);
    let contents = tables.contents().await.unwrap();
    let rows = contents.events.iter().chain(&contents.duplicates).filter(|row| row.tenant == LIVE);
    let found: Vec<&str> = rows.map(|row| row.id.as_str()).collect();
    let expected: BTreeSet<&str> = receipts.iter().filter_map(|receipt| receipt.event_id.as_deref()).collect();
    assert_eq!(found.len(), receipts.len(), "one row a live call");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    assert!(contents.occurrences().values().all(|count| *count == 1), "an event in two tables");
    assert_eq!(tables.disagreements().await.unwrap(), Vec::<String>::new());
}
