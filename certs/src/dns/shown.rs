//! The challenges of a name server in a file, so that whichever process is asked shows them: the
//! one that takes the place of another, and other nodes that share the store.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::zone::Challenges;
use crate::clock::seconds;
use crate::store::{self, Lock};
use crate::{Error, chain};

/// Values that are older were left by a process that died: no order takes as long.
const STALE: u64 = 24 * 3600;
/// The largest file that is read: 1,024 values at names of 255 bytes take half of it.
const FILE_BYTES: u64 = 1 << 20;
/// A file that changed so lately is read whatever its stamp says: the clock of a file system may
/// stand still for as long, and its numbers are used again.
const RACY: Duration = Duration::from_millis(100);

/// By name and value, the second they were shown at.
type Texts = BTreeMap<String, BTreeMap<String, u64>>;

/// What tells one file from the next at the same path.
type Stamp = Option<(u64, SystemTime, u64)>;

/// Where challenges are kept.
pub struct Shown {
    directory: PathBuf,
    path: PathBuf,
    /// Of the file as it was read last.
    seen: Mutex<Stamp>,
}

impl Shown {
    /// Those in a directory, which is made where it is missing.
    pub fn open(directory: &Path) -> Result<Shown, Error> {
        store::create_directory(directory, 0o700)?;
        let _lock = Lock::take(directory)?;
        store::sweep(directory)?;
        Ok(Shown {
            directory: directory.to_owned(),
            path: directory.join("shown.json"),
            seen: Mutex::new(None),
        })
    }

    /// Change what is there, under the lock that all processes share, and return it.
    pub fn change<E: From<Error>>(
        &self,
        now: SystemTime,
        change: impl FnOnce(&mut Challenges) -> Result<bool, E>,
    ) -> Result<Challenges, E> {
        let now = seconds(now);
        let _lock = Lock::take(&self.directory)?;
        let before = self.texts(now)?;
        let mut challenges = plain(&before);
        if change(&mut challenges)? {
            let since = |name: &str, value: &str| {
                let known = before.get(name).and_then(|values| values.get(value));
                known.copied().unwrap_or(now)
            };
            let texts: Texts = challenges
                .iter()
                .map(|(name, values)| {
                    let values = values.iter();
                    let values = values.map(|value| (value.clone(), since(name, value)));
                    (name.clone(), values.collect())
                })
                .collect();
            let bytes = serde_json::to_vec(&texts).expect("texts are plain JSON");
            store::write(&self.path, &bytes, store::PRIVATE)?;
        }
        Ok(challenges)
    }

    /// What is there, where it may have changed since it was read last.
    pub fn changed(&self, now: SystemTime) -> Option<Challenges> {
        let stamp = self.stamp();
        let is_racy = stamp.is_some_and(|(_, changed, _)| {
            // Also where it seems to have changed in the future: the clock was set.
            changed.elapsed().map_or(true, |age| age < RACY)
        });
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamp && !is_racy {
            return None;
        }
        match self.texts(seconds(now)) {
            Ok(texts) => {
                *seen = stamp;
                Some(plain(&texts))
            }
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "could not read which challenges are shown"
                );
                None
            }
        }
    }

    fn stamp(&self) -> Stamp {
        let facts = std::fs::metadata(&self.path).ok()?;
        Some((facts.ino(), facts.modified().ok()?, facts.len()))
    }

    fn texts(&self, now: u64) -> Result<Texts, Error> {
        let length = std::fs::metadata(&self.path).map_or(0, |facts| facts.len());
        let bytes = match length {
            0 => None,
            _ if length > FILE_BYTES => Some(Vec::new()),
            _ => store::read(&self.path)?,
        };
        let Some(bytes) = bytes else {
            return Ok(Texts::new());
        };
        let mut texts: Texts = serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!("{} is of no use ({error}); made anew", self.path.display());
            Texts::new()
        });
        for values in texts.values_mut() {
            values.retain(|_, since| since.saturating_add(STALE) > now);
        }
        texts.retain(|_, values| !values.is_empty());
        Ok(texts)
    }
}

fn plain(texts: &Texts) -> Challenges {
    let values = |values: &BTreeMap<String, u64>| values.keys().cloned().collect();
    texts
        .iter()
        .map(|(name, of_name)| (name.clone(), values(of_name)))
        .collect()
}
