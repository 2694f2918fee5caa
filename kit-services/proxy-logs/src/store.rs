//! The logs of all containers, within bounds for one and for all.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicIsize, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::entry::{Draft, Event, Kind, Level};
use crate::log::{self, Change, Entry, Log};
use crate::{Key, Scope};
use crate::{json, segment};

/// The bounds of all logs.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Entries of one container in memory.
    pub ring_entries: usize,
    /// Bytes of one container in memory.
    pub ring_bytes: usize,
    /// Bytes of all containers in memory.
    pub memory_bytes: usize,
    /// Containers of which anything is in memory.
    pub held: usize,
    /// One file.
    pub segment_bytes: u64,
    /// All files of one container.
    pub container_bytes: u64,
    /// All files of all containers.
    pub disk_bytes: u64,
    /// A file to which nothing was added for so long is removed.
    pub age: Duration,
    /// Streams of one container.
    pub streams: usize,
    /// Streams of all containers.
    pub streams_in_all: usize,
    /// Where nothing happens, a comment says so often that a stream is alive.
    pub heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            ring_entries: 5_000,
            ring_bytes: 4 << 20, // some five thousand entries of a browser
            memory_bytes: 64 << 20,
            held: 512,
            segment_bytes: 2 << 20,
            container_bytes: 16 << 20, // some twenty thousand entries
            disk_bytes: 2 << 30,
            age: Duration::from_secs(7 * 24 * 3_600),
            streams: 16,
            streams_in_all: 256,
            heartbeat: Duration::from_secs(15),
        }
    }
}

/// All logs.
pub struct Store {
    root: PathBuf,
    limits: Limits,
    /// Whether there is such a container.
    known: Box<dyn Fn(Key) -> bool + Send + Sync>,
    held: Mutex<HashMap<Key, Arc<Log>>>,
    /// Logs with entries that are not on disk yet.
    dirty: Mutex<HashMap<Key, Arc<Log>>>,
    asked: AtomicU64,
    memory: AtomicIsize,
    disk: AtomicI64,
    /// Of this process, in the names of its segments.
    tag: u32,
    /// Of this process, in the trace ids that it gives.
    nonce: u64,
    traces: AtomicU64,
    /// Nothing that was given an id has been lost.
    clean: AtomicBool,
    lost: AtomicU64,
    /// The disk failed last time: said once.
    failing: AtomicBool,
    /// Another process writes the logs now.
    resigned: AtomicBool,
}

impl Store {
    pub fn new(
        root: PathBuf,
        limits: Limits,
        known: impl Fn(Key) -> bool + Send + Sync + 'static,
    ) -> Store {
        use std::hash::{BuildHasher, RandomState};
        let nonce = RandomState::new().hash_one(SystemTime::now());
        Store {
            root,
            limits,
            known: Box::new(known),
            held: Mutex::default(),
            dirty: Mutex::default(),
            asked: AtomicU64::new(0),
            memory: AtomicIsize::new(0),
            disk: AtomicI64::new(0),
            tag: nonce as u32,
            nonce: nonce.rotate_left(32) ^ nonce >> 7,
            traces: AtomicU64::new(1),
            clean: AtomicBool::new(true),
            lost: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            resigned: AtomicBool::new(false),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Key, Arc<Log>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dirty(&self) -> MutexGuard<'_, HashMap<Key, Arc<Log>>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: Change) {
        self.memory.fetch_add(change.memory, Ordering::Relaxed);
        self.disk.fetch_add(change.disk, Ordering::Relaxed);
    }

    /// Add an entry. Entries of a container that is not known are dropped: it has been removed
    /// while they waited.
    pub fn append(&self, scope: Scope, draft: &Draft<'_>) {
        self.add(scope, Entry::Draft(draft));
    }

    /// Add an entry that [`Draft::unnumbered`] made in a process that has resigned. What is none is
    /// passed over.
    pub fn append_unnumbered(&self, scope: Scope, rest: &str) {
        self.add(scope, Entry::Unnumbered(rest));
    }

    fn add(&self, scope: Scope, entry: Entry<'_>) {
        if self.is_resigned() {
            return self.count_lost(1);
        }
        let log = match self.log(scope.container) {
            Ok(Some(log)) => log,
            Ok(None) => return,
            Err(error) => return self.fail(&error, 1),
        };
        let (change, full) = log.append(scope, entry, &self.limits);
        self.count(change);
        let many = !log.dirty.swap(true, Ordering::AcqRel) && {
            let mut dirty = self.dirty();
            dirty.insert(scope.container, log);
            dirty.len() >= self.limits.held.div_ceil(2)
        };
        if full || many {
            self.flush();
        }
    }

    /// Write down something that happened to a log.
    pub fn note(&self, scope: Scope, level: Level, event: Event<'_>) {
        self.noted(level, event, |draft| self.append(scope, draft));
    }

    /// The same for a log that another process writes: see [`Draft::unnumbered`].
    pub fn unnumbered_note(&self, scope: Scope, level: Level, event: Event<'_>) -> String {
        self.noted(level, event, |draft| draft.unnumbered(scope))
    }

    fn noted<T>(&self, level: Level, event: Event<'_>, then: impl FnOnce(&Draft<'_>) -> T) -> T {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let ts_ms = now.as_millis() as i64;
        let ts_iso = jiff::Timestamp::from_millisecond(ts_ms)
            .map_or_else(|_| String::new(), |it| it.to_string());
        let trace = self.trace();
        then(&Draft {
            ts_ms,
            ts_iso: &ts_iso,
            trace: &trace,
            kind: Kind::Event,
            level,
            service: "logs",
            exchange: None,
            event: Some(event),
        })
    }

    /// Write no more: another process does from now on. What is read is read from disk each time.
    pub fn resign(&self) {
        self.flush();
        self.resigned.store(true, Ordering::Release);
        for (_, log) in self.held().drain() {
            self.count(log.forget_ring());
        }
    }

    pub fn is_resigned(&self) -> bool {
        self.resigned.load(Ordering::Acquire)
    }

    /// Be the one that writes, after another process has resigned.
    pub fn take_over(&self) {
        for log in self.held().values() {
            match log.take_up() {
                Ok(change) => self.count(change),
                Err(error) => self.fail(&error, 0),
            }
        }
    }

    /// An id for an exchange that has none (W3C Trace Context, section 3.2.2.3).
    pub fn trace(&self) -> String {
        let number = self.traces.fetch_add(1, Ordering::Relaxed);
        hex(self.nonce, number)
    }

    /// The same for one that was numbered elsewhere.
    pub fn trace_of(&self, number: u64) -> String {
        hex(!self.nonce, number)
    }

    /// Wake who follows a log to which something was added.
    pub fn show(&self) {
        for log in self.dirty().values() {
            log.show();
        }
    }

    /// Bring all entries to disk and wake who follows them.
    pub fn flush(&self) {
        let dirty = std::mem::take(&mut *self.dirty());
        for log in dirty.into_values() {
            match log.flush(&self.limits) {
                Ok(change) => {
                    self.count(change);
                    if change.disk > 0 {
                        self.failing.store(false, Ordering::Relaxed);
                    }
                }
                Err((error, entries)) => self.fail(&error, entries),
            }
        }
        self.trim(&mut self.held());
        if self.disk.load(Ordering::Relaxed) > self.limits.disk_bytes.cast_signed() {
            self.sweep(SystemTime::now());
        }
    }

    /// So many entries are in no file.
    pub fn count_lost(&self, entries: u64) {
        self.lost.fetch_add(entries, Ordering::Relaxed);
    }

    fn fail(&self, error: &io::Error, entries: u64) {
        self.clean.store(false, Ordering::Relaxed);
        self.count_lost(entries);
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "could not write the logs of containers");
        }
    }

    /// Entries that are in no file, because the disk failed or nobody took them.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Containers of which something is in memory, and the bytes of all their rings.
    pub fn in_memory(&self) -> (usize, usize) {
        let held = self.held();
        (held.len(), held.values().map(|log| log.ring_bytes()).sum())
    }

    /// The log of a container; none where there is no such container.
    pub fn log(&self, container: Key) -> io::Result<Option<Arc<Log>>> {
        let now = self.asked.fetch_add(1, Ordering::Relaxed);
        let mut held = self.held();
        if let Some(log) = held.get(&container) {
            log.touch(now);
            return Ok(Some(log.clone()));
        }
        // Asked under the lock that `remove` takes after the container has become unknown: a log
        // that is opened now is found by it.
        if !(self.known)(container) {
            return Ok(None);
        }
        let clean = self.clean.load(Ordering::Relaxed);
        let log = Log::open(log::directory(&self.root, container), self.tag, clean)?;
        let log = Arc::new(log);
        log.touch(now);
        if self.is_resigned() {
            return Ok(Some(log)); // it would not see what another writes
        }
        held.insert(container, log.clone());
        self.trim(&mut held);
        Ok(Some(log))
    }

    /// Fill the memory of a log from disk.
    pub fn warm(&self, log: &Log) -> io::Result<()> {
        self.count(log.warm(&self.limits)?);
        self.trim(&mut self.held());
        Ok(())
    }

    /// Let go of the logs that were not used for longest, while there are too many. Only those
    /// that nobody has in hand: no stream follows them, and nothing of them waits to be written.
    fn trim(&self, held: &mut HashMap<Key, Arc<Log>>) {
        let over = |held: &HashMap<Key, Arc<Log>>| {
            held.len() > self.limits.held
                || self.memory.load(Ordering::Relaxed) > self.limits.memory_bytes.cast_signed()
        };
        while over(held) {
            let idle = held
                .iter()
                .filter(|(_, log)| Arc::strong_count(log) == 1)
                .min_by_key(|(_, log)| log.used.load(Ordering::Relaxed))
                .map(|(container, _)| *container);
            if let Some(container) = idle {
                let log = held.remove(&container).expect("it was just found");
                self.count(log.forget_ring());
                continue;
            }
            // All are followed: the largest ring starts anew.
            let largest = held.values().max_by_key(|log| log.ring_bytes());
            match largest.map(|log| log.forget_ring()) {
                Some(change) if change.memory < 0 => self.count(change),
                _ => break,
            }
        }
    }

    /// Forget what a container's log holds.
    pub fn clear(&self, container: Key) -> io::Result<()> {
        if let Some(log) = self.log(container)? {
            self.count(log.clear()?);
        }
        Ok(())
    }

    /// A container is in this project now.
    pub fn placed(&self, scope: Scope) {
        if let Some(log) = self.held().get(&scope.container) {
            log.place(scope);
        }
    }

    /// A container is gone, and unknown by now: so is its log.
    pub fn remove(&self, container: Key) {
        if self.is_resigned() {
            return; // whoever writes it removes it
        }
        let mut held = self.held();
        if let Some(log) = held.remove(&container) {
            self.count(log.end());
        }
        let directory = log::directory(&self.root, container);
        if let Err(error) = segment::remove_all(&directory) {
            tracing::warn!(%error, "could not remove the log of a container that is gone");
        }
    }

    /// Remove the logs of all containers that are not known.
    pub fn retain_known(&self) {
        for container in self.on_disk() {
            if !(self.known)(container) {
                self.remove(container);
            }
        }
        let held: Vec<Key> = self.held().keys().copied().collect();
        for container in held {
            if !(self.known)(container) {
                self.remove(container);
            }
        }
    }

    fn on_disk(&self) -> Vec<Key> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, "could not list the logs of containers");
                }
                return Vec::new();
            }
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Remove what is too old, and of the largest logs what is too much for all together.
    pub fn sweep(&self, now: SystemTime) {
        if self.is_resigned() {
            return;
        }
        let mut sizes = Vec::new();
        for container in self.on_disk() {
            let mut bytes = 0;
            for segment in self.segments(container) {
                let old = std::fs::metadata(&segment.path)
                    .and_then(|meta| meta.modified())
                    .is_ok_and(|written| {
                        now.duration_since(written)
                            .is_ok_and(|age| age >= self.limits.age)
                    });
                if old && self.drop_oldest(container) > 0 {
                    continue;
                }
                bytes += segment.bytes;
            }
            sizes.push((bytes, container));
        }
        let mut total: u64 = sizes.iter().map(|(bytes, _)| bytes).sum();
        if total > self.limits.disk_bytes {
            let goal = self.limits.disk_bytes / 10 * 9;
            let mut heap: std::collections::BinaryHeap<_> = sizes.into_iter().collect();
            // The largest first: nobody pushes out what others keep within the same bound.
            while total > goal
                && let Some((bytes, container)) = heap.pop()
            {
                let dropped = self.drop_oldest(container);
                if dropped == 0 {
                    continue;
                }
                total = total.saturating_sub(dropped);
                heap.push((bytes.saturating_sub(dropped), container));
            }
        }
        self.disk.store(total.cast_signed(), Ordering::Relaxed);
    }

    fn segments(&self, container: Key) -> Vec<segment::Segment> {
        let held = self.held().get(&container).cloned();
        match held {
            Some(log) => log.segments(),
            None => segment::list(&log::directory(&self.root, container)).unwrap_or_default(),
        }
    }

    /// Remove the oldest segment of a log; its size.
    fn drop_oldest(&self, container: Key) -> u64 {
        let held = self.held();
        if let Some(log) = held.get(&container) {
            return log.drop_oldest();
        }
        // Under the lock, so that nobody opens it meanwhile.
        let directory = log::directory(&self.root, container);
        let Some(oldest) = segment::list(&directory)
            .ok()
            .and_then(|all| all.into_iter().next())
        else {
            return 0;
        };
        if segment::remove(&oldest.path).is_err() {
            return 0;
        }
        // Only an empty one goes.
        let _ = std::fs::remove_dir(&directory);
        oldest.bytes
    }
}

/// Two numbers as 32 hexadecimal digits.
fn hex(high: u64, low: u64) -> String {
    let number = u128::from(high) << 64 | u128::from(low);
    let mut digits = String::with_capacity(32);
    for byte in number.to_be_bytes() {
        digits.extend(json::hex(byte).map(char::from));
    }
    digits
}
