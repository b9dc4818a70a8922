//! The built programs push to Stripe's double: in one process, and two billing-api beside each other that are killed again
//! and again while they push.

use std::time::Duration;

use goldleaves_e2e::deployment::{Deployment, Kind, SECRET};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::{Request, Response};
use goldleaves_testkit::stripe::{Faults, Garbling, StripeDouble};
use goldleaves_testkit::token::Claims;
use goldleaves_testkit::upstream::{Answer, Upstream};
use sea_orm::{ConnectionTrait as _, Database};
use serde_json::{Value, json};

const METER: &str = "goldleaves_units";
const TENANTS: usize = 6;
/// A killed program has its lanes for a minute, and its calls their time.
const LONG: Duration = Duration::from_secs(300);
/// The time for which a program that is to be killed may live.
const LIFE: Duration = Duration::from_secs(10);

fn admin() -> String {
    Claims::new("any", "ann").role("admin").sign(SECRET).unwrap()
}

async fn call(deployment: &Deployment, request: Request) -> Response {
    deployment.ask(&request.token(&admin())).await.unwrap()
}

async fn put(deployment: &Deployment, path: &str, body: Value) {
    let request = Request::put(&format!("/billing/stripe/{path}"), body.to_string());
    let response = call(deployment, request.header("content-type", "application/json")).await;
    assert_eq!(response.status, 201, "{}", response.text());
}

/// Usage of the hour before the last, as workers leave it.
async fn use_something(deployment: &Deployment, kind: Kind, tenant: &str) {
    let connection = Database::connect(deployment.database().unwrap()).await.unwrap();
    let sql = match kind {
        Kind::Distributed => format!(
            "INSERT INTO usage_rollups (tenant_id, hour, route, action, rate_version, shard, events, units_micro) \
             VALUES ('{tenant}', date_trunc('hour', now()) - interval '2 hours', '/a', 'read', 1, 0, 3, 3000000)"
        ),
        Kind::Embedded => format!(
            "INSERT INTO usage_rollups (tenant_id, hour, route, action, rate_version, shard, events, \
                 units_micro_high, units_micro_low) \
             VALUES ('{tenant}', strftime('%Y-%m-%dT%H:00:00.000000Z', 'now', '-2 hours'), '/a', 'read', 1, 0, 3, 0, 3000000)"
        ),
    };
    connection.execute_unprepared(&sql).await.unwrap();
}

async fn start(kind: Kind) -> (Deployment, StripeDouble, Upstream) {
    let (double, upstream) =
        (StripeDouble::start().await.unwrap(), Upstream::start(|_| Answer::ok("x")).await.unwrap());
    double.add_meter("mtr_1", METER);
    let settings = [
        ("UPSTREAM_URL", upstream.url()),
        ("STRIPE_API_BASE", double.url()),
        ("STRIPE_API_KEY", "rk_test_double".to_owned()),
        ("STRIPE_CALLS_PER_SECOND", "200".to_owned()),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let deployment = Deployment::start_with(kind, &settings).await.unwrap();
    let meter = json!({"event_name": METER, "stripe_meter_id": "mtr_1", "places": 6, "reason": "set-up"});
    put(&deployment, &format!("meters/{METER}"), meter).await;
    (deployment, double, upstream)
}

async fn map_and_report(deployment: &Deployment, kind: Kind, tenant: &str) {
    use_something(deployment, kind, tenant).await;
    let from = "2026-01-01T00:00:00Z";
    let mapping = json!({"stripe_customer_id": format!("cus_{tenant}"), "from_hour": from, "reason": "set-up"});
    put(deployment, &format!("mappings/{tenant}/{METER}"), mapping).await;
    let body = json!({"tenant_id": tenant, "start_date": "2026-01-01", "end_date": "2100-01-01"}).to_string();
    let report = Request::post("/billing/report-usage", body).header("content-type", "application/json");
    assert_eq!(call(deployment, report).await.status, 202);
}

async fn wait_until_pushed(deployment: &Deployment, tenant: &str) {
    let target = format!("/billing/report-usage/{tenant}?start_date=2026-01-01&end_date=2100-01-01");
    let mut last = String::new();
    let pushed = wait_for("the push", LONG, async || {
        let response = call(deployment, Request::get(&target)).await;
        last = response.text();
        Ok((response.json()?["state"] == "pushed").then_some(()))
    });
    pushed.await.unwrap_or_else(|error| panic!("{error:#}; {tenant}: {last}"));
}

#[tokio::test]
async fn one_process_pushes() {
    let (mut deployment, double, _upstream) = start(Kind::Embedded).await;
    double.add_customer("cus_acme");
    map_and_report(&deployment, Kind::Embedded, "acme").await;
    wait_until_pushed(&deployment, "acme").await;
    assert_eq!(double.total("cus_acme", METER), 3_000_000);
    assert!(deployment.stop().await.unwrap().success());
}

#[tokio::test]
async fn sums_that_say_nothing_send_nothing_and_are_named() {
    let (mut deployment, double, _upstream) = start(Kind::Embedded).await;
    double.add_customer("cus_acme");
    double.garble(Some(Garbling::Html));
    map_and_report(&deployment, Kind::Embedded, "acme").await;
    let is_named = |output: &str| {
        let said = output.lines().find(|line| line.contains("Stripe does not say what it has"))?;
        Some(said.contains("nothing is sent in this lane meanwhile") && said.contains("cus_acme"))
    };
    assert!(deployment.program().unwrap().printed("what Stripe does not say", is_named).await.unwrap());
    assert_eq!(double.calls("send"), 0);
    double.garble(None);
    wait_until_pushed(&deployment, "acme").await;
    assert_eq!(double.total("cus_acme", METER), 3_000_000);
    assert!(deployment.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_are_killed_while_they_push_lose_and_double_nothing() {
    let (deployment, double, _upstream) = start(Kind::Distributed).await;
    double.set_faults(Faults { share: 0.3, ..Faults::default() });
    let tenants: Vec<String> = (0..TENANTS).map(|number| format!("tenant-{number}")).collect();
    for tenant in &tenants {
        double.add_customer(&format!("cus_{tenant}"));
    }
    for (number, tenant) in tenants.iter().enumerate() {
        map_and_report(&deployment, Kind::Distributed, tenant).await;
        // A second one, which has its lanes for as long as it lives.
        let mut second = deployment.another("billing-api").start().unwrap();
        second.address("billing listens on").await.unwrap();
        if number % 2 == 0 {
            let sent = double.calls("send");
            wait_for("a call", LIFE, async || Ok((double.calls("send") > sent).then_some(()))).await.ok();
        }
        second.kill().unwrap();
    }
    double.set_faults(Faults::default());
    for tenant in &tenants {
        wait_until_pushed(&deployment, tenant).await;
        assert_eq!(double.total(&format!("cus_{tenant}"), METER), 3_000_000, "{tenant}");
    }
    assert_eq!(double.violations(), [""; 0]);
}
