//! The guide says not to delete or archive rows by hand, and what becomes of the bills where somebody does: that is true of the
//! programs.

use std::time::{Duration, SystemTime};

use goldleaves_domain::Timestamp;
use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_e2e::tables::Tables;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};
use serde_json::Value;

use crate::used_stream::output;

on_both!(a_row_that_is_archived_by_hand_is_missing_and_comes_again);

const CALLS: u64 = 7;
/// A range that holds no whole hour, whenever it is asked for, and all calls.
const HALF_RANGE: Duration = Duration::from_secs(20 * 60);

fn time(at: SystemTime) -> String {
    let micros = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    Timestamp::from_unix_micros(i64::try_from(micros).unwrap()).unwrap().to_string()
}

/// The counts of two bills of the same calls: one of whole hours, and one that begins and ends within an hour.
async fn bills(deployment: &Deployment, calls_at: SystemTime) -> [u64; 2] {
    let (from, to) = (time(calls_at - HALF_RANGE), time(calls_at + HALF_RANGE));
    let mut counts = Vec::new();
    for range in [("2000-01-01".to_owned(), "2100-01-01".to_owned()), (from, to)] {
        let target = format!("/billing/usage-summary/acme?start_date={}&end_date={}", range.0, range.1);
        let response = deployment.ask(&Request::get(&target).token(&deployment.token("acme").unwrap())).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        counts.push(response.json().unwrap().get("total_events").and_then(Value::as_u64).unwrap());
    }
    [counts[0], counts[1]]
}

/// The ledger as somebody with a client of the database has it.
async fn at_the_database(deployment: &Deployment, kind: Kind) -> Tables {
    let url = deployment.database().unwrap();
    Tables::open(&if kind == Kind::Embedded { format!("{url}?mode=rw") } else { url }).await.unwrap()
}

/// Everything once more: from the spool, or from the stream.
fn hand_over_again(deployment: &Deployment, kind: Kind) {
    let words: &[&str] = if kind == Kind::Embedded { &["spool", "resend"] } else { &["replay", "--from", "first"] };
    output(words.iter().fold(deployment.command(), |launch, word| launch.argument(*word)));
}

async fn a_row_that_is_archived_by_hand_is_missing_and_comes_again(kind: Kind) {
    let guide = std::fs::read_to_string(goldleaves_toolbox::workspace_root().join("docs/DEPLOYMENT.md")).unwrap();
    let words = guide.split_whitespace().collect::<Vec<_>>().join(" ");
    for says in [
        "nothing is to be deleted or archived by hand",
        "a bill of seven events that begins or ends within an hour becomes six",
        "a bill of whole hours becomes eight when the event comes again",
    ] {
        assert!(words.contains(says), "the guide does not say: {says}");
    }

    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
    let calls_at = SystemTime::now();
    for number in 0..CALLS {
        let request = Request::get("/api/v1/documents").token(&deployment.token("acme").unwrap());
        let id = format!("call-{number}");
        assert_eq!(deployment.ask(&request.header("X-Request-ID", &id)).await.unwrap().status, 200);
    }
    deployment.summary_of("acme", CALLS).await.unwrap();
    assert_eq!(bills(&deployment, calls_at).await, [7, 7]);
    hand_over_again(&deployment, kind);
    assert_eq!(bills(&deployment, calls_at).await, [7, 7], "what comes again changes nothing");

    let tables = at_the_database(&deployment, kind).await;
    let archive = "CREATE TABLE archive AS SELECT * FROM usage_events WHERE client_request_id = 'call-3'";
    tables.run(archive).await.unwrap();
    tables.run("DELETE FROM usage_events WHERE client_request_id = 'call-3'").await.unwrap();
    assert_eq!(bills(&deployment, calls_at).await, [7, 6], "the row is missing where rows are counted");
    hand_over_again(&deployment, kind);
    let both = wait_for("the event to be billed again", PATIENCE, async || {
        let both = bills(&deployment, calls_at).await;
        Ok((both != [7, 6]).then_some(both))
    });
    assert_eq!(both.await.unwrap(), [8, 7], "the event that came again is one more where hours are counted");
}
