//! A spool with events in it that nobody has taken yet, filled by the product's own recorder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use goldleaves_domain::{Delivery, Fingerprint, Outcome, PublishFuture, Publisher, RequestId, Units};
use goldleaves_record::{
    CallIntent, Durability, PreparedCall, RecordOptions, Recorder, Settlement, now, open, spool_directory,
};
use goldleaves_runtime::Metrics;
use goldleaves_spool::{RealFileSystem, SpoolOptions};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The time that the spool may take to be closed in order.
const CLOSE: Duration = Duration::from_secs(2);
/// The calls that come before the disk gets a moment.
const AT_ONCE: usize = 1_000;

/// Never answers.
struct Away;

impl Publisher for Away {
    fn publish(&self, _: Vec<Delivery>) -> PublishFuture<'_> {
        Box::pin(std::future::pending())
    }
}

/// Records so many calls of so many tenants, in turn, in the spool of this data directory.
pub(crate) async fn fill(data: &Path, events: usize, tenants: usize) -> Result<()> {
    let mut spool = SpoolOptions::new(spool_directory(data));
    spool.bytes_max = 64 << 30;
    let side = open(RecordOptions::new(spool, Durability::Available), RealFileSystem, &Metrics::new()).await?;
    for number in 0..events {
        if number.is_multiple_of(AT_ONCE) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        record(&side.recorder, number, tenants).await?;
    }
    // No last seal is drawn: whoever takes the events hashes them, as where they come from calls.
    let stop = CancellationToken::new();
    stop.cancel();
    side.relay.hurried_by(stop.clone()).run(Arc::new(Away), stop, CLOSE).await;
    Ok(())
}

async fn record(recorder: &Recorder, number: usize, tenants: usize) -> Result<()> {
    let settlement = Settlement {
        outcome: Outcome::Completed,
        status_code: 200,
        units: Units::ONE,
        action: None,
        response_bytes: 200,
        processing_micros: 1_500,
        fingerprint: Some(format!("v1:{number:064x}").parse::<Fingerprint>()?),
    };
    loop {
        // Refused only while the disk is behind.
        if let Ok(owed) = recorder.intend_soon(call(recorder, number, tenants)?).await {
            owed.publish(settlement);
            return Ok(());
        }
    }
}

fn call(recorder: &Recorder, number: usize, tenants: usize) -> Result<PreparedCall> {
    let routes = ["/api/v1/documents", "/api/v1/ai", "/api/v1/search"];
    let event_id = recorder.event_id();
    Ok(PreparedCall::from(CallIntent {
        event_id,
        tenant_id: format!("tenant-{}", number % tenants).parse()?,
        user_id: format!("user-{}", number % 5_000).parse()?,
        ts: now(),
        traceparent: Some(format!("00-{:032x}-{:016x}-00", event_id.as_uuid().as_u128(), number + 1)),
        request_id: RequestId::from_uuid(Uuid::now_v7()),
        client_request_id: None,
        route: routes.get(number % 3).context("three routes")?.parse()?,
        method: "GET".to_owned(),
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".to_owned()),
        client_ip: Some("192.0.2.7".to_owned()),
    }))
}
