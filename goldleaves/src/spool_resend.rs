//! `goldleaves spool resend`: asks the program that uses the spool in `DATA_DIR`, or the next one that does, to hand over
//! again what was confirmed. It sends nothing itself.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use goldleaves_domain::Timestamp;
use goldleaves_record::spool_directory;
use goldleaves_runtime::{Exit, process};
use goldleaves_spool::{ask_resend, inspect_since, is_resend_asked};

use crate::spool_status::missing;

/// A program looks for a wish every second.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Asks, and waits until it is heard where a program runs.
pub(crate) fn run(data_dir: &Path, since: Option<Timestamp>) -> Exit {
    match resend(data_dir, since) {
        Ok(said) => process::answer(&said),
        Err(error) => {
            process::say(&format_args!("spool resend: {error:#}"));
            Exit::Failed("spool resend".to_owned())
        }
    }
}

fn resend(data_dir: &Path, since: Option<Timestamp>) -> Result<String> {
    if let Some(none) = missing(data_dir) {
        return Ok(none);
    }
    let directory = spool_directory(data_dir);
    let since_secs = since.map_or(0, |since| u64::try_from(since.unix_micros() / 1_000_000).unwrap_or(0));
    let found = inspect_since(&directory, since_secs)?;
    let of = since.map_or_else(String::new, |since| format!(" recorded since {since}"));
    if found.resendable_records == 0 {
        return Ok(format!("nothing{of} that was sent is retained: there is nothing to send again\n"));
    }
    let write = || format!("{} can't be written in", directory.display());
    ask_resend(&directory, since_secs).with_context(write)?;
    let records = found.resendable_records;
    if !found.in_use {
        return Ok(format!("{records} records{of} are handed over again by the next start\n"));
    }
    let end = Instant::now() + PATIENCE;
    while is_resend_asked(&directory) {
        if Instant::now() >= end {
            bail!(
                "the program that uses {} has not taken the wish in {} s; it is taken by the next start at the latest",
                directory.display(),
                PATIENCE.as_secs()
            );
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(format!(
        "{records} records{of} are being handed over again; goldleaves_spool_unsent_records says how many are left\n"
    ))
}
