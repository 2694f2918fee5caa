//! What a connection may do, and for how long.
//!
//! Each connection has one watch. SQLite asks it while a statement is prepared (the authorizer)
//! and every [`LOOK`](crate::limits::LOOK) instructions while one runs.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads only, for whoever comes.
    Reader,
    /// Writes, one caller after the other; the service begins and ends its transactions.
    Writer,
    /// One client's own, with transactions of its own.
    Stream,
    /// One client's own that must not write.
    ReadingStream,
}

impl Role {
    fn writes(self) -> bool {
        matches!(self, Role::Writer | Role::Stream)
    }
    fn is_stream(self) -> bool {
        matches!(self, Role::Stream | Role::ReadingStream)
    }
}

/// Why a statement was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Late,
    Gone,
}

/// Whose statement is being prepared.
const THEIRS: u8 = 0;
/// The service's own.
const OURS: u8 = 1;
/// The service's own, which takes as long as there is to work on.
const TRUSTED: u8 = 3;
/// Theirs, and it is a plain `VACUUM`, which attaches a file without a name for itself.
const VACUUM: u8 = 2;

/// See the module.
#[derive(Debug)]
pub struct Watch {
    role: Role,
    began: Instant,
    /// Microseconds after `began`.
    deadline: AtomicU64,
    allowed: AtomicU64,
    whose: AtomicU8,
    late: AtomicBool,
    /// Whether something was changed that outlives the transaction: temporary tables, settings.
    marked: AtomicBool,
    refused: Mutex<Option<String>>,
    wanted: Mutex<Wanted>,
}

/// Whether anybody still waits for what comes out.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Arc<AtomicBool>);

impl Wanted {
    pub fn gone(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    /// Nobody does any more.
    pub fn leave(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tells [`Wanted`] when dropped.
#[derive(Debug, Default)]
pub struct Waiting(pub Wanted);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Watch {
    pub fn new(role: Role) -> Watch {
        Watch {
            role,
            began: Instant::now(),
            deadline: AtomicU64::new(u64::MAX),
            allowed: AtomicU64::new(0),
            whose: AtomicU8::new(THEIRS),
            late: AtomicBool::new(false),
            marked: AtomicBool::new(false),
            refused: Mutex::new(None),
            wanted: Mutex::new(Wanted::default()),
        }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// A job begins: it may take this long, as long as it is wanted.
    pub fn begin(&self, allowed: Duration, wanted: &Wanted) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let deadline = micros(self.began.elapsed().saturating_add(allowed));
        self.allowed.store(micros(allowed), Ordering::Relaxed);
        self.deadline.store(deadline, Ordering::Relaxed);
        self.late.store(false, Ordering::Relaxed);
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = wanted.clone();
        self.forget_refusal();
    }

    /// How long the job that runs may take.
    pub fn allowed(&self) -> Duration {
        Duration::from_micros(self.allowed.load(Ordering::Relaxed))
    }

    /// Whether the job has to end.
    pub fn over(&self) -> Option<Over> {
        if self
            .wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .gone()
        {
            return Some(Over::Gone);
        }
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let late = self.late.load(Ordering::Relaxed) || now > self.deadline.load(Ordering::Relaxed);
        late.then_some(Over::Late)
    }

    /// Asked while a statement runs; true ends it. What the service does itself to end a
    /// transaction is never ended.
    pub fn ends(&self) -> bool {
        if self.whose.load(Ordering::Relaxed) == OURS {
            return false;
        }
        self.over().is_some()
    }

    /// Do something of the service's own, which is let through and not timed.
    pub fn ours<T>(&self, work: impl FnOnce() -> T) -> T {
        self.with(OURS, work)
    }

    /// Do something of the service's own, which is let through, and timed like everything else.
    pub fn trusted<T>(&self, work: impl FnOnce() -> T) -> T {
        self.with(TRUSTED, work)
    }

    /// Let a plain `VACUUM` through.
    pub fn vacuuming<T>(&self, work: impl FnOnce() -> T) -> T {
        self.with(VACUUM, work)
    }

    fn with<T>(&self, whose: u8, work: impl FnOnce() -> T) -> T {
        /// Puts it back although the work panics: the next caller's is not ours.
        struct Back<'a>(&'a AtomicU8, u8);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.store(self.1, Ordering::Relaxed);
            }
        }
        let _back = Back(&self.whose, self.whose.swap(whose, Ordering::Relaxed));
        work()
    }

    /// What was not let through since the last time.
    pub fn refusal(&self) -> Option<String> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub fn forget_refusal(&self) {
        self.refusal();
    }

    /// Whether the connection is no longer as it was, and must not be used by the next caller.
    pub fn is_marked(&self) -> bool {
        self.marked.load(Ordering::Relaxed)
    }

    /// Have the next caller get another connection.
    pub fn mark(&self) {
        self.marked.store(true, Ordering::Relaxed);
    }

    /// The authorizer.
    pub fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        let whose = self.whose.load(Ordering::Relaxed);
        if matches!(whose, OURS | TRUSTED) {
            return Authorization::Allow;
        }
        match judge(&context.action, self.role, whose == VACUUM) {
            Verdict::Allow => Authorization::Allow,
            Verdict::Mark => {
                self.marked.store(true, Ordering::Relaxed);
                Authorization::Allow
            }
            Verdict::Refuse(reason) => {
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                Authorization::Deny
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// Allowed, and the connection is not the same afterwards.
    Mark,
    Refuse(String),
}

/// Pragmas that only tell something, with and without an argument.
const TELLING: &[&str] = &[
    "application_id",
    "collation_list",
    "compile_options",
    "data_version",
    "encoding",
    "foreign_key_check",
    "foreign_key_list",
    "freelist_count",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "module_list",
    "page_count",
    "pragma_list",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];
/// Pragmas that are numbers in the file, or work on it, and may be set by whoever may write.
const IN_THE_FILE: &[&str] = &[
    "application_id",
    "auto_vacuum",
    "encoding",
    "incremental_vacuum",
    "optimize",
    "page_size",
    "user_version",
];
/// Settings of a connection. Whoever shares it with others gets a fresh one afterwards.
const OF_THE_CONNECTION: &[&str] = &[
    "analysis_limit",
    "automatic_index",
    "case_sensitive_like",
    "cell_size_check",
    "defer_foreign_keys",
    "foreign_keys",
    "full_column_names",
    "query_only",
    "recursive_triggers",
    "reverse_unordered_selects",
    "short_column_names",
];
/// What may be read, though not set.
const READ_ONLY: &[&str] = &[
    "busy_timeout",
    "cache_size",
    "database_list",
    "journal_mode",
    "journal_size_limit",
    "locking_mode",
    "max_page_count",
    "mmap_size",
    "schema_version",
    "secure_delete",
    "synchronous",
    "temp_store",
    "threads",
    "trusted_schema",
    "wal_autocheckpoint",
];
/// Virtual tables that are tables, not doors to something else.
const MODULES: &[&str] = &[
    "fts3",
    "fts4",
    "fts5",
    "fts5vocab",
    "fts4aux",
    "rtree",
    "rtree_i32",
];
/// Functions that reach beyond the database.
const DOORS: &[&str] = &[
    "edit",
    "fts3_tokenizer",
    "load_extension",
    "readfile",
    "writefile",
];

/// Whether a statement of a caller's may do this. A pure function, so that it can be tabled.
fn judge(action: &AuthAction<'_>, role: Role, vacuum: bool) -> Verdict {
    use AuthAction as A;
    let writing = |verdict| {
        if role.writes() {
            verdict
        } else {
            Verdict::Refuse(
                "this connection only reads; send what writes as a `statement` of POST \
                 /api/v1/sqlite/db"
                    .to_owned(),
            )
        }
    };
    match action {
        A::Attach { filename } if vacuum && filename.is_empty() => Verdict::Allow,
        A::Detach { .. } if vacuum => Verdict::Allow,
        A::Attach { .. } | A::Detach { .. } => Verdict::Refuse(
            "ATTACH, DETACH and VACUUM INTO are not available: a request works on one database. \
             Copy one with the maintenance operation vacuum_into"
                .to_owned(),
        ),
        A::Function { function_name } if is_among(DOORS, function_name) => {
            Verdict::Refuse(format!("the function {function_name} is not available"))
        }
        A::CreateVtable { module_name, .. } | A::DropVtable { module_name, .. } => {
            if is_among(MODULES, module_name) {
                writing(Verdict::Allow)
            } else {
                Verdict::Refuse(format!(
                    "virtual tables of the module {module_name} are not available; there are {}",
                    MODULES.join(", ")
                ))
            }
        }
        A::Pragma {
            pragma_name,
            pragma_value,
        } => pragma(pragma_name, *pragma_value, role),
        A::Transaction { .. } if role.is_stream() => Verdict::Allow,
        A::Savepoint { .. } if role.is_stream() => Verdict::Allow,
        A::Transaction { .. } | A::Savepoint { .. } => Verdict::Refuse(
            "BEGIN, COMMIT, ROLLBACK and SAVEPOINT are not available: all items of a request are \
             one transaction already"
                .to_owned(),
        ),
        A::CreateTempIndex { .. }
        | A::CreateTempTable { .. }
        | A::CreateTempTrigger { .. }
        | A::CreateTempView { .. }
        | A::DropTempIndex { .. }
        | A::DropTempTable { .. }
        | A::DropTempTrigger { .. }
        | A::DropTempView { .. } => match role {
            Role::Reader => writing(Verdict::Allow),
            _ => Verdict::Mark,
        },
        A::Select | A::Read { .. } | A::Recursive | A::Function { .. } => Verdict::Allow,
        A::CreateIndex { .. }
        | A::CreateTable { .. }
        | A::CreateTrigger { .. }
        | A::CreateView { .. }
        | A::Delete { .. }
        | A::DropIndex { .. }
        | A::DropTable { .. }
        | A::DropTrigger { .. }
        | A::DropView { .. }
        | A::Insert { .. }
        | A::Update { .. }
        | A::AlterTable { .. }
        | A::Reindex { .. }
        | A::Analyze { .. } => writing(Verdict::Allow),
        _ => Verdict::Refuse("this kind of statement is not available".to_owned()),
    }
}

fn pragma(name: &str, value: Option<&str>, role: Role) -> Verdict {
    let set = value.is_some();
    if is_among(TELLING, name) && !(set && is_among(IN_THE_FILE, name)) {
        return Verdict::Allow;
    }
    if is_among(IN_THE_FILE, name) {
        return match (
            set || is_among(&["optimize", "incremental_vacuum"], name),
            role,
        ) {
            (false, _) | (true, Role::Writer | Role::Stream) => Verdict::Allow,
            (true, _) => {
                Verdict::Refuse(format!("PRAGMA {name} writes; this connection only reads"))
            }
        };
    }
    if is_among(OF_THE_CONNECTION, name) {
        let loosens = role == Role::ReadingStream && name.eq_ignore_ascii_case("query_only");
        return match (set, role) {
            (false, _) => Verdict::Allow,
            _ if loosens => Verdict::Refuse("this connection only reads".to_owned()),
            (true, _) => Verdict::Mark,
        };
    }
    if is_among(READ_ONLY, name) {
        return match value {
            None => Verdict::Allow,
            // what every database here has; programs set it as they begin
            Some(value)
                if name.eq_ignore_ascii_case("journal_mode")
                    && value.eq_ignore_ascii_case("wal") =>
            {
                Verdict::Allow
            }
            Some(_) => Verdict::Refuse(format!(
                "PRAGMA {name} can be read here, and not set: the service keeps it as it is"
            )),
        };
    }
    if name.eq_ignore_ascii_case("wal_checkpoint") && role == Role::Stream {
        return Verdict::Allow;
    }
    Verdict::Refuse(format!("PRAGMA {name} is not available"))
}

fn is_among(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pragma_is(name: &str, value: Option<&str>, role: Role, want: &str) {
        let verdict = pragma(name, value, role);
        let is = match verdict {
            Verdict::Allow => "allow",
            Verdict::Mark => "mark",
            Verdict::Refuse(_) => "refuse",
        };
        assert_eq!(is, want, "{name} = {value:?} for {role:?}");
    }

    #[test]
    fn pragmas_are_let_through_by_name() {
        for role in [
            Role::Reader,
            Role::Writer,
            Role::Stream,
            Role::ReadingStream,
        ] {
            pragma_is("table_info", Some("t"), role, "allow");
            pragma_is("TABLE_INFO", Some("t"), role, "allow");
            pragma_is("user_version", None, role, "allow");
            pragma_is("journal_mode", None, role, "allow");
            pragma_is("journal_mode", Some("delete"), role, "refuse");
            pragma_is("journal_mode", Some("WAL"), role, "allow");
            for evil in [
                "writable_schema",
                "temp_store_directory",
                "data_store_directory",
                "key",
                "mmap_size",
                "hard_heap_limit",
                "soft_heap_limit",
                "trusted_schema",
                "ignore_check_constraints",
                "legacy_file_format",
                "synchronous",
                "locking_mode",
                "busy_timeout",
                "cache_size",
                "max_page_count",
                "schema_version",
                "shrink_memory",
                "wal_autocheckpoint",
                "journal_size_limit",
                "threads",
                "vdbe_trace",
            ] {
                pragma_is(evil, Some("1"), role, "refuse");
            }
        }
        pragma_is("user_version", Some("3"), Role::Reader, "refuse");
        pragma_is("user_version", Some("3"), Role::ReadingStream, "refuse");
        pragma_is("user_version", Some("3"), Role::Writer, "allow");
        pragma_is("optimize", None, Role::Reader, "refuse");
        pragma_is("foreign_keys", Some("off"), Role::Writer, "mark");
        pragma_is("query_only", Some("0"), Role::ReadingStream, "refuse");
    }

    #[test]
    fn a_job_is_over_when_it_is_late_or_nobody_waits() {
        let watch = Watch::new(Role::Reader);
        let waiting = Waiting::default();
        watch.begin(Duration::from_secs(60), &waiting.0);
        assert_eq!(watch.over(), None);
        watch.begin(Duration::ZERO, &waiting.0);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(watch.over(), Some(Over::Late));
        assert!(watch.ends());
        assert!(
            !watch.ours(|| watch.ends()),
            "what the service does itself goes on"
        );
        watch.begin(Duration::from_secs(60), &waiting.0);
        assert_eq!(watch.over(), None);
        drop(waiting);
        assert_eq!(watch.over(), Some(Over::Gone));
    }
}
