//! `LOG_LEVEL=DEBUG` logs every captured event, and every line of an event has its request id. In a process of its own,
//! because a process has one log.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use goldleaves_domain::{Delivery, Outcome, PublishFuture, Publisher, RequestId, TenantId, Timestamp, Units, UserId};
use goldleaves_record::{CallIntent, Durability, RecordOptions, Recorder, Settlement, VoidReason, open};
use goldleaves_runtime::Metrics;
use goldleaves_spool::{RealFileSystem, SpoolOptions};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;
use uuid::Uuid;

/// Lines as they are written.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Confirms whatever it is given.
struct Confirms;

impl Publisher for Confirms {
    fn publish(&self, _: Vec<Delivery>) -> PublishFuture<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn call(recorder: &Recorder) -> CallIntent {
    CallIntent {
        event_id: recorder.event_id(),
        tenant_id: "tenant-1".parse::<TenantId>().unwrap(),
        user_id: "user-1".parse::<UserId>().unwrap(),
        ts: Timestamp::from_unix_micros(1_700_000_000_000_000).unwrap(),
        traceparent: None,
        request_id: RequestId::from_uuid(Uuid::now_v7()),
        client_request_id: None,
        route: "/api/v1/documents".parse().unwrap(),
        method: "GET".into(),
        user_agent: None,
        client_ip: None,
    }
}

const SETTLEMENT: Settlement = Settlement {
    outcome: Outcome::Completed,
    status_code: 200,
    units: Units::ONE,
    action: None,
    response_bytes: 17,
    processing_micros: 1_500,
    fingerprint: None,
};

#[tokio::test]
async fn debug_logs_every_captured_event_and_each_line_of_an_event_has_its_request_id() {
    let lines = Lines::default();
    let log =
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).with_writer(lines.clone());
    tracing::subscriber::set_global_default(log.finish()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = RecordOptions::new(SpoolOptions::new(directory.path()), Durability::Available);
    let side = open(options, RealFileSystem, &Metrics::new()).await.unwrap();
    let mut request_ids = Vec::new();
    for number in 0..4 {
        let call = call(&side.recorder);
        request_ids.push(call.request_id.to_string());
        let owed = side.recorder.intend(call).unwrap();
        match number {
            0 => owed.void(VoidReason::StatusNotBillable),
            1 => drop(owed),
            _ => owed.publish(SETTLEMENT),
        }
    }
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(side.relay.run(Arc::new(Confirms), stop, Duration::from_secs(20)).await, 0);
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    let count = |what: &str, id: &str| text.lines().filter(|line| line.contains(what) && line.contains(id)).count();
    for (number, id) in request_ids.iter().enumerate() {
        assert_eq!(count("call announced", id), 1, "{text}");
        assert_eq!(count("usage event captured", id), usize::from(number > 0), "{text}");
        assert_eq!(count("usage event handed over", id), usize::from(number > 0), "{text}");
    }
    assert_eq!(count("call left no event", &request_ids[0]), 1);
    assert_eq!(count("dropped unsettled", &request_ids[1]), 1);
    assert!(text.lines().filter(|line| line.contains("event_id=")).all(|line| line.contains("request_id=")), "{text}");
}
