//! Appends to the spool, buffered and durable, with 1, 16 and 256 writers, beside a bare loop of write and fdatasync.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use goldleaves_spool::{AppendError, RealFileSystem, Spool, SpoolOptions};
use goldleaves_toolbox::target_directory;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Effort;
use crate::table::{median, number, print};

/// A settlement with its frame is about this long.
const RECORD: [u8; 400] = [b'x'; 400];
const WRITERS: [usize; 3] = [1, 16, 256];
const BARE_FILE_BYTES: u64 = 64 << 20;

/// Measures and prints.
pub(crate) fn measure(effort: &Effort) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // The target directory is on a disk; the system's folder for temporary files may be memory.
    let folder = tempfile::Builder::new().prefix("bench-spool-").tempdir_in(target_directory()).context("a folder")?;
    let mut rows = Vec::new();
    for writers in WRITERS {
        let (mut bare, mut durable, mut buffered, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..effort.rounds {
            let own = folder.path().join(format!("{writers}-{round}"));
            std::fs::create_dir(&own).context("a folder")?;
            let loop_rate = bare_loop(&own, writers, effort.duration / 2)?;
            let durable_rate = appends(&runtime, &own, writers, Mode::Durable(effort.duration / 2))?;
            buffered.push(appends(&runtime, &own, writers, Mode::Buffered)?);
            bare.push(loop_rate);
            durable.push(durable_rate);
            ratios.push(durable_rate / loop_rate);
            std::fs::remove_dir_all(&own).context("clearing a folder")?;
        }
        let rates = [&bare, &durable, &ratios, &buffered].map(|values| number(median(values)));
        rows.push([vec![writers.to_string()], rates.to_vec()].concat());
    }
    let columns = ["writers", "bare loop, records/s", "spool durable appends/s", "ratio", "spool appends/s"];
    print("Spool, records of 400 B", &columns, &rows);
    println!(
        "\nThe bare loop writes as many records as there are writers, then calls fdatasync, on a file whose blocks exist."
    );
    Ok(())
}

/// Records a second of one thread that writes `together` records at once and syncs.
fn bare_loop(folder: &Path, together: usize, duration: Duration) -> Result<f64> {
    let file = OpenOptions::new().write(true).create_new(true).open(folder.join("bare")).context("a file")?;
    let zeros = vec![0; 1 << 20];
    for at in (0..BARE_FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at).context("filling the file")?;
    }
    file.sync_all().context("syncing")?;
    let batch = RECORD.repeat(together);
    let (start, mut records, mut at) = (Instant::now(), 0_usize, 0_u64);
    while start.elapsed() < duration {
        if at + batch.len() as u64 > BARE_FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&batch, at).context("writing")?;
        file.sync_data().context("syncing")?;
        at += batch.len() as u64;
        records += together;
    }
    Ok(records as f64 / start.elapsed().as_secs_f64())
}

#[derive(Clone, Copy)]
enum Mode {
    /// Each writer waits until its record is on the disk, for so long.
    Durable(Duration),
    /// Nobody waits; a fixed number of records.
    Buffered,
}

const BUFFERED_RECORDS: usize = 200_000;

fn appends(runtime: &Runtime, folder: &Path, writers: usize, mode: Mode) -> Result<f64> {
    let name = if matches!(mode, Mode::Buffered) { "buffered" } else { "durable" };
    let (spool, _) = Spool::open(SpoolOptions::new(folder.join(name)), RealFileSystem).context("opening a spool")?;
    let start = Instant::now();
    let records = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..writers {
            let spool = spool.clone();
            tasks.spawn(async move {
                match mode {
                    Mode::Durable(duration) => durable_appends(&spool, start + duration).await,
                    Mode::Buffered => buffered_appends(&spool, BUFFERED_RECORDS / writers).await,
                }
            });
        }
        let mut records = 0;
        while let Some(done) = tasks.join_next().await {
            records += done.context("a writer")??;
        }
        anyhow::Ok(records)
    })?;
    Ok(records as f64 / start.elapsed().as_secs_f64())
}

/// Appends as fast as segments can be prepared; that is much faster than any gateway serves.
async fn buffered_appends(spool: &Spool, records: usize) -> Result<usize> {
    for _ in 0..records {
        loop {
            match spool.note(1, &RECORD) {
                Err(AppendError::Behind) => tokio::time::sleep(Duration::from_micros(100)).await,
                done => break done.map(drop).context("appending")?,
            }
        }
    }
    Ok(records)
}

async fn durable_appends(spool: &Spool, deadline: Instant) -> Result<usize> {
    let mut records = 0;
    while Instant::now() < deadline {
        let lsn = spool.note(1, &RECORD).context("appending")?;
        spool.durable(lsn).await.context("syncing")?;
        records += 1;
    }
    Ok(records)
}
