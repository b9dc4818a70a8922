//! `goldleaves spool status`: what the spool in `DATA_DIR` holds, also while a program uses it.

use std::path::Path;

use goldleaves_gateway::record::spool_directory;
use goldleaves_runtime::{Exit, process};
use goldleaves_spool::{Inspection, inspect};

/// Looks and prints.
pub(crate) fn run(data_dir: &Path) -> Exit {
    let directory = spool_directory(data_dir);
    match inspect(&directory) {
        Ok(found) => {
            print(&directory, &found);
            Exit::Done
        }
        Err(error) => {
            let error = anyhow::Error::new(error);
            process::say(&format_args!("spool status: {error:#}"));
            Exit::Failed("spool status".to_owned())
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn print(directory: &Path, found: &Inspection) {
    println!("spool          {}", directory.display());
    match found.id {
        Some(id) => println!("source         gateway-{id}"),
        None => println!("source         none yet, nothing was ever written here"),
    }
    println!("in use         {}", if found.in_use { "yes" } else { "no" });
    println!("segments       {} ({} bytes)", found.segments, found.bytes);
    println!("unsent         {}", found.unsent_records);
    match found.oldest_unsent_secs {
        Some(secs) => println!("oldest unsent  {secs} s"),
        None => println!("oldest unsent  none"),
    }
    println!("open calls     {}", found.open_intents);
    for (epoch, last_seq, unrecorded) in &found.epochs {
        println!("open epoch     {epoch}  last seq {last_seq}, unrecorded {unrecorded}");
    }
    println!("damaged        {} regions, {} files in quarantine", found.damaged_regions, found.quarantine_files);
}
