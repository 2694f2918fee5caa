//! The database: SQLite with one writer on a thread of its own and a few readers.
//!
//! Read in this order: [`migrations`] (the schema), then a file per noun. Every function of a noun
//! takes a connection and runs inside the transaction of [`Store::write`] or the read of
//! [`Store::read`]; several may run in one.

pub mod aliases;
pub mod containers;
pub mod events;
pub mod firewalls;
pub mod links;
pub mod migrations;
pub mod networks;
pub mod node;
pub mod notifications;
pub mod prespawned;
pub mod projects;
pub mod ratings;
pub mod rules;
pub mod sessions;
pub mod shares;
pub mod snapshots;
pub mod status_logs;
pub mod tokens;
pub mod tombstones;
pub mod users;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, Row, Transaction, TransactionBehavior};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use routes::Id;

/// Writes that wait for the writer; callers beyond wait for a place.
const WRITE_QUEUE: usize = 256;
/// Reads at once.
const READERS: usize = 4;
/// Another process (a first run, a backup) may hold the database this long.
const BUSY: Duration = Duration::from_secs(30);

/// A handle of the database; cheap to clone. The connections close with the last one.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    writer: mpsc::Sender<Job>,
    /// Absent where the database is in memory: the writer reads, too.
    readers: Option<Readers>,
    /// The place of the newest event on disk.
    recorded: Arc<watch::Sender<i64>>,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

struct Readers {
    turns: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// Why the database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("could not open the database {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("could not start the thread of the database")]
    Thread(#[source] std::io::Error),
    #[error("the database is of version {found}, newer than the {known} this program knows")]
    TooNew { found: i64, known: i64 },
    #[error("could not migrate the database from version {from}")]
    Migrate {
        from: i64,
        #[source]
        source: rusqlite::Error,
    },
    #[error("could not {act}")]
    Query {
        act: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    #[error("could not {act}: the database is closed or stumbled over it")]
    Closed { act: &'static str },
}

impl Store {
    /// Open the database at `path`, made where missing, and bring its schema up to date.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let wrong = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        let mut writer = Connection::open(path).map_err(wrong)?;
        keep_private(path);
        set_up(&writer).map_err(wrong)?;
        migrations::run(&mut writer)?;
        let mut idle = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let reader = Connection::open_with_flags(path, flags).map_err(wrong)?;
            reader.busy_timeout(BUSY).map_err(wrong)?;
            idle.push(reader);
        }
        let readers = Readers {
            turns: Arc::new(Semaphore::new(READERS)),
            idle: Arc::new(Mutex::new(idle)),
        };
        Self::start(writer, Some(readers))
    }

    /// A database that lives and dies with the handle.
    pub fn in_memory() -> Result<Store, StoreError> {
        let wrong = |source| StoreError::Open {
            path: ":memory:".into(),
            source,
        };
        let mut writer = Connection::open_in_memory().map_err(wrong)?;
        set_up(&writer).map_err(wrong)?;
        migrations::run(&mut writer)?;
        Self::start(writer, None)
    }

    fn start(mut connection: Connection, readers: Option<Readers>) -> Result<Store, StoreError> {
        let (writer, mut jobs) = mpsc::channel::<Job>(WRITE_QUEUE);
        let recorded = Arc::new(watch::Sender::new(events::newest(&connection).unwrap_or(0)));
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                while let Some(job) = jobs.blocking_recv() {
                    // A panic rolls its transaction back and is the end of its caller alone.
                    let done = catch_unwind(AssertUnwindSafe(|| job(&mut connection)));
                    if done.is_err() {
                        tracing::error!("a write to the database panicked");
                    }
                }
            })
            .map_err(StoreError::Thread)?;
        Ok(Store {
            inner: Arc::new(Inner {
                writer,
                readers,
                recorded,
            }),
        })
    }

    /// Tells the place of the newest event, once it is on disk.
    pub fn recorded(&self) -> watch::Receiver<i64> {
        self.inner.recorded.subscribe()
    }

    /// Run `work` in a transaction of its own; it is on disk when this returns. `act` completes
    /// "could not ...". Once begun it runs to its end, even where the caller goes away.
    pub async fn write<T: Send + 'static>(
        &self,
        act: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_then(act, work, |_| ()).await
    }

    /// The same, and then `tell` others of what was written. They are told in the order of the
    /// writes, and whether or not the caller is still there.
    pub async fn write_then<T: Send + 'static>(
        &self,
        act: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
        tell: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let recorded = self.inner.recorded.clone();
        let job: Job = Box::new(move |connection| {
            let result = transact(connection, work);
            if let Ok(written) = &result {
                tell(written);
                // Asked of the database rather than of those who write, who would forget.
                let newest = events::newest(connection).unwrap_or(0);
                recorded.send_if_modified(|seen| {
                    let news = newest > *seen;
                    *seen = newest.max(*seen);
                    news
                });
            }
            reply.send(result).ok(); // the caller may have gone away
        });
        self.inner
            .writer
            .send(job)
            .await
            .map_err(|_| StoreError::Closed { act })?;
        answer
            .await
            .map_err(|_| StoreError::Closed { act })?
            .map_err(|source| StoreError::Query { act, source })
    }

    /// Run `work`, which only reads.
    pub async fn read<T: Send + 'static>(
        &self,
        act: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(readers) = &self.inner.readers else {
            return self.write(act, move |transaction| work(transaction)).await;
        };
        let turns = readers.turns.clone();
        let turn = turns
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed { act })?;
        let idle = readers.idle.clone();
        tokio::task::spawn_blocking(move || {
            // The turn lasts as long as the work, even where the caller goes away before.
            let _turn = turn;
            let taken = lock(&idle).pop();
            let connection = taken.expect("there are as many readers as turns");
            let result = catch_unwind(AssertUnwindSafe(|| work(&connection)));
            lock(&idle).push(connection);
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .await
        .map_err(|_| StoreError::Closed { act })?
        .map_err(|source| StoreError::Query { act, source })
    }
}

fn lock(idle: &Mutex<Vec<Connection>>) -> MutexGuard<'_, Vec<Connection>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

fn transact<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let result = work(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

/// WAL, so that readers and the writer pass each other; every commit on disk before it is
/// answered, because a container that a database forgot is a machine nobody owns.
fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")
}

/// The database holds hashes of passwords and tokens: its owner alone reads it.
fn keep_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(path = %path.display(), %error, "could not make the database private");
    }
}

/// A column that holds an id.
fn id(row: &Row<'_>, column: &str) -> rusqlite::Result<Id> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| unreadable(column, error))
}

/// A column that holds an id or nothing.
fn maybe_id(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Id>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error| unreadable(column, error)))
        .transpose()
}

/// A column that holds JSON.
fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| unreadable(column, error))
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("rows are plain JSON")
}

fn unreadable(
    column: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    tracing::error!(column, %error, "a column of the database is unreadable");
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}

/// A page of a sorted list.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// A column; comes from an enum, never from a caller.
    pub column: &'static str,
    pub descending: bool,
    pub limit: u32,
    pub offset: u64,
}

impl Slice {
    /// `ORDER BY ... LIMIT ... OFFSET ...`; the id settles ties, so that pages never overlap.
    fn sql(&self, table: &str) -> String {
        let direction = if self.descending { "DESC" } else { "ASC" };
        format!(
            " ORDER BY {table}.{} {direction}, {table}.id {direction} LIMIT {} OFFSET {}",
            self.column, self.limit, self.offset
        )
    }
}

/// Which realms a caller sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Realms {
    /// Everything, in a realm or not.
    All,
    /// What belongs to one of these.
    Within(Vec<Id>),
}

impl Realms {
    pub fn see(&self, realms: &[Id]) -> bool {
        match self {
            Realms::All => true,
            Realms::Within(seen) => realms.iter().any(|realm| seen.contains(realm)),
        }
    }

    /// The value that queries compare with: a JSON array, or nothing for everything.
    fn parameter(&self) -> Option<String> {
        match self {
            Realms::All => None,
            Realms::Within(realms) => Some(to_json(realms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn callers_that_go_away_leave_their_readers_behind() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("control.db")).unwrap();
        let slow = |_: &Connection| {
            std::thread::sleep(Duration::from_millis(20));
            Ok(())
        };
        for _ in 0..50 {
            let read = store.read("wait", slow);
            tokio::time::timeout(Duration::from_millis(2), read)
                .await
                .ok(); // most go away
        }
        for _ in 0..READERS * 2 {
            store.read("wait", slow).await.unwrap();
        }
    }

    #[tokio::test]
    async fn others_are_told_in_the_order_of_the_writes() {
        let store = Store::in_memory().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let write = |n: u32| {
            let told = told.clone();
            store.write_then(
                "count",
                move |_| Ok(n),
                move |n| told.lock().unwrap().push(*n),
            )
        };
        let failed = {
            let told = told.clone();
            store.write_then::<()>(
                "fail",
                |db| db.execute("INSERT INTO nothing VALUES (1)", []).map(|_| ()),
                move |()| told.lock().unwrap().push(99),
            )
        };
        let first = write(1);
        let (first, failed, second) = tokio::join!(first, failed, write(2));
        assert!(first.is_ok() && failed.is_err() && second.is_ok());
        // Its caller goes away once it has asked.
        {
            let mut gone = Box::pin(write(3));
            let _ = futures::poll!(&mut gone);
        }
        write(4).await.unwrap();
        assert_eq!(*told.lock().unwrap(), [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn a_panic_ends_its_caller_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("control.db")).unwrap();
        for _ in 0..READERS * 2 {
            let read = store
                .read::<()>("panic", |_| panic!("as the test wants"))
                .await;
            assert!(matches!(read, Err(StoreError::Closed { .. })));
            let write = store
                .write::<()>("panic", |_| panic!("as the test wants"))
                .await;
            assert!(matches!(write, Err(StoreError::Closed { .. })));
        }
        store.read("go on", |_| Ok(())).await.unwrap();
        store.write("go on", |_| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_write_that_fails_leaves_nothing_behind() {
        let store = Store::in_memory().unwrap();
        let failed = store.write("write twice", |db| {
            db.execute("INSERT INTO node (key, value) VALUES ('a', 'b')", [])?;
            db.execute("INSERT INTO nothing (key) VALUES ('a')", [])
        });
        let error = failed.await.unwrap_err();
        assert_eq!(error.to_string(), "could not write twice");
        let rows = store.read("count", |db| {
            db.query_row("SELECT count(*) FROM node", [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(rows.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_database_is_private_and_lasts() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.db");
        let fresh = node::Identity {
            id: Id([1; 12]),
            since: 5,
        };
        let store = Store::open(&path).unwrap();
        store
            .write("begin", move |db| node::identity(db, fresh))
            .await
            .unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let other = node::Identity {
            id: Id([2; 12]),
            since: 9,
        };
        assert_eq!(
            store
                .write("begin", move |db| node::identity(db, other))
                .await
                .unwrap(),
            fresh
        );
        for name in ["control.db", "control.db-wal"] {
            let facts = std::fs::metadata(directory.path().join(name)).unwrap();
            assert_eq!(facts.permissions().mode() & 0o777, 0o600, "{name}");
        }
    }
}
