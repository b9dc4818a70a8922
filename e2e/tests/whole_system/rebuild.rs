//! A ledger made anew from the stream and the exported rate cards is the old one, to the cent.
//!
//! Some hundreds of calls as a rule; `GOLDLEAVES_SOAK=1` makes it 50,000.

use goldleaves_e2e::tables::Tables;
use goldleaves_testkit::nats::NatsServer;
use rand::seq::SliceRandom as _;

use crate::soak;
use crate::used_stream::{assert_same, bills, connect, meaning, output, publish, recorded, stored, used};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_ledger_fed_the_stream_in_any_order_bills_the_same_to_the_cent() {
    let (_upstream, fleet) = used(if soak() { 50_000 } else { 400 }).await;
    let cards = fleet.folder().join("rate-cards");
    let exported = output(fleet.program("goldleaves").argument("rate-cards").argument("export"));
    assert_eq!(exported.lines().count(), 2, "{exported}");
    std::fs::write(&cards, &exported).unwrap();

    // A stream of its own, in another order; workers take it in batches, so the order of recording is yet another one.
    let server = NatsServer::start().await.unwrap();
    let mut shuffled = stored(&connect(&fleet.nats[0]).await).await;
    shuffled.shuffle(&mut rand::rng());
    publish(&connect(&server).await, shuffled).await;

    let database = fleet.postgres.empty_database().await.unwrap();
    let there =
        |program: &str| fleet.program(program).setting("DATABASE_URL", &database).setting("NATS_URL", server.url());
    // `migrate` knows nothing of the rates that were.
    output(there("migrate").setting("USAGE_RATE_CENTS", "7"));
    let import = || there("goldleaves").argument("rate-cards").argument("import").input(&cards);
    assert_eq!(output(import()), "2 cards added, 0 were there\n");
    assert_eq!(output(import()), "0 cards added, 2 were there\n");
    let workers: Vec<_> = (0..4).map(|_| there("meter-worker").start().unwrap()).collect();
    recorded(&server).await;

    let (old, new) = (fleet.tables().await.unwrap(), Tables::open(&database).await.unwrap());
    assert_same(&meaning(&new).await, &meaning(&old).await);
    assert_eq!(bills(&fleet, &database).await, bills(&fleet, fleet.database()).await);
    // Now that they priced something, they stay.
    std::fs::write(&cards, exported.replace("33.333333", "33.333334")).unwrap();
    let refused = import().output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(70), "{said}");
    assert!(said.contains("33.333333") && said.contains("33.333334"), "{said}");
    drop(workers);
}
