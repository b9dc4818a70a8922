//! Opening: what earlier epochs left is read, made durable and carried into a new epoch.
//!
//! Changes only what can be changed again: a crash at any point leaves a directory from which the next recovery finds the
//! same. Nothing is settled here; the orphans stay open until the caller settles them. A disk that has no room for the new
//! epoch's first segment does not keep what is there from being read: the keeper makes that segment later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::clock::unix_secs;
use crate::cursor::CursorState;
use crate::error::{AppendError, OpenError, is_disk};
use crate::frame::EpochMark;
use crate::fs::{FileSystem, OpenMode, read_patiently};
use crate::ids::{IntentId, Lsn};
use crate::keeper::Keeper;
use crate::log::{Log, OpenIntent, payload_bytes_max};
use crate::options::SpoolOptions;
use crate::quarantine::{Quarantine, is_blank};
use crate::recovered::{EpochRecord, Orphan, Recovered};
use crate::restore;
use crate::segment::{DATA, Header, Segment};
use crate::shared::SpoolShared;
use crate::stage::{self, Chunks, DirectoryIdentity, Leftover, Owner, Stage};
use crate::stage_note::StageNote;
use crate::state::{self, SpoolState, StateFile};
use crate::survey::{self, DirectoryFiles, Survey};
use crate::syncing::Syncing;
use crate::times::Times;
use crate::unrecorded::UnrecordedCount;

const LOCK_RETRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Opens the directory and starts a new epoch; starts no thread.
pub(crate) fn open(options: SpoolOptions, fs: Arc<dyn FileSystem>) -> Result<(SpoolShared, Recovered), OpenError> {
    let directory = options.directory.clone();
    fs.create_dir(&directory).map_err(OpenError::io("create", &directory))?;
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs.sync_dir(parent).map_err(OpenError::io("sync", parent))?;
    }
    let lock = lock(&*fs, &directory)?;
    let mut left = EarlierEpochs::read(&fs, &options)?;
    let state = left.state.clone();
    let path = directory.join("state");
    let mut state_file =
        StateFile::open(Arc::clone(&fs), &directory, state.clone()).map_err(OpenError::io("open", &path))?;
    for (epoch, count) in &state.unrecorded {
        state_file.count_at_least(*epoch, *count);
    }
    let epoch = Uuid::now_v7();
    let stage = make_stage(&*fs, &options, stage::name(state.spool, epoch));
    let stage_note = stage.as_ref().and_then(|(path, _)| StageNote::of(fs.boot(), path));
    let recovered = left.recovered(&state, epoch);
    let cursor = state.cursor.min(left.next_base);
    let relay = CursorState {
        position: cursor,
        acknowledged: cursor,
        memo: state.memo.clone(),
        past: state.past.again(unix_secs()),
        acknowledged_records: left.survey.relayed.saturating_sub(left.survey.unsent),
        ..CursorState::default()
    };
    let last_number = left.last_number;
    let leftovers = std::mem::take(&mut left.spent_stages);
    let (stage_path, stage) = stage.unzip();
    let shared = SpoolShared {
        id: state.spool,
        epoch,
        log: Mutex::new(left.into_log(epoch, &options, stage.clone())),
        fs,
        options,
        syncing: Syncing::new(),
        keeper: Keeper::default(),
        state: Mutex::new(state_file),
        persisting: Mutex::new(()),
        relay: Mutex::new(relay),
        last_number: AtomicU64::new(last_number),
        unreadable_bytes: AtomicU64::new(0),
        unrecorded: UnrecordedCount::new(stage),
        stage: stage_path,
        stage_note: Mutex::new(stage_note),
        lost_stage: recovered.lost_stage.is_some(),
        _lock: lock,
    };
    if begin(&shared)? == Beginning::WithSegment {
        // What they held is in segments and durable.
        leftovers.iter().for_each(|path| remove_stage(&*shared.fs, path));
        shared.options.stage_directory.iter().for_each(|directory| shared.fs.sweep_stages(directory));
    }
    Ok((shared, recovered))
}

/// Memory that outlives this process, for what the disk does not have yet.
fn make_stage(fs: &dyn FileSystem, options: &SpoolOptions, name: String) -> Option<(PathBuf, Arc<dyn Stage>)> {
    let path = options.stage_directory.as_ref()?.join(name);
    match fs.make_stage(&path, options.stage_bytes) {
        Ok(stage) => Some((path, stage)),
        Err(error) => {
            tracing::warn!(
                path = %path.display(), %error,
                "no memory can be had that outlives the process; every call writes to the spool's disk itself and waits when it stands still"
            );
            None
        }
    }
}

fn remove_stage(fs: &dyn FileSystem, path: &Path) {
    if let Err(error) = fs.remove_stage(path) {
        tracing::warn!(path = %path.display(), %error, "the stage of an earlier start could not be removed");
    }
}

/// The beginning of the new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    WithSegment,
    /// No segment yet: it is made as soon as the disk has room.
    Without,
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
fn begin(shared: &SpoolShared) -> Result<Beginning, OpenError> {
    let directory = &shared.options.directory;
    let staged = shared.stage_note.lock().clone();
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
    let segment = match Segment::create(&*shared.fs, directory, header, staged.as_ref()) {
        Ok(segment) => Arc::new(segment),
        Err(error) if is_disk(&error) => {
            begin_without(shared, &error);
            return Ok(Beginning::Without);
        }
        Err(error) => return Err(OpenError::io("create a segment in", directory)(error)),
    };
    let first = segment.first();
    {
        let mut log = shared.log.lock();
        log.next_base = header.base + header.capacity;
        log.begin(Arc::clone(&segment));
    }
    let target = shared.log.lock().target();
    if let Some(target) = target {
        let synced = shared.write_out(&target).and_then(|()| target.segment.file.sync_data());
        synced.map_err(OpenError::io("sync", &segment.path))?;
        shared.log.lock().synced(&target);
    }
    let durable = shared.log.lock().durable;
    shared.syncing.publish(durable, false);
    let cursor = shared.relay.lock().position;
    let earlier: Vec<_> = shared.log.lock().earlier.iter().map(|mark| mark.epoch).collect();
    state::persist(&shared.state, |state| {
        state.checkpoint = first;
        state.cursor = cursor;
        // The closing of an epoch that is not among these lies before the checkpoint, where nobody will see it again.
        state.unrecorded.retain(|(epoch, _)| *epoch == shared.epoch || earlier.contains(epoch));
    })
    .map_err(OpenError::io("write the state in", directory))?;
    Ok(Beginning::WithSegment)
}

/// Nothing can be appended yet, but what earlier epochs left is durable and can be handed on, which may make the room.
fn begin_without(shared: &SpoolShared, error: &std::io::Error) {
    tracing::error!(
        path = %shared.options.directory.display(), %error,
        "no spool segment can be made; nothing is recorded until the disk takes one; retrying"
    );
    let durable = {
        let mut log = shared.log.lock();
        log.obstacle = Some(AppendError::Unwritable { kind: error.kind() });
        log.durable = log.segments.iter().map(|segment| segment.end()).max().unwrap_or(0);
        log.durable
    };
    shared.syncing.publish(durable, false);
}

/// The state as it was read, or that of a spool that begins.
fn state_of(read: Option<SpoolState>, found: &DirectoryFiles, options: &SpoolOptions) -> SpoolState {
    let mut state = read.unwrap_or_else(|| {
        let known = found.segments.last().map(|segment| segment.header.spool);
        SpoolState::new(known.unwrap_or_else(Uuid::new_v4))
    });
    if !options.settle_after.is_zero() {
        // What a power cut may have taken from the receiver is handed on once more.
        state.cursor = state.cursor.min(state.past.settled());
    }
    state
}

/// Writes into segments what the stages of dead processes hold. Returns those that nobody needs once that is durable: not what
/// no segment here has room for, and not those of a spool that this one is a copy of.
fn restore(
    directory: &Path,
    identity: Option<DirectoryIdentity>,
    leftovers: &[Leftover],
    found: &DirectoryFiles,
    state: &mut SpoolState,
) -> Result<Vec<PathBuf>, OpenError> {
    let mut spent = Vec::new();
    for leftover in leftovers {
        let path = leftover.path.display();
        state.set_unrecorded(leftover.epoch, leftover.unrecorded);
        let restored = restore::restore(leftover, &found.segments).map_err(OpenError::io("restore", &leftover.path))?;
        tracing::info!(epoch = %leftover.epoch, bytes = restored.bytes, "what an earlier start had no time to write was taken from its stage");
        if leftover.is_of_another(identity) {
            tracing::warn!(
                %path, directory = %directory.display(),
                "this spool is a copy of the one that the stage belongs to; the stage is left to that one"
            );
        } else if restored.bytes_left > 0 {
            tracing::error!(
                %path, bytes = restored.bytes_left,
                "the stage of an earlier start holds records of segments that are not here; it stays, so that a start with all segments finds it"
            );
        } else {
            spent.push(leftover.path.clone());
        }
    }
    Ok(spent)
}

/// The stage that the last epoch was appended through.
struct LastStage {
    epoch: Uuid,
    note: StageNote,
}

/// The stage that the last epoch was appended through, with that epoch; `None` when it had none or was closed in good order, or
/// when the machine was started again since.
fn last_stage(fs: &dyn FileSystem, found: &DirectoryFiles) -> Option<LastStage> {
    let epoch = found.segments.iter().max_by_key(|segment| segment.header.number)?.header.epoch;
    let mut notes = found.segments.iter().filter(|segment| segment.header.epoch == epoch).map(|of| of.stage_note());
    let first = notes.next()??;
    (notes.all(|note| note.is_some()) && first.boot == fs.boot()).then_some(LastStage { epoch, note: first })
}

/// Returns where a stage lay that took with it what the disk had not got yet.
fn lost_stage(last: Option<LastStage>, leftovers: &[Leftover]) -> Option<PathBuf> {
    let LastStage { epoch, note } = last?;
    if leftovers.iter().any(|leftover| leftover.epoch == epoch) {
        return None;
    }
    tracing::error!(
        path = %note.path.display(), %epoch,
        "the stage of the last start is gone; calls that the disk had not got yet are lost, and nobody can say how many"
    );
    Some(note.path)
}

/// No LSN is ever given twice, also none that a file which says nothing may have held.
fn next_base(found: &DirectoryFiles, state: &SpoolState) -> u64 {
    let limit = found.segments.iter().map(|segment| segment.limit()).max().unwrap_or(0).max(state.checkpoint);
    let largest = found.segments.iter().map(|segment| segment.header.capacity).max().unwrap_or(DATA);
    let next_base = limit + found.damaged.len() as u64 * largest + found.damaged_bytes;
    next_base.next_multiple_of(DATA)
}

/// The remains of earlier epochs, cleaned up.
struct EarlierEpochs {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    state: SpoolState,
    survey: Survey,
    segments: Vec<Arc<Segment>>,
    next_base: u64,
    last_number: u64,
    quarantined: u64,
    quarantined_bytes: u64,
    /// Stages of processes that died, from which nothing is needed any more once what was read of them is durable.
    spent_stages: Vec<PathBuf>,
    /// The stage that the last epoch was appended through, which is not there any more.
    lost_stage: Option<PathBuf>,
}

impl EarlierEpochs {
    /// Step by step: the state, what stages hold, what is damaged, what the floor says is gone, and then the survey.
    fn read(shared_fs: &Arc<dyn FileSystem>, options: &SpoolOptions) -> Result<Self, OpenError> {
        let (fs, directory) = (&**shared_fs, &*options.directory);
        let read = state::read(fs, directory).map_err(OpenError::io("read the state in", directory))?;
        let found = survey::find(fs, directory, OpenMode::Write)?;
        let mut state = state_of(read, &found, options);
        let last = last_stage(fs, &found);
        let leftovers = leftovers(fs, options, state.spool, last.as_ref());
        let spent_stages = restore(directory, fs.identity(directory), &leftovers, &found, &mut state)?;
        let lost_stage = lost_stage(last, &leftovers);
        let mut quarantine = Quarantine::new(fs, directory);
        set_damaged_aside(fs, &found.damaged, &mut quarantine)?;
        let (next_base, last_number) = (next_base(&found, &state), found.last_number);
        let (gone, segments): (Vec<_>, Vec<_>) =
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
            next_base,
            last_number,
            quarantined: quarantine.regions,
            quarantined_bytes: quarantine.bytes,
            spent_stages,
            lost_stage,
        };
        left.keep(segments, &kept)?;
        left.date();
        Ok(left)
    }

    /// Takes what holds something, durably; the rest is removed.
    fn keep(&mut self, segments: Vec<Arc<Segment>>, kept: &BTreeSet<u64>) -> Result<(), OpenError> {
        let is_empty = |segment: &Arc<Segment>| self.is_empty(segment) && !kept.contains(&segment.header.number);
        let (empty, segments): (Vec<_>, Vec<_>) = segments.into_iter().partition(is_empty);
        empty.iter().for_each(|segment| remove(&*self.fs, segment));
        for segment in segments {
            let segment = self.settle(segment, kept)?;
            self.segments.push(segment);
        }
        Ok(())
    }

    /// Dates how long segments had been sealed when the last record was appended: by the records' own times, not
    /// by the clock of now.
    fn date(&self) {
        let newest = u64::from(self.survey.newest_unix_secs);
        for (segment, next) in self.segments.iter().zip(self.segments.iter().skip(1)) {
            segment.was_sealed(Duration::from_secs(newest.saturating_sub(next.header.created_unix_secs)));
        }
        if let Some(last) = self.segments.last() {
            last.was_sealed(Duration::ZERO);
        }
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
        let written = Segment::create(&*self.fs, &self.directory, header, None).and_then(|new| {
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

    fn recovered(&self, state: &SpoolState, epoch: Uuid) -> Recovered {
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
            lost_stage: self.lost_stage.clone(),
            memo: state.memo.clone(),
        }
    }

    /// By the heads of segments: the first thing that waits may be younger than what this says, never older.
    fn times(&self, cursor: u64) -> Times {
        let mut times = Times::default();
        if let Some(oldest) = self.survey.oldest_unsent_unix_secs {
            times.note(cursor, u64::from(oldest));
        }
        for segment in self.segments.iter().filter(|segment| segment.first() > cursor) {
            times.note(segment.first(), segment.header.created_unix_secs);
        }
        times
    }

    fn into_log(self, epoch: Uuid, options: &SpoolOptions, stage: Option<Arc<dyn Stage>>) -> Log {
        let earlier = self.survey.unclosed().collect();
        let slack = options.settlement_slack;
        let seen = self.survey.open.iter();
        let open: BTreeMap<u64, OpenIntent> =
            seen.map(|(lsn, seen)| (*lsn, OpenIntent::new(seen.home, seen.payload.len(), slack))).collect();
        let spares_min = if options.bytes_max >= 16 * options.segment_bytes { 2 } else { 1 };
        let spares_max = options.bytes_max / options.segment_bytes / 4;
        let times = self.times(self.state.cursor);
        let identity = self.fs.identity(&self.directory);
        let owner = Owner { spool: self.state.spool, epoch, directory: &self.directory, identity };
        let chunks = stage.map_or_else(Chunks::default, |stage| Chunks::over(stage, owner));
        Log {
            writing: VecDeque::new(),
            spares: VecDeque::new(),
            segments: Arc::new(self.segments),
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
            reusable: Vec::new(),
            chunks,
            times,
            durable: 0,
            slack,
            payload_bytes_max: payload_bytes_max(options.segment_bytes),
            segment_bytes: options.segment_bytes,
            spares_min,
            spares_max: usize::try_from(spares_max).unwrap_or(spares_min).max(spares_min),
            filled: None,
            next_base: self.next_base,
            obstacle: None,
            broken: None,
            closed: false,
            sync_idle: false,
            wants_spare: false,
        }
    }
}

/// Stages of this spool whose processes are gone, oldest first: those of the folder of stages, and of the one that the last
/// start had.
fn leftovers(fs: &dyn FileSystem, options: &SpoolOptions, spool: Uuid, last: Option<&LastStage>) -> Vec<Leftover> {
    let known = options.stage_directory.as_deref();
    let earlier = last.and_then(|last| last.note.path.parent()).filter(|earlier| Some(*earlier) != known);
    let mut leftovers = Vec::new();
    for directory in known.into_iter().chain(earlier) {
        let found = fs.find_stages(directory, &stage::prefix(spool)).unwrap_or_else(|error| {
            tracing::debug!(path = %directory.display(), %error, "there is no folder of stages");
            Vec::new()
        });
        leftovers.extend(found.into_iter().filter_map(|(path, stage)| Leftover::read(path, stage, spool)));
    }
    leftovers.sort_by_key(|leftover| leftover.epoch);
    leftovers
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
