//! Tests what all programs have in common from outside: their arguments, the signals that end none of them, and that a start
//! depends on nobody who reads what it prints.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE, SECRET};
use goldleaves_testkit::child::{Child, wait_for};
use goldleaves_testkit::client::Request;
use goldleaves_testkit::program::{Launch, built};
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::upstream::{Answer, Upstream};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::contract_edge::free;

const PROGRAMS: [&str; 5] = ["goldleaves", "gateway", "meter-worker", "billing-api", "migrate"];

fn run(program: &str, arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let scratch = Scratch::new("command-line").unwrap();
    let launch = arguments.iter().fold(Launch::new(program, scratch.path()), |launch, word| launch.argument(word));
    let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let Output { status, stdout, stderr } = launch.settings(settings).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn every_program_says_what_it_is_and_what_it_takes() {
    for program in PROGRAMS {
        let (code, help, _) = run(program, &["--help"], &[]);
        assert!(code == Some(0) && help.contains("--config <FILE>") && help.contains("--version"), "{program}: {help}");
        let (code, version, _) = run(program, &["--version"], &[]);
        assert_eq!(code, Some(0), "{version}");
        let (name, rest) = version.split_once(' ').unwrap();
        assert!(name == program && rest.starts_with(env!("CARGO_PKG_VERSION")), "{version}");
        let commit = rest.split_once("(commit ").unwrap().1;
        let digits = commit.chars().take_while(char::is_ascii_hexdigit).count();
        assert!(digits == 40 || commit.starts_with("unknown"), "{version}");
    }
    for command in ["token", "migrate", "check-config", "replay", "rate-cards", "spool"] {
        let (code, help, _) = run("goldleaves", &[command, "--help"], &[]);
        assert!(code == Some(0) && help.contains("--config <FILE>"), "{command}: {help}");
    }
}

#[test]
fn what_a_program_does_not_know_it_refuses_and_names_the_nearest() {
    for program in PROGRAMS {
        for (argument, nearest) in [("--verison", "--version"), ("--confg=x", "--config"), ("--halp", "--help")] {
            let (code, printed, said) = run(program, &[argument], &[]);
            assert_eq!((code, printed.as_str()), (Some(64), ""), "{program} {argument}: {said}");
            assert!(said.contains(&format!("nearest known one is {nearest}\n")), "{program}: {said}");
        }
        assert_eq!(run(program, &["nonsense"], &[]).0, Some(64), "{program}");
        assert_eq!(run(program, &["--config"], &[]).0, Some(64), "{program}");
    }
    let (code, _, said) = run("goldleaves", &["chek-config"], &[]);
    assert!(code == Some(64) && said.contains("nearest known one is check-config\n"), "{said}");
    let (code, _, said) = run("goldleaves", &["token", "--tenat", "t"], &[]);
    assert!(code == Some(64) && said.contains("nearest known one is --tenant\n"), "{said}");
}

#[test]
fn a_file_that_is_named_is_read_and_must_be_there() {
    let scratch = Scratch::new("config-file").unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(scratch.join(name), text).unwrap();
        scratch.join(name).display().to_string()
    };
    let (loud, quiet) =
        (file("loud.toml", "[log]\nlevel = \"loud\"\n"), file("quiet.toml", "[log]\nlevel = \"quiet\"\n"));
    for program in PROGRAMS {
        let (code, _, said) = run(program, &["--config", &loud], &[("CONFIG_FILE", &quiet)]);
        assert!(code == Some(78) && said.contains("LOG_LEVEL: \"loud\" is wrong"), "{program}: {said}");
        let (code, _, said) = run(program, &[], &[("CONFIG_FILE", &quiet)]);
        assert!(code == Some(78) && said.contains("LOG_LEVEL: \"quiet\" is wrong"), "{program}: {said}");
        for (arguments, variables, subject) in [
            (&["--config", "/absent"][..], &[][..], "--config: \"/absent\" cannot be read: No such file"),
            (&[], &[("CONFIG_FILE", "/absent")][..], "CONFIG_FILE: \"/absent\" cannot be read: No such file"),
        ] {
            let (code, _, said) = run(program, arguments, variables);
            assert!(code == Some(78) && said.contains(subject), "{program}: {said}");
        }
    }
    let (code, printed, _) = run("goldleaves", &["check-config", "--file", &file("good.toml", "debug = true\n")], &[]);
    assert!(code == Some(0) && printed.contains(&format!("DEBUG = true  ({}", scratch.path().display())), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_that_mean_nothing_end_no_program_and_cut_no_call() {
    for kind in [Kind::Embedded, Kind::Distributed] {
        let upstream = Upstream::start(|_| Answer::ok("slow").after(Duration::from_secs(2))).await.unwrap();
        let mut deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
        let request = Request::get("/api/v1/documents").token(&deployment.token("acme").unwrap());
        let gateway = deployment.gateway().unwrap();
        let call = tokio::spawn(async move { request.send(gateway).await });
        wait_for("the call", PATIENCE, async || Ok((!upstream.served().is_empty()).then_some(()))).await.unwrap();
        for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
            for program in deployment.programs().unwrap() {
                program.signal(signal).unwrap();
            }
        }
        // HUP is the one that is answered, so that what came before the answer was survived.
        for program in deployment.programs().unwrap() {
            program.printed("the hangup", |text| text.contains("heard SIGHUP").then_some(())).await.unwrap();
        }
        let answer = call.await.unwrap().unwrap();
        assert!(answer.status == 200 && answer.header("x-usage-event-id").is_some(), "{:?}", answer.head);
        for program in deployment.programs().unwrap() {
            assert!(program.is_running().unwrap(), "{}", program.output());
        }
        assert_eq!(deployment.stop().await.unwrap().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_program_shows_its_build_and_what_it_uses_of_its_limits() {
    for kind in [Kind::Embedded, Kind::Distributed] {
        let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
        let mut deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
        for program in deployment.programs().unwrap() {
            let ops = program.address("ops ").await.unwrap();
            let text = Request::get("/metrics").send(ops).await.unwrap().text();
            let build = format!("goldleaves_build_info{{program=\"{}\",version=\"", program.name());
            assert!(text.contains(&build), "{build} is not in\n{text}");
            let mut wanted = vec!["descriptors_open", "descriptors_max"];
            if program.name() != "gateway" {
                wanted.extend(["database_connections_open", "database_connections_busy", "database_connections_max"]);
            }
            if ["gateway", "goldleaves"].contains(&program.name()) {
                wanted.extend(["connections_max", "spool_bytes_max", "spool_bytes"]);
            }
            for name in wanted {
                assert!(text.contains(&format!("\ngoldleaves_{name} ")), "{}: {name}\n{text}", program.name());
            }
        }
    }
}

/// The one process without any setting but its addresses, with this standard input and output.
fn start(scratch: &Scratch, stdin: Stdio, stdout: Stdio) -> (Child, std::net::SocketAddr) {
    let ops = free();
    let mut command = Command::new(built("goldleaves").unwrap());
    command.arg("--banner").current_dir(scratch.path()).env_clear().stdin(stdin).stdout(stdout);
    command.envs([("GATEWAY_ADDR", "127.0.0.1:0"), ("BILLING_ADDR", "127.0.0.1:0"), ("JWT_SECRET", SECRET)]);
    command.env("OPS_ADDR", ops.to_string()).stderr(File::create(scratch.join("log")).unwrap());
    (Child::spawn(command, "goldleaves").unwrap(), ops)
}

async fn ready(program: &mut Child, ops: std::net::SocketAddr) {
    wait_for("ready", PATIENCE, async || {
        anyhow::ensure!(program.ended()?.is_none(), "it ended");
        let ready = Request::get("/health/ready").send(ops).await;
        Ok(ready.is_ok_and(|response| response.status == 200).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_start_needs_no_reader_of_what_it_prints() {
    let scratch = Scratch::new("stdout-closed").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (mut closed, ops) = start(&scratch, Stdio::null(), writer.into());
    ready(&mut closed, ops).await;
    closed.signal(Signal::TERM).unwrap();
    assert_eq!(closed.wait(PATIENCE).await.unwrap().code(), Some(0));

    let scratch = Scratch::new("stdout-full").unwrap();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while !writer.write(&[b'x'; 4096]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let (mut full, ops) = start(&scratch, Stdio::null(), writer.into());
    ready(&mut full, ops).await;
    full.signal(Signal::TERM).unwrap();
    assert_eq!(full.wait(PATIENCE).await.unwrap().code(), Some(0));
}

#[test]
fn a_command_whose_reader_has_left_is_no_panic() {
    let scratch = Scratch::new("reader-left").unwrap();
    for arguments in
        [&["check-config"][..], &["--help"], &["token", "--tenant", "t", "--user", "u"], &["spool", "status"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(built("goldleaves").unwrap());
        command.args(arguments).current_dir(scratch.path()).env_clear().stdout(writer).stdin(Stdio::null());
        let output = command.stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("panic"), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_terminal_that_goes_away_stops_the_program_in_order() {
    let scratch = Scratch::new("terminal").unwrap();
    let (_master, terminal) = terminal();
    let (mut program, ops) = start(&scratch, terminal.into(), Stdio::null());
    ready(&mut program, ops).await;
    program.signal(Signal::HUP).unwrap();
    assert_eq!(program.wait(PATIENCE).await.unwrap().code(), Some(0));
    let log = std::fs::read_to_string(scratch.join("log")).unwrap();
    assert!(log.contains("asked to stop: finishing what is in flight"), "{log}");
}

/// Both ends of a pseudo-terminal; it is there as long as both are.
fn terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let terminal = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    (master, terminal)
}

#[test]
fn check_config_says_what_holds_and_hides_secrets() {
    let scratch = Scratch::new("secret-file").unwrap();
    let file = scratch.join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let settings = [("JWT_SECRET_FILE", file.to_str().unwrap()), ("LOG_LEVL", "debug"), ("BILLABLE_ROUTES", "/")];
    let (code, printed, said) = run("goldleaves", &["check-config"], &settings);
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "JWT_SECRET = set  (JWT_SECRET_FILE of environment)",
        "BILLABLE_ROUTES = /  (environment)",
        "GATEWAY_ADDR = 127.0.0.1:8080  (default)",
        "OPS_ADDR = 127.0.0.1:9090  (default)",
        "ENABLE_DOCS = true  (default)",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}:\n{printed}");
    }
    let warning = "the variable LOG_LEVL is no setting and changes nothing; the nearest known one is LOG_LEVEL";
    assert!(said.contains(warning) && !printed.contains(SECRET), "{said}");

    let (code, printed, _) = run("goldleaves", &["check-config", "--json"], &settings);
    let answer: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &answer["valid"], &answer["program"]), (Some(0), &json!(true), &json!("goldleaves")));
    let of = |name: &str| answer["settings"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
    assert_eq!((&of("JWT_SECRET")["value"], &of("JWT_SECRET")["secret"]), (&json!("set"), &json!(true)));
    assert_eq!(of("OPS_ADDR")["value"], "127.0.0.1:9090");
    assert_eq!(answer["warnings"], json!([warning]));

    let (code, printed, _) = run("goldleaves", &["check-config", "--json"], &[("BILLABLE_ROUTES", "/health")]);
    let answer: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &answer["valid"]), (Some(78), &json!(false)));
    assert_eq!(answer["mistakes"][0]["subject"], "BILLABLE_ROUTES", "{answer}");
}

#[test]
fn an_address_in_use_is_named_by_its_variable() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let common = [("JWT_SECRET", SECRET), ("UPSTREAM_URL", "http://127.0.0.1:1"), ("NATS_URL", "nats://127.0.0.1:1")];
    let database = [("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")];
    for (program, variables) in [
        ("gateway", &["GATEWAY_ADDR", "OPS_ADDR"][..]),
        ("billing-api", &["BILLING_ADDR", "OPS_ADDR"]),
        ("meter-worker", &["OPS_ADDR"]),
        ("goldleaves", &["GATEWAY_ADDR", "BILLING_ADDR", "OPS_ADDR"]),
    ] {
        for variable in variables {
            let free = ["GATEWAY_ADDR", "BILLING_ADDR", "OPS_ADDR"].map(|name| (name, "127.0.0.1:0"));
            let settings = [&free[..], &common, &database, &[(*variable, taken.as_str())]].concat();
            let (code, _, said) = run(program, &[], &settings);
            let wanted =
                format!("{program} can't start: {variable} {taken} can't be listened on: Address already in use");
            assert!(code == Some(70) && said.contains(&wanted), "{program} {variable}: {said}");
        }
    }
}

#[test]
fn commands_say_what_a_newcomer_would_wonder_about() {
    let scratch = Scratch::new("newcomer").unwrap();
    let data = scratch.join("data").display().to_string();
    let settings = [("DATA_DIR", data.as_str())];
    let (code, printed, _) = run("goldleaves", &["spool", "status"], &settings);
    assert!(code == Some(0) && printed.starts_with(&format!("no spool at {data}/spool")), "{printed}");
    let token = ["token", "--tenant", "t", "--user", "u"];
    let (code, printed, said) = run("goldleaves", &token, &settings);
    assert!(code == Some(0) && printed.lines().count() == 1, "{said}");
    assert!(said.contains(&format!("made one in {data}/jwt-secret")), "{said}");
    assert_eq!(run("goldleaves", &token, &settings).2, "", "the second time it is there");
    let roles = ["--role", "billing:read", "--role", "superuser"];
    let (code, printed, said) = run("goldleaves", &[&token[..], &roles].concat(), &settings);
    assert!(code == Some(0) && printed.lines().count() == 1, "{said}");
    let warned = "token: the role \"superuser\" is in the token and gives no right here: Goldleaves knows admin, ";
    assert!(said.starts_with(warned) && !said.contains("\"billing:read\""), "{said}");
    let (_, _, said) = run("goldleaves", &["rate-cards", "export"], &[("DATABASE_URL", "sqlite:///absent/x.db")]);
    assert!(said.contains("rate-cards: "), "{said}");
}

#[tokio::test]
async fn what_is_billed_is_said_at_the_start_and_causes_once() {
    let scratch = Scratch::new("start-line").unwrap();
    let launch = |data: &str| {
        let addresses = ["GATEWAY_ADDR", "BILLING_ADDR", "OPS_ADDR"].map(|name| (name, "127.0.0.1:0".to_owned()));
        Launch::new("goldleaves", scratch.path()).settings(addresses).setting("DATA_DIR", scratch.join(data))
    };
    let mut program = launch("data").setting("BILLABLE_ROUTES", "/").setting("USAGE_RATE_CENTS", "7").start().unwrap();
    let line = "billed is / (BILLABLE_ROUTES), answered with 2xx,3xx (BILLABLE_STATUSES), at 7 cents a unit";
    program.printed(line, |text| text.contains(line).then_some(())).await.unwrap();
    let nobody = ("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing".to_owned());
    for format in ["text", "json"] {
        let mut program = launch(format).settings([nobody.clone(), ("LOG_FORMAT", format.to_owned())]).start().unwrap();
        let away = |text: &str| text.lines().find(|line| line.contains("the database is away")).map(str::to_owned);
        let line = program.printed("that the database is away", away).await.unwrap();
        assert_eq!(line.matches("Connection refused").count(), 1, "{line}");
    }
}
