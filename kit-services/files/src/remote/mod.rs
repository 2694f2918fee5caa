//! Servers elsewhere, by way of rclone.
//!
//! [`kinds`] says which types of backends there are, [`daemon`] runs rclone, [`backends`] are the
//! connections that it keeps, [`mounts`] those that are directories of the computer, [`place`] what
//! one request reads or writes there, and [`access`] makes a place of the words of a request alone.
//!
//! Nothing runs before a backend is asked for. What rclone has to keep is in a file of its own that
//! only the service's user reads; passwords go to it over its socket and come back in no answer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use kit::Fault;
use serde_json::{Value, json};

pub mod access;
pub mod backends;
pub mod daemon;
pub mod kinds;
pub mod mounts;
pub mod place;

use daemon::{Daemon, Failure};
use mounts::Mount;

/// After how long without a request the daemon ends, where nothing is mounted.
const IDLE: Duration = Duration::from_secs(300);
/// How often is looked whether it is idle, or gone.
const LOOK: Duration = Duration::from_secs(10);
/// Requests to it at once.
const TURNS: usize = 32;

/// Where remote backends are kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// A directory for what rclone keeps; made when it is needed.
    pub state: PathBuf,
    /// The directory that mounts are made in, as it is on this machine.
    pub mounts: PathBuf,
    /// Whether the service keeps to a directory, which rclone would not.
    pub jailed: bool,
    /// The directory whose owner mounted files belong to.
    pub home: PathBuf,
}

/// The handle.
#[derive(Clone, Debug)]
pub struct Remote(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    daemon: tokio::sync::Mutex<Option<Running>>,
    used: Mutex<Instant>,
    turns: Arc<tokio::sync::Semaphore>,
    /// Changes of backends and mounts, one at a time.
    changes: tokio::sync::Mutex<()>,
    /// What is known of backends beyond what rclone keeps.
    seen: Mutex<BTreeMap<String, Seen>>,
    mounts: Mutex<Vec<Mount>>,
}

/// A daemon and which parameters its types have.
#[derive(Clone, Debug)]
struct Running {
    daemon: Arc<Daemon>,
    types: Arc<BTreeMap<String, Vec<String>>>,
    version: Arc<str>,
}

/// When a backend was last asked, and whether it answered.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: SystemTime,
    answered: bool,
}

impl Remote {
    pub fn new(config: Config) -> Remote {
        let mounts = mounts::load(&config.state);
        let remote = Remote(Arc::new(Inner {
            config,
            daemon: tokio::sync::Mutex::new(None),
            used: Mutex::new(Instant::now()),
            turns: Arc::new(tokio::sync::Semaphore::new(TURNS)),
            changes: tokio::sync::Mutex::new(()),
            seen: Mutex::default(),
            mounts: Mutex::new(mounts),
        }));
        if remote.has_mounts() && tokio::runtime::Handle::try_current().is_ok() {
            let again = remote.clone();
            tokio::spawn(async move { again.mount_again().await });
        }
        remote
    }

    /// Whether something is to be mounted, so that the service has to be there without being called.
    pub fn wants_to_run(state: &std::path::Path) -> bool {
        !mounts::load(state).is_empty()
    }

    fn has_mounts(&self) -> bool {
        !lock(&self.0.mounts).is_empty()
    }

    /// The daemon, started where there is none.
    async fn running(&self) -> Result<Running, Fault> {
        *lock(&self.0.used) = Instant::now();
        let mut slot = self.0.daemon.lock().await;
        if let Some(running) = slot.as_ref().filter(|running| running.daemon.runs()) {
            return Ok(running.clone());
        }
        let daemon = Arc::new(Daemon::start(&self.0.config.state).await?);
        let ask = async |method| {
            let answer: Result<Value, Failure> = daemon.call(method, &json!({})).await;
            answer.map_err(|failure| failure.fault("start rclone", &[]))
        };
        let providers = ask("config/providers").await?;
        let version = ask("core/version").await?;
        let names = |options: &Value| {
            let options = options.as_array().into_iter().flatten();
            options
                .filter_map(|option| Some(option["Name"].as_str()?.to_owned()))
                .collect()
        };
        let types = providers["providers"].as_array().into_iter().flatten();
        let running = Running {
            types: Arc::new(
                types
                    .filter_map(|one| {
                        Some((one["Name"].as_str()?.to_owned(), names(&one["Options"])))
                    })
                    .collect(),
            ),
            version: version["version"]
                .as_str()
                .unwrap_or("of an unknown version")
                .into(),
            daemon,
        };
        let first = slot.is_none();
        *slot = Some(running.clone());
        if first {
            tokio::spawn(watched(Arc::downgrade(&self.0)));
        }
        Ok(running)
    }

    /// Call a method of rclone's.
    async fn call(
        &self,
        method: &str,
        parameters: &Value,
    ) -> Result<Result<Value, Failure>, Fault> {
        let _turn = self.turn().await?;
        let running = self.running().await?;
        Ok(running.daemon.call(method, parameters).await)
    }

    async fn turn(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Fault> {
        let turn = self.0.turns.clone().acquire_owned();
        match tokio::time::timeout(Duration::from_secs(30), turn).await {
            Ok(turn) => Ok(turn.expect("the turns are never closed")),
            Err(_) => Err(
                Fault::unavailable("too much is asked of other servers; try again")
                    .retry_after(Duration::from_secs(2)),
            ),
        }
    }

    fn note(&self, id: &str, answered: bool) {
        let seen = Seen {
            at: SystemTime::now(),
            answered,
        };
        lock(&self.0.seen).insert(id.to_owned(), seen);
    }
}

/// The same as [`watch`], whose type would otherwise be made of itself.
fn watched(remote: Weak<Inner>) -> futures::future::BoxFuture<'static, ()> {
    Box::pin(watch(remote))
}

/// Ends the daemon when it is idle, and has what was mounted by one that is gone mounted by another.
async fn watch(remote: Weak<Inner>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(inner) = remote.upgrade() else {
            return;
        };
        let remote = Remote(inner);
        let mut slot = remote.0.daemon.lock().await;
        let Some(running) = slot.as_ref() else { return };
        if !running.daemon.runs() {
            *slot = None;
            drop(slot);
            if remote.has_mounts() {
                remote.mount_again().await; // starts a daemon, and with it another watch
            }
            return;
        }
        let idle = lock(&remote.0.used).elapsed() > IDLE && Arc::strong_count(&running.daemon) == 1;
        if !idle || remote.has_mounts() {
            continue;
        }
        let daemon = running.daemon.clone();
        // What is in its memory would be gone with it.
        let kept = daemon
            .call("config/dump", &json!({}))
            .await
            .unwrap_or_default();
        let sections = kept.as_object().into_iter().flatten();
        if !sections
            .into_iter()
            .any(|(_, section)| section["type"] == "memory")
        {
            daemon.end();
            *slot = None;
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An id that nobody guesses and nobody mistypes.
fn new_id(prefix: &str) -> String {
    format!("{prefix}-{}", hex::encode(rand::random::<[u8; 6]>()))
}

/// A time as RFC 3339 writes it, in UTC.
fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.0}"))
}
