//! `goldleaves billing export` and `import`: what bills are made by goes from one ledger into another.

use goldleaves_e2e::deployment::{Deployment, Kind, SECRET};
use goldleaves_testkit::client::Request;
use goldleaves_testkit::program::Launch;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::token::Claims;
use serde_json::{Value, json};

/// Returns the output of a command that succeeds.
fn output(launch: Launch) -> String {
    let output = launch.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn put(deployment: &Deployment, path: &str, body: &Value) {
    let token = Claims::new("ops", "ann").role("admin").sign(SECRET).unwrap();
    let request = Request::put(path, body.to_string()).header("content-type", "application/json").token(&token);
    let answer = deployment.ask(&request).await.unwrap();
    assert_eq!(answer.status, 201, "{path}: {}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_bills_are_made_by_goes_from_one_ledger_into_another() {
    let settings = [("UPSTREAM_URL", "http://127.0.0.1:9"), ("USAGE_RATE_CENTS", "25")];
    let mut deployment = Deployment::start_with(Kind::Embedded, &settings).await.unwrap();
    put(&deployment, "/billing/tenants/acme", &json!({"time_zone": "Asia/Kolkata", "reason": "they moved"})).await;
    let amount = json!({"kind": "amount", "tenant_id": "acme", "cents": -500, "ts": "2026-01-10", "reason": "a gift"});
    put(&deployment, "/billing/corrections/00000000-0000-4000-8000-000000000001", &amount).await;
    let pricing = json!({"model": "per_unit", "cents_per_unit": "7"});
    let card =
        json!({"tenant_id": "acme", "pricing": pricing, "effective_from": "2100-01-01T00:00:00Z", "reason": "less"});
    put(&deployment, "/billing/rate-cards/00000000-0000-4000-8000-000000000002", &card).await;
    // Beside a program that serves.
    let exported = output(deployment.command().argument("billing").argument("export"));
    assert!(
        exported.contains("Asia/Kolkata") && exported.contains("-500") && exported.contains("a gift"),
        "{exported}"
    );
    assert!(deployment.stop().await.unwrap().success());

    let scratch = Scratch::new("billing-command").unwrap();
    let there = || Launch::new("goldleaves", scratch.path()).setting("DATA_DIR", scratch.join("data"));
    output(there().argument("migrate").argument("--yes").setting("USAGE_RATE_CENTS", "25"));
    std::fs::write(scratch.join("file"), &exported).unwrap();
    let import = || there().argument("billing").argument("import").input(&scratch.join("file"));
    let first = output(import());
    assert!(first.contains("usage_corrections: 1 added, 0 were there"), "{first}");
    let again = output(import());
    assert!(again.contains("usage_corrections: 0 added, 1 were there"), "{again}");
    // The first card is each ledger's own.
    let rows = |file: &str| file.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let out = output(there().argument("billing").argument("export"));
    assert_eq!(rows(&out), rows(&exported), "what came in goes out the same");
    std::fs::write(scratch.join("file"), format!("{exported}nonsense\n")).unwrap();
    let refused = import().output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(70) && said.contains("line "), "{said}");
}
