//! One tenant asks for more reports than the database can give: the others are answered as ever, and so is whoever asks
//! whether billing is healthy.

use std::net::SocketAddr;

use futures_util::future::join_all;
use goldleaves_e2e::deployment::{PATIENCE, SECRET};
use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::tables::Tables;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::{Request, Response};
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::token::Claims;
use goldleaves_testkit::upstream::{Answer, Upstream};
use sea_orm::{ConnectionTrait as _, Database, TransactionTrait as _};
use tokio::task::JoinHandle;

/// More than are answered and wait.
const FLOOD: usize = 150;
/// The statements that wait for a lock.
const STUCK: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'goldleaves' AND wait_event_type = 'Lock'";

/// Calls of one tenant, all at once. What they read is locked for now.
fn flood(tenant: &str, billing: SocketAddr, calls: usize) -> JoinHandle<Vec<Response>> {
    let token = Claims::new(tenant, "ann").role("admin").sign(SECRET).unwrap();
    let request = Request::get("/billing/audit").token(&token);
    tokio::spawn(async move { join_all((0..calls).map(async |_| request.send(billing).await.unwrap())).await })
}

async fn stuck(tables: &Tables, wanted: i64) {
    let mut last = 0;
    let reached = wait_for("calls that wait for the lock", PATIENCE, async || {
        last = tables.number(STUCK).await?;
        Ok((last >= wanted).then_some(()))
    });
    assert!(reached.await.is_ok(), "{last} wait, {wanted} should");
}

async fn health(billing: SocketAddr) -> Vec<u16> {
    let request = Request::get("/billing/health");
    join_all((0..FLOOD).map(async |_| request.send(billing).await.unwrap().status)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_floods_billing_starves_nobody() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let fleet = Fleet::start(vec![NatsServer::start().await.unwrap()], &upstream.url()).await.unwrap();
    let mut program = fleet.program("billing-api").start().unwrap();
    let billing = program.address("billing listens on").await.unwrap();
    let tables = fleet.tables().await.unwrap();
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'goldleaves'";
    assert!(health(billing).await.iter().all(|status| *status == 200));
    // The pool would have opened all its eight for so many; a look at the server by a second session ends by itself.
    let few = wait_for("few sessions", PATIENCE, async || Ok((tables.number(sessions).await? <= 6).then_some(())));
    assert!(
        few.await.is_ok(),
        "{} sessions after so many asked for the health",
        tables.number(sessions).await.unwrap()
    );

    let holder = Database::connect(fleet.database()).await.unwrap().begin().await.unwrap();
    holder.execute_unprepared("LOCK TABLE billing_audit IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let greedy = flood("greedy", billing, FLOOD);
    stuck(&tables, 2).await;
    let honest = Request::get("/billing/usage-summary/honest").token(&fleet.token("honest").unwrap());
    for _ in 0..20 {
        let answer = honest.send(billing).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(tables.number(STUCK).await.unwrap(), 2, "one tenant's part of the connections");

    // Four such tenants have them all, and billing is healthy.
    let others = ["hungry", "thirsty", "keen"].map(|tenant| flood(tenant, billing, 10));
    stuck(&tables, 8).await;
    assert!(health(billing).await.iter().all(|status| *status == 200));

    holder.rollback().await.unwrap();
    let answers = greedy.await.unwrap();
    let (answered, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(!answered.is_empty() && refused.len() >= FLOOD - 102, "{} answered", answered.len());
    for answer in refused {
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")), "{}", answer.text());
        assert_eq!(answer.json().unwrap()["code"], "concurrency_limited");
    }
    for other in others {
        other.await.unwrap();
    }
    let after = flood("greedy", billing, 5).await.unwrap();
    assert!(after.iter().all(|answer| answer.status == 200), "the turns are given back");
}
