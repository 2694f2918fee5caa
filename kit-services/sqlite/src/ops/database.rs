//! Databases, and SQL on them.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::wrong;
use crate::history::Asked;
use crate::name::{self, Name};
use crate::run::Parameters;
use crate::store::{Attempt, Database};
use crate::transaction::{self, Done, Failed, Format, Item, Step};
use crate::{Sqlite, copy, kv, limits, run, text, value};

impl Sqlite {
    /// The database that a request names, made where it says so.
    pub(crate) async fn database(&self, db: &str, make: bool) -> Result<Arc<Database>, Fault> {
        self.tend();
        let name = Name::parse(db)?;
        match make {
            true => self.store.find_or_make(&name).await.map(|(found, _)| found),
            false => self.store.find(&name).await,
        }
    }

    /// Tell the history, beside everything else.
    pub(crate) async fn remember(&self, database: &Database, asked: Vec<Asked>) {
        let (history, db) = (self.history.clone(), database.place.shown.clone());
        let told = self.store.aside(move || {
            history.add(&db, &asked);
            Ok(())
        });
        if let Err(fault) = told.await {
            tracing::warn!(%fault, "statements are missing in the history");
        }
    }
}

/// Execute an SQL transaction.
///
/// The items run one after the other in one transaction: all of them happen, or none. An item is a
/// `query`, whose rows come back, or a `statement` (also `sql`), of which the number of changed
/// rows does. `values` are bound by position (a list) or by name (an object); `valuesBatch` runs a
/// statement once for each of its lists. An item with `noFail` may fail alone. Where all items only
/// read, no writer is waited for. A transaction that fails answers with `reqIdx`, the item that
/// failed.
#[derive(Deserialize, JsonSchema)]
pub struct Transact {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Make the database where it is missing.
    create_db_if_missing: Option<bool>,
    /// The same as `create_db_if_missing`.
    auto_create: Option<bool>,
    /// Refuse whatever writes.
    #[serde(default)]
    read_only: bool,
    /// How long it may work, in seconds.
    #[schemars(extend("default" = 30, "minimum" = 1, "maximum" = 300))]
    timeout: Option<u64>,
    /// The shape of rows: `map`, `list` or `typed`.
    #[serde(rename = "resultFormat", default)]
    format: Option<Format>,
    /// What to run, at most 10000 items.
    #[serde(default)]
    transaction: Vec<Wish>,
}

/// One item.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Wish {
    /// SQL whose rows are wanted.
    query: Option<String>,
    /// SQL of which the number of changed rows is wanted.
    statement: Option<String>,
    /// The same as `statement`.
    sql: Option<String>,
    /// What its parameters are: a list by position, or an object by name.
    #[serde(default)]
    values: Json,
    /// Lists or objects of parameters; the statement runs once for each.
    values_batch: Option<Vec<Json>>,
    /// Let the other items go on when this one fails.
    #[serde(default)]
    no_fail: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct Transacted {
    /// One for each item.
    results: Vec<Item>,
}

impl Wish {
    fn step(self, at: usize) -> Result<Step, Fault> {
        let wrong = |why: &str| {
            Fault::bad_request(format!("transaction[{at}]: {why}"))
                .field(format!("/transaction/{at}"), why)
                .code("VALIDATION_ERROR")
                .with_body(json!({
                    "error": format!("transaction[{at}]: {why}"),
                    "code": "VALIDATION_ERROR",
                    "reqIdx": at,
                }))
        };
        let (sql, query) = match (self.query, self.statement, self.sql) {
            (Some(sql), None, None) => (sql, true),
            (None, Some(sql), None) | (None, None, Some(sql)) => (sql, false),
            _ => return Err(wrong("give one of query, statement and sql")),
        };
        if query && self.values_batch.is_some() {
            return Err(wrong("valuesBatch is for statements; a query takes values"));
        }
        if !self.values.is_null() && self.values_batch.is_some() {
            return Err(wrong("give values or valuesBatch"));
        }
        let read = |json| Parameters::read(json).map_err(|fault| wrong(&fault.message));
        let batch = match self.values_batch {
            None => None,
            Some(batch) if batch.len() > limits::BATCH => {
                return Err(wrong(&format!(
                    "valuesBatch has at most {} rows",
                    limits::BATCH
                )));
            }
            Some(batch) => Some(batch.into_iter().map(read).collect::<Result<Vec<_>, _>>()?),
        };
        Ok(Step {
            sql,
            query,
            no_fail: self.no_fail,
            parameters: read(self.values)?,
            batch,
        })
    }
}

fn steps(wishes: Vec<Wish>) -> Result<Vec<Step>, Fault> {
    if wishes.is_empty() {
        return Err(wrong("transaction", "it has at least one item"));
    }
    if wishes.len() > limits::ITEMS {
        let most = format!("it has at most {} items", limits::ITEMS);
        return Err(wrong("transaction", &most));
    }
    let rows: usize = wishes
        .iter()
        .filter_map(|wish| wish.values_batch.as_ref().map(Vec::len))
        .sum();
    if rows > limits::BATCHES {
        let most = format!("all valuesBatch have at most {} rows", limits::BATCHES);
        return Err(wrong("transaction", &most));
    }
    wishes
        .into_iter()
        .enumerate()
        .map(|(at, wish)| wish.step(at))
        .collect()
}

/// Two names of one wish must not say two things.
pub(crate) fn makes(create: Option<bool>, auto: Option<bool>) -> Result<bool, Fault> {
    match (create, auto) {
        (Some(create), Some(auto)) if create != auto => Err(Fault::bad_request(
            "conflicting flags: create_db_if_missing and auto_create must match",
        )
        .code("CONFLICTING_FLAGS")),
        (create, auto) => Ok(create.or(auto).unwrap_or(false)),
    }
}

impl Operation for Transact {
    const ROUTE: Route = Route::post("/api/v1/sqlite/db")
        .named("executeSqlTransaction")
        .cli("db exec-transaction")
        .query(&[
            "db",
            "create_db_if_missing",
            "auto_create",
            "read_only",
            "timeout",
        ]);
    type Service = Sqlite;
    type Reply = Transacted;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Transacted, Fault> {
        let make = makes(self.create_db_if_missing, self.auto_create)?;
        let steps = Arc::new(steps(self.transaction)?);
        let database = sqlite.database(&self.db, make && !self.read_only).await?;
        let format = self.format.unwrap_or_default();
        let allowed = limits::timeout(self.timeout);
        let mut done: Option<Done> = None;
        if self.read_only || steps.iter().all(|step| step.query) {
            let steps = steps.clone();
            let reading = move |connection: &_| transaction::read(connection, &steps, format);
            let read = sqlite.store.read(&database, allowed, reading).await?;
            let writes = matches!(&read.result, Err(failed) if failed.needs_a_writer());
            if self.read_only || !writes {
                done = Some(read);
            }
        }
        let done = match done {
            Some(done) => done,
            None => {
                sqlite
                    .store
                    .write(&database, allowed, move |connection| {
                        transaction::write(connection, &steps, format)
                    })
                    .await?
            }
        };
        sqlite.remember(&database, done.asked).await;
        match done.result {
            Ok(results) => Ok(Transacted { results }),
            Err(failed) => Err(told(failed)),
        }
    }
}

/// A transaction that failed, with the item that did.
fn told(failed: Failed) -> Fault {
    let Failed { at, fault } = failed;
    let mut body = json!({ "error": fault.message, "reqIdx": at });
    if let Some(code) = fault.code {
        body["code"] = code.into();
    }
    fault.with_body(body)
}

/// Make a database.
///
/// A bare name is a file of `/hoody/databases`, with `.db` where it has no extension. A database
/// that is there already stays as it is.
#[derive(Deserialize, JsonSchema)]
pub struct Create {
    /// Name of the database, or its path below `/hoody/databases`.
    path: String,
    /// Make a key-value table in it.
    #[serde(default)]
    init_kv: bool,
    /// The name of that table.
    #[schemars(extend("default" = "kv_store"))]
    kv_table: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Created {
    success: bool,
    /// Where it is.
    path: String,
    /// Whether it was made just now.
    created: bool,
    /// The key-value table, where one was asked for.
    kv_table: Option<String>,
}

impl Operation for Create {
    const ROUTE: Route = Route::post("/api/v1/sqlite/db/create")
        .named("createDatabase")
        .cli("db create")
        .query(&["path", "init_kv", "kv_table"]);
    type Service = Sqlite;
    type Reply = Created;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Created, Fault> {
        sqlite.tend();
        let name = Name::parse(&self.path)?;
        let wants_table = self.init_kv || self.kv_table.is_some();
        let table = kv::Table::parse(self.kv_table.as_deref())?;
        let (database, created) = sqlite.store.find_or_make(&name).await?;
        let kv_table = wants_table.then(|| table.name().to_owned());
        sqlite
            .store
            .write(&database, limits::TIMEOUT, move |connection| {
                if wants_table {
                    kv::make(connection, &table)
                } else {
                    // opening it wrote the header that makes the file a database
                    Ok(Attempt::Done(()))
                }
            })
            .await?;
        Ok(Created {
            success: true,
            path: database.place.shown.clone(),
            created,
            kv_table,
        })
    }
}

/// List the databases.
///
/// Every file below `/hoody/databases` that is an SQLite database, or empty.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    /// Databases to pass over.
    #[serde(default)]
    offset: usize,
    /// Most databases, at most 1000; 100 where not given.
    #[schemars(extend("default" = 100, "maximum" = 1000))]
    limit: Option<usize>,
}

#[derive(Serialize, JsonSchema)]
pub struct Databases {
    items: Vec<Found>,
    /// All there are.
    total: usize,
    /// Whether there are so many files that not all were looked at.
    truncated: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct Found {
    /// What `db` takes.
    path: String,
    name: String,
    /// Bytes of the file.
    bytes: u64,
    /// Milliseconds since 1970.
    modified_at: i64,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/sqlite/db")
        .named("listDatabases")
        .cli("db list");
    type Service = Sqlite;
    type Reply = Databases;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Databases, Fault> {
        const LIMIT: usize = 100;
        const MOST: usize = 1_000;
        let directory = sqlite.store.directory.clone();
        let (found, truncated) = sqlite
            .store
            .aside(move || Ok(name::list(&directory)))
            .await?;
        let total = found.len();
        let items = found
            .into_iter()
            .skip(self.offset)
            .take(self.limit.unwrap_or(LIMIT).min(MOST))
            .map(|one| Found {
                name: one
                    .path
                    .trim_start_matches(name::DIRECTORY)
                    .trim_start_matches('/')
                    .to_owned(),
                path: one.path,
                bytes: one.bytes,
                modified_at: one.modified,
            })
            .collect();
        Ok(Databases {
            items,
            total,
            truncated,
        })
    }
}

/// Remove a database.
///
/// The file and what SQLite keeps beside it are gone. Who has it open goes on with what is no
/// longer there.
#[derive(Deserialize, JsonSchema)]
pub struct Delete {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Deleted {
    success: bool,
    /// What was removed.
    path: String,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/sqlite/db")
        .named("deleteDatabase")
        .cli("db delete");
    type Service = Sqlite;
    type Reply = Deleted;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Deleted, Fault> {
        let name = Name::parse(&self.db)?;
        let (store, history) = (sqlite.store.clone(), sqlite.history.clone());
        let path = sqlite
            .store
            .aside(move || {
                let place = name.find(&store.directory)?;
                store.forget(&place);
                std::fs::remove_file(&place.real).map_err(|error| {
                    Fault::internal(format!(
                        "`{}` could not be removed: {}",
                        place.shown,
                        error.kind()
                    ))
                })?;
                for companion in place.companions() {
                    let _ = std::fs::remove_file(companion); // not all of them are there
                }
                history.clear(&place.shown)?;
                Ok(place.shown)
            })
            .await?;
        Ok(Deleted {
            success: true,
            path,
        })
    }
}

/// Describe the tables of a database.
#[derive(Deserialize, JsonSchema)]
pub struct Tables {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Described {
    tables: Vec<Table>,
    /// Whether there are more than are described.
    truncated: bool,
    /// Bytes of the database.
    bytes: u64,
}

#[derive(Serialize, JsonSchema)]
pub struct Table {
    name: String,
    /// `table`, `view` or `virtual`.
    kind: String,
    /// The statement that made it.
    sql: Option<String>,
    columns: Vec<Column>,
    indexes: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Column {
    name: String,
    /// The declared type; empty where there is none.
    r#type: String,
    not_null: bool,
    /// Its place in the primary key, from 1; 0 where it is not in it.
    primary_key: i64,
    default: Option<String>,
}

impl Operation for Tables {
    const ROUTE: Route = Route::get("/api/v1/sqlite/tables")
        .named("listTables")
        .cli("db tables");
    type Service = Sqlite;
    type Reply = Described;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Described, Fault> {
        let database = sqlite.database(&self.db, false).await?;
        let bytes = database.place.bytes();
        let (tables, truncated) = sqlite
            .store
            .read(&database, limits::TIMEOUT, |connection| {
                connection
                    .watch
                    .trusted(|| describe(connection))
                    .map_err(|error| connection.fault(&error))
            })
            .await?;
        Ok(Described {
            tables,
            truncated,
            bytes,
        })
    }
}

/// Tables and views, at most so many; a schema can be as large as its author likes.
const MOST_TABLES: usize = 1_000;
/// Columns of all of them.
const MOST_COLUMNS: usize = 20_000;

fn describe(connection: &rusqlite::Connection) -> Result<(Vec<Table>, bool), rusqlite::Error> {
    let mut select = connection.prepare_cached(
        "SELECT l.name, l.type, substr(s.sql, 1, 10000) FROM pragma_table_list AS l
         LEFT JOIN sqlite_schema AS s ON s.name = l.name AND s.type IN ('table', 'view')
         WHERE l.schema = 'main' AND l.type <> 'shadow' AND l.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY l.name",
    )?;
    let mut columns = connection.prepare_cached(
        "SELECT name, type, \"notnull\", pk, substr(dflt_value, 1, 1000) FROM pragma_table_xinfo(?1)",
    )?;
    let mut indexes =
        connection.prepare_cached("SELECT name FROM pragma_index_list(?1) ORDER BY seq")?;
    let mut tables = Vec::new();
    let mut left = MOST_COLUMNS;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if tables.len() == MOST_TABLES || left == 0 {
            return Ok((tables, true));
        }
        let name: String = row.get(0)?;
        let described: Vec<Column> = columns
            .query_map([&name], |row| {
                Ok(Column {
                    name: row.get(0)?,
                    r#type: row.get(1)?,
                    not_null: row.get(2)?,
                    primary_key: row.get(3)?,
                    default: row.get(4)?,
                })
            })
            // a view of what is no longer there
            .and_then(|rows| rows.collect())
            .unwrap_or_default();
        left = left.saturating_sub(described.len().max(1));
        let listed: Vec<String> = indexes
            .query_map([&name], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        tables.push(Table {
            kind: row.get(1)?,
            sql: row.get(2)?,
            columns: described,
            indexes: listed,
            name,
        });
    }
    Ok((tables, false))
}

/// Run a query that can be shared as a link.
///
/// One statement that only reads: `SELECT`, `WITH`, `VALUES`, `EXPLAIN`, or a `PRAGMA` that tells
/// something. It is base64, plain or URL-safe, with or without padding; what is no base64 of such a
/// statement is taken for the statement itself. The URL is all that whoever opens it needs.
#[derive(Deserialize, JsonSchema)]
pub struct Query {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// The query in base64.
    #[schemars(extend("format" = "base64"))]
    sql: String,
    /// Send values with their types, so that no reader loses digits.
    #[serde(default)]
    typed: bool,
    /// How long it may work, in seconds.
    #[schemars(extend("default" = 30, "minimum" = 1, "maximum" = 300))]
    timeout: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rows {
    /// Names of the columns, in order; the second `id` is `id_2`.
    columns: Vec<String>,
    result_set: Vec<Map<String, Json>>,
    row_count: usize,
    /// Whether there were more than 10000 rows; the others are left out.
    truncated: bool,
}

/// What a shareable query begins with.
const READING: [&str; 5] = ["SELECT", "WITH", "VALUES", "EXPLAIN", "PRAGMA"];

/// The statement that the parameter stands for.
pub(crate) fn decode(sql: &str) -> String {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    // a plus is a space by the time it gets here
    let plain = sql.trim().replace(' ', "+");
    for alphabet in [&URL_SAFE, &STANDARD] {
        let decoded = GeneralPurpose::new(alphabet, LENIENT).decode(&plain);
        if let Ok(bytes) = decoded
            && let Ok(text) = String::from_utf8(bytes)
            && READING.contains(&text::first_word(&text).as_str())
        {
            return text;
        }
    }
    sql.to_owned()
}

impl Operation for Query {
    const ROUTE: Route = Route::get("/api/v1/sqlite/query")
        .named("executeShareableQuery")
        .cli("db exec-shareable");
    type Service = Sqlite;
    type Reply = Rows;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Rows, Fault> {
        let only_reads = || {
            Fault::bad_request(
                "GET /query only accepts read-only SELECT/WITH queries; use POST /db for mutating SQL",
            )
            .code("READ_ONLY_QUERY")
        };
        let sql = decode(&self.sql);
        if !READING.contains(&text::first_word(&sql).as_str()) {
            return Err(only_reads());
        }
        let database = sqlite.database(&self.db, false).await?;
        let step = Step {
            sql,
            query: true,
            no_fail: false,
            parameters: Parameters::default(),
            batch: None,
        };
        let write = if self.typed {
            value::typed
        } else {
            value::plain
        };
        let allowed = limits::timeout(self.timeout);
        let (rows, asked) = sqlite
            .store
            .read(&database, allowed, move |connection| {
                let began = std::time::Instant::now();
                let mut budget = run::Budget::default();
                let done = run::run(connection, &step.sql, &step.parameters, true, &mut budget);
                let asked = Asked {
                    kind: "query",
                    error: done.as_ref().err().map(|fault| fault.message.clone()),
                    rows: done.as_ref().map_or(0, |outcome| outcome.rows.len() as u64),
                    took: began.elapsed(),
                    sql: step.sql,
                };
                let rows = done.map(|outcome| {
                    let truncated = outcome.truncated;
                    let (columns, result_set) = run::objects(outcome, write);
                    Rows {
                        columns,
                        row_count: result_set.len(),
                        result_set,
                        truncated,
                    }
                });
                Ok((rows, asked))
            })
            .await?;
        sqlite.remember(&database, vec![asked]).await;
        rows.map_err(|fault| match fault.code {
            Some("NOT_ALLOWED") if fault.message.contains("only reads") => only_reads(),
            Some("MULTIPLE_STATEMENTS") => only_reads(),
            _ => fault,
        })
    }
}

/// Maintain a database.
///
/// `quick_check` and `integrity_check` look for damage, `wal_checkpoint_truncate` writes the log
/// into the database and empties it, `vacuum` rebuilds the file without gaps, `optimize` renews the
/// statistics that queries are planned by, and `vacuum_into` copies the database, as it is at that
/// moment and without gaps, to `dest_path`, which must not be there. Writers go on while it copies.
#[derive(Deserialize, JsonSchema)]
pub struct Maintain {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// How long it may work, in seconds.
    #[schemars(extend("default" = 30, "minimum" = 1, "maximum" = 300))]
    timeout: Option<u64>,
    /// What to do.
    op: Chore,
    /// Name or path of the copy.
    dest_path: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Chore {
    WalCheckpointTruncate,
    VacuumInto,
    QuickCheck,
    IntegrityCheck,
    Vacuum,
    Optimize,
}

#[derive(Default, Serialize, JsonSchema)]
pub struct Maintained {
    /// Whether it was done, and nothing was found that is wrong.
    success: bool,
    /// What a check found; `ok` alone where nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<String>>,
    /// Pages of the log, and those that were written into the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<Checkpoint>,
    /// The copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Bytes of the database, or of the copy.
    bytes: u64,
}

#[derive(Serialize, JsonSchema)]
pub struct Checkpoint {
    /// Whether readers kept some of the log from being written.
    busy: bool,
    log: i64,
    checkpointed: i64,
}

impl Operation for Maintain {
    const ROUTE: Route = Route::post("/api/v1/sqlite/maintenance")
        .named("runMaintenance")
        .cli("db maintenance")
        .query(&["db", "timeout"]);
    type Service = Sqlite;
    type Reply = Maintained;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Maintained, Fault> {
        let database = sqlite.database(&self.db, false).await?;
        let allowed = limits::timeout(self.timeout);
        let store = &sqlite.store;
        let mut done = match (self.op, self.dest_path) {
            (Chore::VacuumInto, None) => {
                return Err(wrong("dest_path", "name the copy that is to be made"));
            }
            (Chore::VacuumInto, Some(path)) => {
                let name = Name::parse(&path)?;
                let directory = store.directory.clone();
                let copied = store
                    .read(&database, allowed, move |connection| {
                        copy::into_new(connection, &name, &directory)
                    })
                    .await?;
                return Ok(Maintained {
                    success: true,
                    bytes: copied.bytes(),
                    path: Some(copied.shown),
                    ..Maintained::default()
                });
            }
            (_, Some(_)) => {
                return Err(wrong("dest_path", "only vacuum_into makes a copy"));
            }
            (chore @ (Chore::QuickCheck | Chore::IntegrityCheck), None) => {
                let messages = store
                    .read(&database, allowed, move |connection| {
                        check(connection, chore)
                    })
                    .await?;
                Maintained {
                    success: messages == ["ok"],
                    messages: Some(messages),
                    ..Maintained::default()
                }
            }
            (chore, None) => {
                store
                    .write(&database, allowed, move |connection| {
                        work(connection, chore)
                    })
                    .await?
            }
        };
        done.bytes = database.place.bytes();
        Ok(done)
    }
}

/// Findings of a check that are told.
const FINDINGS: usize = 100;

fn check(connection: &crate::connection::Guarded, chore: Chore) -> Result<Vec<String>, Fault> {
    let pragma = match chore {
        Chore::IntegrityCheck => "integrity_check",
        _ => "quick_check",
    };
    let found = connection.watch.trusted(|| {
        connection
            .prepare(&format!("PRAGMA {pragma}({FINDINGS})"))?
            .query_map([], |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()
    });
    match found.map_err(|error| connection.fault(&error)) {
        // so damaged that it cannot even be looked at
        Err(fault) if fault.code == Some("CORRUPT") => Ok(vec![fault.message]),
        found => found,
    }
}

fn work(
    connection: &crate::connection::Guarded,
    chore: Chore,
) -> Result<Attempt<Maintained>, Fault> {
    let mut done = Maintained {
        success: true,
        ..Maintained::default()
    };
    let worked = connection.watch.trusted(|| match chore {
        Chore::WalCheckpointTruncate => {
            let row = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
                Ok(Checkpoint {
                    busy: row.get(0)?,
                    log: row.get(1)?,
                    checkpointed: row.get(2)?,
                })
            })?;
            done.success = !row.busy;
            done.checkpoint = Some(row);
            Ok(())
        }
        Chore::Optimize => connection.execute_batch("PRAGMA optimize"),
        _ => connection.execute_batch("VACUUM"),
    });
    match worked {
        Ok(()) => Ok(Attempt::Done(done)),
        Err(error) if crate::fault::is_busy(&error) => Ok(Attempt::Busy),
        Err(error) => Err(connection.fault(&error)),
    }
}
