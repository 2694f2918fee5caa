//! Passwords: Argon2id, a few at a time, off the threads that answer requests.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Argon2, Params};
use kit::Fault;
use rand::Rng;
use tokio::sync::Semaphore;

/// Hashes at once: each takes a core for some ten milliseconds and 19 MiB.
const AT_ONCE: usize = 2;
/// Hashes that wait for their turn; callers beyond are told to come back.
const WAITING: usize = 64;

/// Hashes and verifies.
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Passwords {
    pub fn new() -> Passwords {
        Passwords {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            places: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
        }
    }

    /// Whether the password is the hashed one. Without a hash the answer is no, after as long.
    pub async fn verify(&self, hash: Option<String>, password: String) -> Result<bool, Fault> {
        self.work(move || verify(hash.as_deref(), &password)).await
    }

    pub async fn hash(&self, password: String) -> Result<String, Fault> {
        self.work(move || hash(&password)).await?.map_err(|error| {
            tracing::error!(%error, "could not hash a password");
            Fault::internal("the password could not be hashed")
        })
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let busy = || {
            Fault::unavailable("too many logins at once; try again in a moment")
                .retry_after(Duration::from_secs(1))
        };
        let place = self
            .places
            .clone()
            .try_acquire_owned()
            .map_err(|_| busy())?;
        let turn = self
            .turns
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| busy())?;
        let work = move || {
            let _held = (place, turn); // as long as the work, even where the caller goes away
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| busy())
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

/// Hash a password into a PHC string: Argon2id with the parameters OWASP recommends.
pub fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    let mut bits = [0u8; 16];
    rand::rng().fill(&mut bits);
    let salt = SaltString::encode_b64(&bits)?;
    hasher()
        .hash_password(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
}

fn hasher() -> Argon2<'static> {
    const MEMORY_KIB: u32 = 19 * 1024;
    const PASSES: u32 = 2;
    const LANES: u32 = 1;
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the parameters are in range");
    Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
}

fn verify(hash: Option<&str>, password: &str) -> bool {
    let known = hash.and_then(|text| PasswordHash::new(text).ok());
    match known {
        Some(known) => hasher()
            .verify_password(password.as_bytes(), &known)
            .is_ok(),
        None => {
            let mut out = [0; 32];
            hasher()
                .hash_password_into(password.as_bytes(), b"nobody has this", &mut out)
                .ok();
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_password_and_no_other() {
        let kept = hash("correct horse").unwrap();
        assert!(
            kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{kept}"
        );
        assert!(verify(Some(&kept), "correct horse"));
        assert!(!verify(Some(&kept), "correct horsf"));
        assert!(!verify(None, "correct horse"));
        assert!(!verify(Some("rubbish"), "correct horse"));
    }

    #[tokio::test]
    async fn callers_beyond_the_queue_are_turned_away() {
        let passwords = Passwords::new();
        let all = passwords
            .places
            .acquire_many(u32::try_from(AT_ONCE + WAITING).unwrap())
            .await
            .unwrap();
        let refused = passwords.verify(None, "x".into()).await.unwrap_err();
        assert_eq!(refused.status, http::StatusCode::SERVICE_UNAVAILABLE);
        drop(all);
        assert!(!passwords.verify(None, "x".into()).await.unwrap());
    }
}
