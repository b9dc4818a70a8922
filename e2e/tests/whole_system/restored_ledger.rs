//! An older backup takes the place of the one process's ledger: the spool hands over again what came since.

use std::path::Path;

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::upstream::{Answer, Upstream};

use crate::used_stream::output;

pub(crate) async fn call(deployment: &Deployment, count: usize) {
    let request = Request::get("/api/v1/documents").token(&deployment.token("acme").unwrap());
    for _ in 0..count {
        assert_eq!(deployment.ask(&request).await.unwrap().status, 200);
    }
}

/// Copies the database, which no program has open.
pub(crate) fn copy(from: &Path, to: &Path) {
    for end in ["", "-wal", "-shm"] {
        let name = |folder: &Path| folder.join(format!("goldleaves.db{end}"));
        let _ = std::fs::remove_file(name(to));
        if name(from).exists() {
            std::fs::copy(name(from), name(to)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restored_backup_lacks_comes_again_from_the_spool() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut deployment = Deployment::start(Kind::Embedded, &upstream.url()).await.unwrap();
    let data = deployment.data_folder();
    let backup = data.with_file_name("backup");
    std::fs::create_dir(&backup).unwrap();
    call(&deployment, 10).await;
    deployment.summary_of("acme", 10).await.unwrap();
    deployment.stop().await.unwrap();
    copy(&data, &backup);

    deployment.start_again().await.unwrap();
    call(&deployment, 20).await;
    deployment.summary_of("acme", 30).await.unwrap();
    assert_eq!(deployment.metric("goldleaves_ledger_went_back_total").await.unwrap(), 0.0);
    deployment.stop().await.unwrap();
    copy(&backup, &data);

    deployment.start_again().await.unwrap();
    deployment.summary_of("acme", 30).await.unwrap();
    assert_eq!(deployment.metric("goldleaves_ledger_went_back_total").await.unwrap(), 1.0);
    call(&deployment, 5).await;
    deployment.summary_of("acme", 35).await.unwrap();
}

/// Waits until so many records were handed over since the start, and nothing is left.
async fn relayed(deployment: &Deployment, least: f64) {
    let done = async || {
        let relayed = deployment.metric("goldleaves_relayed_records_total").await?;
        let unsent = deployment.metric("goldleaves_spool_unsent_records").await?;
        Ok((relayed >= least && unsent == 0.0).then_some(()))
    };
    wait_for("everything to be handed over", PATIENCE, done).await.unwrap();
}

/// A backup, and then one that is newer than it, but made before that one was put back: what is handed over is counted, and the
/// second had more of the count than there is since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_backup_than_the_one_that_was_put_back_is_noticed_too() {
    let upstream = Upstream::start(|_| Answer::ok("hello")).await.unwrap();
    let mut deployment = Deployment::start(Kind::Embedded, &upstream.url()).await.unwrap();
    let data = deployment.data_folder();
    let [older, newer] = ["older", "newer"].map(|name| data.with_file_name(name));
    for folder in [&older, &newer] {
        std::fs::create_dir(folder).unwrap();
    }
    call(&deployment, 10).await;
    deployment.summary_of("acme", 10).await.unwrap();
    deployment.stop().await.unwrap();
    copy(&data, &older);

    deployment.start_again().await.unwrap();
    call(&deployment, 20).await;
    deployment.summary_of("acme", 30).await.unwrap();
    deployment.stop().await.unwrap();
    for _ in 0..2 {
        output(deployment.command().argument("spool").argument("resend"));
        deployment.start_again().await.unwrap();
        relayed(&deployment, 30.0).await;
        deployment.stop().await.unwrap();
    }
    copy(&data, &newer);
    deployment.start_again().await.unwrap();
    call(&deployment, 5).await;
    deployment.summary_of("acme", 35).await.unwrap();
    deployment.stop().await.unwrap();

    for backup in [older, newer] {
        copy(&backup, &data);
        deployment.start_again().await.unwrap();
        deployment.summary_of("acme", 35).await.unwrap();
        relayed(&deployment, 35.0).await;
        let went_back = deployment.metric("goldleaves_ledger_went_back_total").await.unwrap();
        assert_eq!(went_back, 1.0, "{}", backup.display());
        deployment.stop().await.unwrap();
    }
}
