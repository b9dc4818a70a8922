//! Appends and durable appends a second, beside a bare loop of write + fdatasync on the same disk.
//!
//! `cargo run --release -p goldleaves-spool --example append_bench [DIRECTORY]`. An append here is what a request costs: one INTENT
//! and one PUBLISH of 420 bytes each (two records). The bare loop writes the same two records with pwrite into a pre-zeroed file and
//! syncs, once for as many writers as there are; it is the most a group commit could reach.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use goldleaves_spool::{FileSystem, OpenMode, RealFileSystem, Spool, SpoolOptions};

const PAYLOAD: [u8; 420] = [0xa5; 420];
const WRITERS: [usize; 3] = [1, 16, 256];
const RUN: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_millis(200);
const TURNS: u32 = 15;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = root.join(format!("append_bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    println!(
        "{:>8} {:>16} {:>12} {:>12} {:>16} {:>10}",
        "writers", "bare loop/s", "appends/s", "p99 us", "durable/s", "of bare"
    );
    for writers in WRITERS {
        let (appends, p99) = appends(&directory.join("a"), writers)?;
        let (bare, durable) = in_turns(&directory, writers)?;
        println!("{writers:>8} {bare:>16.0} {appends:>12.0} {p99:>12.1} {durable:>16.0} {:>10.2}", durable / bare);
    }
    println!();
    println!("one append of 460 bytes beside a greedy fdatasync, 20,000 a second");
    for mapped in [true, false] {
        let mut nanos = one_append(&directory, mapped)?;
        nanos.sort_unstable();
        let at = |share: f64| nanos.get((nanos.len() as f64 * share) as usize).copied().unwrap_or(0) as f64 / 1000.0;
        let mean = nanos.iter().sum::<u64>() as f64 / nanos.len() as f64 / 1000.0;
        let name = if mapped { "copy into a mapping" } else { "pwrite" };
        println!(
            "{name:>20}: mean {mean:.2} us, p50 {:.2}, p99 {:.1}, p99.9 {:.1}, max {:.0}",
            at(0.5),
            at(0.99),
            at(0.999),
            at(0.999_999)
        );
    }
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

/// Nanoseconds of single appends, one way or the other, while another thread syncs the file without pause.
fn one_append(directory: &Path, mapped: bool) -> std::io::Result<Vec<u64>> {
    let length = 64 << 20;
    let path = directory.join("one");
    let file = RealFileSystem.open(&path, OpenMode::Create)?;
    file.allocate(length)?;
    file.sync_data()?;
    let mut map = file.map(length)?;
    let stop = AtomicBool::new(false);
    let nanos = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && file.sync_data().is_ok() {
                std::hint::spin_loop();
            }
        });
        let (start, mut nanos, mut at) = (Instant::now(), Vec::new(), 0);
        while start.elapsed() < RUN && at + 460 < length {
            let began = Instant::now();
            let stored = if mapped { map.store(at, &[7; 460]) } else { file.write_at(at, &[7; 460]).is_ok() };
            nanos.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            assert!(stored, "an append failed");
            at += 460;
            if nanos.len() % 20 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        stop.store(true, Ordering::Relaxed);
        nanos
    });
    std::fs::remove_file(path)?;
    Ok(nanos)
}

fn open(directory: &Path) -> Result<Spool, Box<dyn std::error::Error>> {
    let options = SpoolOptions { sync_pause: Duration::ZERO, ..SpoolOptions::new(directory) };
    Ok(Spool::open(options, RealFileSystem)?.0)
}

/// Pairs a second of the bare loop and of durable appends, measured in short turns: the disk's mood changes by the second.
fn in_turns(directory: &Path, writers: usize) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut bare = Bare::new(directory)?;
    let spool = open(&directory.join("d"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (mut bare_pairs, mut durable_pairs) = (0, 0);
    for _ in 0..TURNS {
        bare_pairs += bare.run(writers)?;
        durable_pairs += runtime.block_on(durable(&spool, writers));
    }
    let seconds = TURN.as_secs_f64() * f64::from(TURNS);
    std::fs::remove_file(directory.join("bare"))?;
    Ok((bare_pairs as f64 / seconds, durable_pairs as f64 / seconds))
}

/// A pre-zeroed file that is written with pwrite, pwrite, fdatasync; one sync for `writers` pairs.
struct Bare {
    file: File,
    at: u64,
}

impl Bare {
    const BYTES: u64 = 64 << 20;

    fn new(directory: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(directory.join("bare"))?;
        for offset in (0..Self::BYTES).step_by(1 << 20) {
            file.write_all_at(&vec![0; 1 << 20], offset)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    fn run(&mut self, writers: usize) -> std::io::Result<u64> {
        let (start, mut pairs) = (Instant::now(), 0);
        while start.elapsed() < TURN {
            for _ in 0..writers * 2 {
                self.file.write_all_at(&PAYLOAD, self.at)?;
                self.at = (self.at + 460) % (Self::BYTES - 460);
            }
            self.file.sync_data()?;
            pairs += writers as u64;
        }
        Ok(pairs)
    }
}

/// Pairs a second without waiting for the disk, and the 99th percentile of one in microseconds. The group commit runs beside. A loop
/// without pauses outruns the preparation of segments (that is the disk's speed, not the append's): it then pauses, and only the time
/// inside appends counts.
fn appends(directory: &Path, writers: usize) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let spool = open(directory)?;
    let stop = AtomicBool::new(false);
    let mut all: Vec<u64> = std::thread::scope(|scope| {
        let work = || {
            let mut nanos = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                match pair(&spool) {
                    Some(_) => nanos.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)),
                    None => std::thread::sleep(Duration::from_millis(5)),
                }
            }
            nanos
        };
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(work)).collect();
        std::thread::sleep(RUN);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let inside = all.iter().sum::<u64>() as f64 / 1e9 / writers as f64;
    all.sort_unstable();
    let p99 = all.get(all.len() * 99 / 100).copied().unwrap_or(0) as f64 / 1000.0;
    Ok((all.len() as f64 / inside, p99))
}

/// Pairs that `writers` tasks made durable in a turn, each waiting for its own, on one current-thread runtime.
async fn durable(spool: &Spool, writers: usize) -> u64 {
    let start = Instant::now();
    let write = |spool: Spool| async move {
        let mut pairs = 0_u64;
        while start.elapsed() < TURN {
            match pair(&spool) {
                Some(lsn) if spool.durable(lsn).await.is_ok() => pairs += 1,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        pairs
    };
    let tasks: Vec<_> = (0..writers).map(|_| tokio::spawn(write(spool.clone()))).collect();
    let mut pairs = 0;
    for task in tasks {
        pairs += task.await.unwrap_or(0);
    }
    pairs
}

fn pair(spool: &Spool) -> Option<goldleaves_spool::Lsn> {
    let intent = spool.intent(1, &PAYLOAD).ok()?;
    spool.publish(intent, 1, &PAYLOAD).ok().map(|appended| appended.lsn)
}
