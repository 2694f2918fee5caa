//! Keys of the node, made on the first run and kept where only their owner reads them.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use rand::Rng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

const LENGTH: usize = 32;

/// The keys of a node.
#[derive(Clone)]
pub struct Secrets {
    /// Signs the tokens of sessions (HMAC-SHA-256).
    pub session: [u8; LENGTH],
    /// Signs what others verify with the public key (Ed25519).
    pub signing: SigningKey,
    /// Seals what the database keeps of others' secrets (AES-256-GCM).
    pub sealing: [u8; LENGTH],
}

#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("could not make the directory of keys {path}")]
    MakeDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not read the key {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not write the key {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the key {path} has {found} bytes instead of 32; remove it to have a new one made")]
    Length { path: PathBuf, found: usize },
}

impl Secrets {
    /// Read the keys in `directory`, and make those that are missing.
    pub fn open(directory: &Path) -> Result<Secrets, SecretsError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| SecretsError::MakeDirectory {
                path: directory.to_owned(),
                source,
            })?;
        Ok(Secrets {
            session: key(&directory.join("session.key"))?,
            signing: SigningKey::from_bytes(&key(&directory.join("signing.key"))?),
            sealing: key(&directory.join("sealing.key"))?,
        })
    }

    /// Keys that nobody keeps.
    pub fn passing() -> Secrets {
        Secrets {
            session: fresh(),
            signing: SigningKey::from_bytes(&fresh()),
            sealing: fresh(),
        }
    }

    /// Seal a secret; it opens under the same `label` alone, so that it cannot be moved to another
    /// place. A nonce of 96 random bits stands before it.
    pub fn seal(&self, label: &str, secret: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rand::rng().fill(&mut nonce);
        let mut sealed = secret.to_vec();
        let aad = Aad::from(label.as_bytes());
        self.cipher()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .expect("secrets are shorter than 64 GiB");
        [&nonce[..], &sealed].concat()
    }

    /// The secret that was sealed under this label; none where it was not, or not with this key.
    pub fn unseal(&self, label: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = sealed.to_vec();
        let aad = Aad::from(label.as_bytes());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let secret = self.cipher().open_in_place(nonce, aad, &mut bytes).ok()?;
        Some(secret.to_vec())
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.sealing).expect("the key has 32 bytes");
        LessSafeKey::new(key)
    }

    /// The name of the signing key: the beginning of the hash of its public half.
    pub fn key_id(&self) -> String {
        hex::encode(&Sha256::digest(self.signing.verifying_key().as_bytes())[..8])
    }
}

fn fresh() -> [u8; LENGTH] {
    let mut bits = [0; LENGTH];
    rand::rng().fill(&mut bits);
    bits
}

fn key(path: &Path) -> Result<[u8; LENGTH], SecretsError> {
    let read = |source| SecretsError::Read {
        path: path.to_owned(),
        source,
    };
    match std::fs::read(path) {
        Ok(bits) => {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(read)?;
            bits.try_into()
                .map_err(|bits: Vec<u8>| SecretsError::Length {
                    path: path.to_owned(),
                    found: bits.len(),
                })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(path),
        Err(error) => Err(read(error)),
    }
}

/// Written beside and linked into place, so that a crash leaves no half key and two processes that
/// start at once end with the same one.
fn make(path: &Path) -> Result<[u8; LENGTH], SecretsError> {
    let write = |source| SecretsError::Write {
        path: path.to_owned(),
        source,
    };
    let bits = fresh();
    let beside = path.with_extension(format!("new-{}", crate::words::url_safe(8)));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(write)?;
    let linked = file
        .write_all(&bits)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&beside, path));
    std::fs::remove_file(&beside).map_err(write)?;
    match linked {
        Ok(()) => Ok(bits),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => key(path),
        Err(error) => Err(write(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("secrets");
        let first = Secrets::open(&at).unwrap();
        let second = Secrets::open(&at).unwrap();
        assert_eq!(first.session, second.session);
        assert_eq!(first.key_id(), second.key_id());
        for file in std::fs::read_dir(&at).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(
            std::fs::metadata(&at).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn a_damaged_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("session.key"), b"short").unwrap();
        assert!(matches!(
            Secrets::open(directory.path()),
            Err(SecretsError::Length { found: 5, .. })
        ));
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let secrets = Secrets::passing();
        let sealed = secrets.seal("here", b"hush");
        assert_ne!(sealed, secrets.seal("here", b"hush"));
        assert!(!sealed.windows(4).any(|part| part == b"hush"));
        assert_eq!(secrets.unseal("here", &sealed).unwrap(), b"hush");
        assert_eq!(secrets.unseal("there", &sealed), None);
        assert_eq!(Secrets::passing().unseal("here", &sealed), None);
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(secrets.unseal("here", &changed), None);
        assert_eq!(secrets.unseal("here", &sealed[..5]), None);
    }
}
