//! Finds what a directory holds, by reading only: shared by recovery and by the offline look at a spool.
//!
//! Reads from the checkpoint to the end, over holes and damage. Of what lies before, however much waits there to be handed on,
//! it reads the first frame of each segment, one segment up to the cursor, and the open intents. Memory is bounded by those:
//! nothing else is kept of what was read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use uuid::Uuid;

use crate::error::OpenError;
use crate::frame::{EpochMark, FrameHead, FrameKind, HEAD, OpenId, Start};
use crate::fs::{FileSystem, OpenMode, read_patiently};
use crate::scan::{Gap, OnReadError, Scan, ScanStep, ScannedFrame};
use crate::segment::{FORMAT, FileHead, Segment};
use crate::state::SpoolState;

/// The segment files of a directory.
pub(crate) struct DirectoryFiles {
    /// By first LSN.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Files that should be segments but whose headers cannot be read.
    pub(crate) damaged: Vec<PathBuf>,
    /// The number of bytes these have.
    pub(crate) damaged_bytes: u64,
    /// Largest number in a file name.
    pub(crate) last_number: u64,
}

/// Opens every segment of a directory.
pub(crate) fn find(fs: &dyn FileSystem, directory: &Path, mode: OpenMode) -> Result<DirectoryFiles, OpenError> {
    let mut found = DirectoryFiles { segments: Vec::new(), damaged: Vec::new(), damaged_bytes: 0, last_number: 0 };
    let mut names = fs.list(directory).map_err(OpenError::io("list", directory))?;
    names.sort();
    for name in names.into_iter().filter(|name| Segment::is_name(name)) {
        found.last_number = found.last_number.max(Segment::number_of(&name).unwrap_or(0));
        let path = directory.join(name);
        match Segment::open(fs, &path, mode) {
            Ok(Ok(segment)) => {
                found.last_number = found.last_number.max(segment.header.number);
                found.segments.push(Arc::new(segment));
            }
            Ok(Err(FileHead::Newer(format))) => {
                return Err(OpenError::Newer { path, found: format, known: FORMAT });
            }
            Ok(Err(FileHead::Damaged(bytes))) => {
                found.damaged.push(path);
                found.damaged_bytes += bytes;
            }
            Ok(Err(FileHead::Header(_))) => {}
            // The process that owns the spool removes segments while an onlooker looks.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(OpenError::io("open", &path)(error)),
        }
    }
    found.segments.sort_by_key(|segment| (segment.first(), segment.header.number));
    Ok(found)
}

/// The knowledge of an epoch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EpochSeen {
    pub(crate) last_seq: u64,
    pub(crate) used: bool,
    pub(crate) closed: bool,
}

/// An intent without a settlement.
#[derive(Debug, Clone)]
pub(crate) struct OpenSeen {
    pub(crate) version: u8,
    pub(crate) payload: Bytes,
    /// The frame that holds the payload.
    pub(crate) home: u64,
}

/// The result.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) from: u64,
    pub(crate) open: BTreeMap<u64, OpenSeen>,
    pub(crate) epochs: BTreeMap<Uuid, EpochSeen>,
    /// Relayed records in the log, ever.
    pub(crate) relayed: u64,
    /// The part of these at or after the cursor.
    pub(crate) unsent: u64,
    pub(crate) oldest_unsent_unix_secs: Option<u32>,
    /// When the last frame was appended.
    pub(crate) newest_unix_secs: u32,
    /// Open intents that were listed and whose payloads were not read yet: where they lie.
    listed: BTreeMap<u64, u64>,
    /// End of the last good frame in each scanned segment that has one, by number.
    pub(crate) ends: BTreeMap<u64, u64>,
    /// Numbers of segments with pages that could not be read: nothing of them may be cut.
    pub(crate) unreadable: BTreeSet<u64>,
    relayed_scanned: u64,
    relayed_base: Option<u64>,
}

impl Survey {
    /// Reads. `on_gap` is told of every stretch without a good frame.
    pub(crate) fn take(
        segments: &[Arc<Segment>],
        state: &SpoolState,
        on_gap: &mut dyn FnMut(&Gap),
    ) -> io::Result<Self> {
        let limit = segments.iter().map(|segment| segment.end()).max().unwrap_or(0);
        let whole = !Self::is_whole_at(segments, state.checkpoint, limit);
        let from = if whole { 0 } else { state.checkpoint };
        let from = segments.iter().rev().find(|segment| segment.first() <= from).map_or(0, |segment| segment.first());
        let mut survey = Self { from, ..Self::default() };
        let mut scan = Scan::new(from, OnReadError::Skip);
        loop {
            match scan.step(segments, limit)? {
                ScanStep::Frame(frame) => survey.see(&frame, segments, state.cursor),
                ScanStep::Gap(gap) => on_gap(&gap),
                ScanStep::End => break,
            }
        }
        survey.resolve(&mut scan, segments, limit)?;
        survey.unreadable = scan.unreadable();
        survey.relayed = survey.relayed_base.unwrap_or(0) + survey.relayed_scanned;
        if state.cursor < from {
            survey.count_before(segments, state.cursor)?;
        }
        for (epoch, count) in &state.unrecorded {
            survey.epochs.entry(*epoch).or_default().used |= *count > 0;
        }
        Ok(survey)
    }

    /// Reads the payloads of intents that are open and lie before what was read.
    fn resolve(&mut self, scan: &mut Scan, segments: &[Arc<Segment>], limit: u64) -> io::Result<()> {
        let mut listed: Vec<_> = std::mem::take(&mut self.listed).into_iter().collect();
        listed.sort_unstable_by_key(|(_, home)| *home);
        for (lsn, home) in listed {
            scan.go_to(home);
            match scan.step(segments, limit)? {
                ScanStep::Frame(frame) if frame.head.lsn == home => {
                    let (version, payload) = (frame.head.version, Bytes::copy_from_slice(&frame.payload));
                    self.open.insert(lsn, OpenSeen { version, payload, home });
                }
                _ => tracing::error!(lsn, home, "the record of an open call cannot be read; the call is lost"),
            }
        }
        Ok(())
    }

    /// Returns what waits before what was read: counted by what segments say of themselves, and in one segment by reading it.
    fn count_before(&mut self, segments: &[Arc<Segment>], cursor: u64) -> io::Result<()> {
        for segment in segments.iter().filter(|segment| segment.first() < self.from) {
            if let Some(start) = start_of(segment)? {
                segment.relayed_before.store(start.relayed, Ordering::Relaxed);
            }
        }
        let known = |segment: &&Arc<Segment>| segment.first() <= cursor && matches!(start_of(segment), Ok(Some(_)));
        let begins = segments.iter().rev().find(known).or(segments.first());
        let Some(begins) = begins else { return Ok(()) };
        let mut before = begins.relayed_before.load(Ordering::Relaxed);
        let mut scan = Scan::new(begins.first(), OnReadError::Skip);
        loop {
            match scan.step(segments, self.from)? {
                ScanStep::Frame(frame) if !frame.head.kind.is_relayed() => {}
                ScanStep::Frame(frame) if frame.head.lsn >= cursor => {
                    self.oldest_unsent_unix_secs = Some(frame.head.unix_secs);
                    break;
                }
                ScanStep::Frame(_) => before += 1,
                ScanStep::Gap(_) => {}
                ScanStep::End => break,
            }
        }
        let began = segments.iter().find(|segment| segment.first() == self.from);
        let known = began.map_or(0, |segment| segment.relayed_before.load(Ordering::Relaxed));
        self.unsent += known.saturating_sub(before);
        Ok(())
    }

    /// Returns whether a segment begins at `lsn` with everything it says it carries.
    fn is_whole_at(segments: &[Arc<Segment>], lsn: u64, limit: u64) -> bool {
        let mut scan = Scan::new(lsn, OnReadError::Skip);
        let mut next = || match scan.step(segments, limit) {
            Ok(ScanStep::Frame(frame)) => Some(frame),
            _ => None,
        };
        let start = next().filter(|frame| frame.head.lsn == lsn && frame.head.kind == FrameKind::Start);
        let Some(start) = start.and_then(|frame| Start::decode(&frame.payload)) else { return false };
        (0..start.carried).all(|_| {
            next().is_some_and(|frame| {
                matches!(frame.head.kind, FrameKind::Carried | FrameKind::OpenIds | FrameKind::EpochOpen)
            })
        })
    }

    fn see(&mut self, frame: &ScannedFrame, segments: &[Arc<Segment>], cursor: u64) {
        let head = frame.head;
        for segment in segments.iter().filter(|segment| segment.first() <= head.lsn && head.end() <= segment.end()) {
            let end = self.ends.entry(segment.header.number).or_default();
            *end = head.end().max(*end);
        }
        if head.kind.is_relayed() {
            self.relayed_scanned += 1;
            if head.lsn >= cursor {
                self.unsent += 1;
                self.oldest_unsent_unix_secs.get_or_insert(head.unix_secs);
            }
        }
        self.newest_unix_secs = self.newest_unix_secs.max(head.unix_secs);
        let copied =
            || OpenSeen { version: head.version, payload: Bytes::copy_from_slice(&frame.payload), home: head.lsn };
        let epoch = self.epochs.entry(frame.epoch).or_default();
        match head.kind {
            FrameKind::Intent => {
                epoch.used = true;
                self.open.insert(head.lsn, copied());
            }
            // A later copy is the one that stays.
            FrameKind::Carried => {
                self.listed.remove(&head.link);
                self.open.insert(head.link, copied());
            }
            FrameKind::OpenIds => {
                for OpenId { lsn, home } in OpenId::decode(&frame.payload) {
                    if !self.open.contains_key(&lsn) {
                        self.listed.insert(lsn, home);
                    }
                }
            }
            FrameKind::Publish | FrameKind::Void => {
                epoch.used = true;
                epoch.last_seq = epoch.last_seq.max(head.seq);
                self.open.remove(&head.link);
                self.listed.remove(&head.link);
            }
            FrameKind::Note => epoch.used = true,
            FrameKind::Start => self.see_start(frame, segments),
            FrameKind::EpochOpen => {
                if let Some(mark) = EpochMark::decode(&frame.payload) {
                    let seen = self.epochs.entry(mark.epoch).or_default();
                    seen.used = true;
                    seen.last_seq = seen.last_seq.max(mark.last_seq);
                }
            }
            FrameKind::EpochClosed => {
                if let Some(mark) = EpochMark::decode(&frame.payload) {
                    self.epochs.entry(mark.epoch).or_default().closed = true;
                }
            }
            FrameKind::Other => {}
        }
    }

    fn see_start(&mut self, frame: &ScannedFrame, segments: &[Arc<Segment>]) {
        let Some(start) = Start::decode(&frame.payload) else { return };
        let epoch = self.epochs.entry(start.epoch).or_default();
        epoch.last_seq = epoch.last_seq.max(start.last_seq);
        epoch.used |= start.used;
        let relayed = start.relayed.saturating_sub(self.relayed_scanned);
        self.relayed_base = Some(self.relayed_base.map_or(relayed, |base| base.max(relayed)));
        for segment in segments.iter().filter(|segment| segment.first() == frame.head.lsn) {
            segment.relayed_before.store(start.relayed, Ordering::Relaxed);
        }
    }

    /// Epochs that were used and that nobody closed.
    pub(crate) fn unclosed(&self) -> impl Iterator<Item = EpochMark> {
        let unclosed = self.epochs.iter().filter(|(_, seen)| seen.used && !seen.closed);
        unclosed.map(|(epoch, seen)| EpochMark { epoch: *epoch, last_seq: seen.last_seq })
    }
}

/// Returns what a segment's first frame says of the log before it.
fn start_of(segment: &Segment) -> io::Result<Option<Start>> {
    let mut buffer = [0; HEAD + Start::BYTES];
    read_patiently(&*segment.file, segment.offset(segment.first()), &mut buffer)?;
    let head = FrameHead::decode(&buffer, segment.first()).filter(|head| head.kind == FrameKind::Start);
    Ok(head.and_then(|_| Start::decode(buffer.get(HEAD..).unwrap_or_default())))
}

/// When a segment came into use, seconds since 1970: it may have been made long before.
pub(crate) fn began(segment: &Segment) -> u64 {
    let mut buffer = [0; HEAD + Start::BYTES];
    let read = read_patiently(&*segment.file, segment.offset(segment.first()), &mut buffer);
    let head = read.ok().and_then(|_| FrameHead::decode(&buffer, segment.first()));
    head.map_or(segment.header.created_unix_secs, |head| u64::from(head.unix_secs))
}
