//! The state that the layers of one core share. Nothing in it is written by another core but the wish to stop.

use std::sync::Arc;

use goldleaves_domain::BillableStatuses;
use goldleaves_record::Recorder;
use goldleaves_web::Buffers;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::CoreMetrics;
use crate::route_metrics::RouteCounters;

/// One core's share of the gateway.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) recorder: Recorder,
    pub(crate) statuses: Arc<BillableStatuses>,
    /// True if events say who called from where with what.
    pub(crate) client_info: bool,
    /// True if answers without an event say why there is none.
    pub(crate) says_skipped: bool,
    pub(crate) metrics: Arc<CoreMetrics>,
    pub(crate) routes: Arc<RouteCounters>,
    /// The room of its bodies on their way.
    pub(crate) buffers: Buffers,
    /// Cancelled before anything is dropped because the gateway stops.
    pub(crate) stopping: CancellationToken,
    /// Upgraded connections, which no request waits for any more.
    pub(crate) tunnels: TaskTracker,
    /// Calls that go on without their clients.
    pub(crate) finishing: TaskTracker,
}

impl Core {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }
}
