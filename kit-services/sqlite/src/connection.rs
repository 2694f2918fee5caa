//! One connection to one database, with everything off that reaches beyond it.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kit::Fault;
use rusqlite::config::DbConfig;
use rusqlite::hooks::AuthContext;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use crate::fault;
use crate::limits;
use crate::name::Place;
use crate::watch::{Role, Watch};

/// A guarded connection.
pub struct Guarded {
    connection: Connection,
    pub watch: Arc<Watch>,
}

impl Deref for Guarded {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded")
            .field("role", &self.watch.role())
            .finish_non_exhaustive()
    }
}

/// How long SQLite itself waits for a lock. It is short: who waits longer waits without a thread.
const LOCK: Duration = Duration::from_millis(20);

impl Guarded {
    /// Open a database for this role.
    pub fn open(place: &Place, role: Role) -> Result<Guarded, Fault> {
        let watch = Arc::new(Watch::new(role));
        let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        flags |= match role {
            Role::Reader | Role::ReadingStream => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Role::Writer | Role::Stream => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let opened = Connection::open_with_flags(&place.real, flags)
            .and_then(|connection| prepare(connection, &watch));
        match opened {
            Ok(connection) => Ok(Guarded { connection, watch }),
            Err(error) => Err(fault::of(&error, &watch)),
        }
    }

    /// The failure that an error of SQLite's is.
    pub fn fault(&self, error: &rusqlite::Error) -> Fault {
        fault::of(error, &self.watch)
    }

    /// Run the service's own statements.
    pub fn own(&self, sql: &str) -> Result<(), rusqlite::Error> {
        self.watch.ours(|| self.connection.execute_batch(sql))
    }

    /// End a transaction that may or may not be there.
    pub fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.own("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }

    /// Whether the next caller finds it as if it were new.
    pub fn is_clean(&self) -> bool {
        self.connection.is_autocommit() && !self.watch.is_marked()
    }

    pub(crate) fn raw(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

fn prepare(mut connection: Connection, watch: &Arc<Watch>) -> Result<Connection, rusqlite::Error> {
    bound_memory(&connection);
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
        // a name that is not there is a mistake, and no text: text would be kept in the history
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
    ] {
        connection.set_db_config(config, on)?;
    }
    let number = |bound: usize| i32::try_from(bound).unwrap_or(i32::MAX);
    for (limit, bound) in [
        (Limit::SQLITE_LIMIT_LENGTH, number(limits::VALUE)),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, number(limits::STATEMENT)),
        (Limit::SQLITE_LIMIT_VDBE_OP, 250_000),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 100),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        // one for VACUUM, which attaches the file that it writes
        (Limit::SQLITE_LIMIT_ATTACHED, 1),
    ] {
        connection.set_limit(limit, bound)?;
    }
    connection.busy_timeout(LOCK)?;
    connection.set_prepared_statement_cache_capacity(32);
    // says whether it is a database at all, before anything is written
    connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
    if matches!(watch.role(), Role::Writer | Role::Stream) {
        write_ahead(&connection)?;
    }
    connection.execute_batch(&format!(
        "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -{}; PRAGMA journal_size_limit = {};",
        limits::CACHE,
        limits::JOURNAL
    ))?;
    if matches!(watch.role(), Role::Reader | Role::ReadingStream) {
        connection.pragma_update(None, "query_only", true)?;
    }
    let (asked, ending) = (watch.clone(), watch.clone());
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        asked.authorize(&context)
    }))?;
    connection.progress_handler(limits::LOOK, Some(move || ending.ends()))?;
    Ok(connection)
}

/// Have the database write ahead, so that readers and the writer do not wait for one another. It
/// is kept in the file; another connection that just does the same is no failure.
fn write_ahead(connection: &Connection) -> Result<(), rusqlite::Error> {
    const TRIES: u32 = 50;
    for _ in 0..TRIES {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| {
            row.get::<_, String>(0)
        }) {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => {
                tracing::warn!(mode, "a database does not write ahead");
                return Ok(());
            }
            Err(error) if fault::is_busy(&error) => std::thread::sleep(LOCK),
            Err(error) => return Err(error),
        }
    }
    // a reader of the old kind holds it: it works, and readers wait for the writer
    Ok(())
}

/// SQLite counts what it takes for the whole process.
fn bound_memory(connection: &Connection) {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let set = connection.query_row(
            &format!("PRAGMA hard_heap_limit = {}", limits::HEAP),
            [],
            |row| row.get::<_, i64>(0),
        );
        match set {
            Ok(bytes) if bytes == limits::HEAP as i64 => {}
            other => tracing::error!(?other, "the memory of databases is not bounded"),
        }
    });
}
