//! The spool's own figures among the metrics: read from the spool just before somebody reads them, never counted here.

use std::sync::atomic::AtomicU64;

use goldleaves_runtime::Metrics;
use goldleaves_spool::Spool;
use prometheus_client::metrics::gauge::Gauge;

use super::metrics::Count;
use super::recorder::Recorder;

/// Shows the figures of the recorder's spool, as they are when somebody reads them; all 0 as long as there is none.
pub(crate) fn show_spool(metrics: &Metrics, recorder: Recorder) {
    let gauge = |name, help| metrics.register(name, help, Count::default());
    let bytes = gauge("spool_bytes", "Bytes the spool takes on disk");
    let segments = gauge("spool_segments", "Segments of the spool");
    let unsent_bytes = gauge("spool_unsent_bytes", "Bytes of the spool that are not handed over");
    let unsent_records = gauge("spool_unsent_records", "Records of the spool that are not handed over");
    let open_intents = gauge("spool_open_intents", "Calls announced and not settled yet");
    let writable = gauge("spool_writable", "Whether the spool takes records: 1 or 0");
    let staged = gauge("spool_staged", "Whether records wait for the disk in memory that outlives the process: 1 or 0");
    let help = "Whether this start missed the stage of the last, and with it calls: 1 or 0";
    let stage_lost = gauge("spool_stage_lost", help);
    let still = gauge("spool_stands_still", "Whether the spool's disk answers nothing: 1 or 0");
    let help = "Age of the oldest record that is not handed over, 0 for none";
    let oldest = metrics.register("spool_oldest_unsent_age_seconds", help, Gauge::<f64, AtomicU64>::default());
    metrics.before_reading(move || {
        let health = recorder.health();
        still.set(health.stands_still.into());
        let Some(stats) = recorder.spool().map(Spool::stats) else { return };
        bytes.set(stats.bytes);
        segments.set(stats.segments as u64);
        unsent_bytes.set(stats.unsent_bytes);
        unsent_records.set(stats.unsent_records);
        open_intents.set(stats.open_intents as u64);
        writable.set(health.has_room.into());
        staged.set(stats.staged.into());
        stage_lost.set(stats.lost_stage.into());
        oldest.set(stats.oldest_unsent.unwrap_or_default().as_secs_f64());
    });
}
