//! `goldleaves spool status`: what the spool in `DATA_DIR` holds, also while a program uses it.

use std::io::ErrorKind;
use std::path::Path;

use goldleaves_record::spool_directory;
use goldleaves_runtime::{Exit, process};
use goldleaves_spool::{Inspection, inspect};

/// Looks and prints.
pub(crate) fn run(data_dir: &Path) -> Exit {
    let directory = spool_directory(data_dir);
    if let Some(none) = missing(data_dir) {
        return process::answer(&none);
    }
    match inspect(&directory) {
        Ok(found) => process::answer(&text(&directory, &found)),
        Err(error) => {
            process::say(&format_args!("spool status: {}", process::chain(&error)));
            Exit::Failed("spool status".to_owned())
        }
    }
}

/// Says in words that there is no spool; `None` where there is one.
pub(crate) fn missing(data_dir: &Path) -> Option<String> {
    let directory = spool_directory(data_dir);
    let is_missing = directory.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
    is_missing.then(|| {
        format!(
            "no spool at {}: nothing was ever recorded there. DATA_DIR names its folder, here {}\n",
            directory.display(),
            data_dir.display()
        )
    })
}

fn text(directory: &Path, found: &Inspection) -> String {
    let source = found.id.map_or("none yet, nothing was ever written here".to_owned(), |id| format!("gateway-{id}"));
    let oldest = found.oldest_unsent_secs.map_or("none".to_owned(), |secs| format!("{secs} s"));
    let mut lines = vec![
        format!("spool          {}", directory.display()),
        format!("source         {source}"),
        format!("in use         {}", if found.in_use { "yes" } else { "no" }),
        format!("segments       {} ({} bytes)", found.segments, found.bytes),
        format!("unsent         {}", found.unsent_records),
        format!("oldest unsent  {oldest}"),
        format!("resend         {}", resendable(found)),
        format!("open calls     {}", found.open_intents),
    ];
    lines.extend(found.epochs.iter().map(|(epoch, last_seq, unrecorded)| {
        format!("open epoch     {epoch}  last seq {last_seq}, unrecorded {unrecorded}")
    }));
    lines.push(format!(
        "damaged        {} regions, {} files in quarantine",
        found.damaged_regions, found.quarantine_files
    ));
    lines.join("\n") + "\n"
}

/// Returns what `spool resend` could still bring.
fn resendable(found: &Inspection) -> String {
    match (found.resendable_records, found.oldest_retained_secs) {
        (0, _) | (_, None) => "nothing that was sent is retained".to_owned(),
        (records, Some(secs)) => format!("{records} that were sent are retained, the oldest for {secs} s"),
    }
}
