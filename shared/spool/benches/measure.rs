//! Durable appends beside a bare loop of write and fdatasync on the same disk, and one append beside a running sync.
//!
//! Started by `cargo xtask bench spool`. Everything is measured in short turns, one after the other: a disk's mood changes by
//! the second, and the ratios of one run hold. It prints Markdown.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use goldleaves_spool::{FileSystem, Lsn, OpenMode, RealFileSystem, STAGE_DIRECTORY, Spool, SpoolOptions};
use tokio::runtime::Runtime;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A settlement is about this long.
const PAYLOAD: [u8; 400] = [0xa5; 400];
/// With its head.
const FRAME: [u8; 440] = [0xa5; 440];
const WRITERS: [usize; 3] = [1, 16, 256];
const ONE_APPEND_FOR: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let effort = Effort::parse(std::env::args().skip(1))?;
    // The target directory is on a disk; the system's folder for temporary files may be memory.
    let folder = tempfile::Builder::new().prefix("bench-spool-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    println!("\n### Durable records of {} B per second\n", PAYLOAD.len());
    println!("| writers | bare loop | tasks | ratio | bare loop, one write for all |");
    println!("|---|---:|---:|---:|---:|");
    for writers in WRITERS {
        println!("{}", compare(folder.path(), writers, &effort)?);
    }
    println!(
        "\nThe bare loop is one thread that writes a frame for each writer, a write(2) each, then calls fdatasync, on a file \
         whose blocks exist. Tasks wait on one current-thread runtime, as in a core of the gateway. Medians of {} turns of {} ms, in turns.",
        effort.turns,
        effort.turn.as_millis()
    );
    println!("\n### One frame written and synced, by one thread, times per second\n");
    println!("{:.0} with `pwrite`", append_and_sync(folder.path(), &effort)?);
    println!("\n### One append of {} B beside a greedy fdatasync, µs\n", FRAME.len());
    println!("| | mean | p50 | p99 | p99.9 |\n|---|---:|---:|---:|---:|");
    for way in [Way::Stage, Way::Write, Way::Thread] {
        println!("| {} | {} |", way.name(), quantiles(one_append(folder.path(), way)?));
    }
    println!("\n### One call's INTENT and SETTLE of {} B, made durable beside it, µs\n", PAYLOAD.len());
    println!("| threads | mean | p50 | p99 | p99.9 |\n|---:|---:|---:|---:|---:|");
    for threads in [1, 2] {
        println!("| {threads} | {} |", quantiles(calls(folder.path(), threads)?));
    }
    Ok(())
}

/// The thoroughness of a measurement.
struct Effort {
    turns: usize,
    turn: Duration,
}

impl Effort {
    /// `--rounds N` and `--millis N` as the other measuring program has them; the turns here are shorter and more.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut rounds, mut millis) = (5, 1500);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--rounds" => rounds = arguments.next().ok_or("--rounds wants a number")?.parse()?,
                "--millis" => millis = arguments.next().ok_or("--millis wants a number")?.parse()?,
                "--bench" => {}
                other => return Err(format!("{other}: only --rounds N and --millis N are known").into()),
            }
        }
        Ok(Self { turns: rounds * 3, turn: Duration::from_millis(millis / 10) })
    }
}

/// One row of the table.
fn compare(folder: &Path, writers: usize, effort: &Effort) -> Result<String> {
    let folder = folder.join(writers.to_string());
    std::fs::create_dir(&folder)?;
    let mut bare = Bare::new(&folder)?;
    let (spool, _) = Spool::open(SpoolOptions::new(folder.join("spool")), RealFileSystem)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..effort.turns {
        let [loops, tasks, together] = &mut rates;
        loops.push(bare.run(writers, effort.turn, Writes::Each)?);
        tasks.push(in_tasks(&runtime, &spool, writers, effort.turn)?);
        together.push(bare.run(writers, effort.turn, Writes::Together)?);
    }
    spool.close();
    std::fs::remove_dir_all(&folder)?;
    let [bare, tasks, together] = rates.map(median);
    Ok(format!("| {writers} | {bare:.0} | {tasks:.0} | {:.2} | {together:.0} |", tasks / bare))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

// === the bare loop ===

#[derive(Clone, Copy)]
enum Writes {
    /// Writers that know nothing of each other.
    Each,
    /// One write for all of them.
    Together,
}

/// A file full of zeros that is written over and over.
struct Bare {
    file: File,
    at: u64,
}

impl Bare {
    const BYTES: u64 = 16 << 20;

    fn new(folder: &Path) -> Result<Self> {
        let file = OpenOptions::new().create_new(true).write(true).open(folder.join("bare"))?;
        for offset in (0..Self::BYTES).step_by(1 << 20) {
            file.write_all_at(&vec![0; 1 << 20], offset)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    fn run(&mut self, together: usize, turn: Duration, writes: Writes) -> Result<f64> {
        let batch = FRAME.repeat(together);
        let (start, mut records) = (Instant::now(), 0);
        while start.elapsed() < turn {
            if self.at + batch.len() as u64 > Self::BYTES {
                self.at = 0;
            }
            let pieces = match writes {
                Writes::Each => batch.chunks(FRAME.len()),
                Writes::Together => batch.chunks(batch.len()),
            };
            for piece in pieces {
                self.file.write_all_at(piece, self.at)?;
                self.at += piece.len() as u64;
            }
            self.file.sync_data()?;
            records += together;
        }
        Ok(records as f64 / start.elapsed().as_secs_f64())
    }
}

// === the spool ===

fn in_tasks(runtime: &Runtime, spool: &Spool, writers: usize, turn: Duration) -> Result<f64> {
    let start = Instant::now();
    let write = |spool: Spool| async move {
        let mut records = 0_usize;
        while start.elapsed() < turn {
            match append(&spool) {
                Some(lsn) => records += usize::from(spool.durable(lsn).await.is_ok()),
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        records
    };
    let records = runtime.block_on(async {
        let tasks: Vec<_> = (0..writers).map(|_| tokio::spawn(write(spool.clone()))).collect();
        let mut records = 0;
        for task in tasks {
            records += task.await?;
        }
        Ok::<_, Box<dyn Error>>(records)
    })?;
    Ok(records as f64 / start.elapsed().as_secs_f64())
}

/// `None` when the next segment is not ready: that is the disk's speed.
fn append(spool: &Spool) -> Option<Lsn> {
    spool.note(1, &PAYLOAD).ok()
}

// === one append ===

/// Returns what the kernel makes of it.
fn append_and_sync(folder: &Path, effort: &Effort) -> Result<f64> {
    let length = 64 << 20;
    let path = folder.join("synced");
    let file = RealFileSystem.open(&path, OpenMode::Create)?;
    file.allocate(length)?;
    file.sync_data()?;
    let (mut at, mut rates) = (0, Vec::new());
    for _ in 0..effort.turns {
        let (start, mut syncs) = (Instant::now(), 0_u32);
        while start.elapsed() < effort.turn {
            at = if at + 2 * FRAME.len() as u64 > length { 0 } else { at + FRAME.len() as u64 };
            file.write_at(at, &FRAME)?;
            file.sync_data()?;
            syncs += 1;
        }
        rates.push(f64::from(syncs) / start.elapsed().as_secs_f64());
    }
    std::fs::remove_file(path)?;
    Ok(median(rates))
}

/// The ways in which bytes could get into the kernel.
#[derive(Clone, Copy)]
enum Way {
    /// A copy into mapped memory of a tmpfs.
    Stage,
    /// A write(2) to the segment.
    Write,
    /// A write(2) by another thread, which is waited for.
    Thread,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Stage => "copy into the stage",
            Self::Write => "`pwrite`",
            Self::Thread => "handed to a thread that writes",
        }
    }
}

/// Nanoseconds of single appends, while another thread syncs the file without pause.
fn one_append(folder: &Path, way: Way) -> Result<Vec<u64>> {
    let length = 64 << 20;
    let (path, stage_path) = (folder.join("one"), Path::new(STAGE_DIRECTORY).join("goldleaves-bench"));
    let file = RealFileSystem.open(&path, OpenMode::Create)?;
    file.allocate(length)?;
    file.sync_data()?;
    let stage = RealFileSystem.make_stage(&stage_path, usize::try_from(length)?)?;
    std::fs::remove_file(stage_path)?;
    let stop = AtomicBool::new(false);
    let nanos = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && file.sync_data().is_ok() {
                std::hint::spin_loop();
            }
        });
        let (ask, asked) = std::sync::mpsc::sync_channel::<u64>(64);
        let (tell, told) = std::sync::mpsc::sync_channel::<bool>(64);
        scope.spawn(|| {
            let (asked, tell) = (asked, tell);
            while let Ok(at) = asked.recv()
                && tell.send(file.write_at(at, &FRAME).is_ok()).is_ok()
            {}
        });
        let (start, mut nanos, mut at) = (Instant::now(), Vec::new(), 0);
        while start.elapsed() < ONE_APPEND_FOR && at + (FRAME.len() as u64) < length {
            let began = Instant::now();
            let stored = match way {
                Way::Stage => {
                    stage.store(usize::try_from(at).unwrap_or_default(), &FRAME);
                    true
                }
                Way::Write => file.write_at(at, &FRAME).is_ok(),
                Way::Thread => ask.send(at).is_ok() && told.recv() == Ok(true),
            };
            nanos.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            assert!(stored, "an append failed");
            at += FRAME.len() as u64;
            if nanos.len() % 20 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        stop.store(true, Ordering::Relaxed);
        drop(ask);
        nanos
    });
    std::fs::remove_file(path)?;
    Ok(nanos)
}

/// Nanoseconds of a call's two appends, 20,000 calls per second and thread, as the request path makes them.
fn calls(folder: &Path, threads: usize) -> Result<Vec<u64>> {
    let folder = folder.join(format!("calls-{threads}"));
    let (spool, _) = Spool::open(SpoolOptions::new(folder), RealFileSystem)?;
    let one = || {
        let (start, mut nanos) = (Instant::now(), Vec::new());
        while start.elapsed() < ONE_APPEND_FOR {
            let began = Instant::now();
            if let Ok(intent) = spool.intent(1, &PAYLOAD) {
                assert!(spool.publish(intent, 1, &PAYLOAD).is_ok(), "an append failed");
                nanos.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            if nanos.len() % 20 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        nanos
    };
    let nanos = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    spool.close();
    Ok(nanos)
}

fn quantiles(mut nanos: Vec<u64>) -> String {
    nanos.sort_unstable();
    let mean = nanos.iter().sum::<u64>() as f64 / nanos.len() as f64 / 1000.0;
    let at = |share: f64| nanos.get((nanos.len() as f64 * share) as usize).copied().unwrap_or(0) as f64 / 1000.0;
    format!("{mean:.2} | {:.2} | {:.1} | {:.1}", at(0.5), at(0.99), at(0.999))
}
