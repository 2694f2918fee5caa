//! What the proxy remembers about somebody who has signed in: a cookie that it alone can read and
//! write.
//!
//! The cookie says which gates were opened, by their fingerprints, and by whom. Whether that is
//! enough is decided anew for every request: a gate that changes has another fingerprint, a group
//! that loses a program has lost it at once. It is sealed for one service of one container and
//! means nothing anywhere else.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use routes::access::Proof;
use routes::{Id, Zone};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::{error, info};

use crate::signed_out::{Mark, SignedOut};

/// How long a sign-in is good for.
pub const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A key seals for this long, and opens for as long as what it sealed may live.
const KEY_SEALS: u64 = 7 * 24 * 3600;
const KEY_OPENS: u64 = KEY_SEALS + LIFE.as_secs();
/// Keys at once: each seals for a week, and lives two.
const KEYS: usize = 4;
/// Gates that one session remembers.
const PROOFS: usize = 16;
/// Of a user name, what a session remembers.
const USER_BYTES: usize = 64;
/// A longer cookie is not one of the proxy's: browsers keep none of more than 4 KiB.
const COOKIE_BYTES: usize = 4 << 10;
/// Cookies of the right name that are looked at: another origin of the same site may have put
/// some there.
const COOKIES: usize = 8;

/// What a cookie says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Seconds since 1970.
    #[serde(rename = "e")]
    pub expires: u64,
    /// Fingerprints of gates that were opened, with the name that was used.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<(Id, Option<String>)>,
    /// A signed link, which is checked every time.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

impl Session {
    pub fn new(proofs: &[Proof], expires: u64) -> Session {
        let kept = proofs.iter().rev().take(PROOFS).map(|proof| {
            let user = proof.user.as_ref().map(|user| {
                let end = (0..=USER_BYTES.min(user.len()))
                    .rev()
                    .find(|&at| user.is_char_boundary(at));
                user[..end.unwrap_or(0)].to_owned()
            });
            (Id(proof.gate.0), user)
        });
        Session {
            expires,
            proofs: kept.collect(),
            link: None,
        }
    }
}

/// What a session is for: it opens nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub container: Id,
    pub service: &'a str,
    pub instance: u32,
}

impl Scope<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"hoody session 1\0".to_vec();
        bytes.extend_from_slice(&self.container.0);
        bytes.extend_from_slice(&self.instance.to_be_bytes());
        bytes.extend_from_slice(self.service.as_bytes());
        bytes
    }
}

/// The keys that seal sessions, kept in a file of the proxy's own.
pub struct Keys {
    path: PathBuf,
    keys: ArcSwap<Vec<Key>>,
    random: SystemRandom,
    signed_out: SignedOut,
    /// Of the cookie, over TLS and over plain HTTP.
    names: [String; 2],
}

struct Key {
    kept: Kept,
    sealing: LessSafeKey,
}

#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    /// Seconds since 1970.
    made: u64,
    secret: String,
}

/// The keys could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("could not keep the keys of sessions in {path}")]
pub struct KeepKeys {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Keys {
    /// Take up the keys in this file, and make one where none is young enough.
    pub fn open(path: &Path, zone: &Zone, now: u64) -> Result<Keys, KeepKeys> {
        // Another zone on the same names must not meet these cookies.
        let digest = Sha256::digest(format!(
            "{}\0{}\0{}",
            zone.api(),
            zone.containers(),
            zone.node()
        ));
        let mark: String = digest[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let signed_out = SignedOut::open(&path.with_extension("out"), now);
        let keys = Keys {
            signed_out: signed_out.map_err(|source| KeepKeys {
                path: path.with_extension("out"),
                source,
            })?,
            path: path.to_owned(),
            keys: ArcSwap::from_pointee(Vec::new()),
            random: SystemRandom::new(),
            names: [format!("__Host-hoody-{mark}"), format!("hoody_{mark}")],
        };
        keys.renew(now)?;
        Ok(keys)
    }

    /// Make a new key where the newest has sealed for long enough, and forget what has run out.
    pub fn renew(&self, now: u64) -> Result<(), KeepKeys> {
        let failed = |source| KeepKeys {
            path: self.path.clone(),
            source,
        };
        let mut kept: Vec<Kept> = match std::fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                error!(%error, "the keys of sessions are broken; everybody signs in again");
                Vec::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(failed(source)),
        };
        kept.retain(|key| {
            key.secret().is_some()
                && key.made.saturating_add(KEY_OPENS) > now
                && key.made <= now + KEY_SEALS
        });
        kept.sort_by_key(|key| std::cmp::Reverse(key.made));
        if kept
            .first()
            .is_none_or(|key| key.made.saturating_add(KEY_SEALS) <= now)
        {
            let mut secret = [0; 32];
            self.random
                .fill(&mut secret)
                .map_err(|_| failed(io::Error::other("the system has no randomness")))?;
            let secret = URL_SAFE_NO_PAD.encode(secret);
            kept.insert(0, Kept { made: now, secret });
            kept.truncate(KEYS);
            keep(&kept, &self.path).map_err(failed)?;
            info!("made a new key for sessions");
        }
        let keys = kept.into_iter().filter_map(|kept| {
            let key = UnboundKey::new(&AES_256_GCM, &kept.secret()?).ok()?;
            Some(Key {
                kept,
                sealing: LessSafeKey::new(key),
            })
        });
        self.keys.store(std::sync::Arc::new(keys.collect()));
        self.signed_out.tidy(now);
        Ok(())
    }

    /// The name of the cookie.
    pub fn name(&self, secure: bool) -> &str {
        &self.names[usize::from(!secure)]
    }

    pub fn seal(&self, session: &Session, scope: Scope<'_>) -> Option<String> {
        let keys = self.keys.load();
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut text = serde_json::to_vec(session).expect("a session is JSON");
        keys.first()?
            .sealing
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(scope.bytes()),
                &mut text,
            )
            .ok()?;
        let sealed = [&nonce[..], &text].concat();
        let cookie = URL_SAFE_NO_PAD.encode(sealed);
        (cookie.len() <= COOKIE_BYTES).then_some(cookie)
    }

    /// The session in the first of these cookies that is one of this scope and has not expired.
    pub fn unseal<'c>(
        &self,
        cookies: impl Iterator<Item = &'c str>,
        scope: Scope<'_>,
        now: u64,
    ) -> Option<Session> {
        let keys = self.keys.load();
        cookies.take(COOKIES).find_map(|cookie| {
            let (mark, session) = unseal(&keys, cookie, scope)?;
            let over = session.expires <= now || self.signed_out.holds(scope.container, &mark);
            (!over).then_some(session)
        })
    }

    /// End the sessions in these cookies: copies of them open nothing any more.
    pub async fn sign_out<'c>(
        &self,
        cookies: impl Iterator<Item = &'c str>,
        scope: Scope<'_>,
        now: u64,
    ) {
        let opened: Vec<(Mark, Session)> = {
            let keys = self.keys.load();
            let cookies = cookies.take(COOKIES);
            cookies.filter_map(|it| unseal(&keys, it, scope)).collect()
        };
        for (mark, session) in opened {
            if session.expires <= now {
                continue;
            }
            let kept = self.signed_out.add(scope.container, mark, session.expires);
            if let Err(error) = kept.await {
                error!(%error, "could not keep that somebody has signed out");
            }
        }
    }

    /// The line that sets the cookie, or with no value takes it away.
    pub fn set_cookie(&self, value: Option<(&str, u64)>, secure: bool) -> String {
        let name = self.name(secure);
        let (value, age) = value.unwrap_or(("", 0));
        // In a frame on another site, a cookie is kept apart for that site, and only over TLS.
        let rest = match secure {
            true => "Secure; SameSite=None; Partitioned",
            false => "SameSite=Lax",
        };
        format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; {rest}")
    }
}

impl Kept {
    fn secret(&self) -> Option<Vec<u8>> {
        let secret = URL_SAFE_NO_PAD.decode(&self.secret).ok()?;
        (secret.len() == 32).then_some(secret)
    }
}

/// What a cookie says, and what tells it from others.
fn unseal(keys: &[Key], cookie: &str, scope: Scope<'_>) -> Option<(Mark, Session)> {
    keys.iter().find_map(|key| key.unseal(cookie, scope))
}

impl Key {
    fn unseal(&self, cookie: &str, scope: Scope<'_>) -> Option<(Mark, Session)> {
        if cookie.len() > COOKIE_BYTES {
            return None;
        }
        let mut sealed = URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let (nonce, text) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let mark = Mark::try_from(&*nonce).ok()?;
        let nonce = Nonce::assume_unique_for_key(mark);
        let text = (self.sealing)
            .open_in_place(nonce, Aad::from(scope.bytes()), text)
            .ok()?;
        Some((mark, serde_json::from_slice(text).ok()?))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key(made {})", self.kept.made)
    }
}

/// For its owner only, and a whole one at every moment.
fn keep(keys: &[Kept], path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec(keys)?)?;
    file.sync_data()?;
    std::fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn keys(path: &Path, now: u64) -> Keys {
        let zone = Zone::new("hoody.localhost", "box1").expect("a zone");
        Keys::open(path, &zone, now).expect("keys")
    }

    fn scope(container: u8, service: &'static str, instance: u32) -> Scope<'static> {
        Scope {
            container: Id([container; 12]),
            service,
            instance,
        }
    }

    fn session(expires: u64) -> Session {
        Session {
            expires,
            proofs: vec![(Id([7; 12]), Some("ann".into()))],
            link: None,
        }
    }

    #[test]
    fn a_session_is_for_one_service_of_one_container() {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = keys(&directory.path().join("proxy/session.key"), NOW);
        let here = scope(1, "terminal", 1);
        let sealed = keys.seal(&session(NOW + 10), here).expect("a cookie");
        let open = |cookie: &str, scope, now| keys.unseal([cookie].into_iter(), scope, now);
        assert_eq!(open(&sealed, here, NOW), Some(session(NOW + 10)));
        assert_eq!(open(&sealed, here, NOW + 10), None);
        for elsewhere in [
            scope(2, "terminal", 1),
            scope(1, "files", 1),
            scope(1, "terminal", 2),
        ] {
            assert_eq!(open(&sealed, elsewhere, NOW), None);
        }
        for at in 0..sealed.len() {
            let mut forged = sealed.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("text");
            // The last digit carries bits that say nothing; a strict decoder refuses them.
            assert_eq!(open(&forged, here, NOW), None, "{at}");
        }
        for odd in ["", "=", "é", "AAAA", &"A".repeat(10_000)] {
            assert_eq!(open(odd, here, NOW), None);
        }
        // What others have put beside it does not hide it.
        let several = ["x", "AAAA", &sealed];
        assert!(keys.unseal(several.into_iter(), here, NOW).is_some());
    }

    #[test]
    fn keys_are_kept_and_renewed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("session.key");
        let here = scope(1, "terminal", 1);
        let first = keys(&path, NOW)
            .seal(&session(NOW + KEY_OPENS), here)
            .expect("sealed");
        let mode = std::fs::metadata(&path)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let open = |keys: &Keys, now| keys.unseal([&*first].into_iter(), here, now).is_some();
        // After a restart, and after a new key has taken over.
        let again = keys(&path, NOW + 1);
        assert!(open(&again, NOW + 1));
        again.renew(NOW + KEY_SEALS).expect("renewed");
        assert!(open(&again, NOW + KEY_SEALS));
        let second = again
            .seal(&session(NOW + 2 * KEY_OPENS), here)
            .expect("sealed");
        assert!(
            keys(&path, NOW + KEY_SEALS)
                .unseal([&*second].into_iter(), here, NOW)
                .is_some()
        );
        // The first key is gone when nothing it sealed can be alive.
        again.renew(NOW + KEY_OPENS).expect("renewed");
        assert!(!open(&again, NOW + KEY_OPENS - 1));
        assert!(again.unseal([&*second].into_iter(), here, NOW).is_some());
        std::fs::write(&path, "broken").expect("written");
        assert!(keys(&path, NOW).seal(&session(NOW + 1), here).is_some());
    }

    #[test]
    fn the_cookie_stays_on_its_host() {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = keys(&directory.path().join("session.key"), NOW);
        let over_tls = keys.set_cookie(Some(("x", 9)), true);
        assert!(over_tls.starts_with("__Host-hoody-") && over_tls.contains("; Path=/;"));
        for part in [
            "HttpOnly",
            "Secure",
            "SameSite=None",
            "Partitioned",
            "Max-Age=9",
        ] {
            assert!(over_tls.contains(part), "{over_tls}");
        }
        assert!(!over_tls.to_ascii_lowercase().contains("domain"));
        let plain = keys.set_cookie(None, false);
        assert!(
            plain.starts_with("hoody_") && plain.contains("Max-Age=0"),
            "{plain}"
        );
        assert!(!plain.contains("Secure"));
        assert!(
            [true, false]
                .iter()
                .all(|&secure| crate::cookies::is_reserved(keys.name(secure).as_bytes()))
        );
    }
}
