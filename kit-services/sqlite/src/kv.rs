//! A key-value store in a table, with the history of every key in a table beside it.
//!
//! The table can be read with SQL like any other. Of each key the history keeps what every write
//! left behind, so that the state at any moment is a row of it; a write without history leaves a
//! row that says only that something is not known from there on (`gap`).
//!
//! | bound | |
//! |---|---|
//! | [`VALUE`] | bytes of a value |
//! | [`PER_KEY`], [`PER_KEY_BYTES`] | history of a key |
//! | [`PER_TABLE`] | history of a table, whatever its keys |

use base64::Engine as _;
use kit::Fault;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value as Json, json};

use crate::connection::Guarded;
use crate::fault;
use crate::pointer::Path;
use crate::store::Attempt;
use crate::value::BASE64;

pub mod time;

/// The table where a request names none.
pub const TABLE: &str = "kv_store";
/// Bytes of a value; a row has to have room for its key, too.
pub const VALUE: usize = crate::limits::VALUE - (64 << 10);
/// Bytes of a key.
pub const KEY: usize = 1024;
/// Keys of one request.
pub const BATCH: usize = 100;
/// Operations that are kept of a key.
pub const PER_KEY: i64 = 1_000;
/// Bytes of them.
pub const PER_KEY_BYTES: i64 = 64 << 20;
/// Operations that are kept of a table.
pub const PER_TABLE: i64 = 500_000;
/// How many of them are looked after at a time.
const PRUNE: i64 = 32;
/// Longest time to live: a hundred years of seconds.
const LONGEST_TTL: i64 = 100 * 366 * 24 * 3600;
/// Bytes of all values of one list.
pub const PAGE: usize = crate::limits::RESULT;
/// Expired keys that are removed at a time, so that a writer does not wait for long.
const SWEPT: i64 = 1_000;

/// The name of a key-value table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table(String);

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub bytes: Vec<u8>,
    pub content_type: String,
    /// Milliseconds since 1970.
    pub expires_at: Option<i64>,
}

/// How a write is done.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Whether what it leaves behind is kept in the history.
    pub history: bool,
    /// Milliseconds since 1970.
    pub now: i64,
}

impl Table {
    pub fn parse(name: Option<&str>) -> Result<Table, Fault> {
        const LONGEST: usize = 60;
        let name = name.filter(|name| !name.is_empty()).unwrap_or(TABLE);
        let fits = name.len() <= LONGEST
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.to_ascii_lowercase().starts_with("sqlite_")
            && !name.contains("__");
        if !fits {
            let message = "a table is named by at most 60 letters, digits and single underscores, \
                           and not sqlite_…";
            return Err(
                Fault::bad_request(format!("invalid parameter `table`: {message}"))
                    .field("/table", message)
                    .code("VALIDATION_ERROR"),
            );
        }
        Ok(Table(name.to_owned()))
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// A statement with the table's names in it: `{t}`, `{h}`.
    fn sql(&self, template: &str) -> String {
        template
            .replace("{t}", &format!("\"{}\"", self.0))
            .replace("{h}", &format!("\"{}__history\"", self.0))
    }
}

/// A key as text; it is in no table where it is not one.
pub fn key(text: &str) -> Result<&str, Fault> {
    if text.is_empty() || text.len() > KEY || text.contains('\0') {
        let message = format!("a key has 1 to {KEY} bytes, and no NUL among them");
        return Err(
            Fault::bad_request(format!("invalid parameter `key`: {message}"))
                .field("/key", message)
                .code("VALIDATION_ERROR"),
        );
    }
    Ok(text)
}

pub fn missing(key: &str) -> Fault {
    Fault::not_found(format!("Key not found: `{key}`")).code("KEY_NOT_FOUND")
}

impl Entry {
    pub fn is_json(&self) -> bool {
        is_json(&self.content_type)
    }

    /// The value for a reader of JSON.
    pub fn shown(&self) -> Json {
        shown(&self.bytes, &self.content_type)
    }

    fn of_json(value: &Json, like: Option<&Entry>) -> Entry {
        Entry {
            bytes: value.to_string().into_bytes(),
            content_type: match like {
                Some(entry) if entry.is_json() => entry.content_type.clone(),
                _ => "application/json".to_owned(),
            },
            expires_at: like.and_then(|entry| entry.expires_at),
        }
    }

    /// The document that it is.
    fn document(&self) -> Result<Json, Fault> {
        serde_json::from_slice(&self.bytes).map_err(|_| {
            Fault::conflict(format!(
                "the value is {}, not JSON; replace it as a whole",
                self.content_type
            ))
            .code("NOT_JSON")
        })
    }
}

pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.to_ascii_lowercase().ends_with("+json")
}

/// A value for a reader of JSON: JSON as it is, text as a string, anything else as a blob.
pub fn shown(bytes: &[u8], content_type: &str) -> Json {
    if is_json(content_type)
        && let Ok(value) = serde_json::from_slice(bytes)
    {
        return value;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "type": "blob", "base64": BASE64.encode(bytes) }),
    }
}

/// What a value is kept under where its sender just says JSON, as some clients say of everything.
pub fn content_type(said: Option<&str>, bytes: &[u8]) -> String {
    match said.map(str::trim).filter(|said| !said.is_empty()) {
        Some(said) if !is_json(said) && said != "*/*" => said.to_owned(),
        said => {
            if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() {
                said.filter(|said| *said != "*/*")
                    .unwrap_or("application/json")
                    .to_owned()
            } else if std::str::from_utf8(bytes).is_ok() {
                "text/plain; charset=utf-8".to_owned()
            } else {
                "application/octet-stream".to_owned()
            }
        }
    }
}

/// Bytes as SQL sees them: text where they are text.
struct Stored<'a>(&'a [u8]);

impl rusqlite::ToSql for Stored<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = std::str::from_utf8(self.0).is_ok() && !self.0.contains(&0);
        Ok(ToSqlOutput::Borrowed(match text {
            true => ValueRef::Text(self.0),
            false => ValueRef::Blob(self.0),
        }))
    }
}

/// The bytes of a value, whoever put it there.
fn bytes(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Null => Vec::new(),
        ValueRef::Integer(number) => number.to_string().into_bytes(),
        ValueRef::Real(number) => number.to_string().into_bytes(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
    }
}

/// When something that lives so many seconds ends; none where it does not end.
pub fn expiry(ttl: Option<i64>, now: i64) -> Result<Option<i64>, Fault> {
    match ttl {
        None | Some(0) => Ok(None),
        Some(seconds) if (1..=LONGEST_TTL).contains(&seconds) => Ok(Some(now + seconds * 1000)),
        Some(_) => Err(Fault::bad_request(format!(
            "invalid parameter `ttl`: it is between 0, which is for ever, and {LONGEST_TTL} seconds"
        ))
        .field("/ttl", "out of range")
        .code("VALIDATION_ERROR")),
    }
}

const MAKE: &str = "
    CREATE TABLE IF NOT EXISTS {t} (
        key TEXT PRIMARY KEY NOT NULL,
        value BLOB NOT NULL,
        content_type TEXT NOT NULL DEFAULT 'application/json',
        created_at INTEGER NOT NULL DEFAULT (unixepoch() * 1000),
        updated_at INTEGER NOT NULL DEFAULT (unixepoch() * 1000),
        expires_at INTEGER
    );
    CREATE TABLE IF NOT EXISTS {h} (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL,
        op_number INTEGER NOT NULL,
        at INTEGER NOT NULL,
        op TEXT NOT NULL,
        value BLOB,
        content_type TEXT,
        expires_at INTEGER,
        UNIQUE (key, op_number)
    );";

/// Make the table in a transaction of its own.
pub fn make(connection: &Guarded, table: &Table) -> Result<Attempt<()>, Fault> {
    change(connection, |connection| ensure(connection, table))
}

/// Make the table where it is missing, and see that what bears its name is one.
fn ensure(connection: &Guarded, table: &Table) -> Result<(), Fault> {
    if is_there(connection, table)? {
        return Ok(());
    }
    let index = format!(
        "CREATE INDEX IF NOT EXISTS \"{0}__expires\" ON \"{0}\" (expires_at) WHERE expires_at IS NOT NULL;",
        table.name()
    );
    connection
        .execute_batch(&table.sql(MAKE))
        .and_then(|()| connection.execute_batch(&index))
        .map_err(|error| other(connection, table, &error))
}

fn other(connection: &Guarded, table: &Table, error: &rusqlite::Error) -> Fault {
    let said = error.to_string();
    if said.contains("no such column") || said.contains("has no column") {
        return Fault::conflict(format!(
            "`{}` is a table of another kind; name another one for keys and values",
            table.name()
        ))
        .code("NOT_A_KV_TABLE");
    }
    connection.fault(error)
}

/// Whether the table is there.
fn is_there(connection: &Guarded, table: &Table) -> Result<bool, Fault> {
    let found = connection
        .prepare_cached(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN (?1, ?2)",
        )
        .and_then(|mut select| {
            select.query_row(
                params![table.name(), format!("{}__history", table.name())],
                |row| row.get::<_, i64>(0),
            )
        })
        .map_err(|error| connection.fault(&error))?;
    Ok(found == 2)
}

/// Do something in a transaction that writes.
pub fn change<T>(
    connection: &Guarded,
    work: impl FnOnce(&Guarded) -> Result<T, Fault>,
) -> Result<Attempt<T>, Fault> {
    match connection.own("BEGIN IMMEDIATE") {
        Err(error) if fault::is_busy(&error) => return Ok(Attempt::Busy),
        Err(error) => return Err(connection.fault(&error)),
        Ok(()) => {}
    }
    let done = connection.watch.trusted(|| work(connection));
    match done {
        Ok(done) => {
            connection
                .own("COMMIT")
                .map_err(|error| connection.fault(&error))?;
            Ok(Attempt::Done(done))
        }
        Err(fault) => {
            connection.roll_back();
            Err(fault)
        }
    }
}

/// A view of one table within a transaction.
pub struct Kv<'c> {
    pub connection: &'c Guarded,
    pub table: &'c Table,
    pub manner: Manner,
}

impl<'c> Kv<'c> {
    /// The table, made where it is missing.
    pub fn made(
        connection: &'c Guarded,
        table: &'c Table,
        manner: Manner,
    ) -> Result<Kv<'c>, Fault> {
        ensure(connection, table)?;
        Ok(Kv {
            connection,
            table,
            manner,
        })
    }

    /// The table, where it is there.
    pub fn there(
        connection: &'c Guarded,
        table: &'c Table,
        manner: Manner,
    ) -> Result<Option<Kv<'c>>, Fault> {
        Ok(is_there(connection, table)?.then_some(Kv {
            connection,
            table,
            manner,
        }))
    }

    fn with<T>(
        &self,
        sql: &str,
        work: impl FnOnce(&mut rusqlite::CachedStatement<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Fault> {
        self.connection
            .prepare_cached(&self.table.sql(sql))
            .and_then(|mut statement| work(&mut statement))
            .map_err(|error| other(self.connection, self.table, &error))
    }

    /// What a key holds now.
    pub fn get(&self, key: &str) -> Result<Option<Entry>, Fault> {
        self.with(
            "SELECT value, content_type, expires_at FROM {t}
             WHERE key = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
            |select| {
                select
                    .query_row(params![key, self.manner.now], |row| {
                        Ok(Entry {
                            bytes: bytes(row.get_ref(0)?),
                            content_type: row.get(1)?,
                            expires_at: row.get(2)?,
                        })
                    })
                    .optional()
            },
        )
    }

    pub fn exists(&self, key: &str) -> Result<bool, Fault> {
        self.with(
            "SELECT 1 FROM {t} WHERE key = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
            |select| select.exists(params![key, self.manner.now]),
        )
    }

    /// Write a key; `op` is what the history calls it.
    pub fn put(&self, key: &str, entry: &Entry, op: &str) -> Result<(), Fault> {
        if entry.bytes.len() > VALUE {
            return Err(Fault::too_large(format!(
                "the value would have {} bytes; it has at most {VALUE}",
                entry.bytes.len()
            ))
            .code("TOO_BIG"));
        }
        self.with(
            "INSERT INTO {t} (key, value, content_type, created_at, updated_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?4, ?5)
             ON CONFLICT (key) DO UPDATE SET
                value = excluded.value, content_type = excluded.content_type,
                updated_at = excluded.updated_at, expires_at = excluded.expires_at,
                created_at = CASE WHEN expires_at <= excluded.updated_at
                    THEN excluded.created_at ELSE created_at END",
            |insert| {
                insert.execute(params![
                    key,
                    Stored(&entry.bytes),
                    entry.content_type,
                    self.manner.now,
                    entry.expires_at
                ])
            },
        )?;
        self.record(key, op, Some(entry))
    }

    /// Remove a key. Whether it was there.
    pub fn remove(&self, key: &str, op: &str) -> Result<bool, Fault> {
        let there = self.exists(key)?;
        let removed = self.with("DELETE FROM {t} WHERE key = ?1", |delete| {
            delete.execute(params![key])
        })?;
        if removed > 0 && there {
            self.record(key, op, None)?;
        }
        Ok(there)
    }

    /// Tell the history what a write left behind.
    fn record(&self, key: &str, op: &str, left: Option<&Entry>) -> Result<(), Fault> {
        let last = self.with(
            "SELECT op_number, op, at FROM {h} WHERE key = ?1 ORDER BY op_number DESC LIMIT 1",
            |select| {
                select
                    .query_row(params![key], |row| {
                        Ok((
                            row.get::<_, i64>(0)?,
                            row.get::<_, String>(1)?,
                            row.get::<_, i64>(2)?,
                        ))
                    })
                    .optional()
            },
        )?;
        let number = last.as_ref().map_or(0, |(number, ..)| *number) + 1;
        // a clock that was set back does not reorder what happened
        let at = last
            .as_ref()
            .map_or(self.manner.now, |(_, _, at)| self.manner.now.max(*at));
        let insert = "INSERT INTO {h} (key, op_number, at, op, value, content_type, expires_at)
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        if !self.manner.history {
            // nothing is known from the first write on that was not kept
            if last.is_none_or(|(_, op, _)| op != "gap") {
                self.with(insert, |insert| {
                    let nothing: Option<&str> = None;
                    insert.execute(params![key, number, at, "gap", nothing, nothing, nothing])
                })?;
            }
            return Ok(());
        }
        self.with(insert, |insert| {
            insert.execute(params![
                key,
                number,
                at,
                op,
                left.map(|entry| Stored(&entry.bytes)),
                left.map(|entry| &entry.content_type),
                left.and_then(|entry| entry.expires_at)
            ])
        })?;
        const LARGE: usize = 256 << 10;
        if number % PRUNE == 0 || left.is_some_and(|entry| entry.bytes.len() > LARGE) {
            self.prune(key, number)?;
        }
        Ok(())
    }

    /// Remove what the history has too much of.
    fn prune(&self, key: &str, newest: i64) -> Result<(), Fault> {
        self.with(
            "DELETE FROM {h} WHERE key = ?1 AND op_number < ?2 AND op_number <= (
                SELECT coalesce(max(op_number), 0) FROM (
                    SELECT op_number, sum(octet_length(value)) OVER (ORDER BY op_number DESC) AS s
                    FROM {h} WHERE key = ?1)
                WHERE s > ?3 OR op_number <= ?2 - ?4)",
            |delete| delete.execute(params![key, newest, PER_KEY_BYTES, PER_KEY]),
        )?;
        self.with(
            "DELETE FROM {h} WHERE id <= (SELECT max(id) FROM {h}) - ?1",
            |delete| delete.execute(params![PER_TABLE]),
        )?;
        Ok(())
    }

    /// Put a value where it may have to be the one that is expected.
    pub fn set(
        &self,
        key: &str,
        mut entry: Entry,
        path: Option<&Path>,
        if_match: Option<&str>,
        keep_expiry: bool,
    ) -> Result<bool, Fault> {
        let before = match (path, if_match) {
            (None, None) => None,
            _ => self.get(key)?,
        };
        if let Some(expected) = if_match {
            let failed = |message: &str| {
                Fault::new(http::StatusCode::PRECONDITION_FAILED, message).code("CAS_FAILED")
            };
            let Some(before) = &before else {
                return Err(failed("Key does not exist for CAS"));
            };
            let held = match path {
                None => before.bytes.clone(),
                Some(path) => path
                    .get(&before.document()?)
                    .map(Json::to_string)
                    .unwrap_or_default()
                    .into_bytes(),
            };
            if held != expected.as_bytes() {
                return Err(failed("Value mismatch for CAS"));
            }
        }
        if let Some(path) = path {
            let mut document = match &before {
                Some(before) => before.document()?,
                None => Json::Null,
            };
            // what is no JSON is text
            let new = serde_json::from_slice(&entry.bytes)
                .unwrap_or_else(|_| shown(&entry.bytes, &entry.content_type));
            path.set(&mut document, new)?;
            let expires_at = entry.expires_at;
            entry = Entry::of_json(&document, before.as_ref());
            if !keep_expiry {
                entry.expires_at = expires_at;
            }
        }
        let created = match path {
            Some(_) => before.is_none(),
            None => !self.exists(key)?,
        };
        self.put(key, &entry, "set")?;
        Ok(created)
    }

    /// Add to a number; a key that is not there counts from 0.
    pub fn add(&self, key: &str, path: Option<&Path>, delta: i64, op: &str) -> Result<i64, Fault> {
        let before = self.get(key)?;
        let not_a_number = || {
            Fault::conflict(format!("the value of `{key}` is not an integer")).code("NOT_A_NUMBER")
        };
        let sum = |number: i64| {
            number.checked_add(delta).ok_or_else(|| {
                Fault::conflict(format!(
                    "{number} and {delta} are more than an integer of 64 bits has room for"
                ))
                .code("OVERFLOW")
            })
        };
        let (entry, number) = match path {
            None => {
                let number = match &before {
                    None => 0,
                    Some(before) => std::str::from_utf8(&before.bytes)
                        .ok()
                        .and_then(|text| text.trim().parse().ok())
                        .ok_or_else(not_a_number)?,
                };
                let number = sum(number)?;
                let entry = Entry {
                    bytes: number.to_string().into_bytes(),
                    content_type: before
                        .as_ref()
                        .map_or_else(|| "text/plain".to_owned(), |it| it.content_type.clone()),
                    expires_at: before.as_ref().and_then(|it| it.expires_at),
                };
                (entry, number)
            }
            Some(path) => {
                let mut document = before.as_ref().map_or(Ok(Json::Null), Entry::document)?;
                let place = path.place(&mut document)?;
                let number = match &*place {
                    Json::Null => 0,
                    value => value.as_i64().ok_or_else(not_a_number)?,
                };
                let number = sum(number)?;
                *place = number.into();
                (Entry::of_json(&document, before.as_ref()), number)
            }
        };
        self.put(key, &entry, op)?;
        Ok(number)
    }

    /// Change a list. `make`: a list that is not there is an empty one.
    pub fn list_of<T>(
        &self,
        key: &str,
        path: Option<&Path>,
        make: bool,
        op: &str,
        work: impl FnOnce(&mut Vec<Json>) -> Result<T, Fault>,
    ) -> Result<(T, usize), Fault> {
        let before = self.get(key)?;
        if before.is_none() && !make {
            return Err(missing(key));
        }
        let mut document = before.as_ref().map_or(Ok(Json::Null), Entry::document)?;
        let whole = Path::parse("")?;
        let path = path.unwrap_or(&whole);
        if !make && path.get(&document).is_none() {
            return Err(Fault::not_found("Path not found").code("PATH_NOT_FOUND"));
        }
        let place = path.place(&mut document)?;
        if place.is_null() && make {
            *place = Json::Array(Vec::new());
        }
        let Json::Array(items) = place else {
            let message = format!("the value of `{key}` is not a list");
            return Err(Fault::conflict(message).code("NOT_A_LIST"));
        };
        let done = work(items)?;
        let length = items.len();
        self.put(key, &Entry::of_json(&document, before.as_ref()), op)?;
        Ok((done, length))
    }

    /// Keys in order, and how many there are in all.
    pub fn list(&self, prefix: &str, limit: i64, offset: i64) -> Result<(Vec<Listed>, i64), Fault> {
        let end = after(prefix);
        let count = self.with(
            "SELECT count(*) FROM {t} WHERE key >= ?1 AND (?2 IS NULL OR key < ?2)
             AND (expires_at IS NULL OR expires_at > ?3)",
            |select| select.query_row(params![prefix, end, self.manner.now], |row| row.get(0)),
        )?;
        let mut left = PAGE;
        let mut too_much = false;
        let listed = self.with(
            "SELECT key, value, content_type, created_at, updated_at, expires_at FROM {t}
             WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) AND (expires_at IS NULL OR expires_at > ?3)
             ORDER BY key LIMIT ?4 OFFSET ?5",
            |select| {
                let mut rows =
                    select.query(params![prefix, end, self.manner.now, limit, offset])?;
                let mut listed = Vec::new();
                while let Some(row) = rows.next()? {
                    let value = row.get_ref(1)?;
                    match left.checked_sub(crate::value::weight(value)) {
                        Some(rest) => left = rest,
                        None => {
                            too_much = true;
                            break;
                        }
                    }
                    let content_type: String = row.get(2)?;
                    listed.push(Listed {
                        key: row.get(0)?,
                        value: shown(&bytes(value), &content_type),
                        content_type,
                        created_at: row.get(3)?,
                        updated_at: row.get(4)?,
                        expires_at: row.get(5)?,
                    });
                }
                Ok(listed)
            },
        )?;
        if too_much {
            return Err(Fault::too_large(format!(
                "the values of this page are larger than {PAGE} bytes; ask for fewer with limit"
            ))
            .code("RESULT_TOO_LARGE"));
        }
        Ok((listed, count))
    }
}

/// A key of a list.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub struct Listed {
    pub key: String,
    /// JSON as it is, text as a string, anything else as `{"type": "blob", "base64": ..}`.
    pub value: Json,
    pub content_type: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
    /// Milliseconds since 1970; null where it does not expire.
    pub expires_at: Option<i64>,
}

/// The first text after all that begin with this one; none where there is no such text.
fn after(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

/// Remove keys whose time is over. How many.
pub fn sweep(connection: &Guarded, table: &Table, now: i64) -> Result<Attempt<usize>, Fault> {
    let there = connection.watch.trusted(|| is_there(connection, table))?;
    if !there {
        return Ok(Attempt::Done(0));
    }
    change(connection, |connection| {
        let sql = table.sql(
            "DELETE FROM {t} WHERE rowid IN (
                SELECT rowid FROM {t} WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        );
        let connection: &Connection = connection;
        connection
            .prepare_cached(&sql)
            .and_then(|mut delete| delete.execute(params![now, SWEPT]))
            .map_err(|error| {
                tracing::debug!(%error, "expired keys stay");
                Fault::internal("expired keys could not be removed")
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_the_next_begins() {
        for (prefix, end) in [
            ("", None),
            ("a", Some("b")),
            ("user:", Some("user;")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("\u{d7ff}", Some("\u{e000}")),
        ] {
            assert_eq!(after(prefix).as_deref(), end, "{prefix:?}");
        }
    }

    #[test]
    fn tables_and_keys_are_names() {
        for name in ["kv_store", "a", "_b9"] {
            assert_eq!(Table::parse(Some(name)).unwrap().name(), name);
        }
        assert_eq!(Table::parse(None).unwrap().name(), TABLE);
        for name in [
            "a b",
            "a\"; DROP TABLE x",
            "1a",
            "sqlite_schema",
            "a__history",
            "ä",
            &"a".repeat(61),
        ] {
            Table::parse(Some(name)).unwrap_err();
        }
        key("a/b c").unwrap();
        for text in ["", "a\0", &"k".repeat(KEY + 1)] {
            key(text).unwrap_err();
        }
    }

    #[test]
    fn what_a_value_is_is_seen_where_nobody_says() {
        for (said, bytes, want) in [
            (
                Some("application/json"),
                &b"{\"a\":1}"[..],
                "application/json",
            ),
            (
                Some("application/json"),
                b"plain",
                "text/plain; charset=utf-8",
            ),
            (
                Some("application/json"),
                b"\xff\x00",
                "application/octet-stream",
            ),
            (None, b"7", "application/json"),
            (Some("image/png"), b"7", "image/png"),
            (Some("application/ld+json"), b"7", "application/ld+json"),
        ] {
            assert_eq!(content_type(said, bytes), want);
        }
    }
}
