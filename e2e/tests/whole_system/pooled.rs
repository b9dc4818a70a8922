//! Every program comes to its database through a PgBouncer: with sessions of its own it works, with shared ones it ends
//! at its start and says what has to be changed.

use goldleaves_e2e::deployment::{Deployment, Kind};
use goldleaves_testkit::client::Request;
use goldleaves_testkit::pgbouncer::PgBouncer;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::upstream::{Answer, Upstream};

const CALLS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_billed_through_a_pooler_of_sessions() {
    let server = Postgres::shared().await.unwrap();
    let pooler = PgBouncer::start(server, "pool_mode = session\nserver_reset_query = DISCARD ALL").await.unwrap();
    let url = pooler.through(&server.empty_database().await.unwrap()).unwrap();
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let settings = [("UPSTREAM_URL", upstream.url()), ("DATABASE_URL", url)];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut deployment = Deployment::start_with(Kind::Distributed, &settings).await.unwrap();
    let request = Request::get("/api/v1/documents").token(&deployment.token("acme").unwrap());
    for _ in 0..CALLS {
        assert_eq!(deployment.ask(&request).await.unwrap().status, 200);
    }
    deployment.summary_of("acme", CALLS).await.unwrap();
    assert!(deployment.stop().await.unwrap().success(), "{}", pooler.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_of_transactions_is_refused_in_a_sentence() {
    let server = Postgres::shared().await.unwrap();
    let pooler = PgBouncer::start(server, "pool_mode = transaction").await.unwrap();
    let url = pooler.through(&server.database().await.unwrap()).unwrap();
    let settings = [("UPSTREAM_URL", "http://127.0.0.1:9"), ("DATABASE_URL", url.as_str())];
    let deployment = Deployment::prepare(Kind::Embedded, &settings).unwrap();
    let refused = deployment.command().output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(70), "{said}");
    assert!(said.contains("pool_mode = session"), "{said}");
}
