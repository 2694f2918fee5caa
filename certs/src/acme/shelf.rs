//! What is kept of one directory, in files that several processes and nodes may share.
//!
//! ```text
//! {store}/{host}-{digest}/   one for each directory: staging and production stay apart
//!   account.json             its key, 0600 like all of them
//!   certificates/{name}.pem  key and chain
//!   certificates/{name}.json when it is renewed, what failed last
//!   orders/{name}.json       an order under way: where it is, its key, what was shown for it
//!   challenges/…             answers to HTTP-01 and TLS-ALPN-01, for whichever node is asked
//!   leases/{name}            who works on it
//!   issuers.json             who certifies, as the directory says
//!   budget.json              orders of the last week for domains of others
//! ```

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::issuers::Issuers;
use super::plan::{Budget, Window};
use crate::clock::seconds;
use crate::store::{self, Lock};
use crate::{Class, Error};

/// The longest name that a certificate is kept under; file names have 255 bytes.
pub const NAME_BYTES: usize = 240;
/// What is spent for domains of others.
pub const BUDGET: &str = "budget.json";
/// Answers to challenges that are older were left by a process that died.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// What is known of one certificate beside the certificate itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub names: Vec<String>,
    pub class: Class,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<u64>,
    /// When the directory wants it replaced, and when to ask about that again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    #[serde(default)]
    pub ask_window: u64,
    /// Failures in a row, and what came of them.
    #[serde(default)]
    pub failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Record {
    pub fn new(names: Vec<String>, class: Class) -> Record {
        Record {
            names,
            class,
            renews: None,
            window: None,
            ask_window: 0,
            failures: 0,
            next_try: None,
            error: None,
        }
    }
}

/// An order under way, so that it survives its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub url: String,
    /// The account it is of.
    pub account: String,
    /// The key of the certificate to come.
    pub key: String,
    pub names: Vec<String>,
    /// TXT records that were shown, by name and value.
    #[serde(default)]
    pub shown: Vec<(String, String)>,
    /// Answers that were laid out on the shelf.
    #[serde(default)]
    pub laid: Vec<String>,
}

/// Which files a certificate's are: each is written anew as a whole.
pub type Stamp = [Option<(u64, SystemTime)>; 2];

/// The files of one directory.
#[derive(Debug, Clone)]
pub struct Shelf {
    root: PathBuf,
}

impl Shelf {
    pub fn open(store: &Path, directory: &str) -> Result<Shelf, Error> {
        let host = directory.split_once("://").map_or(directory, |it| it.1);
        let host: String = host
            .split('/')
            .next()
            .unwrap_or_default()
            .chars()
            .map(|letter| match letter {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => letter,
                _ => '_',
            })
            .take(100)
            .collect();
        let digest = hex::encode(&Sha256::digest(directory)[..4]);
        let shelf = Shelf {
            root: store.join(format!("{host}-{digest}")),
        };
        store::create_directory(&shelf.root, 0o700)?;
        for name in ["certificates", "orders", "challenges", "leases"] {
            store::create_directory(&shelf.root.join(name), 0o700)?;
        }
        let _lock = Lock::take(&shelf.root)?;
        for name in ["", "certificates", "orders", "challenges"] {
            store::sweep(&shelf.root.join(name))?;
        }
        Ok(shelf)
    }

    /// The name under which the certificate for a set of names is kept.
    pub fn slug(names: &[String]) -> String {
        names
            .first()
            .map_or_else(String::new, |name| name.replace('*', "_"))
    }

    pub fn lease(&self, slug: &str) -> PathBuf {
        self.root.join("leases").join(slug)
    }

    /// One account; nothing where there is none. Another version of this program may have written
    /// what cannot be read, so that it is not overwritten in passing.
    pub fn account<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let path = self.root.join("account.json");
        let Some(bytes) = store::read(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::NoAccount { path, source })
    }

    pub fn put_account(&self, account: &impl Serialize) -> Result<(), Error> {
        self.put(&self.root.join("account.json"), account)
    }

    /// Lay aside an account that its directory does not know any more.
    pub fn lose_account(&self) -> Result<(), Error> {
        let path = self.root.join("account.json");
        let _lock = Lock::take(&self.root)?;
        fs::rename(&path, path.with_extension("json.lost"))
            .map_err(|source| Error::Write { path, source })
    }

    /// The names of all certificates that there are records of.
    pub fn slugs(&self) -> Result<Vec<String>, Error> {
        let directory = self.root.join("certificates");
        let failed = |source| Error::Read {
            path: directory.clone(),
            source,
        };
        let mut slugs = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(slug) = name.to_str().and_then(|name| name.strip_suffix(".json")) {
                slugs.push(slug.to_owned());
            }
        }
        slugs.sort_unstable();
        Ok(slugs)
    }

    /// What is known of a certificate. A damaged record says no more than none: what it holds is
    /// found out again.
    pub fn record(&self, slug: &str) -> Result<Option<Record>, Error> {
        self.get(&self.certificate(slug, "json"))
    }

    pub fn put_record(&self, slug: &str, record: &Record) -> Result<(), Error> {
        self.put(&self.certificate(slug, "json"), record)
    }

    /// Key and chain.
    pub fn pair(&self, slug: &str) -> Result<Option<Vec<u8>>, Error> {
        store::read(&self.certificate(slug, "pem"))
    }

    pub fn put_pair(&self, slug: &str, pem: &str) -> Result<(), Error> {
        let _lock = Lock::take(&self.root)?;
        store::write(
            &self.certificate(slug, "pem"),
            pem.as_bytes(),
            store::PRIVATE,
        )
    }

    pub fn remove(&self, slug: &str) -> Result<(), Error> {
        let _lock = Lock::take(&self.root)?;
        for kind in ["pem", "json"] {
            remove(&self.certificate(slug, kind))?;
        }
        Ok(())
    }

    /// A mark that changes with the certificate's files.
    pub fn stamp(&self, slug: &str) -> Stamp {
        ["pem", "json"].map(|kind| {
            let facts = fs::metadata(self.certificate(slug, kind)).ok()?;
            Some((facts.ino(), facts.modified().ok()?))
        })
    }

    fn certificate(&self, slug: &str, kind: &str) -> PathBuf {
        self.root
            .join("certificates")
            .join(format!("{slug}.{kind}"))
    }

    pub fn pending(&self, slug: &str) -> Result<Option<Pending>, Error> {
        self.get(&self.order(slug))
    }

    pub fn put_pending(&self, slug: &str, pending: &Pending) -> Result<(), Error> {
        self.put(&self.order(slug), pending)
    }

    pub fn drop_pending(&self, slug: &str) -> Result<(), Error> {
        let _lock = Lock::take(&self.root)?;
        remove(&self.order(slug))
    }

    /// Every order under way, and the second it was written down at.
    pub fn orders(&self) -> Result<Vec<(String, u64)>, Error> {
        let directory = self.root.join("orders");
        let failed = |source| Error::Read {
            path: directory.clone(),
            source,
        };
        let mut orders = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let slug = name.to_str().and_then(|name| name.strip_suffix(".json"));
            if let Some(slug) = slug
                && let Some(changed) = self.order_changed(slug)
            {
                orders.push((slug.to_owned(), changed));
            }
        }
        Ok(orders)
    }

    pub fn order_changed(&self, slug: &str) -> Option<u64> {
        let facts = fs::metadata(self.order(slug)).ok()?;
        Some(seconds(facts.modified().ok()?))
    }

    /// Leases of which nothing was heard since that second.
    pub fn leases_before(&self, second: u64) -> Result<Vec<PathBuf>, Error> {
        let directory = self.root.join("leases");
        let failed = |source| Error::Read {
            path: directory.clone(),
            source,
        };
        let mut leases = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let changed = fs::metadata(&path).and_then(|facts| facts.modified());
            if changed.is_ok_and(|changed| seconds(changed) < second) {
                leases.push(path);
            }
        }
        Ok(leases)
    }

    pub fn issuers(&self) -> Result<Option<Issuers>, Error> {
        self.get(&self.root.join("issuers.json"))
    }

    pub fn put_issuers(&self, issuers: &Issuers) -> Result<(), Error> {
        self.put(&self.root.join("issuers.json"), issuers)
    }

    fn order(&self, slug: &str) -> PathBuf {
        self.root.join("orders").join(format!("{slug}.json"))
    }

    pub fn budget(&self) -> Result<Budget, Error> {
        Ok(self.get(&self.root.join(BUDGET))?.unwrap_or_default())
    }

    /// Change one JSON file under the lock of the shelf.
    pub fn change<T, R>(&self, name: &str, change: impl FnOnce(&mut T) -> R) -> Result<R, Error>
    where
        T: Default + Serialize + DeserializeOwned,
    {
        let path = self.root.join(name);
        let _lock = Lock::take(&self.root)?;
        let mut value = self.get(&path)?.unwrap_or_default();
        let result = change(&mut value);
        let bytes = serde_json::to_vec(&value).expect("what is kept is plain JSON");
        store::write(&path, &bytes, store::PRIVATE)?;
        Ok(result)
    }

    fn get<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, Error> {
        let Some(bytes) = store::read(path)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                tracing::warn!("{} is of no use ({error}); made anew", path.display());
                Ok(None)
            }
        }
    }

    fn put(&self, path: &Path, value: &impl Serialize) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(value).expect("what is kept is plain JSON");
        let _lock = Lock::take(&self.root)?;
        store::write(path, &bytes, store::PRIVATE)
    }

    pub fn challenges(&self) -> Challenges {
        Challenges {
            directory: self.root.join("challenges"),
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Answers for a directory that asks whether a name is ours. They are on disk, because whichever
/// node of those that share the store may be the one that is asked.
#[derive(Debug, Clone)]
pub struct Challenges {
    directory: PathBuf,
}

/// An answer to HTTP-01.
#[derive(Serialize, Deserialize)]
struct Http01 {
    name: String,
    authorization: String,
}

impl Challenges {
    /// The answer to a request of `host` for `/.well-known/acme-challenge/{token}` (RFC 8555,
    /// section 8.3), where we asked for it.
    pub fn http(&self, host: &str, token: &str) -> Option<String> {
        if !is_token(token) {
            return None;
        }
        let bytes = fs::read(self.directory.join(format!("http-{token}"))).ok()?;
        let answer: Http01 = serde_json::from_slice(&bytes).ok()?;
        (answer.name == host).then_some(answer.authorization)
    }

    /// The certificate for a handshake that asks for `host` by `acme-tls/1` alone (RFC 8737).
    pub fn alpn(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        if !is_name(host) {
            return None;
        }
        let text = fs::read_to_string(self.directory.join(format!("alpn-{host}"))).ok()?;
        let digest = hex::decode(text.trim()).ok()?;
        let made = (digest.len() == 32).then(|| self.mint(host, &digest))?;
        made.inspect_err(|error| tracing::error!(%error, "could not answer TLS-ALPN-01"))
            .ok()
    }

    fn mint(&self, host: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let certificate = params.self_signed(&key)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key =
            ring::sign::any_supported_type(&key).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok(Arc::new(CertifiedKey::new(
            vec![certificate.der().clone()],
            key,
        )))
    }

    /// Lay out an answer to HTTP-01; returns what to take away later.
    pub(super) fn lay_http(
        &self,
        name: &str,
        token: &str,
        authorization: &str,
    ) -> Result<String, Error> {
        let answer = Http01 {
            name: name.to_owned(),
            authorization: authorization.to_owned(),
        };
        let bytes = serde_json::to_vec(&answer).expect("an answer is plain JSON");
        self.lay(format!("http-{token}"), &bytes)
    }

    pub(super) fn lay_alpn(&self, name: &str, digest: &[u8]) -> Result<String, Error> {
        self.lay(format!("alpn-{name}"), hex::encode(digest).as_bytes())
    }

    fn lay(&self, file: String, bytes: &[u8]) -> Result<String, Error> {
        let _lock = Lock::take(self.directory.parent().unwrap_or(&self.directory))?;
        store::write(&self.directory.join(&file), bytes, store::PRIVATE)?;
        Ok(file)
    }

    pub(super) fn take_away(&self, file: &str) -> Result<(), Error> {
        let is_plain = !file.contains('/') && file != "..";
        match is_plain {
            true => remove(&self.directory.join(file)),
            false => Ok(()),
        }
    }

    /// Take away what dead processes left.
    pub(super) fn sweep(&self) -> Result<(), Error> {
        let failed = |source| Error::Read {
            path: self.directory.clone(),
            source,
        };
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let changed = fs::metadata(&path).and_then(|facts| facts.modified());
            let age = changed.ok().and_then(|changed| changed.elapsed().ok());
            if age.is_some_and(|age| age > STALE) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Whether this is a token as directories make them (RFC 8555, section 8.1), and no path.
pub(super) fn is_token(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether this is a hostname in lower case that can be kept under its own name.
pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES).contains(&text.len())
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        })
}
