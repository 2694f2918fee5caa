//! The log of one container: the newest entries in a ring, all that are kept in segments.
//!
//! ```text
//!  append ──▶ ring ─────────────▶ readers and streams
//!     └────▶ pending ──flush──▶ segments ──▶ readers, for what the ring no longer has
//! ```
//!
//! The writer appends and flushes; whoever reads takes a view and reads that without a lock.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::Scope;
use crate::entry::{Draft, Numbered, id_of, number};
use crate::segment::{self, LINE_BYTES, Segment};
use crate::store::Limits;

/// Added to the last id where a former process may have handed out ids that it could not write
/// down any more: an id never stands for two entries.
const REBASE: u64 = 10_000;
/// Written to disk at once, at the latest.
const PENDING_BYTES: usize = 256 << 10;

/// The log of one container.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    tag: u32,
    /// When it was last asked for, in the store's count.
    pub used: AtomicU64,
    /// Who follows it.
    pub streams: AtomicUsize,
    /// Whether something was added since the last flush.
    pub dirty: AtomicBool,
    mark: watch::Sender<Mark>,
    inner: Mutex<Inner>,
}

/// What streams wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The newest id.
    pub newest: u64,
    /// How often it was cleared.
    pub clears: u32,
    /// How often the container went to another project.
    pub moves: u32,
    /// The container is gone.
    pub gone: bool,
}

#[derive(Debug)]
struct Inner {
    mark: Mark,
    project: Option<crate::Key>,
    ring: VecDeque<(u64, Bytes)>,
    ring_bytes: usize,
    /// The newest id that is not in the ring any more.
    passed: u64,
    /// Lines that are not on disk yet, and the id of the first.
    pending: Vec<u8>,
    pending_first: u64,
    pending_lines: u64,
    segments: VecDeque<Segment>,
    /// The last segment may end within a line.
    torn: bool,
}

/// What is added to a log.
#[derive(Clone, Copy)]
pub enum Entry<'a> {
    Draft(&'a Draft<'a>),
    /// Made by [`Draft::unnumbered`] in another process.
    Unnumbered(&'a str),
}

/// What an append or a flush changed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Bytes in memory.
    pub memory: isize,
    /// Bytes on disk.
    pub disk: i64,
}

/// All that a log has at one moment.
pub struct View {
    segments: Vec<Segment>,
    ring: Vec<(u64, Bytes)>,
    /// Entries up to this one are on disk only.
    passed: u64,
}

/// What follows a point of the log.
#[derive(Debug, Default)]
pub struct Following {
    pub lines: Vec<(u64, Bytes)>,
    /// Entries between that point and the first line are out of reach.
    pub skipped: bool,
    pub mark: Mark,
}

impl Log {
    /// Take up what is in this directory. `clean` says that this process has lost nothing that it
    /// gave an id.
    pub fn open(directory: PathBuf, tag: u32, clean: bool) -> io::Result<Log> {
        let (segments, newest, torn) = found(&directory, tag, clean)?;
        let mark = Mark {
            newest,
            ..Mark::default()
        };
        Ok(Log {
            directory,
            tag,
            used: AtomicU64::new(0),
            streams: AtomicUsize::new(0),
            dirty: AtomicBool::new(false),
            mark: watch::Sender::new(mark),
            inner: Mutex::new(Inner {
                mark,
                project: None,
                ring: VecDeque::new(),
                ring_bytes: 0,
                passed: newest,
                pending: Vec::new(),
                pending_first: 0,
                pending_lines: 0,
                segments,
                torn,
            }),
        })
    }

    /// Take up what another process has written since this was opened. By now it writes no more.
    pub fn take_up(&self) -> io::Result<Change> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let (segments, newest, torn) = found(&self.directory, self.tag, false)?;
        let before = inner.bytes();
        (inner.segments, inner.torn) = (segments, torn);
        inner.mark.newest = inner.mark.newest.max(newest);
        if inner.ring.is_empty() {
            inner.passed = inner.mark.newest;
        }
        Ok(Change {
            memory: 0,
            disk: inner.bytes().cast_signed() - before.cast_signed(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn touch(&self, now: u64) {
        self.used.store(now, Ordering::Relaxed);
    }

    /// Follow what happens to it.
    pub fn watch(&self) -> watch::Receiver<Mark> {
        self.mark.subscribe()
    }

    /// Add an entry. It can be read at once, and is on disk after the next flush. True where a
    /// flush should follow now.
    pub fn append(&self, scope: Scope, entry: Entry<'_>, limits: &Limits) -> (Change, bool) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if inner.mark.gone {
            return (Change::default(), false);
        }
        inner.place(scope);
        let id = inner.mark.newest + 1;
        let start = inner.pending.len();
        let whole = match entry {
            Entry::Draft(draft) => {
                Numbered { id, scope, draft }.write(&mut inner.pending);
                true
            }
            Entry::Unnumbered(rest) => number(&mut inner.pending, rest, id),
        };
        if !whole || inner.pending.len() - start > LINE_BYTES {
            // Its writer did not keep what it was told in bounds; nobody could read it again.
            inner.pending.truncate(start);
            return (Change::default(), false);
        }
        let line = Bytes::copy_from_slice(&inner.pending[start..]);
        inner.pending.push(b'\n');
        if start == 0 {
            inner.pending_first = id;
        }
        inner.pending_lines += 1;
        inner.mark.newest = id;
        let before = inner.ring_bytes;
        inner.ring_bytes += line.len();
        inner.ring.push_back((id, line));
        inner.shrink(limits.ring_entries, limits.ring_bytes);
        let change = Change {
            memory: inner.ring_bytes.cast_signed() - before.cast_signed(),
            disk: 0,
        };
        (change, inner.pending.len() >= PENDING_BYTES)
    }

    /// Wake streams, if there is something for them.
    pub fn show(&self) {
        let mark = self.lock().mark;
        self.say(mark);
    }

    fn say(&self, now: Mark) {
        self.mark.send_if_modified(|mark| {
            let changed = *mark != now;
            *mark = now;
            changed
        });
    }

    /// Bring what is pending to disk, drop what is too much there, and wake streams. The error
    /// comes with the number of entries that are lost with the process.
    pub fn flush(&self, limits: &Limits) -> Result<Change, (io::Error, u64)> {
        // Before the lock: what is added from here on is for the next flush.
        self.dirty.store(false, Ordering::Release);
        let mut guard = self.lock();
        let inner = &mut *guard;
        self.say(inner.mark);
        if inner.pending.is_empty() {
            return Ok(Change::default());
        }
        let fresh = match inner.segments.back() {
            Some(last) => inner.torn || last.bytes >= limits.segment_bytes,
            None => true,
        };
        if fresh {
            let segment = Segment::new(&self.directory, inner.pending_first, self.tag);
            inner.segments.push_back(segment);
            inner.torn = false;
        }
        let last = inner.segments.back_mut().expect("one was just made");
        let written = last.append(&inner.pending);
        let bytes = inner.pending.len() as i64;
        let lines = std::mem::take(&mut inner.pending_lines);
        inner.pending.clear();
        inner.pending.shrink_to(PENDING_BYTES);
        if let Err(error) = written {
            // Part of it may be there.
            inner.torn = true;
            return Err((error, lines));
        }
        let mut change = Change {
            memory: 0,
            disk: bytes,
        };
        while inner.bytes() > limits.container_bytes && inner.segments.len() > 1 {
            change.disk -= inner.drop_oldest().cast_signed();
        }
        Ok(change)
    }

    /// Remove the oldest segment; its size.
    pub fn drop_oldest(&self) -> u64 {
        self.lock().drop_oldest()
    }

    /// The paths of its segments, the oldest first.
    pub fn segments(&self) -> Vec<Segment> {
        self.lock().segments.iter().cloned().collect()
    }

    pub fn ring_bytes(&self) -> usize {
        self.lock().ring_bytes
    }

    /// Give back what the ring holds; all of it is on disk.
    pub fn forget_ring(&self) -> Change {
        let mut inner = self.lock();
        let before = inner.ring_bytes;
        if inner.pending.is_empty() {
            inner.shrink(0, 0);
        }
        Change {
            memory: inner.ring_bytes.cast_signed() - before.cast_signed(),
            disk: 0,
        }
    }

    /// Forget everything but the ids that were given.
    pub fn clear(&self) -> io::Result<Change> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let change = Change {
            memory: -inner.ring_bytes.cast_signed(),
            disk: -inner.bytes().cast_signed(),
        };
        inner.pending.clear();
        inner.pending_lines = 0;
        inner.shrink(0, 0);
        inner.mark.clears += 1;
        for segment in inner.segments.drain(..) {
            segment::remove(&segment.path)?;
        }
        Ok(change)
    }

    /// The container is gone: nothing is written any more, and streams end.
    pub fn end(&self) -> Change {
        let mut inner = self.lock();
        let change = Change {
            memory: -inner.ring_bytes.cast_signed(),
            disk: -inner.bytes().cast_signed(),
        };
        inner.mark.gone = true;
        inner.pending = Vec::new();
        inner.shrink(0, 0);
        inner.segments.clear();
        self.mark.send_replace(inner.mark);
        change
    }

    /// The container is in this project.
    pub fn place(&self, scope: Scope) {
        let mut inner = self.lock();
        inner.place(scope);
        self.mark.send_if_modified(|mark| {
            let changed = mark.moves != inner.mark.moves;
            mark.moves = inner.mark.moves;
            changed
        });
    }

    /// Fill the ring from disk, so that what follows is read from memory.
    pub fn warm(&self, limits: &Limits) -> io::Result<Change> {
        let (segments, passed, cleared, room, room_bytes) = {
            let inner = self.lock();
            let room = limits.ring_entries.saturating_sub(inner.ring.len());
            let room_bytes = limits.ring_bytes.saturating_sub(inner.ring_bytes);
            let segments: Vec<Segment> = inner.segments.iter().cloned().collect();
            (segments, inner.passed, inner.mark.clears, room, room_bytes)
        };
        if room == 0 || segments.first().is_none_or(|first| first.first > passed) {
            return Ok(Change::default());
        }
        let mut found: VecDeque<(u64, Bytes)> = VecDeque::new();
        let mut bytes = 0;
        // Whole segments, the newest first, until there is no room.
        for segment in segments.iter().rev() {
            if segment.first > passed {
                continue;
            }
            let mut part: VecDeque<(u64, Bytes)> = VecDeque::new();
            let mut part_bytes = 0;
            let Some(mut lines) = segment.lines()? else {
                continue;
            };
            while let Some(line) = lines.next()? {
                let Some(id) = id_of(line).filter(|&id| id <= passed) else {
                    continue;
                };
                part_bytes += line.len();
                part.push_back((id, Bytes::copy_from_slice(line)));
                while part.len() + found.len() > room || part_bytes + bytes > room_bytes {
                    let Some((_, line)) = part.pop_front() else {
                        break;
                    };
                    part_bytes -= line.len();
                }
            }
            bytes += part_bytes;
            let full = part.front().is_none_or(|(first, _)| *first > segment.first);
            part.append(&mut found);
            found = part;
            if full {
                break;
            }
        }
        let mut inner = self.lock();
        // It may have been cleared, or filled by another, meanwhile.
        if inner.passed != passed || inner.mark.clears != cleared || inner.mark.gone {
            return Ok(Change::default());
        }
        let oldest = inner.segments.front().map_or(0, |first| first.first);
        if let Some((first, _)) = found.front() {
            // Nothing at all was passed over where the ring begins with what the disk begins with.
            inner.passed = if *first <= oldest { 0 } else { first - 1 };
        }
        inner.ring_bytes += bytes;
        found.append(&mut inner.ring);
        inner.ring = found;
        Ok(Change {
            memory: bytes.cast_signed(),
            disk: 0,
        })
    }

    /// What comes after an id, from memory, at most so many entries.
    pub fn following(&self, after: u64, most: usize) -> Following {
        let inner = self.lock();
        let start = inner.ring.partition_point(|(id, _)| *id <= after);
        Following {
            lines: inner.ring.iter().skip(start).take(most).cloned().collect(),
            skipped: after < inner.passed,
            mark: inner.mark,
        }
    }

    /// The newest id, and the newest that is out of the ring.
    pub fn bounds(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.mark.newest, inner.passed)
    }

    pub fn view(&self) -> View {
        let inner = self.lock();
        let segments = inner.segments.iter();
        View {
            segments: segments
                .filter(|segment| segment.first <= inner.passed)
                .cloned()
                .collect(),
            ring: inner.ring.iter().cloned().collect(),
            passed: inner.passed,
        }
    }
}

impl Inner {
    fn place(&mut self, scope: Scope) {
        if self.project.is_some_and(|project| project != scope.project) {
            self.mark.moves += 1;
        }
        self.project = Some(scope.project);
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn shrink(&mut self, entries: usize, bytes: usize) {
        while self.ring.len() > entries || self.ring_bytes > bytes {
            let Some((id, line)) = self.ring.pop_front() else {
                break;
            };
            self.ring_bytes -= line.len();
            self.passed = id;
        }
        if entries == 0 {
            self.ring = VecDeque::new();
        }
    }

    fn drop_oldest(&mut self) -> u64 {
        let Some(oldest) = self.segments.pop_front() else {
            return 0;
        };
        if let Err(error) = segment::remove(&oldest.path) {
            tracing::warn!(%error, "could not remove an old part of a container's log");
        }
        oldest.bytes
    }
}

impl View {
    /// Every line from the oldest to the newest.
    pub fn each(&self, mut look: impl FnMut(&[u8])) -> io::Result<()> {
        for segment in &self.segments {
            let Some(mut lines) = segment.lines()? else {
                continue;
            };
            while let Some(line) = lines.next()? {
                if id_of(line).is_some_and(|id| id <= self.passed) {
                    look(line);
                }
            }
        }
        for (_, line) in &self.ring {
            look(line);
        }
        Ok(())
    }

    /// What is in memory, the newest first, and whether that is all there is.
    pub fn newest(&self) -> (impl Iterator<Item = &Bytes>, bool) {
        let all = self.segments.is_empty();
        (self.ring.iter().rev().map(|(_, line)| line), all)
    }

    /// Entries up to this one are on disk only.
    pub fn passed(&self) -> u64 {
        self.passed
    }
}

/// The segments in a directory, the newest id that may have been given, and whether the last
/// segment is to be added to no more.
fn found(directory: &Path, tag: u32, clean: bool) -> io::Result<(VecDeque<Segment>, u64, bool)> {
    let segments: VecDeque<Segment> = segment::list(directory)?.into();
    let mut newest = 0;
    for segment in segments.iter().rev() {
        if let Some(last) = segment.last()? {
            newest = last;
            break;
        }
    }
    let torn = segments.back().is_some_and(|last| last.tag != tag);
    if let Some(last) = segments.back() {
        // A segment of which nothing can be read has had its first id all the same.
        newest = newest.max(last.first);
        if torn || !clean {
            newest += REBASE;
        }
    }
    Ok((segments, newest, torn))
}

/// The directory of a container's log.
pub fn directory(root: &Path, container: crate::Key) -> PathBuf {
    root.join(container.to_string())
}
