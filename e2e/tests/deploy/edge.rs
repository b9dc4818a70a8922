//! The examples of docs/EDGE.md: each is a file of settings that a program starts with, and whose table of routes is shown.

use std::time::Duration;

use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::program::Launch;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::secure::{Authority, Validity};
use goldleaves_testkit::upstream::{Answer, Upstream};
use rustix::process::Signal;

use crate::markdown::blocks;
use crate::text;

const PATIENCE: Duration = Duration::from_secs(60);

fn launch(scratch: &Scratch, settings: &str) -> Launch {
    std::fs::write(scratch.join("goldleaves.toml"), settings).unwrap();
    let free = ["GATEWAY_ADDR", "BILLING_ADDR", "OPS_ADDR"].map(|name| (name, "127.0.0.1:0".to_owned()));
    Launch::new("goldleaves", scratch.path()).settings(free)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_starts() {
    let (document, upstream) = (text("docs/EDGE.md"), Upstream::start(|_| Answer::ok("hello")).await.unwrap());
    let examples: Vec<_> = blocks(&document).into_iter().filter(|block| block.language == "toml").collect();
    assert!(examples.len() >= 3, "{}", examples.len());
    let authority = Authority::new().unwrap();
    let identity = authority.sign("gateway", &["gateway"], Validity::Good).unwrap();
    for example in examples {
        let scratch = Scratch::new("edge").unwrap();
        for (made, name) in
            [(&authority.file(), "ca.pem"), (&identity.certificate, "gateway.pem"), (&identity.key, "gateway-key.pem")]
        {
            std::fs::copy(made, scratch.join(name)).unwrap();
        }
        let launch = launch(&scratch, &example.text).setting("UPSTREAM_URL", upstream.url());
        let checked = launch.clone().argument("check-config").output().unwrap();
        assert!(checked.status.success(), "line {}: {}", example.line, String::from_utf8_lossy(&checked.stderr));
        let mut program = launch.start().unwrap();
        let ops = program.address("ops on").await.unwrap();
        wait_for("readiness", PATIENCE, async || {
            let ready = Request::get("/health/ready").send(ops).await;
            Ok(ready.is_ok_and(|response| response.status == 200).then_some(()))
        })
        .await
        .unwrap();
        let shown = Request::get("/upstreams").send(ops).await.unwrap().json().unwrap();
        let names: Vec<&str> = shown.as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
        let said = example.text.split("[[upstreams]]").skip(1).filter_map(|entry| entry.split('"').nth(1));
        assert_eq!(names, ["default", "billing"].into_iter().chain(said).collect::<Vec<_>>(), "line {}", example.line);
        program.signal(Signal::TERM).unwrap();
        assert_eq!(program.wait().await.unwrap().code(), Some(0), "line {}", example.line);
    }
}

const ROUTES: &str = "
[[upstreams]]
name = \"docs\"
addresses = [\"http://127.0.0.1:3001\"]
[[routes]]
path = \"/api/v1/documents\"
methods = [\"GET\", \"POST\"]
upstream = \"docs\"
head_timeout_secs = 20
request_body_bytes_max = \"10MiB\"
[[routes]]
path = \"/api/v1/cases/free\"
upstream = \"docs\"
billable = false
prefix = \"/v2\"
[[routes]]
path = \"/pages\"
upstream = \"docs\"
access = \"open\"
";

#[test]
fn the_demo_is_shown_where_no_upstream_is_named() {
    let scratch = Scratch::new("edge").unwrap();
    let said = Launch::new("goldleaves", scratch.path()).argument("check-config").output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let mut rows = said.lines().filter(|line| line.starts_with("# route ")).peekable();
    assert!(rows.peek().is_some() && rows.all(|row| row.contains(" -> the demo upstream ")), "{said}");
}

#[test]
fn the_effective_table_of_routes_is_shown() {
    let scratch = Scratch::new("edge").unwrap();
    let check = launch(&scratch, ROUTES).argument("check-config");
    let said = check.clone().output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let rows: Vec<&str> = said.lines().filter(|line| line.starts_with("# route ")).collect();
    for row in [
        "# route /api/v1/documents  GET,POST  billed  -> docs  (head 20 s, body idle 60 s, call 3600 s, body 10485760 bytes)",
        "# route /api/v1/cases/free  all  token  -> docs  (head 60 s, body idle 60 s, call 3600 s, body 1073741824 bytes, prefix /v2)",
        "# route /pages  all  open  -> docs  (head 60 s, body idle 60 s, call 3600 s, body 1073741824 bytes)",
        "# route /api/v1/ai  all  billed  -> none: 404  (head 60 s, body idle 60 s, call 3600 s, body 1073741824 bytes)",
        "# route *  all  token  -> none: 404  (head 60 s, body idle 60 s, call 3600 s, body 1073741824 bytes)",
    ] {
        assert!(rows.contains(&row), "{row} is not in\n{}", rows.join("\n"));
    }
    let json = check.argument("--json").output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let first = &json["routes"][0];
    assert_eq!(first["path"], "/api/v1/documents");
    assert_eq!(first["class"], "billed");
    assert_eq!(first["upstream"], "docs");
    assert_eq!(json["routes"].as_array().unwrap().len(), rows.len());
}

/// An operator who names upstreams has a service: the one process brings none of its own then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_with_upstreams_alone_starts_no_demo() {
    let scratch = Scratch::new("edge").unwrap();
    let mut program = launch(&scratch, ROUTES).argument("--banner").start().unwrap();
    let gateway = program.address("gateway listens on").await.unwrap();
    let response = Request::get("/elsewhere").send(gateway).await.unwrap();
    assert_eq!(response.status, 404);
    assert_eq!(response.json().unwrap()["code"], "no_route");
    let served = program.printed("the banner's upstream", |said| {
        Some(said.lines().find_map(|line| line.strip_prefix("  upstream  "))?.to_owned())
    });
    assert_eq!(served.await.unwrap(), "docs");
    program.signal(Signal::TERM).unwrap();
    assert_eq!(program.wait().await.unwrap().code(), Some(0));
}
