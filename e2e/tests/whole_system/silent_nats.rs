//! NATS goes silent under a worker: no transaction of it stays open meanwhile, and nothing is lost.

use std::time::Duration;

use goldleaves_e2e::account::{self, Unbilled};
use goldleaves_e2e::deployment::PATIENCE;
use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::load::Load;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::upstream::{Answer, Upstream};

use crate::chaos::ACK_WAIT;

/// Transactions in which nothing has happened for longer than any two statements of one lie apart.
const STILL: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'goldleaves' \
                     AND state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '2 seconds'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_holds_no_transaction_open_while_nats_is_silent() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    // Work on a batch is announced every third of it.
    fleet.redeliver_after(ACK_WAIT).await.unwrap();
    let (token, gateway) = (fleet.token("acme").unwrap(), fleet.address().borrow().unwrap());
    let load = Load::start(gateway, 4, move |client, number| {
        let id = format!("silent-{client}-{number}");
        Request::get("/api/v1/documents").token(&token).header("X-Request-ID", &id)
    });
    let tables = fleet.tables().await.unwrap();
    for round in 1..=2 {
        let before = load.finished();
        wait_for("some calls", PATIENCE, async || Ok((load.finished() > before + 200).then_some(()))).await.unwrap();
        fleet.wires.worker_nats.stall();
        for _ in 0..30 {
            assert_eq!(tables.number(STILL).await.unwrap(), 0, "round {round}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        fleet.wires.worker_nats.mend();
    }
    let receipts = load.receipts().await.unwrap();
    fleet.relayed(PATIENCE).await.unwrap();
    fleet.recorded(PATIENCE).await.unwrap();
    let contents = tables.contents().await.unwrap();
    let complaints = account::complaints(&contents, &receipts, &upstream.request_ids(), Unbilled::default());
    assert!(complaints.is_empty(), "{} of {}: {complaints:#?}", complaints.len(), receipts.len());
}
