//! The certificates of one node from its private authority.
//!
//! | names | made |
//! |---|---|
//! | `{domain}`, `api.{domain}`, `*.api.{domain}` | when opened, kept in a file each |
//! | `*.containers.{domain}`, `*.{node}.containers.{domain}` | when opened, kept in a file each |
//! | `*.{P}-{C}-exec-{N}.{node}.containers.{domain}` and below | when first asked for, in memory |
//!
//! The API and the containers have certificates of their own, so that no HTTP/2 client takes a
//! connection to one for a connection to the other (RFC 9113, section 9.1.1).

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, SystemTime};

use lru::LruCache;
use rustls::sign::CertifiedKey;

use crate::authority::{Authority, Flaw, Leaf, RENEW_BEFORE, Texts, read_key};
use crate::resolver::OnDemand;
use crate::store::{self, Lock};
use crate::{Class, Clock, Error, Holding, Holdings, Names, Resolver};

/// Certificates made on demand that are remembered; the one used longest ago goes first. Each is
/// some 2 KiB, and making one again takes a fraction of a handshake.
pub const ON_DEMAND: NonZeroUsize = NonZeroUsize::new(1024).expect("1024 is not zero");
/// How often the background thread looks for what is due. By the wall clock, so that a laptop
/// that slept for a month catches up soon.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);

const KEY: &str = "ca.key";
const CERTIFICATE: &str = "ca.crt";
const LEAVES: &str = "leaf";

/// A private authority and its certificates for one node.
pub struct Local {
    directory: PathBuf,
    authority: Arc<Authority>,
    patterns: Vec<String>,
    leaves: Mutex<Vec<Leaf>>,
    resolver: Arc<Resolver>,
    clock: Arc<dyn Clock>,
}

impl Local {
    /// Where the authority's certificate is in `directory`, for those who shall trust it.
    pub fn certificate_path(directory: &Path) -> PathBuf {
        directory.join(CERTIFICATE)
    }

    /// Open the authority in `directory`, making it where there is none, and have a certificate
    /// for every name of `node` under `domain`. Several processes may do so at once.
    pub fn open_or_create(
        directory: &Path,
        domain: &str,
        node: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Local, Error> {
        store::create_directory(directory, 0o755)?;
        store::create_directory(&directory.join(LEAVES), 0o700)?;
        let _lock = Lock::take(directory)?;
        store::sweep(directory)?;
        store::sweep(&directory.join(LEAVES))?;
        let now = clock.now();
        let authority = Arc::new(open_authority(directory, domain, now)?);
        let patterns = vec![
            domain.to_owned(),
            format!("api.{domain}"),
            format!("*.api.{domain}"),
            format!("*.containers.{domain}"),
            format!("*.{node}.containers.{domain}"),
        ];
        let mut leaves = Vec::with_capacity(patterns.len());
        for pattern in &patterns {
            leaves.push(obtain(directory, &authority, pattern, now)?);
        }
        let below = BelowExec {
            suffix: format!(".{node}.containers.{domain}"),
            authority: authority.clone(),
            clock: clock.clone(),
            made: Mutex::new(LruCache::new(ON_DEMAND)),
        };
        let resolver = Resolver::new(names(&patterns, &leaves)).on_demand(below);
        Ok(Local {
            directory: directory.to_owned(),
            authority,
            patterns,
            leaves: Mutex::new(leaves),
            resolver: Arc::new(resolver),
            clock,
        })
    }

    /// What a TLS listener asks. It follows every renewal.
    pub fn resolver(&self) -> Arc<Resolver> {
        self.resolver.clone()
    }

    /// The certificate of the authority, as a PEM text.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// Replace the certificates that are due; returns how many. New handshakes get the new ones.
    pub fn renew(&self) -> Result<usize, Error> {
        let now = self.clock.now();
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if !leaves.iter().any(|leaf| leaf.is_due(now)) {
            return Ok(0);
        }
        let _lock = Lock::take(&self.directory)?;
        let mut fresh = leaves.clone();
        let mut renewed = 0;
        for (pattern, leaf) in self.patterns.iter().zip(&mut fresh) {
            if leaf.is_due(now) {
                *leaf = obtain(&self.directory, &self.authority, pattern, now)?;
                renewed += 1;
            }
        }
        self.resolver.swap(names(&self.patterns, &fresh));
        *leaves = fresh;
        Ok(renewed)
    }

    /// Renew from a thread of its own for as long as `self` is held by anybody.
    pub fn renew_in_background(self: &Arc<Self>) -> std::io::Result<()> {
        let local = Arc::downgrade(self);
        thread::Builder::new()
            .name("renew-certs".into())
            .spawn(move || keep_renewing(&local))?;
        Ok(())
    }
}

impl Holdings for Local {
    fn holdings(&self) -> Vec<Holding> {
        let leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        self.patterns
            .iter()
            .zip(&*leaves)
            .map(|(pattern, leaf)| Holding {
                names: vec![pattern.clone()],
                class: match pattern.contains("containers.") {
                    true => Class::Node,
                    false => Class::Api,
                },
                mode: "local",
                ends: Some(leaf.ends()),
                renews: Some(leaf.ends() - RENEW_BEFORE),
                error: None,
            })
            .collect()
    }
}

fn keep_renewing(local: &Weak<Local>) {
    loop {
        thread::sleep(RENEWAL_CHECK);
        let Some(local) = local.upgrade() else { return };
        match local.renew() {
            Ok(0) => {}
            Ok(renewed) => tracing::info!("renewed {renewed} certificates"),
            Err(error) => tracing::error!(
                error = crate::chain(&error),
                "could not renew certificates; the old ones stay"
            ),
        }
    }
}

fn names(patterns: &[String], leaves: &[Leaf]) -> Names<Arc<CertifiedKey>> {
    let mut names = Names::default();
    for (pattern, leaf) in patterns.iter().zip(leaves) {
        names.insert(pattern, leaf.certified.clone());
    }
    names
}

/// The authority in `directory`, made where there is none. Under the lock.
fn open_authority(directory: &Path, domain: &str, now: SystemTime) -> Result<Authority, Error> {
    let (key_path, path) = (directory.join(KEY), directory.join(CERTIFICATE));
    let damaged = |path: &Path, what: String| Error::Damaged {
        path: path.to_owned(),
        directory: directory.to_owned(),
        what,
    };
    let key = read_text(&key_path, &damaged)?;
    let certificate = read_text(&path, &damaged)?;
    let texts = match (key, certificate) {
        (Some(key), Some(certificate)) => Texts { key, certificate },
        (None, Some(_)) => return Err(damaged(&key_path, "it is missing".to_owned())),
        // The key is written first: a crash may have come between the two.
        (key, None) => {
            let key = key.map(|pem| read_key(&pem)).transpose();
            let key = key.map_err(|what| damaged(&key_path, what))?;
            let texts = Authority::create(domain, key, now)?;
            store::write(&key_path, texts.key.as_bytes(), store::PRIVATE)?;
            store::write(&path, texts.certificate.as_bytes(), store::PUBLIC)?;
            tracing::info!(
                "made a private certificate authority for {domain}: {}",
                path.display()
            );
            texts
        }
    };
    store::narrow(&key_path)?;
    let authority = Authority::read(&texts, domain).map_err(|flaw| match flaw {
        Flaw::Key(what) => damaged(&key_path, what),
        Flaw::Certificate(what) => damaged(&path, what),
        Flaw::Domain(found) => Error::OtherDomain {
            path: path.clone(),
            directory: directory.to_owned(),
            found: if found.is_empty() {
                "every name".to_owned()
            } else {
                found
            },
            wanted: domain.to_owned(),
        },
    })?;
    if authority.ends() <= now {
        return Err(Error::Ended {
            path,
            directory: directory.to_owned(),
        });
    }
    Ok(authority)
}

fn read_text(
    path: &Path,
    damaged: &dyn Fn(&Path, String) -> Error,
) -> Result<Option<String>, Error> {
    let Some(bytes) = store::read(path)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|_| damaged(path, "it is not text".to_owned()))?;
    Ok(Some(text))
}

/// The kept certificate for `pattern` while it is good, else a new one. Under the lock.
fn obtain(
    directory: &Path,
    authority: &Authority,
    pattern: &str,
    now: SystemTime,
) -> Result<Leaf, Error> {
    let path = directory
        .join(LEAVES)
        .join(format!("{}.pem", pattern.replacen('*', "_", 1)));
    if let Some(bytes) = store::read(&path)? {
        match authority.read_leaf(&String::from_utf8_lossy(&bytes), pattern, now) {
            Ok(leaf) if !leaf.is_due(now) => {
                store::narrow(&path)?;
                return Ok(leaf);
            }
            Ok(_) => {}
            // Nobody has to be told about a new leaf, so a bad one is no reason to stop.
            Err(what) => tracing::warn!("{} is of no use ({what}); made anew", path.display()),
        }
    }
    let leaf = authority.mint(pattern, now)?;
    store::write(&path, leaf.pem().as_bytes(), store::PRIVATE)?;
    Ok(leaf)
}

/// Makes wildcards for the names below a container's scripts, which no standing wildcard covers.
struct BelowExec {
    /// `.{node}.containers.{domain}`
    suffix: String,
    authority: Arc<Authority>,
    clock: Arc<dyn Clock>,
    made: Mutex<LruCache<Box<str>, Leaf>>,
}

impl BelowExec {
    /// What a wildcard for `host` has behind its star, where `host` is below a container's scripts.
    fn parent<'h>(&self, host: &'h str) -> Option<&'h str> {
        let labels = host.strip_suffix(&self.suffix)?;
        let (below, label) = labels.rsplit_once('.')?;
        if !is_exec_label(label) || !below.split('.').all(is_label) {
            return None;
        }
        host.split_once('.').map(|(_, parent)| parent)
    }
}

impl OnDemand for BelowExec {
    fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let parent = self.parent(host)?;
        let now = self.clock.now();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = made.get(parent).filter(|leaf| !leaf.is_due(now)) {
            return Some(leaf.certified.clone());
        }
        drop(made); // two may make the same meanwhile; nobody waits for them
        match self.authority.mint(&format!("*.{parent}"), now) {
            Ok(leaf) => {
                let certified = leaf.certified.clone();
                made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
                made.put(parent.into(), leaf);
                Some(certified)
            }
            Err(error) => {
                tracing::error!(
                    error = crate::chain(&error),
                    "could not make a certificate on demand"
                );
                None
            }
        }
    }
}

/// `{P}-{C}-exec-{N}`: two ids of 24 hexadecimal digits, and an index.
fn is_exec_label(label: &str) -> bool {
    let mut parts = label.split('-');
    let mut is_id = || {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts
            .next()
            .is_some_and(|part| part.len() == 24 && part.bytes().all(is_digit))
    };
    is_id()
        && is_id()
        && parts.next() == Some("exec")
        && parts.next().is_some_and(|index| {
            (1..=5).contains(&index.len()) && index.bytes().all(|byte| byte.is_ascii_digit())
        })
        && parts.next().is_none()
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests;
