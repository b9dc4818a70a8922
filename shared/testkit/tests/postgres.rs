//! The private PostgreSQL of a test goes with the test's process, and survives a kill with its data.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use goldleaves_testkit::postgres::Postgres;

/// Set for the process that is to die.
const DIES: &str = "GOLDLEAVES_TESTKIT_DIES";

#[tokio::test]
async fn a_server_ends_with_the_process_that_started_it() {
    if std::env::var_os(DIES).is_some() {
        let server = Postgres::start().await.unwrap();
        println!("directory={}", server.directory().display());
        std::process::abort();
    }
    let mut dying = Command::new(std::env::current_exe().unwrap());
    dying.args(["--exact", "a_server_ends_with_the_process_that_started_it", "--nocapture"]).env(DIES, "yes");
    let output = dying.stderr(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    let output = String::from_utf8(output.stdout).unwrap();
    let directory = output.split("directory=").nth(1).unwrap().lines().next().unwrap();
    while Path::new(directory).exists() || works_in(Path::new(directory)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_killed_server_comes_back_with_its_data() {
    let mut server = Postgres::start().await.unwrap();
    server.execute("CREATE TABLE kept AS SELECT 1 AS one").await.unwrap();
    server.kill().unwrap();
    assert!(server.execute("SELECT 1").await.is_err());
    assert!(!works_in(server.directory()));
    server.restart().await.unwrap();
    server.execute("INSERT INTO kept VALUES (2)").await.unwrap();
    let directory = server.directory().to_owned();
    drop(server);
    assert!(!directory.exists() && !works_in(&directory));
}

#[tokio::test]
async fn databases_are_separate_and_migrated() {
    let server = Postgres::shared().await.unwrap();
    let (one, other) = (server.database().await.unwrap(), server.database().await.unwrap());
    assert_ne!(one, other);
    for url in [&one, &other] {
        assert!(goldleaves_testkit::migrations::status(url).await.unwrap().iter().all(|step| step.applied));
    }
    let empty = server.empty_database().await.unwrap();
    assert!(goldleaves_testkit::migrations::status(&empty).await.unwrap().iter().all(|step| !step.applied));
}

#[tokio::test]
async fn a_standby_that_takes_over_gives_databases_of_its_own() {
    let primary = Postgres::start().await.unwrap();
    primary.database().await.unwrap();
    let standby = primary.standby(primary.port()).await.unwrap();
    drop(primary);
    standby.promote().await.unwrap();
    standby.database().await.unwrap();
    standby.empty_database().await.unwrap();
}

/// Returns whether any process works in a directory or below.
fn works_in(directory: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .map(|entry| std::fs::read_link(entry.path().join("cwd")))
        .any(|cwd| cwd.is_ok_and(|cwd| cwd.starts_with(directory)))
}
