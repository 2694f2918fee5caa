//! The routing table on disk: a snapshot, and after it every change, in the order they came.
//!
//! A change costs a line at the end of a log, whatever the size of the table. When the logs have
//! outgrown the snapshot, a thread writes a new one from the table as it was when a new log was
//! begun, and then removes the logs before that one.
//!
//! ```text
//! table.json     {"from":7}          the first log that comes after this snapshot
//!                {"generation":…}    the table
//! table.7.log    5d41402a {"generation":…,"upsert":…}
//! table.8.log    …                   each line: its checksum (CRC-32), and the update as it came
//! ```
//!
//! Whatever moment the process or the machine ends in, what was answered is found again: a
//! snapshot takes its place by renaming, a log that does not follow on the snapshot is not read,
//! and a line that is not whole is cut off.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use routes::table::{Table, Update};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

/// Logs are not worth a snapshot before they have this many bytes: some thousand changes.
const LOG_BYTES: u64 = 1 << 20;
/// The checksum before a line, and the space after it.
const MARK_BYTES: usize = 9;

/// The log that changes go to, and what it follows.
pub struct Ledger {
    snapshot: PathBuf,
    /// The number of the current log.
    number: u64,
    /// Absent where what is on disk cannot be built on: the next change writes a snapshot.
    log: Option<File>,
    /// Bytes of the logs since the snapshot, and of the snapshot.
    bytes: u64,
    snapshot_bytes: u64,
    compaction: Option<JoinHandle<io::Result<u64>>>,
}

/// The first line of a snapshot.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    from: u64,
}

impl Ledger {
    /// Take up what was kept at `snapshot`, with lines of at most `longest` bytes. Where it cannot
    /// be read the table is empty, or as it was before what cannot be read: control sends it anew.
    pub fn open(snapshot: &Path, longest: usize) -> (Ledger, Table) {
        Ledger::taken_up(snapshot, longest, false)
    }

    /// The same where another process may still write there: nothing is mended, and the first
    /// change begins anew, in files that the other does not know.
    pub fn open_beside(snapshot: &Path, longest: usize) -> (Ledger, Table) {
        Ledger::taken_up(snapshot, longest, true)
    }

    fn taken_up(snapshot: &Path, longest: usize, beside: bool) -> (Ledger, Table) {
        let mut ledger = Ledger {
            snapshot: snapshot.to_owned(),
            number: last_number(snapshot),
            log: None,
            bytes: 0,
            snapshot_bytes: 0,
            compaction: None,
        };
        let table = match ledger.take_up(longest, beside) {
            Ok(Some(table)) => {
                info!(
                    generation = table.generation,
                    containers = table.places.len(),
                    "took up the routing table from disk"
                );
                table
            }
            Ok(None) => Table::default(),
            Err(error) => {
                error!(
                    %error,
                    "the routing table {} is broken; control will send it",
                    snapshot.display()
                );
                Table::default()
            }
        };
        (ledger, table)
    }

    fn take_up(&mut self, longest: usize, beside: bool) -> io::Result<Option<Table>> {
        let file = match File::open(&self.snapshot) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        self.snapshot_bytes = file.metadata()?.len();
        let (from, mut table) = read_snapshot(BufReader::new(file))?;
        let mut number = from;
        let mut last = None;
        loop {
            let path = log_path(&self.snapshot, number);
            let file = match File::options().read(true).append(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let (good, whole) = replay(&file, &mut table, longest)?;
            self.bytes += good;
            if !whole && !beside {
                warn!(
                    "{} ends in the middle of a change; that was never answered",
                    path.display()
                );
                file.set_len(good)?;
                file.sync_data()?;
            }
            last = Some((number, file));
            if !whole {
                break; // nothing is built on a line that is not whole
            }
            number += 1;
        }
        // With a number beyond, there are logs that follow on nothing: leave them behind.
        if !beside {
            self.log = last.and_then(|(number, file)| (number == self.number).then_some(file));
        }
        Ok(Some(table))
    }

    /// Keep changes, which led to `table`. `lines` are whole lines, made by [`Ledger::write_line`].
    pub fn append(&mut self, lines: &[u8], table: &Table) -> io::Result<()> {
        self.end_compaction(false);
        let kept = match &mut self.log {
            Some(log) => log.write_all(lines).and_then(|()| log.sync_data()),
            None => return self.begin_anew(table),
        };
        if let Err(error) = kept {
            // A part of it may be there.
            self.log = None;
            return Err(error);
        }
        self.bytes += lines.len() as u64;
        if self.bytes > LOG_BYTES.max(self.snapshot_bytes) && self.compaction.is_none() {
            self.compact(table)?;
        }
        Ok(())
    }

    /// Write one update as it came into `lines`.
    pub fn write_line(lines: &mut Vec<u8>, update: &[u8]) {
        let checksum = crc32fast::hash(update);
        lines.extend_from_slice(format!("{checksum:08x} ").as_bytes());
        lines.extend_from_slice(update);
        lines.push(b'\n');
    }

    /// A snapshot, and an empty log after it, in place of all that was.
    fn begin_anew(&mut self, table: &Table) -> io::Result<()> {
        self.end_compaction(true);
        // Another process may have begun one since.
        let number = self.number.max(last_number(&self.snapshot)) + 1;
        let log = begin_log(&self.snapshot, number)?;
        self.number = number;
        self.snapshot_bytes = write_snapshot(&self.snapshot, number, table)?;
        remove_logs_before(&self.snapshot, number);
        (self.log, self.bytes) = (Some(log), 0);
        Ok(())
    }

    /// Begin a new log, and have the snapshot that it follows on written beside.
    fn compact(&mut self, table: &Table) -> io::Result<()> {
        let number = self.number + 1;
        let log = begin_log(&self.snapshot, number)?;
        (self.log, self.number, self.bytes) = (Some(log), number, 0);
        let (snapshot, table) = (self.snapshot.clone(), table.clone());
        let write = move || {
            let bytes = write_snapshot(&snapshot, number, &table)?;
            remove_logs_before(&snapshot, number);
            Ok(bytes)
        };
        let thread = std::thread::Builder::new().name("snapshot".to_owned());
        // Without the thread the logs are longer; the next change tries again.
        match thread.spawn(write) {
            Ok(thread) => self.compaction = Some(thread),
            Err(error) => warn!(%error, "could not start a thread for the routing table"),
        }
        Ok(())
    }

    /// See how a compaction ended: one that has, or with `wait` any.
    fn end_compaction(&mut self, wait: bool) {
        let ended = self
            .compaction
            .take_if(|thread| wait || thread.is_finished());
        match ended.map(JoinHandle::join) {
            None => {}
            Some(Ok(Ok(bytes))) => self.snapshot_bytes = bytes,
            Some(Ok(Err(error))) => {
                warn!(%error, "could not write the routing table anew; its log goes on");
            }
            Some(Err(_)) => error!("writing the routing table anew panicked"),
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.end_compaction(true);
    }
}

/// `table.7.log` beside `table.json`.
fn log_path(snapshot: &Path, number: u64) -> PathBuf {
    snapshot.with_extension(format!("{number}.log"))
}

/// The numbers of the logs that there are.
fn numbers(snapshot: &Path) -> Vec<u64> {
    let directory = snapshot.parent().unwrap_or(Path::new("."));
    let stem = snapshot.file_stem().unwrap_or_default().to_string_lossy();
    let number = |name: &str| {
        let rest = name.strip_prefix(&*stem)?.strip_prefix('.')?;
        rest.strip_suffix(".log")?.parse().ok()
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| number(entry.ok()?.file_name().to_str()?))
        .collect()
}

fn last_number(snapshot: &Path) -> u64 {
    numbers(snapshot).into_iter().max().unwrap_or_default()
}

fn remove_logs_before(snapshot: &Path, number: u64) {
    for old in numbers(snapshot).into_iter().filter(|old| *old < number) {
        if let Err(error) = std::fs::remove_file(log_path(snapshot, old)) {
            warn!(%error, "could not remove an old log of the routing table");
        }
    }
}

fn private(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn begin_log(snapshot: &Path, number: u64) -> io::Result<File> {
    let file = private(&log_path(snapshot, number))?;
    sync_directory(snapshot)?;
    Ok(file)
}

/// Write the table so that the file is, at every moment, a whole one.
fn write_snapshot(path: &Path, from: u64, table: &Table) -> io::Result<u64> {
    let new = path.with_extension("json.new");
    let mut writer = BufWriter::new(private(&new)?);
    serde_json::to_writer(&mut writer, &Head { from })?;
    writer.write_all(b"\n")?;
    serde_json::to_writer(&mut writer, table)?;
    writer.write_all(b"\n")?;
    writer.flush()?;
    let file = writer.get_ref();
    file.sync_data()?;
    let bytes = file.metadata()?.len();
    std::fs::rename(&new, path)?;
    sync_directory(path)?;
    Ok(bytes)
}

/// A snapshot, and the number of the log after it. One without a head is of a proxy that kept no
/// logs.
fn read_snapshot(mut from: impl BufRead) -> io::Result<(u64, Table)> {
    let mut text = Vec::new();
    from.read_until(b'\n', &mut text)?;
    if let Ok(head) = serde_json::from_slice::<Head>(&text) {
        text.clear();
        from.read_to_end(&mut text)?;
        return Ok((head.from, serde_json::from_slice(&text)?));
    }
    from.read_to_end(&mut text)?;
    Ok((0, serde_json::from_slice(&text)?))
}

/// Apply the lines of a log, and say up to which byte they are whole, and whether that is all.
fn replay(log: &File, table: &mut Table, longest: usize) -> io::Result<(u64, bool)> {
    let most = (longest + MARK_BYTES + 1) as u64;
    let mut lines = BufReader::with_capacity(64 << 10, log);
    let mut line = Vec::new();
    let mut good = 0;
    loop {
        line.clear();
        let read = (&mut lines).take(most).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok((good, true));
        }
        let Some(update) = read_line(&line, table.generation) else {
            return Ok((good, false));
        };
        table.apply(update);
        good += read as u64;
    }
}

fn read_line(line: &[u8], generation: u64) -> Option<Update> {
    let line = line.strip_suffix(b"\n")?;
    let (mark, update) = line.split_at_checked(MARK_BYTES)?;
    let mark = std::str::from_utf8(mark).ok()?.strip_suffix(' ')?;
    let checksum = u32::from_str_radix(mark, 16).ok()?;
    if crc32fast::hash(update) != checksum {
        return None;
    }
    let update: Update = serde_json::from_slice(update).ok()?;
    (update.change.replaces() || update.generation > generation).then_some(update)
}

#[cfg(test)]
mod tests {
    use routes::Id;
    use routes::table::{Change, Owners, Place, State};
    use tempfile::TempDir;

    use super::*;

    const LONGEST: usize = 1 << 20;

    fn place(number: u64, state: State) -> Place {
        let mut container = Id([0; 12]);
        container.0[4..].copy_from_slice(&number.to_be_bytes());
        Place {
            container,
            project: Id([0; 12]),
            name: format!("c{number}"),
            state,
            incarnation: 1,
            directory: "/run/c".into(),
            owners: Owners { base: 0, count: 1 },
            access: None,
            links: None,
            hooks: None,
            address: None,
            embedding: Default::default(),
            sleep: Default::default(),
        }
    }

    /// A table, what is kept of it, and all that it has been.
    struct Kept {
        directory: TempDir,
        ledger: Option<Ledger>,
        table: Table,
        was: Vec<Table>,
    }

    impl Kept {
        fn new() -> Kept {
            let directory = tempfile::tempdir().expect("a directory");
            let (ledger, table) = Ledger::open(&directory.path().join("table.json"), LONGEST);
            Kept {
                directory,
                ledger: Some(ledger),
                was: vec![table.clone()],
                table,
            }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("table.json")
        }

        fn change(&mut self, changes: Vec<Change>) {
            let mut lines = Vec::new();
            for change in changes {
                let update = Update {
                    generation: self.table.generation + 1,
                    change,
                };
                Ledger::write_line(&mut lines, &serde_json::to_vec(&update).expect("JSON"));
                self.table.apply(update);
                self.was.push(self.table.clone());
            }
            let ledger = self.ledger.as_mut().expect("it is open");
            ledger.append(&lines, &self.table).expect("it is kept");
        }

        fn reopen(&mut self) -> Table {
            self.ledger = None;
            let (ledger, table) = Ledger::open(&self.path(), LONGEST);
            self.ledger = Some(ledger);
            table
        }

        fn logs(&self) -> Vec<u64> {
            let mut logs = numbers(&self.path());
            logs.sort_unstable();
            logs
        }
    }

    #[test]
    fn what_was_kept_is_found_again() {
        let mut kept = Kept::new();
        kept.change(vec![Change::Replace(vec![place(1, State::Running)])]);
        assert_eq!(kept.reopen(), kept.table);
        kept.change(vec![
            Change::Upsert(place(2, State::Running)),
            Change::Remove(place(1, State::Running).container),
        ]);
        kept.change(vec![Change::Upsert(place(2, State::Paused))]);
        assert_eq!(kept.reopen(), kept.table);
        // Control came back with a clock that was set back: what replaces, replaces.
        kept.table.generation = 0;
        kept.change(vec![Change::Replace(vec![place(3, State::Stopped)])]);
        assert_eq!(kept.reopen(), kept.table);
        assert_eq!(kept.logs().len(), 1);
    }

    /// A successor reads while the other may still write, and begins in files of its own.
    #[test]
    fn another_process_may_still_write() {
        let mut kept = Kept::new();
        kept.change(vec![Change::Replace(vec![place(1, State::Running)])]);
        kept.change(vec![Change::Upsert(place(2, State::Running))]);
        let (mut successor, table) = Ledger::open_beside(&kept.path(), LONGEST);
        assert_eq!(table, kept.table);
        kept.change(vec![Change::Upsert(place(3, State::Running))]);
        let mut table = kept.table.clone();
        let mut lines = Vec::new();
        let update = Update {
            generation: 90,
            change: Change::Remove(place(1, State::Running).container),
        };
        Ledger::write_line(&mut lines, &serde_json::to_vec(&update).expect("JSON"));
        table.apply(update);
        successor.append(&lines, &table).expect("it is kept");
        // What the other still had to say reaches nothing.
        kept.change(vec![Change::Upsert(place(4, State::Running))]);
        drop(successor);
        assert_eq!(kept.reopen(), table);
        // A line that is not whole yet is the other's: it is left alone.
        let path = log_path(&kept.path(), kept.logs()[0]);
        let mut log = File::options()
            .append(true)
            .open(&path)
            .expect("it is there");
        log.write_all(b"00000000 {\"gen").expect("written");
        let length = log.metadata().expect("a file").len();
        let (_, beside) = Ledger::open_beside(&kept.path(), LONGEST);
        assert_eq!(beside, table);
        assert_eq!(log.metadata().expect("a file").len(), length);
    }

    /// Whatever byte of the log is the last that reached the disk, the table is one that was, it
    /// has every change up to there, and the ledger goes on from it.
    #[test]
    fn a_log_may_end_at_any_byte() {
        let mut kept = Kept::new();
        kept.change(vec![Change::Replace(vec![place(1, State::Running)])]);
        for number in 2..6 {
            kept.change(vec![Change::Upsert(place(number, State::Running))]);
        }
        kept.ledger = None;
        let number = kept.logs()[0];
        let log = std::fs::read(log_path(&kept.path(), number)).expect("a log");
        let mut found = Vec::new();
        for end in 0..=log.len() {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("table.json");
            std::fs::copy(kept.path(), &path).expect("copied");
            std::fs::write(log_path(&path, number), &log[..end]).expect("written");
            let (mut ledger, mut table) = Ledger::open(&path, LONGEST);
            let whole = log[..end].iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(table, kept.was[1 + whole], "{end}");
            found.push(table.generation);
            let update = Update {
                generation: table.generation + 1,
                change: Change::Upsert(place(9, State::Failed)),
            };
            let mut lines = Vec::new();
            Ledger::write_line(&mut lines, &serde_json::to_vec(&update).expect("JSON"));
            table.apply(update);
            ledger.append(&lines, &table).expect("it is kept");
            drop(ledger);
            assert_eq!(Ledger::open(&path, LONGEST).1, table, "{end}");
        }
        found.dedup();
        assert_eq!(found, [1, 2, 3, 4, 5]);
    }

    /// A bit that turned on the disk ends the log there, and does not end the proxy.
    #[test]
    fn a_log_may_be_damaged_anywhere() {
        let mut kept = Kept::new();
        kept.change(vec![Change::Replace(vec![place(1, State::Running)])]);
        for number in 2..4 {
            kept.change(vec![Change::Upsert(place(number, State::Running))]);
        }
        kept.ledger = None;
        let path = log_path(&kept.path(), kept.logs()[0]);
        let log = std::fs::read(&path).expect("a log");
        for at in 0..log.len() {
            let mut bad = log.clone();
            bad[at] ^= 0x20;
            std::fs::write(&path, &bad).expect("written");
            let (ledger, table) = Ledger::open(&kept.path(), LONGEST);
            drop(ledger);
            assert!(kept.was.contains(&table), "{at}");
            assert!(table.generation >= 1, "{at}");
        }
    }

    #[test]
    fn logs_are_folded_into_the_snapshot() {
        let mut kept = Kept::new();
        kept.change(vec![Change::Replace(vec![])]);
        let first = kept.logs()[0];
        let mut round = 0;
        while kept.logs()[0] == first {
            let changes = (0..512).map(|n| Change::Upsert(place(n, State::Running)));
            kept.change(changes.collect());
            round += 1;
            assert!(round < 1_000, "the logs grow without end");
        }
        assert_eq!(kept.reopen(), kept.table);
        kept.change(vec![Change::Upsert(place(1, State::Paused))]);
        assert_eq!(kept.reopen(), kept.table);
        assert_eq!(kept.logs().len(), 1);
    }

    /// Between a new log and its snapshot, and between the snapshot and the end of the old logs.
    #[test]
    fn folding_may_end_anywhere() {
        let mut kept = Kept::new();
        kept.change(vec![Change::Replace(vec![place(1, State::Running)])]);
        kept.change(vec![Change::Upsert(place(2, State::Running))]);
        kept.ledger = None;
        let number = kept.logs()[0];
        // The new log is there and the snapshot is the old one.
        let update = Update {
            generation: 3,
            change: Change::Upsert(place(3, State::Running)),
        };
        let mut line = Vec::new();
        Ledger::write_line(&mut line, &serde_json::to_vec(&update).expect("JSON"));
        std::fs::write(log_path(&kept.path(), number + 1), &line).expect("written");
        let folded = kept.table.clone();
        kept.table.apply(update);
        assert_eq!(kept.reopen(), kept.table);
        // The snapshot is half written.
        std::fs::write(kept.path().with_extension("json.new"), "{\"fr").expect("written");
        assert_eq!(kept.reopen(), kept.table);
        // The snapshot is the new one and the old log is still there.
        kept.ledger = None;
        write_snapshot(&kept.path(), number + 1, &folded).expect("written");
        assert_eq!(kept.reopen(), kept.table);
        kept.change(vec![Change::Upsert(place(4, State::Running))]);
        assert_eq!(kept.reopen(), kept.table);
    }

    #[test]
    fn a_log_that_follows_on_nothing_is_not_read() {
        let mut kept = Kept::new();
        kept.change(vec![Change::Replace(vec![place(1, State::Running)])]);
        kept.ledger = None;
        let stray = log_path(&kept.path(), kept.logs()[0] + 7);
        let update = serde_json::to_vec(&Update {
            generation: 9,
            change: Change::Replace(vec![]),
        });
        let mut line = Vec::new();
        Ledger::write_line(&mut line, &update.expect("JSON"));
        std::fs::write(&stray, &line).expect("written");
        assert_eq!(kept.reopen(), kept.table);
        kept.change(vec![Change::Upsert(place(2, State::Running))]);
        assert_eq!(kept.reopen(), kept.table);
        assert!(!stray.exists(), "it is left behind");
    }

    #[test]
    fn a_table_of_before_there_were_logs_is_taken_up() {
        let mut kept = Kept::new();
        kept.table.apply(Update {
            generation: 7,
            change: Change::Upsert(place(1, State::Running)),
        });
        let text = serde_json::to_vec(&kept.table).expect("JSON");
        std::fs::write(kept.path(), text).expect("written");
        assert_eq!(kept.reopen(), kept.table);
        kept.change(vec![Change::Upsert(place(2, State::Running))]);
        assert_eq!(kept.reopen(), kept.table);
    }

    #[test]
    fn a_broken_snapshot_is_an_empty_table() {
        let mut kept = Kept::new();
        kept.change(vec![Change::Replace(vec![place(1, State::Running)])]);
        std::fs::write(kept.path(), "{\"from\":1}\n{\"generation\":").expect("written");
        assert_eq!(kept.reopen(), Table::default());
        kept.table = Table::default();
        kept.change(vec![Change::Replace(vec![place(2, State::Running)])]);
        assert_eq!(kept.reopen(), kept.table);
    }
}
