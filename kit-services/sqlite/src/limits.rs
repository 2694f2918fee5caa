//! Every bound of the service, with its reason.

use std::time::Duration;

/// Databases that are open at a time. Each holds a few connections of some hundred KiB.
pub const OPEN: usize = 64;
/// Idle readers that are kept for a database.
pub const READERS: usize = 4;
/// A database that nobody has used for this long is closed.
pub const IDLE: Duration = Duration::from_secs(60);
/// Jobs at a time, of all databases. Each takes a thread while it runs.
pub const JOBS: usize = 16;
/// How long a job waits for its turn.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long a writer waits for another transaction to end.
pub const BUSY: Duration = Duration::from_secs(5);
/// How long one request may work, where the caller does not say.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// At most.
pub const LONGEST: Duration = Duration::from_secs(300);
/// Rows of one result. Those above are left out, and `truncated` says so.
pub const ROWS: usize = 10_000;
/// Bytes of all results of one request. They are in memory, several times, on their way.
pub const RESULT: usize = 16 << 20;
/// Longest statement.
pub const STATEMENT: usize = 1 << 20;
/// Longest text or blob, and longest row.
pub const VALUE: usize = 16 << 20;
/// What SQLite may take for all databases together, in bytes.
pub const HEAP: usize = 256 << 20;
/// Items of a transaction.
pub const ITEMS: usize = 10_000;
/// Rows of `valuesBatch` of one item.
pub const BATCH: usize = 100_000;
/// Rows of `valuesBatch` of all items.
pub const BATCHES: usize = 1_000_000;
/// Virtual machine instructions between two looks at the clock: about a tenth of a millisecond.
pub const LOOK: i32 = 1_000;
/// Page cache of a connection, in KiB.
pub const CACHE: usize = 2_048;
/// What is left of the log beside a database after a checkpoint, in bytes.
pub const JOURNAL: usize = 16 << 20;

/// The statement timeout that a caller asked for, in seconds.
pub fn timeout(asked: Option<u64>) -> Duration {
    asked.map_or(TIMEOUT, |seconds| {
        Duration::from_secs(seconds.clamp(1, LONGEST.as_secs()))
    })
}
