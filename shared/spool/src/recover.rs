//! Opening: what earlier epochs left is read, made durable and carried into a new epoch.
//!
//! Changes only what can be changed again: a crash at any point leaves a directory from which the next recovery finds the
//! same. Nothing is settled here; the orphans stay open until the caller settles them. A disk that has no room for the new
//! epoch's first segment does not keep what is there from being read: the keeper makes that segment later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use uuid::Uuid;

use crate::error::{AppendError, OpenError, is_disk};
use crate::frame::EpochMark;
use crate::fs::{FileSystem, OpenMode, read_patiently};
use crate::log::{Log, Open, Spare, payload_bytes_max};
use crate::quarantine::{Quarantine, is_blank};
use crate::relay::Relay;
use crate::segment::{DATA, Header, Segment};
use crate::shared::{KeeperSignal, Progress, Shared};
use crate::state::{self, State, StateFile};
use crate::survey::{self, Survey};
use crate::waiters::{Bell, Waiters};
use crate::{EpochRecord, IntentId, Lsn, Orphan, Recovered, SpoolOptions, unix_secs};

const LOCK_RETRIES: u32 = 5;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Opens the directory and starts a new epoch; starts no thread.
pub(crate) fn open(options: SpoolOptions, fs: Arc<dyn FileSystem>) -> Result<(Shared, Recovered), OpenError> {
    let directory = options.directory.clone();
    fs.create_dir(&directory).map_err(OpenError::io("create", &directory))?;
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs.sync_dir(parent).map_err(OpenError::io("sync", parent))?;
    }
    let lock = lock(&*fs, &directory)?;
    let left = Left::read(&fs, &options)?;
    let state = left.state.clone();
    let path = directory.join("state");
    let state_file =
        StateFile::open(Arc::clone(&fs), &directory, state.clone()).map_err(OpenError::io("open", &path))?;
    let epoch = Uuid::now_v7();
    let recovered = left.recovered(&state, epoch);
    let progress = Progress { durable: 0, broken: false, closed: false, rewinds: 0 };
    let cursor = state.cursor.min(left.next_base);
    let relay = Relay {
        position: cursor,
        acknowledged: cursor,
        memo: state.memo.clone(),
        past: state.past.again(unix_secs()),
        acknowledged_records: left.survey.relayed.saturating_sub(left.survey.unsent),
        ..Relay::default()
    };
    let last_number = left.last_number;
    let shared = Shared {
        id: state.spool,
        epoch,
        log: Mutex::new(left.into_log(epoch, &options)),
        fs,
        options,
        bell: Bell::default(),
        waiters: Waiters::default(),
        turn: Mutex::default(),
        sync_failures: AtomicU32::new(0),
        progress: tokio::sync::watch::Sender::new(progress),
        state: Mutex::new(state_file),
        persisting: Mutex::new(()),
        relay: Mutex::new(relay),
        keeper: Mutex::new(KeeperSignal::default()),
        keep_wake: Condvar::new(),
        last_number: AtomicU64::new(last_number),
        unreadable_bytes: AtomicU64::new(0),
        _lock: lock,
    };
    begin(&shared)?;
    Ok((shared, recovered))
}

fn lock(fs: &dyn FileSystem, directory: &Path) -> Result<Box<dyn Send + Sync>, OpenError> {
    let path = directory.join("lock");
    let mut locked = fs.lock(&path);
    for _ in 0..LOCK_RETRIES {
        // Somebody who only looks ([`crate::inspect`]) holds it for a moment.
        if !locked.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
            break;
        }
        std::thread::sleep(LOCK_PAUSE);
        locked = fs.lock(&path);
    }
    locked.map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::InUse { directory: directory.to_owned() },
        _ => OpenError::io("lock", &path)(error),
    })
}

/// The new epoch's first segment: durable with all it carries before anything else happens.
fn begin(shared: &Shared) -> Result<(), OpenError> {
    let directory = &shared.options.directory;
    let header = {
        let log = shared.log.lock();
        Header {
            spool: shared.id,
            epoch: shared.epoch,
            base: log.next_base,
            capacity: log.next_capacity(),
            number: shared.next_number(),
            created_unix_secs: unix_secs(),
        }
    };
    let made = Segment::create(&*shared.fs, directory, header)
        .and_then(|segment| segment.file.map(header.capacity).map(|map| Spare { segment: Arc::new(segment), map }));
    let spare = match made {
        Ok(spare) => spare,
        Err(error) if is_disk(&error) => {
            begin_without(shared, &error);
            return Ok(());
        }
        Err(error) => return Err(OpenError::io("create a segment in", directory)(error)),
    };
    let path = spare.segment.path.clone();
    let first = spare.segment.first();
    {
        let mut log = shared.log.lock();
        log.next_base = header.base + header.capacity;
        log.begin(spare);
    }
    let target = shared.log.lock().target();
    if let Some(target) = target {
        target.segment.file.sync_data().map_err(OpenError::io("sync", &path))?;
        shared.log.lock().synced(&target);
    }
    let durable = shared.log.lock().durable;
    shared.publish(durable, false);
    let cursor = shared.relay.lock().position;
    let earlier: Vec<_> = shared.log.lock().earlier.iter().map(|mark| mark.epoch).collect();
    state::persist(&shared.state, |state| {
        state.checkpoint = first;
        state.cursor = cursor;
        // The closing of an epoch that is not among these lies before the checkpoint, where nobody will see it again.
        state.unrecorded.retain(|(epoch, _)| *epoch == shared.epoch || earlier.contains(epoch));
    })
    .map_err(OpenError::io("write the state in", directory))
}

/// Nothing can be appended yet, but what earlier epochs left is durable and can be handed on, which may make the room.
fn begin_without(shared: &Shared, error: &std::io::Error) {
    tracing::error!(
        path = %shared.options.directory.display(), %error,
        "no spool segment can be made: nothing can be recorded until the disk takes one, which is tried again and again"
    );
    let durable = {
        let mut log = shared.log.lock();
        log.obstacle = Some(AppendError::Unwritable { kind: error.kind() });
        log.durable = log.segments.iter().map(|segment| segment.end()).max().unwrap_or(0);
        log.durable
    };
    shared.publish(durable, false);
}

/// What earlier epochs left, cleaned up.
struct Left {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    state: State,
    survey: Survey,
    segments: Vec<Arc<Segment>>,
    next_base: u64,
    last_number: u64,
    quarantined: u64,
    quarantined_bytes: u64,
}

impl Left {
    fn read(shared_fs: &Arc<dyn FileSystem>, options: &SpoolOptions) -> Result<Self, OpenError> {
        let (fs, directory) = (&**shared_fs, &*options.directory);
        let read = state::read(fs, directory).map_err(OpenError::io("read the state in", directory))?;
        let found = survey::find(fs, directory, OpenMode::Write)?;
        let mut state = read.unwrap_or_else(|| {
            let known = found.segments.last().map(|segment| segment.header.spool);
            State::new(known.unwrap_or_else(Uuid::new_v4))
        });
        if !options.settle_after.is_zero() {
            // What a power cut may have taken from the receiver is handed on once more.
            state.cursor = state.cursor.min(state.past.settled());
        }
        let mut quarantine = Quarantine::new(fs, directory);
        set_damaged_aside(fs, &found.damaged, &mut quarantine)?;
        // No LSN is ever given twice, also none that a file which says nothing may have held.
        let limit = found.segments.iter().map(|segment| segment.limit()).max().unwrap_or(0).max(state.checkpoint);
        let largest = found.segments.iter().map(|segment| segment.header.capacity).max().unwrap_or(DATA);
        let next_base = limit + found.damaged.len() as u64 * largest + found.damaged_bytes;
        let (gone, mut segments): (Vec<_>, Vec<_>) =
            found.segments.into_iter().partition(|segment| segment.limit() <= state.floor);
        gone.iter().for_each(|segment| remove(fs, segment));
        let survey = Survey::take(&segments, &state, &mut |gap| quarantine.look(gap))
            .map_err(OpenError::io("read", directory))?;
        let mut kept = survey.unreadable.clone();
        kept.extend(&quarantine.kept);
        let mut left = Self {
            fs: Arc::clone(shared_fs),
            directory: directory.to_owned(),
            state,
            survey,
            segments: Vec::new(),
            next_base: next_base.next_multiple_of(DATA),
            last_number: found.last_number,
            quarantined: quarantine.regions,
            quarantined_bytes: quarantine.bytes,
        };
        segments.retain(|segment| {
            let keep = !left.is_empty(segment) || kept.contains(&segment.header.number);
            if !keep {
                remove(fs, segment);
            }
            keep
        });
        for segment in segments {
            let segment = left.settle(segment, &kept)?;
            left.segments.push(segment);
        }
        Ok(left)
    }

    fn is_empty(&self, segment: &Segment) -> bool {
        segment.first() >= self.survey.from && !self.survey.ends.contains_key(&segment.header.number)
    }

    /// Makes durable what was read of a segment and, unless it holds bytes that exist nowhere else, cuts what lies behind it.
    fn settle(&mut self, segment: Arc<Segment>, kept: &BTreeSet<u64>) -> Result<Arc<Segment>, OpenError> {
        let Some(end) = self.survey.ends.get(&segment.header.number).copied() else { return Ok(segment) };
        let mut segment = segment;
        let unsafe_yet = segment.end() > self.state.checkpoint;
        if kept.contains(&segment.header.number) {
            // Bytes that could not be read cannot be written again.
            if unsafe_yet && let Err(error) = segment.file.sync_data() {
                tracing::error!(path = %segment.path.display(), %error, "a damaged spool segment could not be synced");
            }
            return Ok(segment);
        }
        if unsafe_yet {
            segment = self.make_durable(segment, end)?;
        }
        segment.set_end(end);
        if let Err(error) = segment.trim() {
            tracing::warn!(path = %segment.path.display(), %error, "a spool segment could not be trimmed");
        }
        Ok(segment)
    }

    /// A dead process may have left a segment unsynced, or with pages that the kernel calls clean because a sync of theirs
    /// failed. So its bytes are written again, to the same place, and synced. If that fails the file is given up, and what was
    /// read before goes into a new one.
    fn make_durable(&mut self, segment: Arc<Segment>, end: u64) -> Result<Arc<Segment>, OpenError> {
        let mut image = vec![0; usize::try_from(end - segment.first()).unwrap_or_default()];
        let failed = OpenError::io("rewrite", &segment.path);
        match read_patiently(&*segment.file, DATA, &mut image) {
            Ok(read) => image.truncate(read),
            Err(error) => return Err(failed(error)),
        }
        let again = segment.file.write_at(DATA, &image).and_then(|()| segment.file.sync_data());
        let Err(failure) = again else { return Ok(segment) };
        self.last_number += 1;
        let header = Header { number: self.last_number, ..segment.header };
        let written = Segment::create(&*self.fs, &self.directory, header).and_then(|new| {
            new.file.write_at(DATA, &image)?;
            new.file.sync_data()?;
            Ok(new)
        });
        let new = written.map_err(failed)?;
        tracing::error!(path = %segment.path.display(), error = %failure, "a spool segment could not be synced and was written anew");
        remove(&*self.fs, &segment);
        new.relayed_before.store(segment.relayed_before.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(Arc::new(new))
    }

    fn recovered(&self, state: &State, epoch: Uuid) -> Recovered {
        let orphans = self.survey.open.iter().map(|(lsn, open)| Orphan {
            intent: IntentId(*lsn),
            version: open.version,
            payload: open.payload.clone(),
        });
        let unrecorded = |id: Uuid| state.unrecorded.iter().find(|(of, _)| *of == id).map_or(0, |(_, count)| *count);
        let epochs = self.survey.unclosed().map(|EpochMark { epoch, last_seq }| EpochRecord {
            epoch,
            last_seq,
            unrecorded: unrecorded(epoch),
            first_lsn: self.segments.iter().find(|of| of.header.epoch == epoch).map(|of| Lsn(of.first())),
        });
        Recovered {
            epoch,
            orphans: orphans.collect(),
            epochs: epochs.collect(),
            quarantined: self.quarantined,
            quarantined_bytes: self.quarantined_bytes,
            unsent: self.survey.unsent,
            memo: state.memo.clone(),
        }
    }

    fn into_log(self, epoch: Uuid, options: &SpoolOptions) -> Log {
        let earlier = self.survey.unclosed().collect();
        let slack = options.settlement_slack;
        let open: BTreeMap<u64, Open> = self
            .survey
            .open
            .into_iter()
            .map(|(lsn, seen)| (lsn, Open::new(seen.version, Bytes::clone(&seen.payload), slack)))
            .collect();
        Log {
            writing: VecDeque::new(),
            spares: VecDeque::new(),
            segments: Arc::new(self.segments),
            open_bytes: open.values().map(Open::carried_bytes).sum(),
            reserved: open.values().map(|open| open.reserved).sum(),
            open,
            epoch,
            last_seq: 0,
            used: false,
            relayed: self.survey.relayed,
            earlier,
            closings: Vec::new(),
            checkpoints: VecDeque::new(),
            finished: Vec::new(),
            garbage: Vec::new(),
            durable: 0,
            slack,
            payload_bytes_max: payload_bytes_max(options.segment_bytes),
            segment_bytes: options.segment_bytes,
            spares_min: if options.bytes_max >= 16 * options.segment_bytes { 2 } else { 1 },
            next_base: self.next_base,
            obstacle: None,
            broken: None,
            closed: false,
            sync_idle: false,
            wants_spare: false,
        }
    }
}

fn set_damaged_aside(
    fs: &dyn FileSystem,
    damaged: &[PathBuf],
    quarantine: &mut Quarantine<'_>,
) -> Result<(), OpenError> {
    for path in damaged {
        // A file that a crash left before its header was written.
        if is_blank(fs, path).map_err(OpenError::io("read", path))? {
            fs.remove(path).map_err(OpenError::io("remove", path))?;
        } else {
            quarantine.file(path).map_err(OpenError::io("quarantine", path))?;
        }
    }
    Ok(())
}

fn remove(fs: &dyn FileSystem, segment: &Segment) {
    if let Err(error) = fs.remove(&segment.path) {
        tracing::warn!(path = %segment.path.display(), %error, "a spool segment that holds nothing could not be removed");
    }
}
