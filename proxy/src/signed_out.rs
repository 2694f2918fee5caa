//! Sessions that somebody has signed out of: a copy of such a cookie opens nothing any more.
//!
//! A cookie is known by the nonce that it was sealed with, which no other has. The list is kept in
//! a file of the proxy's own, and a session is on it until it would have ended anyway.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::NONCE_LEN;
use routes::Id;
use serde::{Deserialize, Serialize};

/// What tells one cookie from all others.
pub type Mark = [u8; NONCE_LEN];

/// Of one container: who has more sessions ended than this within their life has the first of them
/// forgotten. Each takes a sign-in.
const OF_ONE: usize = 1_024;
/// Of all containers: above it a container forgets one of its own for each that is added.
const OF_ALL: usize = 65_536;
/// A line of the file is shorter.
const LINE_BYTES: usize = 256;

#[derive(Debug)]
pub struct SignedOut {
    path: PathBuf,
    ended: Mutex<Ended>,
}

/// By container: each with the second since 1970 in which it would have ended.
#[derive(Debug, Default)]
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
        let signed_out = SignedOut {
            path: path.to_owned(),
            ended: Mutex::new(ended),
        };
        signed_out.write(&signed_out.ended())?;
        Ok(signed_out)
    }

    /// End a session. An error is one of the file: until the proxy ends, the session is over.
    pub fn add(&self, container: Id, mark: Mark, expires: u64) -> io::Result<()> {
        let mut ended = self.ended();
        if !ended.add(container, mark, expires) {
            return Ok(());
        }
        let line = Line::of(container, &mark, expires);
        let mut options = File::options();
        let options = options.append(true).create(true).mode(0o600);
        let mut file = options.open(&self.path)?;
        file.write_all(line.as_bytes())?;
        file.sync_data()
    }

    /// Whether somebody has signed out of it.
    pub fn holds(&self, container: Id, mark: &Mark) -> bool {
        let ended = self.ended();
        let of = ended.of.get(&container);
        of.is_some_and(|of| of.iter().any(|(known, _)| known == mark))
    }

    /// Forget what has run out.
    pub fn tidy(&self, now: u64) -> io::Result<()> {
        let mut ended = self.ended();
        let before = ended.count;
        ended.of.retain(|_, of| {
            of.retain(|(_, expires)| *expires > now);
            !of.is_empty()
        });
        ended.count = ended.of.values().map(Vec::len).sum();
        match ended.count == before {
            true => Ok(()),
            false => self.write(&ended),
        }
    }

    /// Write the whole list, in place of what is there.
    fn write(&self, ended: &Ended) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let new = self.path.with_extension("out-new");
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
        std::fs::rename(&new, &self.path)
    }

    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    #[test]
    fn what_has_ended_stays_ended_until_it_would_have_anyway() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("proxy/session.out");
        let (here, there) = (Id([1; 12]), Id([2; 12]));
        let open = |now| SignedOut::open(&path, now).expect("it opens");
        let list = open(NOW);
        list.add(here, mark(1), NOW + 10).expect("kept");
        list.add(here, mark(2), NOW + 20).expect("kept");
        list.add(here, mark(2), NOW + 20).expect("kept");
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
        list.tidy(NOW + 20).expect("written");
        assert!(!list.holds(here, &mark(2)));
        assert_eq!(std::fs::read_to_string(&path).expect("text"), "");
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
