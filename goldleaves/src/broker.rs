//! All three roles in one process, over JetStream: what the relay publishes, the worker takes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use goldleaves_domain::Publisher;
use goldleaves_gateway::StreamSettings;
use goldleaves_ledger::Ledger;
use goldleaves_meter_worker::{Meter, StreamMetrics, StreamWatch, Worker};
use goldleaves_runtime::{Metrics, OnCancel, OnFailure, Stage, Supervisor, TaskRule, process};

/// The interval at which JetStream is asked again while it can't be.
const DECLARE_EVERY: Duration = Duration::from_secs(1);

/// Starts the worker, and returns what the relay publishes with.
///
/// # Errors
/// Credentials that are wrong. A server that is away is no error.
pub(crate) async fn spawn(
    supervisor: &mut Supervisor,
    stream: &StreamSettings,
    meter: Meter,
    ledger: Ledger,
    metrics: &Metrics,
) -> Result<Arc<dyn Publisher>> {
    let connection = stream.connect("goldleaves").await?;
    let shown = connection.clone();
    metrics.show_broker(move || (shown.is_connected(), shown.connects()));
    let (declared, topology) = (connection.clone(), *stream.topology());
    supervisor.spawn_once(rule("stream", OnCancel::Abort), async move |stop| {
        while let Err(error) = topology.declare(&declared).await {
            if !error.is_transient() {
                return Err(process::chain(&error));
            }
            tracing::debug!(%error, "stream and consumer can't be declared yet");
            tokio::time::sleep(DECLARE_EVERY).await;
        }
        stop.cancelled().await;
        Ok(())
    });
    let worker = Worker::new(connection.clone(), meter, metrics);
    supervisor.spawn_once(rule("worker", OnCancel::Finish), async move |stop| worker.run(stop).await);
    let watch = StreamWatch::new(connection.clone(), ledger, StreamMetrics::register(metrics));
    supervisor.spawn_once(rule("stream-watch", OnCancel::Abort), async move |_| watch.run().await);
    Ok(stream.publisher(connection, metrics))
}

const fn rule(name: &'static str, on_cancel: OnCancel) -> TaskRule {
    TaskRule { name, stage: Stage::Sink, on_cancel, on_failure: OnFailure::Stop }
}
