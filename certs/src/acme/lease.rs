//! Who works on one certificate, among all processes that share a store.
//!
//! The lock of a file says that its process lives; what is written in the file says the same to
//! machines whose file system does not share locks, until a term ends. Each taking gets a number
//! of its own: what a holder that was taken for dead still writes can be told by it. The file goes
//! with its lease, so that there are never more than things that are worked on.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::clock::seconds;
use crate::{Clock, Error, store};

/// For how long a holder that says nothing is taken to be alive: longer than any one step of an
/// order, each of which extends it.
pub const TERM: Duration = Duration::from_secs(180);
/// How often to take a file that somebody else takes away at the same moment.
const TAKES: usize = 4;
/// What a lease is written in.
const BYTES: usize = 4 << 10;

/// A right to work on one thing alone. Ends with its process, when it is released, and when its
/// term ends.
pub struct Lease {
    file: File,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    text: Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Text {
    /// The machine.
    owner: String,
    fence: u64,
    until: u64,
}

impl Lease {
    /// Take it for `owner`, a machine; nothing where somebody else holds it.
    pub fn take(path: &Path, owner: &str, clock: &Arc<dyn Clock>) -> Result<Option<Lease>, Error> {
        let failed = |source| Error::Lock {
            path: path.to_owned(),
            source,
        };
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(false);
        open.mode(store::PRIVATE);
        let mut taken = None;
        for _ in 0..TAKES {
            let file = open.open(path).map_err(failed)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(failed(errno.into())),
            }
            // Whoever had it took the file away before the lock was free.
            if is_at(&file, path).map_err(failed)? {
                taken = Some(file);
                break;
            }
        }
        let Some(file) = taken else { return Ok(None) };
        // What cannot be read was being written when its machine went down.
        let held = read(&file).map_err(failed)?;
        let now = clock.now();
        if let Some(held) = &held
            && held.owner != owner
            && held.until > seconds(now)
        {
            return Ok(None);
        }
        let lease = Lease {
            file,
            path: path.to_owned(),
            clock: clock.clone(),
            text: Text {
                owner: owner.to_owned(),
                fence: rand::random(),
                until: until(now),
            },
        };
        lease.write(&lease.text)?;
        Ok(Some(lease))
    }

    /// Go on for another term; false where somebody took it for over.
    pub fn extend(&mut self) -> Result<bool, Error> {
        if !self.is_held()? {
            return Ok(false);
        }
        self.text.until = until(self.clock.now());
        self.write(&self.text)?;
        Ok(true)
    }

    /// Whether nobody else has taken it.
    pub fn is_held(&self) -> Result<bool, Error> {
        // By its path: another machine may have put another file there.
        let failed = |source| Error::Lock {
            path: self.path.clone(),
            source,
        };
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(failed)?,
        };
        let held = read(&file).map_err(failed)?;
        Ok(held.is_some_and(|held| held.owner == self.text.owner && held.fence == self.text.fence))
    }

    /// Let others have it.
    pub fn release(self) -> Result<(), Error> {
        // Under its lock: whoever opened the file before finds that it is there no more.
        if self.is_held()?
            && let Err(source) = std::fs::remove_file(&self.path)
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(Error::Write {
                path: self.path,
                source,
            });
        }
        Ok(())
    }

    fn write(&self, text: &Text) -> Result<(), Error> {
        let bytes = serde_json::to_vec(text).expect("a lease is plain JSON");
        let written = self
            .file
            .write_all_at(&bytes, 0)
            .and_then(|()| self.file.set_len(bytes.len() as u64))
            .and_then(|()| self.file.sync_data());
        written.map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })
    }
}

fn until(now: SystemTime) -> u64 {
    seconds(now + TERM)
}

/// Whether this is the file at that path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((open.dev(), open.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn read(file: &File) -> io::Result<Option<Text>> {
    let mut bytes = vec![0; BYTES];
    let mut filled = 0;
    loop {
        match file.read_at(&mut bytes[filled..], filled as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(serde_json::from_slice(&bytes[..filled]).ok())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn clock() -> (Arc<AtomicU64>, Arc<dyn Clock>) {
        let now = Arc::new(AtomicU64::new(1_000_000));
        let hands = now.clone();
        let clock = move || crate::clock::moment(hands.load(Ordering::Relaxed));
        (now, Arc::new(clock))
    }

    #[test]
    fn one_holds_it_until_it_lets_go_or_dies() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lease");
        let (_, clock) = clock();
        let take = |owner| Lease::take(&path, owner, &clock).unwrap();
        let first = take("a").expect("nobody holds it");
        assert!(take("a").is_none(), "nor another process of the machine");
        assert!(take("b").is_none());
        first.release().unwrap();
        assert!(!path.exists(), "nothing is left of it");
        let second = take("b").expect("it was released");
        drop(second); // as with its process
        assert!(take("b").is_some(), "its machine knows that it is dead");
    }

    #[test]
    fn another_machine_waits_for_the_term_to_end_and_fences_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lease");
        let (now, clock) = clock();
        let mut first = Lease::take(&path, "a", &clock).unwrap().unwrap();
        // As on a file system that does not share locks.
        rustix::fs::flock(&first.file, FlockOperation::Unlock).unwrap();
        let take = || Lease::take(&path, "b", &clock).unwrap();
        assert!(take().is_none());
        now.fetch_add(TERM.as_secs() - 1, Ordering::Relaxed);
        assert!(first.extend().unwrap());
        now.fetch_add(TERM.as_secs() - 1, Ordering::Relaxed);
        assert!(take().is_none(), "it was extended");
        now.fetch_add(1, Ordering::Relaxed);
        let second = take().expect("the term has ended");
        assert!(!first.is_held().unwrap());
        assert!(!first.extend().unwrap());
        first.release().unwrap();
        assert!(
            second.is_held().unwrap(),
            "the first takes nothing from the second"
        );
    }

    #[test]
    fn one_at_a_time_holds_it_however_many_take_and_release_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lease");
        let (_, clock) = clock();
        let (holders, taken) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if let Some(lease) = Lease::take(&path, "a", &clock).unwrap() {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                            assert!(lease.is_held().unwrap());
                            holders.fetch_sub(1, Ordering::SeqCst);
                            lease.release().unwrap();
                            taken.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_was_taken_away_is_not_the_one_at_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lease");
        let (_, clock) = clock();
        let first = Lease::take(&path, "a", &clock).unwrap().unwrap();
        let opened = File::open(&path).unwrap();
        assert!(is_at(&opened, &path).unwrap());
        first.release().unwrap();
        assert!(!is_at(&opened, &path).unwrap(), "there is none");
        let _second = Lease::take(&path, "a", &clock).unwrap().unwrap();
        assert!(!is_at(&opened, &path).unwrap(), "there is another");
    }

    #[test]
    fn a_lease_that_was_half_written_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lease");
        let (_, clock) = clock();
        for text in ["", "{\"owner\":\"c\",\"fen", "\0\0\0\0"] {
            std::fs::write(&path, text).unwrap();
            assert!(Lease::take(&path, "a", &clock).unwrap().is_some(), "{text}");
        }
    }
}
