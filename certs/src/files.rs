//! Certificates that somebody else makes and puts into a directory.
//!
//! | in the directory | read as |
//! |---|---|
//! | `NAME.crt` or `NAME.pem`, beside `NAME.key` | chain and key |
//! | `NAME.pem` alone | both in one |
//! | `NAME/fullchain.pem` and `NAME/privkey.pem` | chain and key, as certbot lays them |
//!
//! Which hosts a certificate is for stands in it. Where two are for the same name, the one that
//! ends later is shown. The directory is looked at again and again; what cannot be read leaves
//! what was read before in place, and says so once. Of more entries than a bound, the rest is not
//! read, which is said, too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::pair::Pair;
use crate::resolver::OnDemand;
use crate::{Class, Clock, Error, Holding, Holdings, Names, Resolver};

/// Between two looks at the directory. Whoever replaces chain and key does so in two steps, and a
/// pair that does not match is tried again with the next look.
pub const LOOK: Duration = Duration::from_secs(5);
/// Entries of the directory that are looked at: one certificate for each of many customers.
const MOST: usize = 10_000;
/// The largest file that is read: a chain takes some 10 KiB.
const FILE_BYTES: u64 = 1 << 20;

/// The certificates of a directory.
pub struct Files {
    directory: PathBuf,
    resolver: Arc<Resolver>,
    clock: Arc<dyn Clock>,
    kept: Mutex<BTreeMap<PathBuf, Kept>>,
    /// Entries that are looked at.
    most: usize,
    /// Whether there are more.
    is_full: AtomicBool,
}

/// What is known of one certificate's files.
struct Kept {
    /// Of the last texts that were read, good or bad.
    digest: [u8; 32],
    pair: Option<Pair>,
    error: Option<String>,
}

/// Where one certificate is.
struct Place {
    chain: PathBuf,
    key: PathBuf,
}

impl Files {
    /// Read the certificates of `directory`, which has to be there. `beneath` is asked for names
    /// that none of them is for.
    pub fn open(
        directory: &Path,
        clock: Arc<dyn Clock>,
        beneath: impl OnDemand + 'static,
    ) -> Result<Files, Error> {
        Files::open_with(directory, clock, beneath, MOST)
    }

    fn open_with(
        directory: &Path,
        clock: Arc<dyn Clock>,
        beneath: impl OnDemand + 'static,
        most: usize,
    ) -> Result<Files, Error> {
        let files = Files {
            directory: directory.to_owned(),
            resolver: Arc::new(Resolver::new(Names::default()).on_demand(beneath)),
            clock,
            kept: Mutex::default(),
            most,
            is_full: AtomicBool::new(false),
        };
        files.look()?;
        Ok(files)
    }

    /// What a TLS listener asks. It follows every change.
    pub fn resolver(&self) -> Arc<Resolver> {
        self.resolver.clone()
    }

    /// Look at the directory; whether anything was read anew.
    pub fn look(&self) -> Result<bool, Error> {
        let (places, is_full) = places(&self.directory, self.most)?;
        if is_full && !self.is_full.swap(is_full, Ordering::Relaxed) {
            tracing::error!("{}", self.too_many());
        }
        self.is_full.store(is_full, Ordering::Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.len();
        kept.retain(|chain, _| places.iter().any(|place| place.chain == *chain));
        let mut changed = kept.len() != before;
        for place in places {
            changed |= self.read(&mut kept, place);
        }
        if changed {
            self.resolver.swap(names(&kept));
        }
        Ok(changed)
    }

    /// Read one certificate where its files changed.
    fn read(&self, kept: &mut BTreeMap<PathBuf, Kept>, place: Place) -> bool {
        let texts = text(&place.chain).and_then(|chain| Ok((chain, text(&place.key)?)));
        let (digest, read) = match &texts {
            Ok((chain, key)) => {
                let mut hash = Sha256::new();
                hash.update((chain.len() as u64).to_be_bytes());
                hash.update(chain);
                hash.update(key);
                (hash.finalize().into(), Pair::read(chain, key))
            }
            Err(why) => (Sha256::digest(why).into(), Err(why.clone())),
        };
        let known = kept.get(&place.chain);
        if known.is_some_and(|known| known.digest == digest) {
            return false;
        }
        let shown = place.chain.display();
        let old = known.and_then(|known| known.pair.clone());
        let (pair, error) = match read {
            Ok(pair) => {
                if pair.ends <= self.clock.now() {
                    tracing::warn!("the certificate {shown} has ended");
                }
                tracing::info!("read the certificate {shown} for {}", pair.names.join(", "));
                (Some(pair), None)
            }
            Err(why) => {
                let rest = if old.is_some() {
                    "; the one that was read before stays"
                } else {
                    ""
                };
                tracing::error!("the certificate {shown} is of no use: {why}{rest}");
                (old, Some(why))
            }
        };
        kept.insert(
            place.chain,
            Kept {
                digest,
                pair,
                error,
            },
        );
        true
    }

    fn too_many(&self) -> String {
        format!(
            "{} has more than {} entries; the certificates in the others are not read, so move \
             away what is none, or give them to several nodes",
            self.directory.display(),
            self.most
        )
    }

    /// Look from a thread of its own for as long as `self` is held by anybody.
    pub fn look_in_background(self: &Arc<Self>) -> std::io::Result<()> {
        let files = Arc::downgrade(self);
        thread::Builder::new()
            .name("watch-certs".into())
            .spawn(move || keep_looking(&files))?;
        Ok(())
    }
}

fn keep_looking(files: &Weak<Files>) {
    let mut told = None;
    loop {
        thread::sleep(LOOK);
        let Some(files) = files.upgrade() else { return };
        let failed = files.look().err().map(|error| crate::chain(&error));
        if failed != told {
            if let Some(error) = &failed {
                tracing::error!(error, "could not look for certificates; the old ones stay");
            }
            told = failed;
        }
    }
}

impl Holdings for Files {
    fn holdings(&self) -> Vec<Holding> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = self.is_full.load(Ordering::Relaxed).then(|| Holding {
            names: vec![self.directory.display().to_string()],
            class: Class::File,
            mode: "files",
            ends: None,
            renews: None,
            error: Some(self.too_many()),
        });
        kept.iter()
            .map(|(path, kept)| Holding {
                names: match &kept.pair {
                    Some(pair) => pair.names.clone(),
                    None => vec![path.display().to_string()],
                },
                class: Class::File,
                mode: "files",
                ends: kept.pair.as_ref().map(|pair| pair.ends),
                renews: None,
                error: kept.error.clone(),
            })
            .chain(left_out)
            .collect()
    }
}

fn names(kept: &BTreeMap<PathBuf, Kept>) -> Names<Arc<rustls::sign::CertifiedKey>> {
    let mut pairs: Vec<&Pair> = kept
        .values()
        .filter_map(|kept| kept.pair.as_ref())
        .collect();
    pairs.sort_by_key(|pair| pair.ends);
    let mut names = Names::default();
    for pair in pairs {
        for name in &pair.names {
            names.insert(name, pair.certified.clone());
        }
    }
    names
}

/// The certificates among the first `most` entries, and whether there are more.
fn places(directory: &Path, most: usize) -> Result<(Vec<Place>, bool), Error> {
    let failed = |source| Error::Read {
        path: directory.to_owned(),
        source,
    };
    let mut found = Vec::new();
    let mut entries = fs::read_dir(directory).map_err(failed)?;
    for entry in entries.by_ref().take(most) {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            let (chain, key) = (path.join("fullchain.pem"), path.join("privkey.pem"));
            if chain.exists() || key.exists() {
                found.push(Place { chain, key });
            }
            continue;
        }
        let kind = path.extension().and_then(|kind| kind.to_str());
        let key = path.with_extension("key");
        match kind {
            Some("crt") => found.push(Place { chain: path, key }),
            Some("pem") if key.exists() => found.push(Place { chain: path, key }),
            Some("pem") => found.push(Place {
                key: path.clone(),
                chain: path,
            }),
            _ => {}
        }
    }
    Ok((found, entries.next().is_some()))
}

fn text(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("could not read {}: {error}", path.display());
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES {
        return Err(format!(
            "{} has {bytes} bytes; at most {FILE_BYTES} are read",
            path.display()
        ));
    }
    fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests;
