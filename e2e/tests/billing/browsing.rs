//! `/billing/docs` in a real browser: every operation is there, its form calls the server and shows the answer, and the page
//! complains of nothing.

use std::time::Duration;

use goldleaves_testkit::chromium::Chromium;
use goldleaves_toolbox::Toolbox;
use goldleaves_web::{ServeOptions, Stop};
use http::Request;
use serde_json::{Value, json};

use crate::world::{Api, token};

/// Fills the form of an operation, submits it, and returns what is shown once the answer is there.
const TRY: &str = r##"(async (title, token, values) => {
    const box = [...document.querySelectorAll("#calls section")].find((one) => one.querySelector("h2").textContent === title);
    document.getElementById("token").value = token;
    box.querySelector("details").open = true;
    const form = box.querySelector("form");
    for (const name in values) form.elements[name].value = values[name];
    form.querySelector("button").click();
    const shown = box.querySelector("pre");
    while (!/\n\d{3} /.test(shown.textContent)) await new Promise((done) => setTimeout(done, 10));
    return shown.textContent;
})"##;
const TITLES: &str = r##"(async () => {
    while (document.querySelector("#calls form") === null) await new Promise((done) => setTimeout(done, 10));
    return [...document.querySelectorAll("#calls section")].filter((one) => one.querySelector("form"))
        .map((one) => one.querySelector("h2").textContent);
})()"##;
/// The calls as a shell makes them.
const EXAMPLES: &str = r##"[...document.querySelectorAll("#calls section p code")].map((one) => one.textContent)"##;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_page_works_in_a_browser() {
    let program = match Toolbox::of_target().chromium() {
        Ok(program) => program,
        Err(missing) => {
            println!("/billing/docs was not tried in a browser: {missing}");
            return;
        }
    };
    let api = Api::start().await;
    api.used("acme", "/a", "2.5", "2026-03-10T10:15:00Z").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/billing/docs", listener.local_addr().unwrap());
    let stop = Stop::default();
    let options = ServeOptions { grace: Duration::from_secs(1), ..ServeOptions::default() };
    let serving = tokio::spawn(goldleaves_web::serve(listener, api.service.clone(), options, stop.clone()));

    let document = Request::get("/billing/openapi.json").body(axum::body::Body::empty()).unwrap();
    let document = api.ask(document).await.json();
    let mut wanted = Vec::new();
    for (path, verbs) in document["paths"].as_object().unwrap() {
        wanted.extend(verbs.as_object().unwrap().keys().map(|verb| format!("{}{path}", verb.to_uppercase())));
    }
    let admin = token("acme", &["admin"]);
    let (titles, examples, read, written, complaints) = tokio::task::block_in_place(|| {
        let mut browser = Chromium::start(&program).unwrap();
        browser.open(&url).unwrap();
        let titles = browser.evaluate(TITLES).unwrap();
        let examples: Vec<String> = serde_json::from_value(browser.evaluate(EXAMPLES).unwrap()).unwrap();
        let mut try_it = |title: &str, values: Value| {
            let call = format!("{TRY}({}, {}, {values})", json!(title), json!(admin));
            browser.evaluate(&call).unwrap().as_str().unwrap().to_owned()
        };
        let read = try_it("GET/billing/usage-summary/{tenant_id}", json!({"tenant_id": "acme", "month": "2026-03"}));
        let zone = json!({"time_zone": "Asia/Kolkata", "reason": "they moved"}).to_string();
        let written = try_it("PUT/billing/tenants/{tenant_id}", json!({"tenant_id": "acme", "body": zone}));
        let complaints = browser.complaints().into_iter().cloned().collect::<Vec<Value>>();
        (titles, examples, read, written, complaints)
    });
    let mut titles: Vec<String> = serde_json::from_value(titles).unwrap();
    titles.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(titles, wanted);
    assert_eq!(examples.len(), wanted.len());
    let base = url.trim_end_matches("/docs");
    for call in [
        format!(
            r#"curl -H "Authorization: Bearer $TOKEN" '{base}/usage-summary/acme?start_date=2026-01-01&end_date=2026-02-01'"#
        ),
        format!(
            r#"curl -X PUT -H "Authorization: Bearer $TOKEN" -d '{{"reason":"the month is over"}}' '{base}/periods/acme/1'"#
        ),
    ] {
        assert!(examples.contains(&call), "{call}: {examples:#?}");
    }
    assert!(
        read.starts_with("GET /billing/usage-summary/acme?month=2026-03\n200 ")
            && read.contains("\"total_units\": 2.5"),
        "{read}"
    );
    assert!(written.contains("\n201 ") && written.contains("Asia/Kolkata"), "{written}");
    let zone = api.number("SELECT COUNT(*) FROM billing_tenants WHERE time_zone = 'Asia/Kolkata'").await;
    assert_eq!(zone, 1, "the form wrote it");
    assert_eq!(complaints, Vec::<Value>::new());
    stop.graceful.cancel();
    serving.await.unwrap();
}
