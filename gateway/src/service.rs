//! The gateway among the tasks of a process: what serves, and the relay that carries away what it recorded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use goldleaves_auth::TokenVerifier;
use goldleaves_domain::Publisher;
use goldleaves_record::{RecordSide, Recorder};
use goldleaves_runtime::{Metrics, OnCancel, OnFailure, Shutdown, Stage, Supervisor, TaskRule};
use goldleaves_trace::Tracer;
use goldleaves_web::{Check, CheckState};

use crate::snapshot::Reloader;
use crate::{Gateway, GatewayConfig, GatewayParts, Reloading, StartError, hints, reload};

/// The time for which what was recorded is still handed on, once nothing more comes in.
const RELAY_GRACE: Duration = Duration::from_secs(5);
/// The time that dropping the last connections and closing the spool may take besides.
const CLOSE_GRACE: Duration = Duration::from_secs(3);

/// Returns the longest time a gateway may take to stop: a program waits no shorter, or it would name what was about to
/// finish.
fn stop_grace(reloader: &Reloader) -> Duration {
    let (drain_delay, shutdown_grace) = reloader.stop_times();
    drain_delay + shutdown_grace + RELAY_GRACE + CLOSE_GRACE
}

/// The work that a stop did not get to: the spool keeps it for the next start.
#[derive(Debug, thiserror::Error)]
#[error("{records} records are left in the spool for the next start")]
struct Left {
    records: u64,
}

/// The help of the metric `ready`.
pub const READY_HELP: &str = "Whether /health/ready says yes: 1 or 0";

/// The parts that the tasks are made from.
pub struct GatewayService {
    /// Opened already, so that what an earlier start left is settled before anything is served.
    pub side: RecordSide,
    /// Where what was recorded goes.
    pub publisher: Arc<dyn Publisher>,
    /// Verifies bearer tokens.
    pub verifier: TokenVerifier,
    /// Where numbers are shown.
    pub metrics: Metrics,
    /// Where spans go.
    pub tracer: Tracer,
    /// The wish to stop.
    pub shutdown: Shutdown,
    /// Sockets that were handed over for the gateway.
    pub sockets: Vec<std::net::TcpListener>,
    /// The way settings are read again; `None` = never.
    pub reloading: Option<Reloading>,
}

impl GatewayService {
    /// Listens, and starts the tasks. Returns the address.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn spawn(self, supervisor: &mut Supervisor, config: &GatewayConfig) -> Result<Started, StartError> {
        let Self { side: RecordSide { recorder, relay }, publisher, verifier, metrics, tracer, shutdown, .. } = self;
        let (sockets, reloading) = (self.sockets.into(), self.reloading);
        let relay = relay.traced(tracer.clone()).hurried_by(shutdown.at_once_token());
        let gateway =
            Gateway::start(config, &GatewayParts { verifier, recorder, metrics: metrics.clone(), tracer, sockets })?;
        let address = gateway.address();
        let reloader = gateway.reloader();
        let shown = Arc::clone(&reloader);
        let upstreams = Box::new(move || shown.upstreams());
        let stopped = Arc::clone(&reloader);
        let stop_grace = Box::new(move || stop_grace(&stopped));
        if !config.never_billed.is_empty() {
            let never = config.never_billed.join(", ");
            tracing::warn!("BILLABLE_ROUTES lists {never}, which is open and never billed");
        }
        if config.says_skipped {
            let rule = TaskRule { on_cancel: OnCancel::Abort, ..rule("hints", Stage::Ops) };
            let (cores, billed) = (gateway.metrics(), hints::billed(config));
            supervisor.spawn_once(rule, async move |stop| {
                hints::watch(cores, billed, stop).await;
                Ok::<_, StartError>(())
            });
        }
        supervisor.spawn_once(rule("relay", Stage::Flow), async move |stop| {
            match relay.run(publisher, stop, RELAY_GRACE).await {
                0 => Ok(()),
                records => Err(Left { records }),
            }
        });
        let times = Arc::clone(&reloader);
        if let Some(reloading) = reloading {
            let rule = TaskRule { on_cancel: OnCancel::Abort, ..rule("reload", Stage::Edge) };
            let (shown, asked) = (metrics.clone(), shutdown.clone());
            reload::show_snapshots(&metrics, &reloader);
            let reloads = reloading.of(reloader);
            supervisor.spawn_once(rule, async move |stop| {
                reloads.watch(shown, asked, stop).await;
                Ok::<_, StartError>(())
            });
        }
        supervisor.spawn_once(rule("gateway", Stage::Edge), async move |stop| {
            let died = gateway.died();
            tokio::select! {
                () = stop.cancelled() => {}
                () = died.cancelled() => return Err(StartError::CoreDied),
            }
            gateway.drain();
            let (drain_delay, _) = times.stop_times();
            shutdown.delay(drain_delay).await;
            gateway.stop();
            let cut = tokio::select! {
                cut = gateway.stopped() => cut,
                () = shutdown.at_once() => 0,
            };
            if cut > 0 {
                tracing::warn!(
                    connections = cut,
                    "cut off what did not finish in time; answers that had begun are settled as gateway_stopped"
                );
            }
            Ok::<_, StartError>(())
        });
        Ok(Started { address, upstreams, stop_grace })
    }
}

/// A gateway among the tasks of a process.
pub struct Started {
    /// Where it listens.
    pub address: SocketAddr,
    /// Makes the text of `/upstreams`.
    pub upstreams: Box<dyn Fn() -> String + Send + Sync>,
    /// The longest time a stop may take.
    pub stop_grace: Box<dyn Fn() -> Duration + Send + Sync>,
}

/// Returns what is billed, in words for the start: which routes, and with which statuses.
pub fn billed(config: &GatewayConfig) -> String {
    hints::billed(config)
}

/// Returns whether the spool takes records.
pub fn spool_check(recorder: Recorder) -> Check {
    Check::new("spool", move || {
        let health = recorder.health();
        CheckState::when(health.has_room, health.to_string())
    })
}

/// Returns whether the process goes on: a balancer must hear of a stop first.
pub fn running_check(shutdown: Shutdown) -> Check {
    Check::new("running", move || CheckState::when(!shutdown.is_asked(), "stopping"))
}

const fn rule(name: &'static str, stage: Stage) -> TaskRule {
    TaskRule { name, stage, on_cancel: OnCancel::Finish, on_failure: OnFailure::Stop }
}
