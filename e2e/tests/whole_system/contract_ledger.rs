//! The promises about records, from outside: repeats, calls that ended early, and tables that others look at.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::tables::TableContents;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::{Connection, Request};
use goldleaves_testkit::upstream::{Answer, Received, Upstream};
use serde_json::Value;

const PATH: &str = "/api/v1/documents";

on_both!(
    repeats_of_a_request_are_one_event_and_three_repeats,
    a_call_cut_short_gives_way_to_the_whole_one,
    what_the_upstream_or_a_crash_cut_off_is_set_aside,
    units_and_action_come_from_headers_and_trailers,
);

async fn system(kind: Kind, answer: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> (Upstream, Deployment) {
    let upstream = Upstream::start(answer).await.unwrap();
    let deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
    (upstream, deployment)
}

/// Calls and gives the event's id.
async fn bill(deployment: &Deployment, request: &Request) -> String {
    let response = deployment.ask(request).await.unwrap();
    response.header("x-usage-event-id").unwrap_or_else(|| panic!("no event: {response:?}")).to_owned()
}

/// The label of a billed event, if it is one.
fn label<'a>(contents: &'a TableContents, id: &str) -> Option<&'a str> {
    contents.events.iter().find(|row| row.id == id).map(|row| row.request_id.as_str())
}

async fn repeats_of_a_request_are_one_event_and_three_repeats(kind: Kind) {
    let (_upstream, deployment) = system(kind, |_| Answer::ok("made")).await;
    let (acme, zeta) = (deployment.token("acme").unwrap(), deployment.token("zeta").unwrap());
    let post =
        |token: &str, path: &str, body: &str| Request::post(path, body).token(token).header("X-Request-ID", "the-same");
    let mut same = Vec::new();
    for number in 0..6 {
        // Neither the spelling of the path nor any other header makes it another request.
        let path = if number % 2 == 0 { PATH } else { "/api//v1/%64ocuments" };
        let request = post(&acme, path, "body").header("X-Try", &number.to_string());
        same.push(bill(&deployment, &request).await);
    }
    let mut others = Vec::new();
    for request in [
        post(&acme, PATH, "another body"),
        post(&acme, "/api/v1/documents?page=2", "body"),
        post(&zeta, PATH, "body"),
        Request::new("PUT", PATH).token(&acme).header("X-Request-ID", "the-same"),
    ] {
        others.push(bill(&deployment, &request).await);
    }
    let contents = deployment.tables().await.unwrap().wait("all ten", |found| found.len() == 10).await.unwrap();
    let repeats: Vec<&str> = same[1..4].iter().map(String::as_str).collect();
    let mut found: Vec<&str> = contents.duplicates.iter().map(|row| row.id.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, repeats, "{contents:?}");
    assert!(contents.duplicates.iter().all(|row| row.request_id == "the-same"), "{contents:?}");
    assert_eq!(label(&contents, &same[0]), Some("the-same"), "{contents:?}");
    for id in same[4..].iter().chain(&others) {
        assert_eq!(label(&contents, id), Some(format!("the-same~{id}").as_str()), "{contents:?}");
    }
    deployment.summary_of("acme", 6).await.unwrap();
    deployment.summary_of("zeta", 1).await.unwrap();
}

async fn a_call_cut_short_gives_way_to_the_whole_one(kind: Kind) {
    let slow = |received: &Received| match received.head.header("x-slow") {
        Some(_) => Answer::ok("late").after(Duration::from_secs(30)),
        None => Answer::ok("made"),
    };
    let (upstream, deployment) = system(kind, slow).await;
    let token = deployment.token("acme").unwrap();
    let post = || Request::post(PATH, "body").token(&token).header("X-Request-ID", "impatient");
    let mut connection = Connection::open(deployment.gateway().unwrap()).await.unwrap();
    connection.write(&post().header("X-Slow", "yes").wire("goldleaves.test")).await.unwrap();
    wait_for("the upstream to have it", PATIENCE, async || Ok((!upstream.served().is_empty()).then_some(())))
        .await
        .unwrap();
    drop(connection);
    let tables = deployment.tables().await.unwrap();
    let before = tables.wait("the first try", |found| found.len() == 1).await.unwrap();
    let first = &before.events[0];
    assert_eq!((first.outcome.as_str(), first.request_id.as_str()), ("client_aborted", "impatient"));
    let metadata: Value = serde_json::from_str(first.metadata.as_deref().unwrap()).unwrap();
    assert_eq!(metadata["status_code"], 499);

    let second = bill(&deployment, &post()).await;
    let after = tables.wait("the second", |found| found.len() == 2).await.unwrap();
    assert_eq!(label(&after, &second), Some("impatient"), "{after:?}");
    assert_eq!((after.duplicates.len(), &after.duplicates[0].id), (1, &first.id), "{after:?}");
    deployment.summary_of("acme", 1).await.unwrap();
}

async fn what_the_upstream_or_a_crash_cut_off_is_set_aside(kind: Kind) {
    let answer = |received: &Received| match received.target().rsplit('/').next() {
        Some("broken") => Answer::cut_short(10, "abc"),
        Some("silent") => Answer::silence(),
        _ => Answer::ok("made"),
    };
    let (upstream, mut deployment) = system(kind, answer).await;
    let token = deployment.token("acme").unwrap();
    let get = |last: &str| Request::get(&format!("{PATH}/{last}")).token(&token).header("X-Request-ID", last);
    let mut connection = Connection::open(deployment.gateway().unwrap()).await.unwrap();
    let broken = connection.ask(&get("broken")).await.unwrap();
    assert!(!broken.body.complete);
    let mut connection = Connection::open(deployment.gateway().unwrap()).await.unwrap();
    connection.write(&get("silent").wire("goldleaves.test")).await.unwrap();
    wait_for("the upstream to have both", PATIENCE, async || Ok((upstream.served().len() == 2).then_some(())))
        .await
        .unwrap();
    deployment.kill().await.unwrap();
    deployment.start_again().await.unwrap();

    let tables = deployment.tables().await.unwrap();
    let contents = tables.wait("both", |found| found.len() == 2).await.unwrap();
    let mut aside: Vec<_> = contents.dead_letters.iter().collect();
    aside.sort_by(|one, other| one.reason.cmp(&other.reason));
    let found: Vec<_> = aside.iter().map(|letter| (letter.reason.as_str(), letter.request_id.as_deref())).collect();
    assert_eq!(found, [("unknown", Some("silent")), ("upstream_aborted", Some("broken"))]);
    assert_eq!(Some(aside[1].id.as_str()), broken.header("x-usage-event-id"));
    // Neither holds its id: the next call of that name is billed under it.
    let again = bill(&deployment, &get("silent/again").header("X-Other", "1")).await;
    assert!(!again.is_empty());
    deployment.summary_of("acme", 1).await.unwrap();
}

async fn units_and_action_come_from_headers_and_trailers(kind: Kind) {
    let answer = |received: &Received| {
        let plain = Answer::ok("x").header("X-Usage-Action", "summarise");
        match received.target().rsplit('/').next() {
            Some("half") => plain.header("X-Usage-Units", "0.5"),
            Some("most") => plain.header("X-Usage-Units", "1000000000"),
            Some("bad") => plain.header("X-Usage-Units", "1e3"),
            Some("trailer") => Answer::chunked([b"x".to_vec()])
                .header("X-Usage-Units", "2")
                .header("Trailer", "X-Usage-Units")
                .trailer("X-Usage-Units", "7.000001"),
            _ => plain,
        }
    };
    let (upstream, deployment) = system(kind, answer).await;
    let token = deployment.token("acme").unwrap();
    let cases = [("half", 500_000), ("most", 1_000_000_000_000_000), ("bad", 1_000_000), ("trailer", 7_000_001)];
    let mut wanted = Vec::new();
    for (path, units_micro) in cases {
        let request = Request::get(&format!("{PATH}/{path}")).token(&token).header("X-Usage-Units", "0");
        let response = deployment.ask(&request).await.unwrap();
        let seen = response.head.headers.iter().chain(&response.body.trailers);
        let names: Vec<String> = seen.map(|(name, _)| name.to_lowercase()).collect();
        assert!(!names.iter().any(|name| name == "x-usage-units" || name == "x-usage-action"), "{response:?}");
        wanted.push((response.header("x-usage-event-id").unwrap().to_owned(), units_micro));
    }
    assert!(upstream.served().iter().all(|received| received.head.header("x-usage-units").is_none()));
    let contents = deployment.tables().await.unwrap().wait("all four", |found| found.len() == 4).await.unwrap();
    let found: Vec<_> = wanted
        .iter()
        .map(|(id, _)| (id.clone(), contents.events.iter().find(|row| row.id == *id).unwrap().units_micro))
        .collect();
    assert_eq!(found, wanted);
    let summary = deployment.summary_of("acme", 4).await.unwrap();
    assert_eq!(summary["total_units"].to_string(), "1000000008.500001", "{summary}");
}

/// A program that opens the tables and closes them again takes the write-ahead log away, unless it sees by
/// the lock on the file that somebody works with it (SQLite before 3.51 looks at nothing else). Closing any descriptor of
/// the file drops that lock, so nothing but SQLite may open it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_stays_locked_against_programs_that_tidy_up() {
    let (_upstream, mut deployment) = system(Kind::Embedded, |_| Answer::ok("hello")).await;
    for start in ["first", "second"] {
        let file = std::fs::metadata(deployment.data_folder().join("goldleaves.db")).unwrap();
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let inode = format!(":{} ", file.ino());
        let held = locks.lines().any(|lock| lock.contains("POSIX") && lock.contains(&inode));
        assert!(held, "nothing locks the file after the {start} start:\n{locks}");
        deployment.stop().await.unwrap();
        deployment.start_again().await.unwrap();
    }
}
