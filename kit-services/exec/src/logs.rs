//! What scripts say and what was asked of them, in files that are bounded.
//!
//! ```text
//! exec.log               what scripts say, and the service about them
//! access/access.log      a line for each request
//! cron/fires.log         a line for each scheduled run, as JSON
//! …log.1 … …log.3        older lines
//! ```
//!
//! One task writes. Lines that come faster than it writes are dropped and counted.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast, mpsc, oneshot};

/// A file is put aside when it has this size.
pub const FILE_BYTES: u64 = 4 << 20;
/// Files of one kind that are put aside.
pub const KEPT: usize = 3;
/// Lines that wait to be written.
const WAITING: usize = 8192;
/// Lines that a follower may be behind.
const FOLLOWED: usize = 1024;
/// Longest line; more is cut.
const LINE_BYTES: usize = 16 << 10;

/// Which file a line goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Exec,
    Access,
    Fires,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Exec, Kind::Access, Kind::Fires];
    /// The file's name below the directory of logs.
    pub fn file(self) -> &'static str {
        match self {
            Kind::Exec => "exec.log",
            Kind::Access => "access/access.log",
            Kind::Fires => "cron/fires.log",
        }
    }
    /// The word that lists name it by.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Exec => "exec",
            Kind::Access => "access",
            Kind::Fires => "cron",
        }
    }
}

/// A line as followers get it.
#[derive(Clone, Debug)]
pub struct Line {
    pub kind: Kind,
    pub text: Arc<str>,
}

/// The logs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    sender: Mutex<Option<mpsc::Sender<Wish>>>,
    followers: broadcast::Sender<Line>,
    dropped: AtomicU64,
}

/// What the task that writes is asked for.
#[derive(Debug)]
enum Wish {
    Line(Kind, String),
    /// To be told when all that came before is written.
    Flush(oneshot::Sender<()>),
}

/// A file of logs.
#[derive(Debug)]
pub struct LogFile {
    pub name: String,
    pub kind: Kind,
    pub size: u64,
    pub modified: jiff::Timestamp,
}

impl Logs {
    pub fn new(directory: PathBuf) -> Logs {
        Logs(Arc::new(Inner {
            directory,
            sender: Mutex::new(None),
            followers: broadcast::Sender::new(FOLLOWED),
            dropped: AtomicU64::new(0),
        }))
    }

    /// Write a line; without line breaks, and cut where it is long.
    pub fn write(&self, kind: Kind, text: &str) {
        let mut end = text.len().min(LINE_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let line: String = text[..end]
            .chars()
            .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
            .collect();
        let mut sender = self.0.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.get_or_insert_with(|| {
            let (sender, lines) = mpsc::channel(WAITING);
            tokio::spawn(write_all(
                self.0.directory.clone(),
                lines,
                self.0.followers.clone(),
            ));
            sender
        });
        if sender.try_send(Wish::Line(kind, line)).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What a script says: one line for each of its lines.
    pub fn script(&self, level: &str, script: &str, execution: Option<&str>, text: &str) {
        let now = now();
        let id = execution.filter(|id| !id.is_empty()).unwrap_or("-");
        for line in text.split('\n').filter(|line| !line.trim().is_empty()) {
            self.write(
                Kind::Exec,
                &format!("{now} {level:5} {script} [{id}] {line}"),
            );
        }
    }

    /// Lines as they are written, from now on.
    pub fn follow(&self) -> broadcast::Receiver<Line> {
        self.0.followers.subscribe()
    }

    /// Wait until what was said before is in its file.
    pub async fn flush(&self) {
        let sender = self
            .0
            .sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (done, written) = oneshot::channel();
        if let Some(sender) = sender
            && sender.send(Wish::Flush(done)).await.is_ok()
        {
            // where the task is gone, there is nothing to wait for
            let _ = written.await;
        }
    }

    /// The files that are there.
    pub fn files(&self) -> Vec<LogFile> {
        let mut files = Vec::new();
        for kind in Kind::ALL {
            for name in names(kind) {
                if let Ok(facts) = std::fs::symlink_metadata(self.0.directory.join(&name))
                    && facts.is_file()
                {
                    files.push(LogFile {
                        name,
                        kind,
                        size: facts.len(),
                        modified: facts
                            .modified()
                            .ok()
                            .and_then(|time| jiff::Timestamp::try_from(time).ok())
                            .unwrap_or_default(),
                    });
                }
            }
        }
        files
    }

    /// The file of this name, where it is one of the logs.
    pub fn file(&self, name: &str) -> Option<LogFile> {
        self.files().into_iter().find(|file| file.name == name)
    }

    /// Hand every line of a file on until `each` has enough.
    pub fn read(&self, name: &str, mut each: impl FnMut(&str) -> bool) -> io::Result<()> {
        let known = Kind::ALL
            .into_iter()
            .flat_map(names)
            .any(|known| known == name);
        if !known {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut reader = BufReader::new(File::open(self.0.directory.join(name))?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line);
            if !each(text.trim_end_matches('\n')) {
                return Ok(());
            }
        }
    }

    /// Remove a file. How large it was.
    pub fn remove(&self, file: &LogFile) -> io::Result<u64> {
        let path = self.0.directory.join(&file.name);
        match file.name == file.kind.file() {
            // it is being written to
            true => OpenOptions::new().write(true).open(path)?.set_len(0)?,
            false => std::fs::remove_file(path)?,
        }
        Ok(file.size)
    }
}

/// Now, to the millisecond (RFC 3339).
pub fn now() -> String {
    let now = jiff::Timestamp::now();
    now.round(jiff::Unit::Millisecond)
        .unwrap_or(now)
        .to_string()
}

fn names(kind: Kind) -> impl Iterator<Item = String> {
    let file = kind.file();
    std::iter::once(file.to_owned()).chain((1..=KEPT).map(move |nth| format!("{file}.{nth}")))
}

async fn write_all(
    directory: PathBuf,
    mut lines: mpsc::Receiver<Wish>,
    followers: broadcast::Sender<Line>,
) {
    let mut files: HashMap<Kind, (File, u64)> = HashMap::new();
    let mut batch = Vec::new();
    while lines.recv_many(&mut batch, 512).await > 0 {
        let mut texts: HashMap<Kind, String> = HashMap::new();
        let mut flushed = Vec::new();
        for wish in batch.drain(..) {
            let (kind, line) = match wish {
                Wish::Line(kind, line) => (kind, line),
                Wish::Flush(done) => {
                    flushed.push(done);
                    continue;
                }
            };
            let text = texts.entry(kind).or_default();
            text.push_str(&line);
            text.push('\n');
            // nobody may be listening
            let _ = followers.send(Line {
                kind,
                text: line.into(),
            });
        }
        for (kind, text) in texts {
            if let Err(error) = append(&directory, &mut files, kind, &text) {
                files.remove(&kind);
                tracing::warn!(%error, "what scripts say could not be written to {}", kind.file());
            }
        }
        for done in flushed {
            let _ = done.send(()); // whoever asked may have gone
        }
    }
}

fn append(
    directory: &Path,
    files: &mut HashMap<Kind, (File, u64)>,
    kind: Kind,
    text: &str,
) -> io::Result<()> {
    let path = directory.join(kind.file());
    if files
        .get(&kind)
        .is_some_and(|(_, size)| *size >= FILE_BYTES)
    {
        files.remove(&kind);
        for nth in (0..KEPT).rev() {
            let from = match nth {
                0 => path.clone(),
                _ => directory.join(format!("{}.{nth}", kind.file())),
            };
            let to = directory.join(format!("{}.{}", kind.file(), nth + 1));
            match std::fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    let (file, size) = match files.entry(kind) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let file = OpenOptions::new().append(true).create(true).open(&path)?;
            let size = file.metadata()?.len();
            entry.insert((file, size))
        }
    };
    file.write_all(text.as_bytes())?;
    *size += text.len() as u64;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn logs_are_bounded_and_one_line_is_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::new(directory.path().to_owned());
        let mut follower = logs.follow();
        logs.script("info", "a.ts", Some("x"), "one\ntwo\r\0");
        logs.flush().await;
        assert!(
            follower
                .recv()
                .await
                .unwrap()
                .text
                .ends_with("a.ts [x] one")
        );
        assert!(
            follower
                .recv()
                .await
                .unwrap()
                .text
                .ends_with("a.ts [x] two  ")
        );
        let long = "x".repeat(LINE_BYTES * 2);
        let rounds = FILE_BYTES as usize / LINE_BYTES * (KEPT + 3);
        for nth in 0..rounds {
            logs.write(Kind::Exec, &long);
            if nth % 500 == 0 {
                logs.flush().await;
            }
        }
        logs.flush().await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let files = logs.files();
        assert_eq!(files.len(), 1 + KEPT);
        let batch = 512 * (LINE_BYTES as u64 + 1);
        assert!(
            files.iter().all(|file| file.size <= FILE_BYTES + batch),
            "{files:?}"
        );
        assert!(logs.read("../x", |_| true).is_err());
    }
}
