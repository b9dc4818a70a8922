//! The settings that programs besides the gateway take while they run: their logs, and the billing API its tokens. Everything else of theirs
//! takes a restart, and is named.

use std::net::SocketAddr;

use goldleaves_e2e::deployment::{Kind, PATIENCE};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::program::Program;
use goldleaves_testkit::upstream::Upstream;
use rustix::process::Signal;

use super::{World, answer, echoing, other_secret, settings};

/// The sum of a metric of this program.
async fn metric(ops: SocketAddr, name: &str) -> f64 {
    let text = Request::get("/metrics").send(ops).await.unwrap().text();
    goldleaves_e2e::metrics::sum(&text, name)
}

/// Sends SIGHUP and waits for what comes of it.
async fn hang_up(program: &mut Program, ops: SocketAddr) {
    let before = metric(ops, "goldleaves_config_reloads_total").await;
    program.signal(Signal::HUP).unwrap();
    wait_for("a reading", PATIENCE, async || {
        Ok((metric(ops, "goldleaves_config_reloads_total").await > before).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_and_billing_api_take_logs_and_tokens() {
    let (upstream, tunnels) = (Upstream::start(answer).await.unwrap(), echoing().await);
    let whole = settings(1, &upstream, tunnels);
    let (mut world, secret) = World::with_secret_file(Kind::Distributed, &whole).await;
    let (new_secret, new) = other_secret();
    let billing = world.deployment.billing().unwrap();
    let usage = Request::get("/billing/usage-summary/acme").token(&new);
    assert_eq!(usage.send(billing).await.unwrap().status, 401);
    std::fs::write(&secret, new_secret).unwrap();
    wait_for("the new secret", PATIENCE, async || Ok((usage.send(billing).await?.status == 200).then_some(())))
        .await
        .unwrap();
    let restart = format!("{whole}[otel]\nservice_name = \"other\"\n");
    let logs = format!("{whole}[log]\nformat = \"json\"\n");
    let file = world.file.clone();
    let [_, worker, billing] = world.deployment.programs().unwrap() else { panic!("three programs") };
    for program in [worker, billing] {
        let ops = program.address("ops").await.unwrap();
        std::fs::write(&file, &restart).unwrap();
        hang_up(program, ops).await;
        let named = "OTEL_SERVICE_NAME: has changed, which takes a restart; expected what it was at the start";
        program.printed(named, |text| text.contains(named).then_some(())).await.unwrap();
        assert_eq!(metric(ops, "goldleaves_config_stale").await, 1.0);
        std::fs::write(&file, &logs).unwrap();
        hang_up(program, ops).await;
        assert_eq!(metric(ops, "goldleaves_config_stale").await, 0.0);
        // The first line that is written in the new form is the one that says so, or the next one.
        program.signal(Signal::HUP).unwrap();
        let json =
            |text: &str| text.lines().any(|line| line.starts_with('{') && line.contains("heard SIGHUP")).then_some(());
        program.printed("a line in JSON", json).await.unwrap();
    }
}
