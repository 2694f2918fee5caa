//! The databases that are open, and whose turn it is.
//!
//! A database has one writer and a few readers. Who writes waits for the writer without holding a
//! thread; who reads takes a reader that is idle or opens another. Both then wait for one of a
//! bounded number of turns, since SQLite works on threads that may block.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use kit::Fault;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::connection::Guarded;
use crate::kv::Table;
use crate::limits;
use crate::name::{Identity, Name, Place};
use crate::watch::{Role, Waiting, Wanted};

/// All databases of the service.
#[derive(Debug)]
pub struct Store {
    /// Where they are.
    pub directory: PathBuf,
    /// Whose they are: the owner of this.
    like: Option<PathBuf>,
    open: Mutex<HashMap<PathBuf, Arc<Database>>>,
    turns: Arc<Semaphore>,
    pub counters: Counters,
    /// How long an unused database stays open.
    idle: Duration,
}

/// What happened since the service started.
#[derive(Debug, Default)]
pub struct Counters {
    pub opened: AtomicU64,
    pub closed: AtomicU64,
    pub jobs: AtomicU64,
    pub failed: AtomicU64,
    pub waited: AtomicU64,
}

impl Counters {
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// An open database.
#[derive(Debug)]
pub struct Database {
    pub place: Place,
    identity: Option<Identity>,
    // closed before the writer: whoever closes last and may write empties the log
    readers: Mutex<Vec<Guarded>>,
    writer: Arc<tokio::sync::Mutex<Option<Guarded>>>,
    used: Mutex<Instant>,
    /// Key-value tables that were used, and are swept.
    tables: Mutex<BTreeSet<Table>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub fn new(directory: PathBuf, like: Option<PathBuf>, idle: Duration) -> Store {
        Store {
            directory,
            like,
            open: Mutex::default(),
            turns: Arc::new(Semaphore::new(limits::JOBS)),
            counters: Counters::default(),
            idle,
        }
    }

    /// A database that exists.
    pub async fn find(self: &Arc<Self>, name: &Name) -> Result<Arc<Database>, Fault> {
        self.look(name, false).await.map(|(database, _)| database)
    }

    /// A database that exists or is made. Whether it was made.
    pub async fn find_or_make(
        self: &Arc<Self>,
        name: &Name,
    ) -> Result<(Arc<Database>, bool), Fault> {
        self.look(name, true).await
    }

    async fn look(
        self: &Arc<Self>,
        name: &Name,
        make: bool,
    ) -> Result<(Arc<Database>, bool), Fault> {
        let (directory, name) = (self.directory.clone(), name.clone());
        let store = self.clone();
        self.aside(move || {
            let (place, made) = match make {
                true => {
                    if let Err(error) =
                        crate::name::make_directory(&directory, store.like.as_deref())
                    {
                        tracing::warn!(%error, "there is no directory of databases");
                    }
                    name.find_or_make(&directory)?
                }
                false => (name.find(&directory)?, false),
            };
            Ok((store.open(place)?, made))
        })
        .await
    }

    /// The open database of a place; it is opened by whoever first uses it.
    fn open(&self, place: Place) -> Result<Arc<Database>, Fault> {
        let identity = place.identity();
        let mut open = locked(&self.open);
        if let Some(known) = open.get(&place.real) {
            if known.identity == identity {
                known.touch();
                return Ok(known.clone());
            }
            // the file is another one by now
            open.remove(&place.real);
            Counters::count(&self.counters.closed);
        }
        if open.len() >= limits::OPEN {
            let oldest = open
                .iter()
                .filter(|(_, database)| Arc::strong_count(database) == 1)
                .min_by_key(|(_, database)| *locked(&database.used))
                .map(|(path, _)| path.clone());
            let Some(oldest) = oldest else {
                return Err(Fault::unavailable(format!(
                    "{} databases are in use at once; try again when one is not",
                    limits::OPEN
                ))
                .code("TOO_MANY_DATABASES")
                .retry_after(Duration::from_secs(1)));
            };
            open.remove(&oldest);
            Counters::count(&self.counters.closed);
        }
        let database = Arc::new(Database {
            identity,
            writer: Arc::default(),
            readers: Mutex::default(),
            used: Mutex::new(Instant::now()),
            tables: Mutex::default(),
            place,
        });
        open.insert(database.place.real.clone(), database.clone());
        Counters::count(&self.counters.opened);
        Ok(database)
    }

    /// Let go of a database whose file is about to be removed or replaced.
    pub fn forget(&self, place: &Place) {
        if locked(&self.open).remove(&place.real).is_some() {
            Counters::count(&self.counters.closed);
        }
    }

    /// Close what nobody has used for a while. Whether anything is open still.
    fn close_idle(&self) -> bool {
        let closed: Vec<_> = {
            let mut open = locked(&self.open);
            let idle: Vec<_> = open
                .iter()
                .filter(|(_, database)| {
                    Arc::strong_count(database) == 1
                        && locked(&database.used).elapsed() >= self.idle
                })
                .map(|(path, _)| path.clone())
                .collect();
            idle.iter().filter_map(|path| open.remove(path)).collect()
        };
        for _ in &closed {
            Counters::count(&self.counters.closed);
        }
        drop(closed); // connections close here, outside of the lock
        !locked(&self.open).is_empty()
    }

    /// The databases that are open now.
    pub fn opened(&self) -> Vec<Arc<Database>> {
        locked(&self.open).values().cloned().collect()
    }

    /// Now and then close what is idle, as long as the service is there.
    pub fn tend(self: &Arc<Self>, pace: Duration) {
        let store: Weak<Store> = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pace).await;
                let Some(store) = store.upgrade() else {
                    return;
                };
                store.sweep().await;
                let closing = tokio::task::spawn_blocking(move || store.close_idle());
                if closing.await.is_err() {
                    tracing::error!("closing idle databases panicked");
                }
            }
        });
    }

    /// Remove keys whose time is over. It does not count as use.
    async fn sweep(&self) {
        for database in self.opened() {
            let tables = locked(&database.tables).clone();
            let used = *locked(&database.used);
            for table in tables {
                let swept = self.write(&database, limits::TIMEOUT, move |connection| {
                    crate::ops::kv::sweep(connection, &table)
                });
                if let Err(fault) = swept.await {
                    tracing::debug!(%fault, "expired keys stay for now");
                }
            }
            // a database that is used right now is not closed, however long ago this says it was
            *locked(&database.used) = used;
        }
    }

    /// A turn to work on a thread that may block.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, Fault> {
        match tokio::time::timeout(limits::PATIENCE, self.turns.clone().acquire_owned()).await {
            Ok(turn) => Ok(turn.expect("the turns are never closed")),
            Err(_) => Err(Fault::unavailable("too much is going on; try again")
                .code("TOO_MUCH")
                .retry_after(Duration::from_secs(2))),
        }
    }

    /// Do something that may block.
    pub async fn aside<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let turn = self.turn().await?;
        Counters::count(&self.counters.jobs);
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn; // held by the job itself, which outlives a caller that leaves
            job()
        });
        let done = match done.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Fault::unavailable("the service is shutting down")),
        };
        if done.is_err() {
            Counters::count(&self.counters.failed);
        }
        done
    }

    /// Read a database.
    pub async fn read<T: Send + 'static>(
        &self,
        database: &Arc<Database>,
        allowed: Duration,
        job: impl FnOnce(&Guarded) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let waiting = Waiting::default();
        let wanted = waiting.0.clone();
        let database = database.clone();
        self.aside(move || database.read(allowed, &wanted, job))
            .await
    }

    /// Write a database. The job is done anew while somebody else holds the lock: it must have
    /// done nothing when it says so ([`Attempt::Busy`]).
    pub async fn write<T: Send + 'static>(
        &self,
        database: &Arc<Database>,
        allowed: Duration,
        job: impl FnMut(&mut Guarded) -> Result<Attempt<T>, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let waiting = Waiting::default();
        let writer = tokio::time::timeout(limits::PATIENCE, database.writer.clone().lock_owned());
        let mut writer = writer.await.map_err(|_| crate::fault::busy())?;
        let until = Instant::now() + limits::BUSY;
        let mut job = job;
        let mut pause = Duration::from_millis(2);
        loop {
            let (wanted, owned) = (waiting.0.clone(), database.clone());
            let done = self
                .aside(move || owned.write(writer, allowed, &wanted, job))
                .await?;
            match done {
                (_, _, Attempt::Done(done)) => return Ok(done),
                (held, again, Attempt::Busy) => {
                    if Instant::now() >= until {
                        return Err(crate::fault::busy());
                    }
                    Counters::count(&self.counters.waited);
                    (writer, job) = (held, again);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(100));
                }
            }
        }
    }
}

/// What came of an attempt to write.
#[derive(Debug)]
pub enum Attempt<T> {
    Done(T),
    /// Somebody else writes.
    Busy,
}

type Held = OwnedMutexGuard<Option<Guarded>>;

impl Database {
    /// Have the keys of a table swept whose time is over.
    pub fn uses(&self, table: &Table) {
        /// Tables of one database that are swept; others are when they are used again.
        const SWEPT: usize = 64;
        let mut tables = locked(&self.tables);
        if tables.len() < SWEPT && !tables.contains(table) {
            tables.insert(table.clone());
        }
    }

    fn touch(&self) {
        *locked(&self.used) = Instant::now();
    }

    /// How many readers are kept.
    pub fn readers(&self) -> usize {
        locked(&self.readers).len()
    }

    fn read<T>(
        &self,
        allowed: Duration,
        wanted: &Wanted,
        job: impl FnOnce(&Guarded) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let kept = locked(&self.readers).pop();
        let reader = match kept {
            Some(reader) => reader,
            None => Guarded::open(&self.place, Role::Reader)?,
        };
        reader.watch.begin(allowed, wanted);
        let done = job(&reader);
        reader.roll_back();
        if reader.is_clean() {
            let mut readers = locked(&self.readers);
            if readers.len() < limits::READERS {
                readers.push(reader);
            }
        }
        self.touch();
        done
    }

    fn write<T, J: FnMut(&mut Guarded) -> Result<Attempt<T>, Fault>>(
        &self,
        mut held: Held,
        allowed: Duration,
        wanted: &Wanted,
        mut job: J,
    ) -> Result<(Held, J, Attempt<T>), Fault> {
        if held.is_none() {
            *held = Some(Guarded::open(&self.place, Role::Writer)?);
        }
        let writer = held.as_mut().expect("opened just now");
        writer.watch.begin(allowed, wanted);
        let done = job(writer);
        writer.roll_back();
        if !writer.is_clean() {
            *held = None;
        }
        self.touch();
        done.map(|done| (held, job, done))
    }
}
