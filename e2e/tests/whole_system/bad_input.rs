//! Bad input gets a clear answer, harms nobody else and loses nothing.

use goldleaves_e2e::deployment::{Deployment, Kind, SECRET};
use goldleaves_testkit::client::{Connection, Request, Response};
use goldleaves_testkit::token::{Claims, now_secs};
use goldleaves_testkit::upstream::{Answer, Upstream};
use rustix::process::Signal;
use serde_json::{Value, json};

const PATH: &str = "/api/v1/documents/7";

on_both!(
    bad_tokens_are_401_and_reach_nobody,
    tenants_one_may_not_act_for_are_403,
    what_cannot_be_read_is_refused,
    long_and_strange_headers_lose_nothing,
    wrong_dates_and_strangers_get_clear_answers_from_billing,
    oversized_bodies_are_413_and_not_billed,
    a_second_process_on_the_same_data_is_refused_and_harms_nothing,
);

async fn system(kind: Kind) -> (Upstream, Deployment) {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
    (upstream, deployment)
}

/// An error the gateway made: RFC 9457, with the request's id in it.
fn assert_problem(response: &Response, status: u16) -> Value {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json().unwrap();
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(problem["request_id"].as_str(), response.header("x-request-id"), "{problem}");
    assert!(response.header("x-usage-event-id").is_none());
    problem
}

async fn bad_tokens_are_401_and_reach_nobody(kind: Kind) {
    let (upstream, deployment) = system(kind).await;
    let claims = Claims::new("acme", "ann");
    let good = claims.sign(SECRET).unwrap();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", head.split_once('.').unwrap().1);
    let tokens = [
        "garbage".to_owned(),
        String::new(),
        format!("{head}.{}", signature.chars().rev().collect::<String>()),
        unsigned,
        claims.sign("another-secret-of-enough-bytes-0123456789").unwrap(),
        claims.clone().with("exp", json!(now_secs() - 10)).sign(SECRET).unwrap(),
        claims.clone().with("nbf", json!(now_secs() + 1000)).sign(SECRET).unwrap(),
        claims.clone().without("exp").sign(SECRET).unwrap(),
        claims.clone().without("sub").sign(SECRET).unwrap(),
        claims.clone().with("sub", json!("")).sign(SECRET).unwrap(),
        claims.clone().with("sub", json!(7)).sign(SECRET).unwrap(),
        claims.clone().with("tenant_id", json!("a".repeat(256))).sign(SECRET).unwrap(),
        claims.clone().with("tenant_id", json!("a\u{0}b")).sign(SECRET).unwrap(),
    ];
    for token in &tokens {
        let response = deployment.ask(&Request::get(PATH).token(token)).await.unwrap();
        let problem = assert_problem(&response, 401);
        assert!(token.is_empty() || !problem.to_string().contains(token.as_str()), "a token is repeated: {problem}");
    }
    assert_problem(&deployment.ask(&Request::get(PATH)).await.unwrap(), 401);
    let basic = Request::get(PATH).header("Authorization", "Basic YTpi");
    assert_problem(&deployment.ask(&basic).await.unwrap(), 401);
    assert!(upstream.served().is_empty(), "{:?}", upstream.served());
    assert_eq!(deployment.ask(&Request::get(PATH).token(&good)).await.unwrap().status, 200);
    let logs = {
        let mut deployment = deployment;
        deployment.program().unwrap().output()
    };
    assert!(!logs.contains(&good) && !logs.contains(SECRET), "a token or the secret is in the logs");
}

async fn tenants_one_may_not_act_for_are_403(kind: Kind) {
    let (upstream, deployment) = system(kind).await;
    let claims = Claims::new("acme", "ann").with("orgs", json!(["branch"]));
    let token = claims.sign(SECRET).unwrap();
    let ask = |name: &'static str, value: &'static str| Request::get(PATH).token(&token).header(name, value);
    assert_problem(&deployment.ask(&ask("X-Organization-ID", "stranger")).await.unwrap(), 403);
    assert_problem(&deployment.ask(&ask("X-Tenant-ID", "stranger")).await.unwrap(), 403);
    let unequal = ask("X-Organization-ID", "acme").header("X-Tenant-ID", "branch");
    assert_problem(&deployment.ask(&unequal).await.unwrap(), 400);
    let twice = ask("X-Organization-ID", "acme").header("X-Organization-ID", "acme");
    assert_problem(&deployment.ask(&twice).await.unwrap(), 400);
    let homeless = Claims::new("", "ann").without("tenant_id").sign(SECRET).unwrap();
    assert_problem(&deployment.ask(&Request::get(PATH).token(&homeless)).await.unwrap(), 403);
    assert!(upstream.served().is_empty());
    assert_eq!(deployment.ask(&ask("X-Organization-ID", "branch")).await.unwrap().status, 200);
    deployment.summary_of("branch", 1).await.unwrap();
    deployment.summary_of("acme", 0).await.unwrap();
}

async fn what_cannot_be_read_is_refused(kind: Kind) {
    let (upstream, deployment) = system(kind).await;
    let token = deployment.token("acme").unwrap();
    for path in [
        "/api/v1/documents/%2fx",
        "/api/v1/../auth/x",
        "/api/v1/documents/%00",
        "/api/v1\\documents",
        "/a/%2e%2e/b",
        "/%zz",
    ] {
        assert_problem(&deployment.ask(&Request::get(path).token(&token)).await.unwrap(), 400);
    }
    let raw = ["GET / HTTP/1.1\r\nno colon\r\n\r\n", "\u{1}\u{2}\u{3}\r\n\r\n", "GET /\r\n\r\n"];
    for bytes in raw {
        let mut connection = Connection::open(deployment.gateway().unwrap()).await.unwrap();
        connection.write(bytes.as_bytes()).await.unwrap();
        connection.finish_writing().await.unwrap();
        let answer = connection.read("GET").await;
        assert!(
            answer.as_ref().is_ok_and(|response| response.status == 400) || answer.is_err(),
            "{bytes:?}: {answer:?}"
        );
    }
    let huge = Request::get(PATH).token(&token).header("X-Filler", &"x".repeat(200_000));
    let answer = deployment.ask(&huge).await;
    assert!(answer.as_ref().is_ok_and(|response| response.status == 431) || answer.is_err(), "{answer:?}");
    assert!(upstream.served().is_empty(), "{:?}", upstream.served());
    assert_eq!(deployment.ask(&Request::get(PATH).token(&token)).await.unwrap().status, 200);
}

async fn long_and_strange_headers_lose_nothing(kind: Kind) {
    let (_upstream, deployment) = system(kind).await;
    let token = deployment.token("acme").unwrap();
    let ask = || Request::get(PATH).token(&token);
    let agents = ["x".repeat(2001), "\"\\".repeat(1000), "é\u{7f}".repeat(400), "\t".repeat(900)];
    let mut ids = Vec::new();
    for agent in &agents {
        let response = deployment.ask(&ask().header("User-Agent", agent)).await.unwrap();
        // A control character may be refused where it stands in no header; what is served is recorded.
        if response.status == 200 {
            ids.push(response.header("x-usage-event-id").unwrap().to_owned());
        }
    }
    assert!(ids.len() >= 2, "{ids:?}");
    for id in ["with space", "", &"a".repeat(129), "a~b", "ünïcode"] {
        let response = deployment.ask(&ask().header("X-Request-ID", id)).await.unwrap();
        assert_eq!(response.status, 200);
        assert_ne!(response.header("x-request-id"), Some(id));
        ids.push(response.header("x-usage-event-id").unwrap().to_owned());
    }
    deployment.summary_of("acme", ids.len() as u64).await.unwrap();
    let contents = deployment.tables().await.unwrap().contents().await.unwrap();
    assert_eq!(contents.len(), ids.len(), "{contents:?}");
    for row in &contents.events {
        let metadata = row.metadata.as_deref().unwrap();
        assert!(metadata.chars().count() <= 2000);
        let metadata: Value = serde_json::from_str(metadata).unwrap();
        assert_eq!(metadata["status_code"], 200, "{metadata}");
    }
}

async fn wrong_dates_and_strangers_get_clear_answers_from_billing(kind: Kind) {
    let (_upstream, deployment) = system(kind).await;
    let token = deployment.token("acme").unwrap();
    let ask = |target: &str| Request::get(target).token(&token);
    for query in [
        "start_date=yesterday",
        "start_date=2026-13-01",
        "start_date=2026-02-01&end_date=2026-01-01",
        "start_date=2026-01-01&end_date=2026-01-01",
        "start_date=2026-01-01&start_date=2026-01-02",
    ] {
        let response = deployment.ask(&ask(&format!("/billing/usage-summary/acme?{query}"))).await.unwrap();
        assert_eq!(response.status, 400, "{query}: {}", response.text());
        assert!(response.text().contains("date"), "{query}: {}", response.text());
    }
    assert_eq!(deployment.ask(&ask("/billing/usage-summary/other")).await.unwrap().status, 403);
    assert_eq!(deployment.ask(&Request::get("/billing/usage-summary/acme")).await.unwrap().status, 401);
    assert_eq!(deployment.ask(&Request::get("/billing/health")).await.unwrap().status, 200);
    let report =
        Request::post("/billing/report-usage", "{\"tenant_id\":\"acme\"}").header("Content-Type", "application/json");
    assert_eq!(deployment.ask(&report.token(&token)).await.unwrap().status, 403);
}

async fn oversized_bodies_are_413_and_not_billed(kind: Kind) {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let settings = [("UPSTREAM_URL", upstream.url()), ("REQUEST_BODY_BYTES_MAX", "1000".to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let deployment = Deployment::start_with(kind, &settings).await.unwrap();
    let token = deployment.token("acme").unwrap();
    let announced = Request::post(PATH, vec![b'x'; 1001]).token(&token);
    assert_problem(&deployment.ask(&announced).await.unwrap(), 413);
    let streamed = Request::new("POST", PATH).chunked(vec![vec![b'x'; 500]; 3]).token(&token);
    assert_problem(&deployment.ask(&streamed).await.unwrap(), 413);
    let fits = Request::post(PATH, vec![b'x'; 1000]).token(&token);
    assert_eq!(deployment.ask(&fits).await.unwrap().status, 200);
    deployment.summary_of("acme", 1).await.unwrap();
}

#[tokio::test]
async fn every_wrong_setting_is_named_at_once() {
    let settings = [
        ("GATEWAY_ADDR", "nowhere"),
        ("USAGE_RATE_CENTS", "-1"),
        ("BILLABLE_ROUTES", "/a/*/b"),
        ("BILLABLE_STATUSES", "9xx"),
        ("METER_DURABILITY", "maybe"),
        ("JWT_ALGORITHM", "RS256"),
        ("LOG_FORMAT", "xml"),
        ("SPOOL_RETAIN_HOURS", "soon"),
        ("STRIPE_API_KEY", "a key with blanks sk_test_nothing_yet"),
        ("ENVIRONMENT", "moon"),
        ("ENABLE_DOCS", "perhaps"),
        ("DATABASE_URL", "mysql://ann:sk_test_nothing_yet@db/usage"),
        ("NATS_URL", "http://ann:sk_test_nothing_yet@127.0.0.1:4222"),
        ("STREAM_REPLICAS", "2"),
    ];
    let deployment = Deployment::prepare(Kind::Embedded, &settings).unwrap();
    let output = deployment.launch().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{text}");
    for (name, _) in settings {
        assert!(text.contains(name), "{name} is not named:\n{text}");
    }
    assert!(!text.contains("sk_test_nothing_yet"), "a secret is printed:\n{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test]
async fn an_unusable_data_folder_is_a_clear_error() {
    let deployment = Deployment::prepare(Kind::Embedded, &[]).unwrap();
    std::fs::write(deployment.data_folder(), "a file where a folder should be").unwrap();
    let output = deployment.launch().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(text.contains(&deployment.data_folder().display().to_string()), "the folder is not named:\n{text}");
    assert!(!text.contains("panicked"), "{text}");
}

async fn a_second_process_on_the_same_data_is_refused_and_harms_nothing(kind: Kind) {
    let (_upstream, mut deployment) = system(kind).await;
    let token = deployment.token("acme").unwrap();
    assert_eq!(deployment.ask(&Request::get(PATH).token(&token)).await.unwrap().status, 200);
    let output = deployment.launch().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("another process") || text.contains("in use"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    assert_eq!(deployment.ask(&Request::get(PATH).token(&token)).await.unwrap().status, 200);
    deployment.summary_of("acme", 2).await.unwrap();
    deployment.program().unwrap().signal(Signal::TERM).unwrap();
    assert_eq!(deployment.program().unwrap().wait().await.unwrap().code(), Some(0));
}
