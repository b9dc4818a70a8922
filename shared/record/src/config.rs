//! The record side's settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use goldleaves_runtime::settings::{Values, parse, table};
use goldleaves_spool::SpoolOptions;

use super::{Durability, RecordOptions};

/// The spool's place in `DATA_DIR`.
const SPOOL_DIRECTORY: &str = "spool";
/// In mode `available` nobody waits for the disk: this much may gather between two syncs. A power cut may take it.
const AVAILABLE_SYNC_PAUSE: Duration = Duration::from_millis(5);
/// Less leaves no room to work in.
const SPOOL_BYTES_MIN: u64 = 1 << 20;
/// A segment takes no more than this part of the spool, so that room comes back in small steps.
const SEGMENTS_MIN: u64 = 8;
const PAGE_BYTES: u64 = 4096;
/// JetStream acknowledges before it syncs, by default every two minutes and as Goldleaves sets it up every ten seconds: what
/// a power cut may have taken from it is handed over again by every start. A ledger confirms what is on its disk.
const STREAM_SETTLES_AFTER: Duration = Duration::from_secs(5 * 60);

impl RecordOptions {
    /// Reads them; `None` when there was a mistake, which `values` holds then.
    pub fn read(values: &mut Values) -> Option<Self> {
        let data_dir = values.required(table::DATA_DIR, parse::path);
        let durability = values.required(table::METER_DURABILITY, durability);
        let bytes_max = values.required(table::SPOOL_BYTES_MAX, spool_bytes);
        let retain = values.required(table::SPOOL_RETAIN_HOURS, parse::hours);
        let stage = values.required(table::SPOOL_STAGE_DIR, parse::path);
        let durability = durability?;
        let mut spool = SpoolOptions::new(spool_directory(&data_dir?));
        spool.bytes_max = bytes_max?;
        spool.segment_bytes = spool.segment_bytes.min(spool.bytes_max / SEGMENTS_MIN / PAGE_BYTES * PAGE_BYTES);
        spool.retain = retain?;
        spool.stage_directory = Some(stage?);
        spool.settle_after = if values.is_set(table::NATS_URL) { STREAM_SETTLES_AFTER } else { Duration::ZERO };
        spool.sync_pause = match durability {
            Durability::Available => AVAILABLE_SYNC_PAUSE,
            Durability::Strict => Duration::ZERO,
        };
        Some(Self::new(spool, durability))
    }
}

/// Where the spool of this data directory lies.
pub fn spool_directory(data_dir: &Path) -> PathBuf {
    data_dir.join(SPOOL_DIRECTORY)
}

fn spool_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse::byte_size(text).map_err(|wrong| wrong.to_string())?;
    if bytes < SPOOL_BYTES_MIN {
        let why = "leaves the spool no room to work in: it takes 1MiB or more, and 32MiB is the least that is of use";
        return Err(why.to_owned());
    }
    Ok(bytes)
}

fn durability(text: &str) -> Result<Durability, &'static str> {
    match text.trim().to_ascii_lowercase().as_str() {
        "available" => Ok(Durability::Available),
        "strict" => Ok(Durability::Strict),
        _ => Err("is neither available nor strict"),
    }
}
