//! Every write again: the same call twice, at once, and after a `kill -9` of the billing API between commit and answer.
//! There is one row and one line of the audit, and the answer is what is stored. What a call is answered is elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use goldleaves_e2e::deployment::{PATIENCE, SECRET};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::{Request, Response};
use goldleaves_testkit::program::{Launch, Program};
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::token::Claims;
use rand::Rng as _;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Api, Event, Kind, on_both, token};

on_both!(every_put_at_once_and_again_is_one);

/// A write, whose reason is like no other's.
#[derive(Debug)]
struct Write {
    path: String,
    body: Value,
    /// Counts the rows that it made.
    rows: String,
    audit: String,
}

/// One write of each kind, for a tenant of its own.
async fn writes(api: &Api) -> Vec<Write> {
    let tenant = format!("t-{}", Uuid::now_v7());
    let mut events = Vec::new();
    for hour in 10..13 {
        let event = Event::at(&tenant, &format!("2026-03-03T{hour}:00:00Z"));
        events.push(event);
    }
    assert_eq!(api.record(&events).await.inserted, 3);
    let correction = |body: Value| ("corrections", "usage_corrections", Uuid::now_v7().to_string(), body);
    let bodies = [
        correction(json!({"kind": "void", "tenant_id": tenant, "event_id": events[0].id})),
        correction(json!({"kind": "adjust", "tenant_id": tenant, "event_id": events[1].id, "units": "-0.5"})),
        correction(json!({"kind": "amount", "tenant_id": tenant, "cents": -500, "ts": "2026-03-05T00:00:00Z"})),
        correction(json!({"kind": "amount", "tenant_id": tenant, "cents": 70})),
        ("tenants", "billing_tenants", tenant.clone(), json!({"time_zone": "Asia/Kolkata"})),
        (
            "periods",
            "billing_periods",
            format!("{tenant}/1"),
            json!({"starts_at": "2026-03-01T00:00:00Z", "ends_at": "2026-04-01T00:00:00Z"}),
        ),
        (
            "rate-cards",
            "rate_cards",
            Uuid::now_v7().to_string(),
            json!({"tenant_id": tenant, "pricing": {"model": "per_unit", "cents_per_unit": "3"},
                "effective_from": "2100-01-01T00:00:00Z"}),
        ),
        (
            "stripe/meters",
            "stripe_meters",
            format!("meter-{tenant}"),
            json!({"event_name": tenant, "stripe_meter_id": "mtr_1", "places": 6}),
        ),
        (
            "stripe/mappings",
            "stripe_mappings",
            format!("{tenant}/meter-{tenant}"),
            json!({"stripe_customer_id": "cus_1", "from_hour": "2026-03-03T10:00:00Z"}),
        ),
    ];
    let write = |(path, table, id, mut body): (&str, &str, String, Value)| {
        let reason = format!("because {}", Uuid::now_v7());
        body["reason"] = json!(reason);
        // What is set under a key of its own keeps no reason.
        let which = match table {
            "billing_tenants" | "stripe_mappings" => ("tenant_id", &tenant),
            "stripe_meters" => ("event_name", &tenant),
            _ => ("reason", &reason),
        };
        Write {
            path: format!("/billing/{path}/{id}"),
            body,
            rows: format!("SELECT COUNT(*) FROM {table} WHERE {} = '{}'", which.0, which.1),
            audit: format!("SELECT COUNT(*) FROM billing_audit WHERE body LIKE '%{reason}%'"),
        }
    };
    bodies.into_iter().map(write).collect()
}

/// A write that is not tried here is one that was forgotten.
#[tokio::test]
async fn every_put_is_tried() {
    let api = Api::start().await;
    let tried = writes(&api).await;
    let request = http::Request::get("/billing/openapi.json").body(axum::body::Body::empty()).unwrap();
    let document = api.ask(request).await.json();
    for (path, verbs) in document["paths"].as_object().unwrap() {
        let stem = path.split('{').next().unwrap();
        if verbs["put"].is_object() {
            assert!(tried.iter().any(|write| write.path.starts_with(stem)), "{path}");
        }
    }
}

impl Write {
    async fn made(&self, api: &Api) -> (i64, i64) {
        (api.number(&self.rows).await, api.number(&self.audit).await)
    }
}

async fn every_put_at_once_and_again_is_one(api: Api) {
    let admin = token("ops", &["admin"]);
    for write in writes(&api).await {
        let call = || api.put(&write.path, &admin, &write.body);
        let answers = futures_util::future::join_all((0..8).map(|_| call())).await;
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [[200; 7].as_slice(), &[201]].concat(), "{write:?} {answers:?}");
        for _ in 0..2 {
            let again = call().await;
            assert_eq!(again.status, 200, "{write:?}: {again:?}");
            assert!(answers.iter().all(|answer| answer.text == again.text), "{write:?}: {again:?} {answers:?}");
        }
        assert_eq!(write.made(&api).await, (1, 1), "{write:?}");
    }
}

/// A billing API of its own process.
struct Served {
    program: Program,
    client: Client,
}

/// An admin, and where the API is.
#[derive(Clone)]
struct Client {
    address: SocketAddr,
    admin: String,
}

impl Served {
    async fn start(api: &Api, scratch: &Scratch) -> Self {
        let addresses = ["BILLING_ADDR", "OPS_ADDR"].map(|name| (name, "127.0.0.1:0".to_owned()));
        let settings = [("JWT_SECRET", SECRET.to_owned()), ("DATABASE_URL", api.url().to_owned())];
        let launch = Launch::new("billing-api", scratch.path()).settings(addresses).settings(settings);
        let mut program = launch.start().unwrap();
        let address = program.address("billing listens on").await.unwrap();
        let admin = Claims::new("ops", "ada").role("admin").sign(SECRET).unwrap();
        Self { program, client: Client { address, admin } }
    }
}

impl Client {
    async fn put(&self, write: &Write) -> anyhow::Result<Response> {
        let request = Request::put(&write.path, write.body.to_string()).token(&self.admin);
        let request = request.header("content-type", "application/json");
        request.send(self.address).await
    }
}

/// The database holds the commit up until the program that asked for it is dead; then it goes through and nobody hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_heard_of_is_found_by_the_same_put() {
    const HELD: &str = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND wait_event_type = 'Lock' AND query = 'COMMIT'";
    let api = Api::on(Kind::Postgres).await;
    api.execute(
        "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER held AFTER INSERT ON billing_audit DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION held()",
    )
    .await;
    let mut one = ConnectOptions::new(api.url());
    one.max_connections(1);
    let keeper = Database::connect(one).await.unwrap();
    let scratch = Scratch::new("put-again").unwrap();
    let mut served = Served::start(&api, &scratch).await;
    for write in writes(&api).await {
        keeper.execute_unprepared("SELECT pg_advisory_lock(4711)").await.unwrap();
        let client = served.client.clone();
        let mut calling = std::pin::pin!(client.put(&write));
        let held = wait_for("the commit", PATIENCE, async || Ok((api.number(HELD).await == 1).then_some(())));
        tokio::select! {
            answer = &mut calling => panic!("{write:?}: answered before its commit: {answer:?}"),
            held = held => held.unwrap(),
        }
        served.program.kill().unwrap();
        assert_eq!(write.made(&api).await.0, 0, "{write:?}");
        keeper.execute_unprepared("SELECT pg_advisory_unlock(4711)").await.unwrap();
        let made = wait_for("the row", PATIENCE, async || Ok((write.made(&api).await == (1, 1)).then_some(())));
        made.await.unwrap();
        served = Served::start(&api, &scratch).await;
        for _ in 0..2 {
            let again = served.client.put(&write).await.unwrap();
            assert_eq!(again.status, 200, "{write:?}: {}", again.text());
        }
        assert_eq!(write.made(&api).await, (1, 1), "{write:?}");
    }
}

/// Rounds of a dozen kills at any moment of three equal calls; `GOLDLEAVES_SOAK=1` makes it hundreds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_leaves_a_put_undone_or_done_once() {
    let rounds = if std::env::var_os("GOLDLEAVES_SOAK").is_some_and(|value| value != "0") { 40 } else { 2 };
    let api = Api::on(Kind::Postgres).await;
    let scratch = Scratch::new("put-killed").unwrap();
    let mut served = Served::start(&api, &scratch).await;
    for _ in 0..rounds {
        for write in writes(&api).await {
            let moment = Duration::from_micros(rand::rng().random_range(0..30_000));
            let calls = futures_util::future::join_all((0..3).map(|_| served.client.put(&write)));
            let answers = tokio::time::timeout(moment, calls).await;
            served.program.kill().unwrap();
            let answered = answers.is_ok_and(|answers| answers.iter().any(|answer| answer.is_ok()));
            served = Served::start(&api, &scratch).await;
            let again = served.client.put(&write).await.unwrap();
            let expected: &[u16] = if answered { &[200] } else { &[200, 201] };
            assert!(expected.contains(&again.status), "{write:?}: {} {}", again.status, again.text());
            let same = served.client.put(&write).await.unwrap();
            assert_eq!((same.status, same.text()), (200, again.text()), "{write:?}");
            assert_eq!(write.made(&api).await, (1, 1), "{write:?}");
        }
    }
}
