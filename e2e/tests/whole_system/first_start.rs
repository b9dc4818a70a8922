//! The first steps of a newcomer: start it, paste the printed lines, read what the call cost, stop it, start it again.

use goldleaves_e2e::curl;
use goldleaves_e2e::deployment::{Deployment, Kind};
use goldleaves_testkit::token::Claims;
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::Value;

/// Without an upstream and without a secret of its own, as on a fresh machine.
fn fresh_machine() -> Deployment {
    Deployment::prepare(Kind::Embedded, &[("JWT_SECRET", "")]).unwrap().with_banner()
}

/// The three curl lines of the banner, once they are there.
async fn printed_lines(deployment: &mut Deployment) -> [String; 3] {
    let program = deployment.program().unwrap();
    program.printed("three curl lines", |text| curl::lines(text).try_into().ok()).await.unwrap()
}

#[tokio::test]
async fn the_printed_curl_lines_answer_and_the_call_is_in_the_summary() {
    let mut deployment = fresh_machine();
    deployment.start_again().await.unwrap();
    let [call, summary, report] = &printed_lines(&mut deployment).await;

    let answer = curl::send(call).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("x-request-id").is_some());
    assert!(answer.header("x-usage-event-id").is_some(), "{:?}", answer.head);

    let mut billed = 1;
    if let Some(output) = curl::paste(call).unwrap() {
        assert!(!output.is_empty());
        billed += 1;
    }
    let counted = wait_for_events(summary, billed).await;
    assert_eq!(counted["total_units"], billed);
    assert_eq!(counted["total_cost_cents"], 25 * billed);
    let reported = curl::send(report).await.unwrap().json().unwrap();
    assert_eq!(reported["route_breakdown"].as_array().map(Vec::len), Some(1), "{reported}");
    for line in [summary, report] {
        if let Some(output) = curl::paste(line).unwrap() {
            assert!(output.contains("total_events"), "{output}");
        }
    }

    assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
    deployment.start_again().await.unwrap();
    let [call, summary, _] = &printed_lines(&mut deployment).await;
    wait_for_events(summary, billed).await;
    curl::send(call).await.unwrap();
    wait_for_events(summary, billed + 1).await;
}

/// With a service of one's own, whatever is open and in whatever order the routes are listed.
#[tokio::test]
async fn the_first_printed_line_is_billed_with_a_service_of_ones_own() {
    for (routes, public) in [("/", ""), ("/docs,/,/auth/login", ""), ("/static,/billing/x,/Api/V1/*", "/static")] {
        let upstream = Upstream::start(|_| Answer::ok("mine")).await.unwrap();
        let settings =
            [("UPSTREAM_URL", upstream.url().as_str()), ("BILLABLE_ROUTES", routes), ("PUBLIC_ROUTES", public)]
                .map(|(name, value)| (name, value.to_owned()));
        let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
        let mut deployment = Deployment::prepare(Kind::Embedded, &settings).unwrap().with_banner();
        deployment.start_again().await.unwrap();
        let [call, summary, _] = &printed_lines(&mut deployment).await;
        let answer = curl::send(call).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "mine"), "{call}");
        assert!(answer.header("x-usage-event-id").is_some(), "{routes}: {call} {:?}", answer.head);
        wait_for_events(summary, 1).await;
    }
}

async fn wait_for_events(summary: &str, events: u64) -> Value {
    goldleaves_testkit::child::wait_for("the summary", goldleaves_e2e::deployment::PATIENCE, async || {
        let response = curl::send(summary).await?;
        anyhow::ensure!(response.status == 200, "{} {}", response.status, response.text());
        let summary = response.json()?;
        anyhow::ensure!(summary["total_events"].as_u64() <= Some(events), "too many: {summary}");
        Ok((summary["total_events"] == events).then_some(summary))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_token_made_by_the_command_opens_the_gateway() {
    let mut deployment = fresh_machine();
    deployment.start_again().await.unwrap();
    let command = deployment.launch().argument("token").argument("--tenant").argument("acme");
    let output = command.argument("--user").argument("ann").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = String::from_utf8(output.stdout).unwrap();
    assert_eq!(token.lines().count(), 1, "the token stands alone on stdout: {token}");
    let request = goldleaves_testkit::client::Request::get("/api/v1/documents").token(token.trim());
    assert_eq!(deployment.ask(&request).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_secret_of_ones_own_is_the_one_that_counts() {
    let deployment = Deployment::start_with(Kind::Embedded, &[]).await.unwrap();
    let request = goldleaves_testkit::client::Request::get("/api/v1/documents");
    let good = request.clone().token(&deployment.token("acme").unwrap());
    assert_eq!(deployment.ask(&good).await.unwrap().status, 200);
    let forged = Claims::new("acme", "ann").sign("another-secret-of-enough-bytes-0123456789").unwrap();
    assert_eq!(deployment.ask(&request.token(&forged)).await.unwrap().status, 401);
}
