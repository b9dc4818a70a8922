//! A file system in memory that fails on demand and loses power like a real one.
//!
//! A file has what is visible (the page cache) and what is durable (the platter). A write dirties 4 KiB pages; a sync
//! makes them durable. A failed sync either throws the dirty pages away or leaves them visible but clean, as kernels do; either
//! way no later sync brings them back. A power cut keeps any subset of the dirty pages, of the lengths and of the directory
//! operations since the last sync.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use uuid::Uuid;

use crate::{DirectoryIdentity, FileSystem, OpenMode, SpoolFile, Stage};

const PAGE: usize = 4096;

/// SplitMix64: the same seed, the same disk.
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.roll() & 1 == 1
    }
}

/// Kinds of operations that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Open,
    Create,
    Rename,
    Remove,
    SyncDir,
    List,
    Read,
    Write,
    Allocate,
    Truncate,
    Sync,
    Clear,
    Stage,
}

/// The operations that fail: those numbered `from..from + count` among the ones that match.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) from: u64,
    pub(super) count: u64,
    pub(super) kind: io::ErrorKind,
    pub(super) only: Option<Op>,
}

#[derive(Debug, Default)]
struct Node {
    visible: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Entry {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Move(PathBuf, PathBuf),
}

struct Disk {
    nodes: BTreeMap<u64, Node>,
    names: BTreeMap<PathBuf, u64>,
    /// Memory that outlives processes, not power cuts: its bytes, and the boot of the process that holds it.
    stages: BTreeMap<PathBuf, (Vec<u8>, u64)>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending: Vec<Entry>,
    locked: bool,
    /// Bytes that may be allocated in all; `None` = no limit.
    room: Option<usize>,
    /// Boots so far: handles of an earlier one are dead.
    boot: u64,
    power_cuts: u64,
    next: u64,
    seen: u64,
    bytes_read: u64,
    /// The speed of it; `None` = at once.
    bytes_per_second: Option<u64>,
    /// All files share its speed: what is asked for waits for what was asked for before.
    busy_until: Option<Instant>,
    failed: u64,
    failed_syncs: u64,
    fault: Option<Fault>,
    dice: Dice,
}

/// A handle to the disk; also the file system.
#[derive(Clone)]
pub(super) struct MemoryDisk(Arc<Mutex<Disk>>, Arc<Gate>);

/// Where whoever wants something of a disk that stands still waits.
#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
}

impl MemoryDisk {
    pub(super) fn new(seed: u64) -> Self {
        let disk = Arc::new(Mutex::new(Disk {
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            stages: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            locked: false,
            room: None,
            boot: 0,
            power_cuts: 0,
            next: 0,
            seen: 0,
            bytes_read: 0,
            bytes_per_second: None,
            busy_until: None,
            failed: 0,
            failed_syncs: 0,
            fault: None,
            dice: Dice(seed),
        }));
        Self(disk, Arc::default())
    }

    /// From now on nothing that a disk is asked for comes back; the stage is no disk.
    pub(super) fn stand_still(&self) {
        *self.1.is_shut.lock() = true;
    }

    pub(super) fn move_again(&self) {
        *self.1.is_shut.lock() = false;
        self.1.opened.notify_all();
    }

    pub(super) fn slows_down(&self, bytes_per_second: u64) {
        self.0.lock().bytes_per_second = Some(bytes_per_second);
    }

    /// Bytes that were read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.0.lock().bytes_read
    }

    /// The disk, for something that may have to wait for it.
    fn device(&self) -> MutexGuard<'_, Disk> {
        let mut is_shut = self.1.is_shut.lock();
        while *is_shut {
            self.1.opened.wait(&mut is_shut);
        }
        drop(is_shut);
        self.0.lock()
    }

    /// From now on; counting starts again.
    pub(super) fn fail(&self, fault: Option<Fault>) {
        let mut disk = self.0.lock();
        disk.fault = fault;
        disk.seen = 0;
        disk.failed = 0;
        disk.failed_syncs = 0;
    }

    pub(super) fn has_fault(&self) -> bool {
        self.0.lock().fault.is_some()
    }

    pub(super) fn failures(&self) -> u64 {
        self.0.lock().failed
    }

    pub(super) fn failed_syncs(&self) -> u64 {
        self.0.lock().failed_syncs
    }

    pub(super) fn set_room(&self, room: Option<usize>) {
        self.0.lock().room = room;
    }

    /// Bytes of all files.
    pub(super) fn used(&self) -> usize {
        self.0.lock().used()
    }

    pub(super) fn names(&self) -> Vec<PathBuf> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// The process dies; what the kernel had stays.
    pub(super) fn kill(&self) {
        let mut disk = self.0.lock();
        disk.boot += 1;
        disk.locked = false;
    }

    /// The machine dies.
    pub(super) fn cut_power(&self) {
        self.kill();
        self.0.lock().cut_power();
    }

    /// Changes bytes of a file behind everybody's back, on the platter too.
    pub(super) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.0.lock();
        let id = disk.names[path];
        let node = disk.nodes.get_mut(&id).unwrap();
        change(&mut node.visible);
        node.durable = node.visible.clone();
        node.dirty.clear();
    }

    fn with<T>(&self, op: Op, act: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.device();
        disk.may_fail(op)?;
        act(&mut disk)
    }
}

impl Disk {
    /// Takes up the disk for so long once it is free; how long that is from now.
    fn is_busy_for(&mut self, takes: Duration) -> Duration {
        let now = Instant::now();
        let until = self.busy_until.map_or(now, |until| until.max(now)) + takes;
        self.busy_until = Some(until);
        until - now
    }

    fn may_fail(&mut self, op: Op) -> io::Result<()> {
        let Some(fault) = self.fault.filter(|fault| fault.only.is_none_or(|only| only == op)) else { return Ok(()) };
        self.seen += 1;
        if (fault.from..fault.from + fault.count).contains(&(self.seen - 1)) {
            self.failed += 1;
            self.failed_syncs += u64::from(op == Op::Sync);
            return Err(fault.kind.into());
        }
        Ok(())
    }

    fn used(&self) -> usize {
        self.names.values().map(|id| self.nodes[id].visible.len()).sum()
    }

    fn cut_power(&mut self) {
        self.stages.clear();
        self.power_cuts += 1;
        for node in self.nodes.values_mut() {
            let length = if self.dice.coin() { node.visible.len() } else { node.durable.len() };
            let mut after = node.durable.clone();
            after.resize(length, 0);
            for page in &node.dirty {
                let range = page * PAGE..((page + 1) * PAGE).min(length).min(node.visible.len());
                if range.start < range.end && self.dice.coin() {
                    after[range.clone()].copy_from_slice(&node.visible[range]);
                }
            }
            node.visible = after.clone();
            node.durable = after;
            node.dirty.clear();
        }
        let mut names = self.durable_names.clone();
        let prefix = self.dice.coin().then(|| self.dice.below(self.pending.len() as u64 + 1));
        for (index, entry) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            let kept = prefix.map_or_else(|| self.dice.coin(), |prefix| (index as u64) < prefix);
            if kept {
                apply(&mut names, entry);
            }
        }
        self.names = names.clone();
        self.durable_names = names;
    }

    fn change(&mut self, entry: Entry) {
        self.pending.push(entry.clone());
        apply(&mut self.names, entry);
    }

    fn node(&mut self, file: &MemoryFile) -> io::Result<&mut Node> {
        if file.boot != self.boot {
            return Err(io::Error::other("this handle's process is dead"));
        }
        self.nodes.get_mut(&file.id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, entry: Entry) {
    match entry {
        Entry::Link(path, id) => {
            names.insert(path, id);
        }
        Entry::Unlink(path) => {
            names.remove(&path);
        }
        Entry::Move(from, to) => {
            if let Some(id) = names.remove(&from) {
                names.insert(to, id);
            }
        }
    }
}

impl Node {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if self.visible.len() < offset + bytes.len() {
            self.visible.resize(offset + bytes.len(), 0);
        }
        self.visible[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.dirty.extend(offset / PAGE..(offset + bytes.len()).div_ceil(PAGE));
    }

    fn sync(&mut self) {
        self.durable.resize(self.visible.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            let range = page * PAGE..((page + 1) * PAGE).min(self.visible.len());
            if range.start < range.end {
                self.durable[range.clone()].copy_from_slice(&self.visible[range]);
            }
        }
    }

    /// The kernel reported the failure and forgets that anything is dirty.
    fn fail_sync(&mut self, drop_pages: bool) {
        for page in std::mem::take(&mut self.dirty) {
            let range = page * PAGE..((page + 1) * PAGE).min(self.visible.len());
            for index in range {
                if drop_pages {
                    self.visible[index] = self.durable.get(index).copied().unwrap_or(0);
                }
            }
        }
    }
}

impl FileSystem for MemoryDisk {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        self.with(Op::Create, |_| Ok(()))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.with(Op::List, |disk| {
            let inside = disk.names.keys().filter(|path| path.parent() == Some(directory));
            Ok(inside.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
        })
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn SpoolFile>> {
        let op = if mode == OpenMode::Create { Op::Create } else { Op::Open };
        self.with(op, |disk| {
            let id = match (disk.names.get(path), mode) {
                (Some(_), OpenMode::Create) => return Err(io::ErrorKind::AlreadyExists.into()),
                (Some(id), _) => *id,
                (None, OpenMode::Create) => {
                    disk.next += 1;
                    let id = disk.next;
                    disk.nodes.insert(id, Node::default());
                    disk.change(Entry::Link(path.to_owned(), id));
                    id
                }
                (None, _) => return Err(io::ErrorKind::NotFound.into()),
            };
            Ok(Arc::new(MemoryFile { disk: self.clone(), id, boot: disk.boot }) as Arc<dyn SpoolFile>)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(Op::Rename, |disk| {
            if !disk.names.contains_key(from) {
                return Err(io::ErrorKind::NotFound.into());
            }
            disk.change(Entry::Move(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.with(Op::Remove, |disk| {
            if !disk.names.contains_key(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            disk.change(Entry::Unlink(path.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self, _directory: &Path) -> io::Result<()> {
        self.with(Op::SyncDir, |disk| {
            disk.pending.clear();
            disk.durable_names = disk.names.clone();
            Ok(())
        })
    }

    fn make_stage(&self, path: &Path, bytes: usize) -> io::Result<Arc<dyn Stage>> {
        self.with(Op::Stage, |disk| {
            disk.stages.insert(path.to_owned(), (vec![0; bytes], disk.boot));
            Ok(Arc::new(MemoryStage { disk: self.clone(), path: path.to_owned(), bytes }) as Arc<dyn Stage>)
        })
    }

    fn find_stages(&self, _directory: &Path, prefix: &str) -> io::Result<Vec<(PathBuf, Arc<dyn Stage>)>> {
        let disk = self.0.lock();
        let is_left = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
        let left = disk.stages.iter().filter(|(path, (_, boot))| is_left(path) && *boot < disk.boot);
        let stage = |(path, (stage, _)): (&PathBuf, &(Vec<u8>, u64))| {
            let stage = MemoryStage { disk: self.clone(), path: path.clone(), bytes: stage.len() };
            (path.clone(), Arc::new(stage) as Arc<dyn Stage>)
        };
        Ok(left.map(stage).collect())
    }

    fn sweep_stages(&self, _directory: &Path) {}

    fn open_stage(&self, path: &Path) -> io::Result<Arc<dyn Stage>> {
        let bytes = self.0.lock().stages.get(path).map(|(stage, _)| stage.len()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryStage { disk: self.clone(), path: path.to_owned(), bytes }))
    }

    fn identity(&self, _directory: &Path) -> Option<DirectoryIdentity> {
        None
    }

    fn boot(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.0.lock().power_cuts))
    }

    fn remove_stage(&self, path: &Path) -> io::Result<()> {
        self.0.lock().stages.remove(path);
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.with(Op::Open, |disk| {
            if disk.locked {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            disk.locked = true;
            Ok(Box::new(Unlock { disk: self.clone(), boot: disk.boot }) as Box<dyn Send + Sync>)
        })
    }
}

struct Unlock {
    disk: MemoryDisk,
    boot: u64,
}

impl Drop for Unlock {
    fn drop(&mut self) {
        let mut disk = self.disk.0.lock();
        if disk.boot == self.boot {
            disk.locked = false;
        }
    }
}

#[derive(Clone)]
struct MemoryFile {
    disk: MemoryDisk,
    id: u64,
    boot: u64,
}

impl SpoolFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().node(self)?.visible.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.with(Op::Read, |disk| {
            let bytes = disk.node(self)?.visible.get(offset as usize..).unwrap_or_default();
            let count = bytes.len().min(buffer.len());
            buffer[..count].copy_from_slice(&bytes[..count]);
            disk.bytes_read += count as u64;
            Ok(count)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.device();
        let failed = disk.may_fail(Op::Write);
        // A failed write is a short one: half of it arrived.
        let arrived = if failed.is_err() { bytes.len() / 2 } else { bytes.len() };
        disk.node(self)?.write(offset as usize, &bytes[..arrived]);
        failed
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.device();
        let mut failed = disk.may_fail(Op::Allocate);
        if disk.room.is_some_and(|room| disk.used() + bytes as usize > room) {
            failed = Err(io::ErrorKind::StorageFull.into());
        }
        let arrived = if failed.is_err() { bytes as usize / 2 } else { bytes as usize };
        // Room costs nothing to write: what was never written reads as zeros.
        disk.node(self)?.visible.resize(arrived, 0);
        failed
    }

    fn clear(&self, bytes: u64) -> io::Result<()> {
        self.disk.with(Op::Clear, |disk| {
            let node = disk.node(self)?;
            node.visible.clear();
            node.write(0, &vec![0; bytes as usize]);
            Ok(())
        })
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.disk.with(Op::Truncate, |disk| {
            disk.node(self)?.visible.truncate(bytes as usize);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let takes = {
            let mut disk = self.disk.0.lock();
            let rate = disk.bytes_per_second;
            let dirty = (disk.node(self)?.dirty.len() * PAGE) as u64;
            rate.map(|rate| disk.is_busy_for(Duration::from_micros(dirty * 1_000_000 / rate)))
        };
        takes.into_iter().for_each(std::thread::sleep);
        let mut disk = self.disk.device();
        let failed = disk.may_fail(Op::Sync);
        let drop_pages = disk.dice.coin();
        let node = disk.node(self)?;
        if failed.is_err() {
            node.fail_sync(drop_pages);
        } else {
            node.sync();
        }
        failed
    }
}

struct MemoryStage {
    disk: MemoryDisk,
    path: PathBuf,
    bytes: usize,
}

impl Stage for MemoryStage {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn store(&self, offset: usize, bytes: &[u8]) {
        if let Some((stage, _)) = self.disk.0.lock().stages.get_mut(&self.path) {
            stage[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn load(&self, offset: usize, into: &mut [u8]) {
        if let Some((stage, _)) = self.disk.0.lock().stages.get(&self.path) {
            let count = stage.len().saturating_sub(offset).min(into.len());
            into[..count].copy_from_slice(&stage[offset..offset + count]);
        }
    }

    fn is_linked(&self) -> bool {
        self.disk.0.lock().stages.contains_key(&self.path)
    }
}
