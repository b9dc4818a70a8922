//! Mistakes, unlike outages, are said at the start, by name, and before anything is touched.

use std::path::Path;
use std::process::Output;

use goldleaves_e2e::deployment::SECRET;
use goldleaves_e2e::nats_wire::NatsWire;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::postgres::Postgres;
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

#[test]
fn what_is_no_file_of_settings_is_named_and_not_read() {
    let scratch = Scratch::new("no-file").unwrap();
    let pipe = scratch.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for program in ["gateway", "billing-api", "goldleaves"] {
        let check = launch("goldleaves", &scratch).argument("check-config").argument("--program").argument(program);
        for command in [launch(program, &scratch), check] {
            for (path, kind) in
                [(pipe.as_path(), "a pipe"), (Path::new("/dev/zero"), "a device"), (scratch.path(), "a folder")]
            {
                let output = command.clone().setting("CONFIG_FILE", path).output().unwrap();
                let said = said(&output);
                assert_eq!(output.status.code(), Some(78), "{said}");
                let named = format!("CONFIG_FILE: {path:?} cannot be read: it is {kind} and no regular file");
                assert!(said.contains(&named), "{named}: {said}");
            }
        }
        // An argument may name a pipe, and nothing else that is no file.
        let output = launch(program, &scratch).argument("--config").argument("/dev/zero").output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        assert!(said(&output).contains("--config: \"/dev/zero\" cannot be read: it is a device"), "{}", said(&output));
    }
    assert!(!scratch.join("data").exists(), "nothing is touched");
}

#[test]
fn nothing_is_handed_over_to_a_ledger_that_nobody_named() {
    let scratch = Scratch::new("relay-without").unwrap();
    let relay = launch("goldleaves", &scratch).setting("NATS_URL", "").argument("spool").argument("relay");
    std::fs::create_dir_all(scratch.join("data/spool")).unwrap();
    for command in [relay.clone(), relay.setting("DATABASE_URL", "").setting("DATA_DIR", scratch.join("none"))] {
        let output = command.output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("NATS_URL: is missing, and spool relay hands over to a stream alone"), "{said}");
    }
    let left: Vec<_> =
        std::fs::read_dir(scratch.join("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["spool"]);
    assert_eq!(std::fs::read_dir(scratch.join("data/spool")).unwrap().count(), 0);
    assert!(!scratch.join("none").exists(), "nothing is made");
}

#[tokio::test]
async fn a_spool_without_room_is_refused_and_a_small_one_warned_about() {
    let scratch = Scratch::new("small-spool").unwrap();
    for program in ["gateway", "goldleaves"] {
        let with = |bytes: &str| launch(program, &scratch).setting("SPOOL_BYTES_MAX", bytes);
        let check = launch("goldleaves", &scratch).argument("check-config").argument("--program").argument(program);
        for command in [with("1000"), check.setting("SPOOL_BYTES_MAX", "1048575")] {
            let output = command.output().unwrap();
            let said = said(&output);
            assert_eq!(output.status.code(), Some(78), "{said}");
            for part in ["SPOOL_BYTES_MAX", "no room to work in", "1MiB or more", "32MiB"] {
                assert!(said.contains(part), "{part}: {said}");
            }
            assert!(!scratch.join("data").exists(), "nothing is touched");
        }
        let mut small = with("8MiB").start().unwrap();
        let warned = |text: &str| text.contains("SPOOL_BYTES_MAX is small").then_some(());
        small.printed("that the spool is small", warned).await.unwrap();
        small.kill().unwrap();
        // It may have been killed before it made anything.
        std::fs::remove_dir_all(scratch.join("data")).ok();
    }
}

#[tokio::test]
async fn a_gateway_serves_on_and_says_at_once_that_the_stream_is_another_one() {
    let (scratch, nats) = (Scratch::new("wrong-stream").unwrap(), NatsServer::start().await.unwrap());
    let mut stream = json!({
        "name": "USAGE", "subjects": ["usage.v1.*"], "retention": "limits", "storage": "file", "discard": "old",
        "deny_delete": true, "deny_purge": true, "num_replicas": 1,
    });
    let mut wire = NatsWire::connect(nats.port(), "", "").await.unwrap();
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

#[tokio::test]
async fn a_login_or_a_database_that_the_server_refuses_ends_the_start_by_name() {
    let (scratch, postgres) = (Scratch::new("refused").unwrap(), Postgres::shared().await.unwrap());
    let database = postgres.database().await.unwrap();
    let (head, _) = postgres.url("").split_once('@').map(|(head, tail)| (head.to_owned(), tail.to_owned())).unwrap();
    assert!(database.starts_with(&head), "{database}");
    let stranger = database.replacen(&head, "postgresql://stranger:hunter2", 1);
    for program in ["meter-worker", "billing-api", "goldleaves", "migrate"] {
        for (url, why) in [
            (stranger.clone(), "role \"stranger\" does not exist"),
            (postgres.url("nowhere"), "database \"nowhere\" does not exist"),
        ] {
            let mut program = launch(program, &scratch).setting("DATABASE_URL", url).start().unwrap();
            let status = program.wait().await.unwrap();
            let said = program.output().replace('\\', "");
            assert_eq!(status.code(), Some(70), "{said}");
            assert!(said.contains(why) && said.contains("refuses DATABASE_URL") && !said.contains("hunter2"), "{said}");
        }
    }
}

#[tokio::test]
async fn a_login_that_is_refused_later_is_waited_out() {
    let (scratch, postgres) = (Scratch::new("refused-later").unwrap(), Postgres::shared().await.unwrap());
    let database = postgres.database().await.unwrap();
    postgres.execute("CREATE ROLE lodger LOGIN SUPERUSER").await.unwrap();
    let url = format!("postgresql://lodger@{}", database.split_once('@').unwrap().1);
    let mut program = launch("billing-api", &scratch).setting("DATABASE_URL", url).start().unwrap();
    program.printed("that all is well", |text| text.contains("the database is there").then_some(())).await.unwrap();
    postgres.execute("ALTER ROLE lodger NOLOGIN").await.unwrap();
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'lodger'").await.unwrap();
    program.printed("the outage", away).await.unwrap();
    postgres.execute("ALTER ROLE lodger LOGIN").await.unwrap();
    let again = |text: &str| (text.matches("the database is there").count() == 2).then_some(());
    program.printed("the end of the outage", again).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_away_is_said_and_waited_for() {
    let (scratch, mut postgres) = (Scratch::new("away").unwrap(), Postgres::start().await.unwrap());
    let database = postgres.database().await.unwrap();
    postgres.kill().unwrap();
    let start = |program: &str| launch(program, &scratch).setting("DATABASE_URL", database.clone()).start().unwrap();
    let mut programs = ["meter-worker", "billing-api", "goldleaves"].map(start);
    for program in &mut programs {
        program.printed("that the database is away", away).await.unwrap();
    }
    let mut migrate = start("migrate");
    let waits = |text: &str| text.contains("migrate: waiting for the database: ").then_some(());
    migrate.printed("what it waits for", waits).await.unwrap();

    postgres.restart().await.unwrap();
    for program in &mut programs {
        program.printed("that all is well", |text| text.contains("the database is there").then_some(())).await.unwrap();
        let said = program.output();
        assert_eq!(said.matches("the database is away").count(), 1, "not more than now and then: {said}");
    }
    // It went on by itself as far as it can without NATS.
    migrate.printed("the price", |text| text.contains("25 cents per unit").then_some(())).await.unwrap();
}

fn away(output: &str) -> Option<()> {
    output.lines().any(|line| line.contains("WARN") && line.contains("the database is away")).then_some(())
}

/// A clock that stands twenty years back, for a program that asks the C library.
const SHIM: &str = "#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    int failed = syscall(SYS_clock_gettime, id, at);
    if (id == CLOCK_REALTIME) at->tv_sec -= 20L * 365 * 86400;
    return failed;
}
";

#[test]
fn a_gateway_whose_clock_stands_before_its_build_does_not_start() {
    let scratch = Scratch::new("wrong-clock").unwrap();
    let (source, shim) = (scratch.join("clock.c"), scratch.join("clock.so"));
    std::fs::write(&source, SHIM).unwrap();
    let compiled = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).status();
    assert!(compiled.unwrap().success(), "a C compiler is needed to build the programs, too");
    for program in ["gateway", "goldleaves"] {
        let output = launch(program, &scratch).setting("LD_PRELOAD", &shim).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(70), "{said}");
        assert!(said.contains("before this program was built") && said.contains("Set the clock"), "{said}");
        assert!(!scratch.join("data").exists(), "nothing is touched");
    }
}
