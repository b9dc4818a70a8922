//! What is wrong rather than away is said at the start, by name, and before anything is touched.

use std::process::Output;

use goldleaves_e2e::deployment::SECRET;
use goldleaves_e2e::nats_wire::Wire;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::program::Launch;
use goldleaves_testkit::scratch::Scratch;
use serde_json::json;

/// A program with all it must be told, in a folder of its own; nobody is at any of its addresses.
fn launch(program: &str, scratch: &Scratch) -> Launch {
    let addresses = ["GATEWAY_ADDR", "BILLING_ADDR", "OPS_ADDR"].map(|name| (name, "127.0.0.1:0".to_owned()));
    Launch::new(program, scratch.path())
        .settings(addresses)
        .setting("DATA_DIR", scratch.join("data"))
        .setting("JWT_SECRET", SECRET)
        .setting("UPSTREAM_URL", "http://127.0.0.1:1")
        .setting("NATS_URL", "nats://127.0.0.1:1")
        .setting("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn files_that_can_not_be_used_are_named_with_every_other_mistake() {
    let scratch = Scratch::new("wrong-files").unwrap();
    let (absent, other) = (scratch.join("absent"), scratch.join("other"));
    std::fs::write(&other, "hunter2").unwrap();
    let commands = ["gateway", "meter-worker", "migrate", "goldleaves"].into_iter().flat_map(|program| {
        let check = launch("goldleaves", &scratch).argument("check-config").argument("--program").argument(program);
        [launch(program, &scratch), check]
    });
    for command in commands {
        for (credentials, authority) in [(&absent, &other), (&other, &absent)] {
            let command = command.clone().setting("NATS_CREDENTIALS_FILE", credentials).setting("LOG_LEVEL", "loud");
            let output = command.setting("NATS_CA_FILE", authority).output().unwrap();
            let said = said(&output);
            assert_eq!(output.status.code(), Some(78), "{said}");
            assert!(said.starts_with("3 settings are wrong"), "{said}");
            for name in ["NATS_CREDENTIALS_FILE", "NATS_CA_FILE", "LOG_LEVEL", "No such file"] {
                assert!(said.contains(name), "{name}: {said}");
            }
            assert!(!said.contains("hunter2"), "{said}");
            assert!(!scratch.join("data").exists(), "nothing is touched");
        }
    }
}

#[tokio::test]
async fn a_gateway_serves_on_and_says_at_once_that_the_stream_is_another_one() {
    let (scratch, nats) = (Scratch::new("wrong-stream").unwrap(), NatsServer::start().await.unwrap());
    let mut stream = json!({
        "name": "USAGE", "subjects": ["usage.v1.*"], "retention": "limits", "storage": "file", "discard": "old",
        "deny_delete": true, "deny_purge": true, "num_replicas": 1,
    });
    let mut wire = Wire::connect(nats.port(), "", "").await.unwrap();
    wire.ask("$JS.API.STREAM.CREATE.USAGE", &stream.to_string()).await.unwrap();
    let mut gateway = launch("gateway", &scratch).setting("NATS_URL", nats.url()).start().unwrap();
    let ops = gateway.address("ops on").await.unwrap();
    let line = gateway.printed("what is wrong with the stream", error_line).await.unwrap();
    for wrong in ["stream USAGE: discard is \"old\", must be \"new\"", "stream USAGE: subjects is"] {
        assert!(line.replace('\\', "").contains(wrong), "{wrong}: {line}");
    }
    assert_eq!(Request::get("/health/ready").send(ops).await.unwrap().status, 200);

    stream["discard"] = json!("new");
    stream["subjects"] = json!(["usage.v1.*", "usage.seal.v1.*"]);
    wire.ask("$JS.API.STREAM.UPDATE.USAGE", &stream.to_string()).await.unwrap();
    gateway.printed("the end of it", |text| text.contains("can be used again").then_some(())).await.unwrap();
    assert_eq!(gateway.output().matches("can't be used as it is").count(), 1, "{}", gateway.output());
}

fn error_line(output: &str) -> Option<String> {
    output.lines().find(|line| line.contains("ERROR")).map(str::to_owned)
}
