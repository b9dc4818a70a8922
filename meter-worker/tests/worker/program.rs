//! The program: what it says and how it ends.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::postgres::Postgres;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Gateway, billed, connect, declare, ledger, publish, publisher, stream, wait_until_done, within};

/// The program, with exactly these settings.
struct Program {
    child: Child,
    folder: TempDir,
}

impl Program {
    fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_meter-worker"))
            .current_dir(folder.path())
            .env_clear()
            .env("OPS_ADDR", "127.0.0.1:0")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(Path::new(self.folder.path()).join("log")).unwrap()
    }

    async fn ended(&mut self) -> ExitStatus {
        within(async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// The body of an ops endpoint, once the program has said where they are.
    async fn ask(&self, path: &str) -> String {
        within(async {
            loop {
                if let Some(address) = self.log().split("ops listens on http://").nth(1) {
                    let address = address.split_whitespace().next().unwrap().trim_end_matches('"').to_owned();
                    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
                    let request = format!("GET {path} HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n");
                    socket.write_all(request.as_bytes()).await.unwrap();
                    let mut answer = String::new();
                    socket.read_to_string(&mut answer).await.unwrap();
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    async fn until_ready(&self, ready: bool) -> String {
        within(async {
            loop {
                let answer = self.ask("/health/ready").await;
                if answer.starts_with("HTTP/1.1 200") == ready {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn every_missing_setting_is_named_at_once() {
    let mut program = Program::start(&[]);
    assert_eq!(program.ended().await.code(), Some(78));
    let log = program.log();
    assert!(log.contains("NATS_URL") && log.contains("DATABASE_URL") && !log.contains("JWT_SECRET"), "{log}");
}

#[tokio::test]
async fn wrong_credentials_and_a_missing_schema_end_it_with_words_and_no_secret() {
    let refusing = NatsServer::start_with("authorization { token: \"right\" }").await.unwrap();
    let postgres = Postgres::shared().await.unwrap();
    let empty = postgres.empty_database().await.unwrap();
    let url = format!("nats://hunter2@127.0.0.1:{}", refusing.port());
    let mut program = Program::start(&[("NATS_URL", &url), ("DATABASE_URL", &empty)]);
    assert_eq!(program.ended().await.code(), Some(70));
    let log = program.log();
    assert!(log.contains("refuses the credentials") && !log.contains("hunter2"), "{log}");

    let (server, _connection) = stream().await;
    let mut program = Program::start(&[("NATS_URL", &server.url()), ("DATABASE_URL", &empty)]);
    assert_eq!(program.ended().await.code(), Some(70));
    assert!(program.log().contains("run migrate"), "{}", program.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_is_no_start_error_and_it_is_ready_once_everything_is_there() {
    let (ledger, database) = ledger(Postgres::shared().await.unwrap()).await;
    let mut server = NatsServer::start().await.unwrap();
    server.kill().await.unwrap();
    let mut program = Program::start(&[("NATS_URL", &server.url()), ("DATABASE_URL", &database)]);
    assert!(program.until_ready(false).await.contains("not connected to NATS"));
    assert!(program.ask("/health/live").await.starts_with("HTTP/1.1 200"));
    server.restart().await.unwrap();
    let connection = connect(&server).await;
    within(async {
        while !program.until_ready(false).await.contains("no consumer") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    declare(&connection).await;
    program.until_ready(true).await;
    publish(&publisher(&connection), Gateway::new().events(20)).await;
    wait_until_done(&connection).await;
    assert_eq!(billed(&ledger).await, 20);
    assert!(program.ask("/metrics").await.contains("goldleaves_worker_messages_total 20"));
    program.terminate();
    assert_eq!(program.ended().await.code(), Some(0), "{}", program.log());
}

/// One that is left over from before an upgrade has old rules: it writes nothing by them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused_before_anything_is_written() {
    let (ledger, database) = ledger(Postgres::shared().await.unwrap()).await;
    let (server, connection) = stream().await;
    publish(&publisher(&connection), Gateway::new().events(20)).await;
    let later = "INSERT INTO seaql_migrations VALUES ('m29990101_000001_later', 1)";
    ledger.store().write(async |transaction| transaction.execute(later, Default::default()).await).await.unwrap();
    let mut program = Program::start(&[("NATS_URL", &server.url()), ("DATABASE_URL", &database)]);
    assert_eq!(program.ended().await.code(), Some(70), "{}", program.log());
    assert!(program.log().contains("made by a newer program"), "{}", program.log());
    assert_eq!(billed(&ledger).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_under_load_it_leaves_nothing_unacknowledged() {
    let (ledger, database) = ledger(Postgres::shared().await.unwrap()).await;
    let (server, connection) = stream().await;
    let settings = [("NATS_URL", server.url()), ("DATABASE_URL", database)];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut first = Program::start(&settings);
    first.until_ready(true).await;
    let publisher = publisher(&connection);
    let mut gateway = Gateway::new();
    for round in 0..10 {
        publish(&publisher, gateway.events(300)).await;
        if round == 3 {
            first.terminate();
        }
    }
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.log());
    let lag = goldleaves_stream::Lag::read(&connection).await.unwrap().unwrap();
    assert_eq!(lag.ack_pending, 0, "all that was handed out is recorded and acknowledged");
    let second = Program::start(&settings);
    wait_until_done(&connection).await;
    assert_eq!(billed(&ledger).await, 3_000);
    drop(second);
}
