//! Sessions that somebody has signed out of: a copy of such a cookie opens nothing any more.
//!
//! A cookie is known by the nonce that it was sealed with, which no other has. The list is kept in
//! a file of the proxy's own, and a session is on it until it would have ended anyway.
//!
//! Every request with a cookie looks into the list, so the disk is a thread's of its own: who signs
//! out waits for it, and nobody else does.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::NONCE_LEN;
use routes::Id;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

/// What tells one cookie from all others.
pub type Mark = [u8; NONCE_LEN];

/// Of one container: who has more sessions ended than this within their life has the first of them
/// forgotten. Each takes a sign-in.
const OF_ONE: usize = 1_024;
/// Of all containers: above it a container forgets one of its own for each that is added.
const OF_ALL: usize = 65_536;
/// A line of the file is shorter.
const LINE_BYTES: usize = 256;

/// The file is written anew when it has more than twice the lines that are needed, and so many more.
const SPARE_LINES: usize = 1_024;
/// What waits to be written; above it, who signs out waits before that.
const WAITING: usize = 256;

#[derive(Debug)]
pub struct SignedOut {
    ended: Arc<Mutex<Ended>>,
    writer: mpsc::Sender<Task>,
}

/// For the thread of the file.
#[derive(Debug)]
enum Task {
    /// Add this line, and say how that went.
    Add(String, oneshot::Sender<io::Result<()>>),
    /// Write the list anew.
    Renew,
}

/// The file, which one thread writes.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    ended: Arc<Mutex<Ended>>,
    /// The one that was written last as a whole.
    file: File,
    lines: usize,
}

/// By container: each with the second since 1970 in which it would have ended.
#[derive(Debug, Default, Clone)]
struct Ended {
    of: HashMap<Id, Vec<(Mark, u64)>>,
    count: usize,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    container: Id,
    mark: String,
    expires: u64,
}

impl Line {
    fn of(container: Id, mark: &Mark, expires: u64) -> String {
        let mark = URL_SAFE_NO_PAD.encode(mark);
        let line = Line {
            container,
            mark,
            expires,
        };
        serde_json::to_string(&line).expect("a line is JSON") + "\n"
    }

    fn mark(&self) -> Option<Mark> {
        let mark = URL_SAFE_NO_PAD.decode(&self.mark).ok()?;
        mark.try_into().ok()
    }
}

impl SignedOut {
    /// Take up the list in this file, and write it anew without what has run out.
    pub fn open(path: &Path, now: u64) -> io::Result<SignedOut> {
        let mut ended = Ended::default();
        match File::open(path) {
            Ok(file) => {
                let mut file = BufReader::new(file);
                let mut text = Vec::new();
                // The last line may be half of one, where a write was cut off.
                while io::Read::take(&mut file, LINE_BYTES as u64).read_until(b'\n', &mut text)? > 0
                {
                    let line = serde_json::from_slice::<Line>(&text).ok();
                    let line = line.filter(|line| line.expires > now);
                    if let Some((line, mark)) =
                        line.and_then(|line| line.mark().map(|it| (line, it)))
                    {
                        ended.add(line.container, mark, line.expires);
                    }
                    text.clear();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let lines = ended.count;
        let file = write(path, &ended)?;
        let ended = Arc::new(Mutex::new(ended));
        let mut kept = Kept {
            path: path.to_owned(),
            ended: ended.clone(),
            file,
            lines,
        };
        let (writer, mut tasks) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("proxy-signed-out".into())
            .spawn(move || {
                let mut some = Vec::new();
                while tasks.blocking_recv_many(&mut some, WAITING) > 0 {
                    kept.take(&mut some);
                }
            })?;
        Ok(SignedOut { ended, writer })
    }

    /// End a session, at once, and return when that is on disk. An error is one of the file: until
    /// the proxy ends, the session is over.
    pub async fn add(&self, container: Id, mark: Mark, expires: u64) -> io::Result<()> {
        if !lock(&self.ended).add(container, mark, expires) {
            return Ok(());
        }
        let (done, written) = oneshot::channel();
        let line = Line::of(container, &mark, expires);
        let gone = |_| io::Error::other("the thread of the file has ended");
        let sent = self.writer.send(Task::Add(line, done)).await;
        sent.map_err(|_| gone(()))?;
        written.await.map_err(|_| gone(()))?
    }

    /// Whether somebody has signed out of it.
    pub fn holds(&self, container: Id, mark: &Mark) -> bool {
        let ended = lock(&self.ended);
        let of = ended.of.get(&container);
        of.is_some_and(|of| of.iter().any(|(known, _)| known == mark))
    }

    /// Forget what has run out.
    pub fn tidy(&self, now: u64) {
        let mut ended = lock(&self.ended);
        let before = ended.count;
        ended.of.retain(|_, of| {
            of.retain(|(_, expires)| *expires > now);
            !of.is_empty()
        });
        ended.count = ended.of.values().map(Vec::len).sum();
        if ended.count != before {
            // Where there is no room, much is being written anyway.
            let _ = self.writer.try_send(Task::Renew);
        }
    }
}

impl Kept {
    /// Do what waits, with one write to disk for all lines.
    fn take(&mut self, tasks: &mut Vec<Task>) {
        let (mut text, mut waiting, mut renew) = (String::new(), Vec::new(), false);
        for task in tasks.drain(..) {
            match task {
                Task::Add(line, done) => {
                    text.push_str(&line);
                    waiting.push(done);
                }
                Task::Renew => renew = true,
            }
        }
        let needed = lock(&self.ended).count;
        let most = needed.saturating_mul(2) + SPARE_LINES;
        let is_there = self.path.try_exists().unwrap_or(true);
        // All that waits is on the list by now.
        let written = match renew || !is_there || self.lines + waiting.len() > most {
            true => self.renew(&text, waiting.len()),
            false => self.append(&text, waiting.len()),
        };
        if let Err(error) = &written
            && waiting.is_empty()
        {
            error!(%error, "could not write the list of who has signed out");
        }
        for done in waiting {
            let told = written
                .as_ref()
                .copied()
                .map_err(|error| match error.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => error.kind().into(),
                });
            // Who does not wait any more is not told.
            let _ = done.send(told);
        }
    }

    fn append(&mut self, text: &str, lines: usize) -> io::Result<()> {
        if lines == 0 {
            return Ok(());
        }
        let mut options = File::options();
        let options = options.append(true).create(true).mode(0o600);
        let mut file = options.open(&self.path)?;
        self.lines += lines;
        file.write_all(text.as_bytes())?;
        file.sync_data()
    }

    /// Write the whole list. Where a successor has put its own in the place, that one stays.
    fn renew(&mut self, text: &str, lines: usize) -> io::Result<()> {
        let own = self.file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) != (own.dev(), own.ino()) => {
                return self.append(text, lines);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let ended = lock(&self.ended).clone();
        self.file = write(&self.path, &ended)?;
        self.lines = ended.count;
        Ok(())
    }
}

/// Write the whole list, in place of what is there.
fn write(path: &Path, ended: &Ended) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("out-new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut text = String::new();
    for (container, of) in &ended.of {
        for (mark, expires) in of {
            text.push_str(&Line::of(*container, mark, *expires));
        }
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    std::fs::rename(&new, path)?;
    Ok(file)
}

fn lock(ended: &Mutex<Ended>) -> MutexGuard<'_, Ended> {
    ended.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ended {
    /// Whether it was not there yet.
    fn add(&mut self, container: Id, mark: Mark, expires: u64) -> bool {
        let full = self.count >= OF_ALL;
        let of = self.of.entry(container).or_default();
        if of.iter().any(|(known, _)| *known == mark) {
            return false;
        }
        if of.len() >= OF_ONE || (full && !of.is_empty()) {
            let first = (0..of.len()).min_by_key(|&at| of[at].1);
            if let Some(first) = first {
                of.swap_remove(first);
                self.count -= 1;
            }
        }
        of.push((mark, expires));
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn mark(number: u64) -> Mark {
        let mut mark = Mark::default();
        mark[..8].copy_from_slice(&number.to_be_bytes());
        mark
    }

    #[tokio::test]
    async fn what_has_ended_stays_ended_until_it_would_have_anyway() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("proxy/session.out");
        let (here, there) = (Id([1; 12]), Id([2; 12]));
        let open = |now| SignedOut::open(&path, now).expect("it opens");
        let list = open(NOW);
        list.add(here, mark(1), NOW + 10).await.expect("kept");
        list.add(here, mark(2), NOW + 20).await.expect("kept");
        list.add(here, mark(2), NOW + 20).await.expect("kept");
        for list in [list, open(NOW)] {
            assert!(list.holds(here, &mark(1)) && list.holds(here, &mark(2)));
            assert!(!list.holds(there, &mark(1)) && !list.holds(here, &mark(3)));
        }
        let mode = std::fs::metadata(&path)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            std::fs::read_to_string(&path)
                .expect("text")
                .lines()
                .count(),
            2
        );
        // A write that was cut off, and what is no line at all, take nothing else with them.
        let mut broken = std::fs::read(&path).expect("bytes");
        broken.splice(0..0, b"nonsense\n\xff\xfe\n".iter().copied());
        broken.extend_from_slice(b"{\"container\":\"0101");
        std::fs::write(&path, broken).expect("written");
        let list = open(NOW + 10);
        assert!(!list.holds(here, &mark(1)) && list.holds(here, &mark(2)));
        list.tidy(NOW + 20);
        assert!(!list.holds(here, &mark(2)));
        // What is added afterwards is written afterwards.
        list.add(there, mark(4), NOW + 30).await.expect("kept");
        let text = std::fs::read_to_string(&path).expect("text");
        let line = Line::of(there, &mark(4), NOW + 30);
        assert!(
            !text.is_empty() && text.replace(&line, "").is_empty(),
            "{text}"
        );
        // A file that is lost comes back, and one of a successor's stays.
        std::fs::remove_file(&path).expect("it was there");
        list.add(there, mark(5), NOW + 30).await.expect("kept");
        let successor = open(NOW + 20);
        assert!([4, 5].iter().all(|it| successor.holds(there, &mark(*it))));
        successor.add(there, mark(6), NOW + 60).await.expect("kept");
        list.tidy(NOW + 30);
        list.add(there, mark(7), NOW + 60).await.expect("kept");
        let again = open(NOW + 30);
        assert!([6, 7].iter().all(|it| again.holds(there, &mark(*it))));
    }

    /// Trap: one person who signs in and out again and again would fill the disk.
    #[tokio::test]
    async fn the_file_has_a_bound() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("session.out");
        let list = SignedOut::open(&path, NOW).expect("it opens");
        let here = Id([1; 12]);
        let all = 6 * OF_ONE as u64;
        let mut longest = 0;
        for first in (0..all).step_by(WAITING) {
            let some = first..first + WAITING as u64;
            let some = some.map(|number| list.add(here, mark(number), NOW + 1 + number));
            for kept in futures::future::join_all(some).await {
                kept.expect("kept");
            }
            let text = std::fs::read_to_string(&path).expect("text");
            longest = longest.max(text.lines().count());
        }
        assert!(longest <= 2 * OF_ONE + SPARE_LINES, "{longest} lines");
        assert!(longest > OF_ONE, "it is not written anew for each");
        drop(list);
        let list = SignedOut::open(&path, NOW).expect("it opens");
        for number in 0..all {
            let last = number >= all - OF_ONE as u64;
            assert_eq!(list.holds(here, &mark(number)), last, "{number}");
        }
    }

    /// Trap: a disk that stands still would hold up whoever is signed in.
    #[tokio::test]
    async fn nobody_else_waits_for_the_disk() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("session.out");
        let list = SignedOut::open(&path, NOW).expect("it opens");
        let here = Id([1; 12]);
        // Opening it to write waits for somebody to read.
        std::fs::remove_file(&path).expect("it was there");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).expect("a pipe");
        let mut adding = Box::pin(list.add(here, mark(1), NOW + 10));
        for _ in 0..100 {
            assert!(futures::poll!(&mut adding).is_pending());
            assert!(list.holds(here, &mark(1)) && !list.holds(here, &mark(2)));
            tokio::task::yield_now().await;
        }
        let reader = path.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            let file = File::open(reader).expect("a pipe");
            BufReader::new(file).read_line(&mut line).map(|_| line)
        });
        // A pipe has no disk.
        adding.await.expect_err("it is no file");
        let line = read.await.expect("no panic").expect("a line");
        assert_eq!(line, Line::of(here, &mark(1), NOW + 10));
    }

    #[test]
    fn a_container_ends_its_own_sessions_only() {
        let mut ended = Ended::default();
        assert!(ended.add(Id([2; 12]), mark(0), NOW));
        for number in 0..=OF_ONE as u64 {
            assert!(ended.add(Id([1; 12]), mark(number), NOW + number));
        }
        let of = &ended.of[&Id([1; 12])];
        assert_eq!((of.len(), ended.count), (OF_ONE, OF_ONE + 1));
        assert!(
            !of.contains(&(mark(0), NOW)),
            "the first to run out goes first"
        );
        assert!(of.contains(&(mark(OF_ONE as u64), NOW + OF_ONE as u64)));
        assert_eq!(ended.of[&Id([2; 12])].len(), 1);
    }
}
