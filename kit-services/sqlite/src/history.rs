//! What was asked of each database: kept in a database of the service's own, which no request
//! names.
//!
//! A statement is kept without its values: literals are `?`, comments are gone, and parameters were
//! never part of it. Of a database the newest [`KEPT`] are kept, and of all together [`ALL`].

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kit::Fault;
use rusqlite::{Connection, OpenFlags, params};
use schemars::JsonSchema;
use serde::Serialize;

use crate::text;

/// Statements that are kept of one database.
pub const KEPT: i64 = 1_000;
/// Statements that are kept of all databases.
pub const ALL: i64 = 100_000;
/// Bytes of a statement that are kept.
const LONGEST: usize = 2_000;
/// Bytes of an error that are kept.
const LONGEST_ERROR: usize = 500;
/// After so many entries what is too old is removed.
const SWEEP: u64 = 64;

/// The history of all databases.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    connection: Connection,
    added: u64,
}

/// One statement that is over.
#[derive(Debug, Clone)]
pub struct Asked {
    pub sql: String,
    /// `query` or `statement`.
    pub kind: &'static str,
    pub error: Option<String>,
    pub rows: u64,
    pub took: Duration,
}

/// An entry of the history.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Entry {
    pub id: i64,
    /// The statement, its literals replaced by `?`.
    pub sql: String,
    /// `query` or `statement`.
    pub kind: String,
    pub success: bool,
    pub error: Option<String>,
    /// Rows that came out, or were changed.
    pub rows: i64,
    pub duration_ms: f64,
    /// When it was over, in seconds since 1970.
    pub executed_at: f64,
}

/// What the history of a database adds up to.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Stats {
    /// Statements in the history.
    pub total: i64,
    pub successful: i64,
    pub failed: i64,
    pub queries: i64,
    pub statements: i64,
    pub average_duration_ms: f64,
    pub max_duration_ms: f64,
    /// Seconds since 1970; null where the history is empty.
    pub first_executed_at: Option<f64>,
    /// Seconds since 1970; null where the history is empty.
    pub last_executed_at: Option<f64>,
}

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = OFF;
    PRAGMA journal_size_limit = 1048576;
    CREATE TABLE IF NOT EXISTS entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        db TEXT NOT NULL,
        sql TEXT NOT NULL,
        kind TEXT NOT NULL,
        error TEXT,
        rows INTEGER NOT NULL,
        micros INTEGER NOT NULL,
        at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS by_db ON entries (db, id);";

impl History {
    pub fn new(path: PathBuf) -> History {
        History {
            path,
            opened: Mutex::new(None),
        }
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Opened) -> Result<T, rusqlite::Error>,
    ) -> Result<T, Fault> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let done = match &mut *opened {
            Some(opened) => work(opened),
            None => open(&self.path).and_then(|connection| {
                work(opened.insert(Opened {
                    connection,
                    added: 0,
                }))
            }),
        };
        done.map_err(|error| {
            tracing::warn!(%error, "the history of statements is not available");
            *opened = None;
            Fault::internal("the history could not be read or written").code("HISTORY")
        })
    }

    /// Keep these. A history that cannot be written does not fail what it tells of.
    pub fn add(&self, db: &str, asked: &[Asked]) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
            });
        // what is older than the newest would be removed at once
        let newest = asked
            .len()
            .saturating_sub(usize::try_from(KEPT).unwrap_or(usize::MAX));
        let added = self.with(|opened| {
            let transaction = opened.connection.transaction()?;
            {
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO entries (db, sql, kind, error, rows, micros, at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?;
                for one in &asked[newest..] {
                    let error = one.error.as_deref().map(|error| {
                        // messages quote the statement, and with it may quote a value
                        text::without_quotes(error, LONGEST_ERROR)
                    });
                    insert.execute(params![
                        db,
                        text::without_values(&one.sql, LONGEST),
                        one.kind,
                        error,
                        i64::try_from(one.rows).unwrap_or(i64::MAX),
                        i64::try_from(one.took.as_micros()).unwrap_or(i64::MAX),
                        now
                    ])?;
                }
            }
            let before = opened_count(&mut opened.added, (asked.len() - newest) as u64);
            if before {
                transaction.execute(
                    "DELETE FROM entries WHERE db = ?1 AND id <= (
                        SELECT id FROM entries WHERE db = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                    params![db, KEPT],
                )?;
                transaction.execute(
                    "DELETE FROM entries WHERE id <= (
                        SELECT id FROM entries ORDER BY id DESC LIMIT 1 OFFSET ?1)",
                    params![ALL],
                )?;
            }
            transaction.commit()
        });
        if let Err(fault) = added {
            tracing::warn!(%fault, "a statement is missing in the history");
        }
    }

    /// The newest first.
    pub fn list(&self, db: &str, limit: i64) -> Result<(Vec<Entry>, i64), Fault> {
        self.with(|opened| {
            let mut select = opened.connection.prepare_cached(
                "SELECT id, sql, kind, error, rows, micros, at FROM entries
                 WHERE db = ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let entries = select
                .query_map(params![db, limit.clamp(0, KEPT)], |row| {
                    let error: Option<String> = row.get(3)?;
                    Ok(Entry {
                        id: row.get(0)?,
                        sql: row.get(1)?,
                        kind: row.get(2)?,
                        success: error.is_none(),
                        error,
                        rows: row.get(4)?,
                        duration_ms: row.get::<_, f64>(5)? / 1e3,
                        executed_at: row.get::<_, f64>(6)? / 1e6,
                    })
                })?
                .collect::<Result<Vec<_>, _>>()?;
            let total = opened.connection.query_row(
                "SELECT min(count(*), ?2) FROM entries WHERE db = ?1",
                params![db, KEPT],
                |row| row.get(0),
            )?;
            Ok((entries, total))
        })
    }

    /// How many were removed.
    pub fn clear(&self, db: &str) -> Result<usize, Fault> {
        self.with(|opened| {
            opened
                .connection
                .execute("DELETE FROM entries WHERE db = ?1", params![db])
        })
    }

    /// Whether it was there.
    pub fn delete(&self, db: &str, id: i64) -> Result<bool, Fault> {
        self.with(|opened| {
            let removed = opened.connection.execute(
                "DELETE FROM entries WHERE db = ?1 AND id = ?2",
                params![db, id],
            )?;
            Ok(removed > 0)
        })
    }

    pub fn stats(&self, db: &str) -> Result<Stats, Fault> {
        self.with(|opened| {
            opened.connection.query_row(
                "SELECT count(*), count(*) - count(error), count(error),
                        count(*) FILTER (WHERE kind = 'query'),
                        count(*) FILTER (WHERE kind <> 'query'),
                        coalesce(avg(micros), 0) / 1e3, coalesce(max(micros), 0) / 1e3,
                        min(at) / 1e6, max(at) / 1e6
                 FROM (SELECT * FROM entries WHERE db = ?1 ORDER BY id DESC LIMIT ?2)",
                params![db, KEPT],
                |row| {
                    Ok(Stats {
                        total: row.get(0)?,
                        successful: row.get(1)?,
                        failed: row.get(2)?,
                        queries: row.get(3)?,
                        statements: row.get(4)?,
                        average_duration_ms: row.get(5)?,
                        max_duration_ms: row.get(6)?,
                        first_executed_at: row.get(7)?,
                        last_executed_at: row.get(8)?,
                    })
                },
            )
        })
    }
}

/// Count what was added; whether it is time to remove what is old.
fn opened_count(added: &mut u64, more: u64) -> bool {
    let before = *added / SWEEP;
    *added += more;
    *added / SWEEP > before
}

fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    if let Some(directory) = path.parent() {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        if let Err(error) = made {
            tracing::warn!(%error, "the directory of the history could not be made");
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(1))?;
        connection.execute_batch(SCHEMA)?;
        Ok(connection)
    };
    match open() {
        Err(rusqlite::Error::SqliteFailure(failure, _))
            if matches!(
                failure.code,
                rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt
            ) =>
        {
            tracing::warn!("the history of statements is damaged and begins anew");
            for suffix in ["", "-wal", "-shm"] {
                let mut damaged = path.as_os_str().to_owned();
                damaged.push(suffix);
                let _ = std::fs::remove_file(damaged);
            }
            open()
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(sql: &str) -> Asked {
        Asked {
            sql: sql.to_owned(),
            kind: "query",
            error: None,
            rows: 1,
            took: Duration::from_millis(2),
        }
    }

    #[test]
    fn it_is_bounded_and_each_database_has_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::new(directory.path().join("state/history.db"));
        let many: Vec<_> = (0..KEPT + 500)
            .map(|n| asked(&format!("SELECT x{n}")))
            .collect();
        for some in many.chunks(50) {
            history.add("/a", some);
        }
        history.add("/b", &[asked("SELECT 'secret'")]);
        let (entries, total) = history.list("/a", 10_000).unwrap();
        assert_eq!(total, KEPT);
        assert_eq!(entries.len() as i64, KEPT);
        assert_eq!(entries[0].sql, format!("SELECT x{}", KEPT + 499));
        let raw: i64 = Connection::open(&history.path)
            .unwrap()
            .query_row("SELECT count(*) FROM entries", [], |row| row.get(0))
            .unwrap();
        assert!(raw <= KEPT + SWEEP as i64 + 1, "{raw} are kept");
        assert_eq!(history.list("/b", 5).unwrap().0[0].sql, "SELECT ?");
        assert!(history.delete("/a", entries[0].id).unwrap());
        assert!(
            !history.delete("/b", entries[1].id).unwrap(),
            "of another database"
        );
        assert_eq!(history.stats("/a").unwrap().total, KEPT - 1);
        assert_eq!(history.clear("/b").unwrap(), 1);
        assert_eq!(history.stats("/b").unwrap().total, 0);
    }

    #[test]
    fn a_damaged_history_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.db");
        std::fs::write(&path, "this is no database, and longer than a header of one has to be, I think, so that is that").unwrap();
        let history = History::new(path);
        history.add("/a", &[asked("SELECT 1")]);
        assert_eq!(history.list("/a", 5).unwrap().1, 1);
    }
}
