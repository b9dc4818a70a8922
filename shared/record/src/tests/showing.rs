//! Tests what people see: every metric moves.

use super::receiver::*;
use crate::VoidReason;

#[tokio::test]
async fn every_metric_of_the_record_side_moves() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    receiver.becomes(Mood::Away);
    let running = Running::start(directory.path(), &receiver, NEVER).await;
    for line in ["epochs_open 1", "spool_unsent_records 0", "spool_oldest_unsent_age_seconds 0.0", "spool_writable 1"] {
        assert!(running.shows(&format!("goldleaves_{line}")), "{line}\n{}", running.metrics.text());
    }
    let open_call = announce(&running.recorder).await;
    announce(&running.recorder).await.void(VoidReason::Stopped);
    capture(&running.recorder, 2).await;
    for line in [
        "captured_events_total{outcome=\"completed\"} 2",
        "voided_calls_total{reason=\"stopped\"} 1",
        "spool_open_intents 1",
        "spool_unsent_records 2",
        "spool_segments 1",
    ] {
        assert!(running.shows(&format!("goldleaves_{line}")), "{line}\n{}", running.metrics.text());
    }
    let value = |name: &str| {
        let text = running.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("goldleaves_{name} "))).unwrap().to_owned();
        line.parse::<f64>().unwrap()
    };
    assert!(value("spool_bytes") > 0.0 && value("spool_unsent_bytes") > 0.0);
    until(|| value("relay_failures_in_a_row") > 0.0).await;
    until(|| value("spool_oldest_unsent_age_seconds") >= 1.0).await;
    receiver.becomes(Mood::Confirms);
    until(|| value("relayed_records_total") == 2.0).await;
    until(|| value("spool_unsent_bytes") < 1_000.0).await;
    open_call.void(VoidReason::Stopped);
    let metrics = running.metrics.clone();
    assert_eq!(running.stop().await, 0);
    for line in ["seals_total 1", "epochs_closed_total 1", "epochs_open 0", "relayed_records_total 3"] {
        assert!(shows(&metrics, &format!("goldleaves_{line}")), "{line}\n{}", metrics.text());
    }
}
