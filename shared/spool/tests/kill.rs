//! `kill -9` on a real directory: a child process appends and says on stdout what it was told; then it dies.
//!
//! What the child said it appended is there afterwards, once and in order; what it said it settled is no orphan.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use goldleaves_spool::{RealFileSystem, RecordKind, SEGMENT_BYTES_MIN, Spool, SpoolOptions};

const CHILD: &str = "GOLDLEAVES_SPOOL_KILL_CHILD";

fn options(directory: &Path) -> SpoolOptions {
    SpoolOptions {
        bytes_max: 64 << 20,
        segment_bytes: 4 * SEGMENT_BYTES_MIN,
        sync_pause: Duration::from_millis(2),
        ..SpoolOptions::new(directory)
    }
}

/// Not a test of its own: what the child runs.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let (spool, recovered) = Spool::open(options(Path::new(&directory)), RealFileSystem).unwrap();
    let mut out = std::io::stdout().lock();
    for orphan in recovered.orphans {
        let appended = spool.publish(orphan.intent, 9, &orphan.payload).unwrap();
        writeln!(out, "settled {} {} {}", orphan.intent, appended.lsn, appended.seq).unwrap();
    }
    let mut waiting = Vec::new();
    for number in 0_u64.. {
        let Ok(intent) = spool.intent(1, &number.to_le_bytes().repeat(40)) else {
            spool.unrecorded();
            writeln!(out, "unrecorded").unwrap();
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        writeln!(out, "intent {intent}").unwrap();
        waiting.push(intent);
        if number % 3 != 0 {
            let intent = waiting.remove(usize::try_from(number).unwrap() % waiting.len());
            let appended = spool.publish(intent, 1, &intent.lsn().as_u64().to_le_bytes()).unwrap();
            writeln!(out, "settled {intent} {} {}", appended.lsn, appended.seq).unwrap();
        }
        if waiting.len() > 50 {
            let intent = waiting.remove(0);
            spool.void(intent, b"refused").unwrap();
            writeln!(out, "void {intent}").unwrap();
        }
    }
}

#[derive(Default)]
struct Said {
    open: BTreeSet<u64>,
    /// LSN of the record → its intent and seq.
    settled: BTreeMap<u64, (u64, u64)>,
    void: BTreeSet<u64>,
    unrecorded: u64,
}

/// Runs the child until it said `lines` lines, kills it, and hears the rest of what the pipe holds.
fn run_and_kill(directory: &Path, lines: usize, said: &mut Said) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut heard = 0;
    let mut line = String::new();
    while out.read_line(&mut line).unwrap() > 0 {
        heard += usize::from(hear(&line, said));
        line.clear();
        if heard == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(heard >= lines, "the child died by itself after {heard} lines");
}

/// Takes a whole line in; the last may be cut by the kill.
fn hear(line: &str, said: &mut Said) -> bool {
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
    if !line.ends_with('\n') {
        return false;
    }
    match (words[0], number(1), number(2), number(3)) {
        ("intent", Some(intent), ..) => drop(said.open.insert(intent)),
        ("settled", Some(intent), Some(lsn), Some(seq)) => {
            said.open.remove(&intent);
            said.settled.insert(lsn, (intent, seq));
        }
        ("void", Some(intent), ..) => {
            said.open.remove(&intent);
            said.void.insert(intent);
        }
        ("unrecorded", ..) => said.unrecorded += 1,
        _ => return false,
    }
    true
}

fn check(directory: &Path, said: &Said) {
    let (spool, recovered) = Spool::open(options(directory), RealFileSystem).unwrap();
    let (mut reader, mut found) = (spool.reader(), BTreeMap::new());
    let mut last = BTreeMap::new();
    loop {
        let batch = reader.next_batch(500, 1 << 20).unwrap();
        if batch.is_empty() {
            break;
        }
        for record in batch {
            let RecordKind::Publish { seq } = record.kind else { panic!("nobody wrote a note") };
            let before = last.insert(record.epoch, seq).unwrap_or(0);
            assert_eq!(seq, before + 1, "seq has no gaps");
            assert!(found.insert(record.lsn.as_u64(), seq).is_none());
        }
    }
    for (lsn, (intent, seq)) in &said.settled {
        assert_eq!(found.get(lsn), Some(seq), "the settlement of {intent} is lost");
    }
    // At most what was done between the last line heard and the kill.
    assert!(found.len() - said.settled.len() < 2000);
    let orphans: BTreeSet<u64> = recovered.orphans.iter().map(|orphan| orphan.intent.lsn().as_u64()).collect();
    let settled: BTreeSet<u64> = said.settled.values().map(|(intent, _)| *intent).collect();
    assert!(orphans.is_disjoint(&settled) && orphans.is_disjoint(&said.void));
    let payloads: BTreeSet<u64> = found.keys().copied().collect();
    let missing = said.open.difference(&orphans).count();
    assert!(missing <= payloads.len() - said.settled.len() + 100, "{missing} intents are gone");
    let counted: u64 = recovered.epochs.iter().map(|epoch| epoch.unrecorded).sum();
    assert!(counted >= said.unrecorded);
    // The checking process leaves them open: the next child must find the same.
    drop((reader, spool));
}

#[test]
fn a_killed_process_loses_nothing_it_was_told() {
    let rounds = if std::env::var_os("GOLDLEAVES_SOAK").is_some() { 200 } else { 8 };
    let directory = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    for round in 0..rounds {
        if round % 10 == 9 {
            // A fresh one now and then, so that the directory does not fill up.
            said = Said::default();
            std::fs::remove_dir_all(directory.path()).unwrap();
        }
        run_and_kill(directory.path(), 100 + round * 517 % 4000, &mut said);
        check(directory.path(), &said);
    }
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(options(directory.path()), RealFileSystem).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("InUse"), "{text}");
    spool.note(1, b"still mine").unwrap();
}
