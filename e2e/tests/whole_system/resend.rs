//! `goldleaves spool resend` by hand: beside a program that uses the spool, and before one starts.

use std::time::Duration;

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};

use crate::used_stream::output;

on_both!(what_is_retained_is_handed_over_again_when_asked);

const CALLS: u64 = 12;

async fn call(deployment: &Deployment, calls: u64) {
    let token = deployment.token("acme").unwrap();
    for _ in 0..calls {
        let request = Request::get("/api/v1/documents").token(&token);
        assert_eq!(deployment.ask(&request).await.unwrap().status, 200);
    }
}

/// Returns the number of records handed over since the start, once that is so many or more and nothing is left.
async fn relayed(deployment: &Deployment, least: f64) -> f64 {
    wait_for("the records to be handed over", PATIENCE, async || {
        let relayed = deployment.metric("goldleaves_relayed_records_total").await?;
        let unsent = deployment.metric("goldleaves_spool_unsent_records").await?;
        Ok((relayed >= least && unsent == 0.0).then_some(relayed))
    })
    .await
    .unwrap()
}

async fn what_is_retained_is_handed_over_again_when_asked(kind: Kind) {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut deployment = Deployment::start(kind, &upstream.url()).await.unwrap();
    let command = |deployment: &Deployment, words: &[&str]| {
        let launch = words.iter().fold(deployment.command(), |launch, word| launch.argument(*word));
        output(launch)
    };
    assert!(command(&deployment, &["spool", "resend"]).starts_with("nothing"), "there is nothing yet");
    call(&deployment, CALLS).await;
    deployment.summary_of("acme", CALLS).await.unwrap();
    let before = relayed(&deployment, 12.0).await;

    let status = command(&deployment, &["spool", "status"]);
    assert!(status.contains("that were sent are retained"), "{status}");
    let said = command(&deployment, &["spool", "resend"]);
    assert!(said.contains("are being handed over again"), "{said}");
    relayed(&deployment, before + 12.0).await;
    if kind == Kind::Distributed {
        let published = deployment.metric("goldleaves_published_messages_total").await.unwrap();
        assert!(published >= 2.0, "{published}: those of the first time, and those of the second");
    }
    let said = command(&deployment, &["spool", "resend", "--since", "2100-01-01"]);
    assert!(said.starts_with("nothing recorded since"), "{said}");

    // Without a program the wish waits for one.
    assert!(deployment.stop().await.unwrap().success());
    let said = command(&deployment, &["spool", "resend", "--since", "2020-01-01T00:00:00Z"]);
    assert!(said.contains("handed over again by the next start"), "{said}");
    deployment.start_again().await.unwrap();
    relayed(&deployment, 12.0).await;

    deployment.redeliver_after(Duration::from_secs(5)).await.unwrap();
    deployment.summary_of("acme", CALLS).await.unwrap();
    let contents = deployment.tables().await.unwrap().contents().await.unwrap();
    assert_eq!((contents.events.len() as u64, contents.len() as u64), (CALLS, CALLS), "nothing twice");
}
