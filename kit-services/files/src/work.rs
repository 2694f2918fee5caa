//! Work on the file system happens on threads that may wait, a bounded number at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kit::Fault;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Short jobs at a time: a read or a write of one chunk, a listing, a rename.
const SHORT: usize = 32;
/// Trees at a time that are copied, moved or removed.
const TREES: usize = 8;
/// Trees at a time that are packed, each as fast as its reader takes it.
const PACKS: usize = 4;
/// Searches and digests at a time: they take a processor each.
const SEARCHES: usize = 4;
/// How long a job waits for its turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// The turns.
#[derive(Debug)]
pub struct Work {
    short: Arc<Semaphore>,
    trees: Arc<Semaphore>,
    packs: Arc<Semaphore>,
    searches: Arc<Semaphore>,
}

/// Whether anyone still waits for the result of a job.
#[derive(Clone, Debug, Default)]
pub struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// Fails once the caller has gone, so that a long job ends.
    pub fn check(&self) -> Result<(), Fault> {
        if self.gone() {
            Err(Fault::unavailable("the caller went away"))
        } else {
            Ok(())
        }
    }
    pub fn gone(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Says on drop that nobody waits any more.
struct Waiting(Wanted);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

impl Default for Work {
    fn default() -> Self {
        Work {
            short: Arc::new(Semaphore::new(SHORT)),
            trees: Arc::new(Semaphore::new(TREES)),
            packs: Arc::new(Semaphore::new(PACKS)),
            searches: Arc::new(Semaphore::new(SEARCHES)),
        }
    }
}

impl Work {
    /// Run a job that does one short thing.
    pub async fn short<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let turn = turn(&self.short).await?;
        finish(tokio::task::spawn_blocking(move || {
            let _turn = turn; // held by the job itself, which outlives a caller that leaves
            job()
        }))
        .await
    }

    /// Run a job on a tree. It asks [`Wanted`] now and then whether to go on.
    pub async fn tree<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Wanted) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        long(&self.trees, job).await
    }

    /// Begin a job that packs a tree; what comes of it goes elsewhere as it comes.
    pub async fn pack(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Fault> {
        let turn = turn(&self.packs).await?;
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            job();
        });
        Ok(())
    }

    /// Run a job that reads much. It asks [`Wanted`] now and then whether to go on.
    pub async fn search<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Wanted) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        long(&self.searches, job).await
    }
}

async fn long<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    job: impl FnOnce(&Wanted) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let turn = turn(turns).await?;
    let wanted = Wanted::default();
    let _waiting = Waiting(wanted.clone());
    finish(tokio::task::spawn_blocking(move || {
        let _turn = turn;
        job(&wanted)
    }))
    .await
}

async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Fault> {
    match tokio::time::timeout(PATIENCE, turns.clone().acquire_owned()).await {
        Ok(turn) => Ok(turn.expect("the turns are never closed")),
        Err(_) => Err(Fault::unavailable("too much is going on; try again")
            .retry_after(Duration::from_secs(2))),
    }
}

async fn finish<T>(job: tokio::task::JoinHandle<Result<T, Fault>>) -> Result<T, Fault> {
    match job.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Fault::unavailable("the service is shutting down")),
    }
}
