//! NATS goes silent under a worker, once while it has nothing to do and once in the middle of a batch: no transaction of it stays
//! open meanwhile, and nothing is lost.

use std::time::Duration;

use goldleaves_e2e::account::{self, Unbilled};
use goldleaves_e2e::deployment::PATIENCE;
use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::load::Load;
use goldleaves_e2e::tables::Tables;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::upstream::{Answer, Upstream};

use crate::chaos::ACK_WAIT;

/// Transactions in which nothing has happened for longer than any two statements of one lie apart.
const STILL: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'goldleaves' \
                     AND state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '2 seconds'";

/// Transactions in the middle of a batch: they wait for somebody's lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'goldleaves' \
                       AND wait_event_type = 'Lock'";

/// Has a batch wait in its transaction until what is returned rolls back.
async fn hold_a_batch(fleet: &Fleet, tables: &Tables) -> Tables {
    let holder = fleet.tables().await.unwrap();
    holder.run("BEGIN; LOCK TABLE usage_rollups IN EXCLUSIVE MODE").await.unwrap();
    let waits = async || Ok((tables.number(WAITING).await? > 0).then_some(()));
    wait_for("a batch that waits", PATIENCE, waits).await.unwrap();
    holder
}

/// Looks for so long whether a transaction stands still.
async fn no_transaction_stands_still(tables: &Tables, looks: u32, round: &str) {
    for _ in 0..looks {
        assert_eq!(tables.number(STILL).await.unwrap(), 0, "{round}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_holds_no_transaction_open_while_nats_is_silent() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    // Work on a batch is announced every third of it, as the worker finds it at its start.
    fleet.redeliver_after(ACK_WAIT).await.unwrap();
    fleet.scale(0).await.unwrap();
    fleet.scale(1).await.unwrap();
    let (token, gateway) = (fleet.token("acme").unwrap(), fleet.address().borrow().unwrap());
    let load = Load::start(gateway, 4, move |client, number| {
        let id = format!("silent-{client}-{number}");
        Request::get("/api/v1/documents").token(&token).header("X-Request-ID", &id)
    });
    let tables = fleet.tables().await.unwrap();
    for round in ["between two batches", "in the middle of a batch"] {
        let before = load.finished();
        wait_for("some calls", PATIENCE, async || Ok((load.finished() > before + 200).then_some(()))).await.unwrap();
        let holder = if round.starts_with("in") { Some(hold_a_batch(&fleet, &tables).await) } else { None };
        fleet.wires.worker_nats.stall();
        if let Some(holder) = holder {
            // Longer than the worker says nothing of what it works on.
            no_transaction_stands_still(&tables, 8, round).await;
            holder.run("ROLLBACK").await.unwrap();
        }
        no_transaction_stands_still(&tables, 30, round).await;
        fleet.wires.worker_nats.mend();
    }
    let receipts = load.receipts().await.unwrap();
    fleet.relayed(PATIENCE).await.unwrap();
    fleet.recorded(PATIENCE).await.unwrap();
    let contents = tables.contents().await.unwrap();
    let complaints = account::complaints(&contents, &receipts, &upstream.request_ids(), Unbilled::default());
    assert!(complaints.is_empty(), "{} of {}: {complaints:#?}", complaints.len(), receipts.len());
}
