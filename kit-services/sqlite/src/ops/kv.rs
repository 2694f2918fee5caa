//! Keys and values.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, head, post, put};
use base64::Engine as _;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use kit::{Call, Fault, Operation, Raw, Route, Wire};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::database::makes;
use super::wrong;
use crate::kv::time::{Compared, Difference, Op, Past, moment};
use crate::kv::{self, Entry, Kv, Listed, Manner, Table};
use crate::pointer::Path;
use crate::store::Attempt;
use crate::value::BASE64;
use crate::{Sqlite, limits};

/// Milliseconds since 1970.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

fn yes() -> bool {
    true
}

/// Which table of which database, and whether what is written is kept in the history.
#[derive(Debug, Clone)]
struct Where {
    db: String,
    table: Table,
    history: bool,
    /// Make the database where it is missing.
    make: bool,
}

impl Where {
    fn new(db: &str, table: Option<&str>) -> Result<Where, Fault> {
        Ok(Where {
            db: db.to_owned(),
            table: Table::parse(table)?,
            history: true,
            make: false,
        })
    }
}

fn path(text: Option<&str>) -> Result<Option<Path>, Fault> {
    text.filter(|text| !text.is_empty())
        .map(Path::parse)
        .transpose()
}

impl Sqlite {
    /// Look at a table; nothing where the table is not there.
    async fn look<T: Send + 'static>(
        &self,
        at: Where,
        work: impl FnOnce(&Kv<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<Option<T>, Fault> {
        let database = self.database(&at.db, false).await?;
        database.uses(&at.table);
        self.store
            .read(&database, limits::TIMEOUT, move |connection| {
                let manner = Manner {
                    history: at.history,
                    now: now(),
                };
                connection
                    .own("BEGIN")
                    .map_err(|error| connection.fault(&error))?;
                let done = connection.watch.trusted(|| {
                    Kv::there(connection, &at.table, manner)?
                        .map(|kv| work(&kv))
                        .transpose()
                });
                connection.roll_back();
                done
            })
            .await
    }

    /// Change a table, which is made where it is missing.
    async fn change<T: Send + 'static>(
        &self,
        at: Where,
        mut work: impl FnMut(&Kv<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let database = self.database(&at.db, at.make).await?;
        database.uses(&at.table);
        self.store
            .write(&database, limits::TIMEOUT, move |connection| {
                let manner = Manner {
                    history: at.history,
                    now: now(),
                };
                kv::change(connection, |connection| {
                    work(&Kv::made(connection, &at.table, manner)?)
                })
            })
            .await
    }

    /// Change a table that is there; a missing one holds no keys.
    async fn change_there<T: Send + 'static>(
        &self,
        at: Where,
        mut work: impl FnMut(&Kv<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<Option<T>, Fault> {
        let database = self.database(&at.db, false).await?;
        database.uses(&at.table);
        self.store
            .write(&database, limits::TIMEOUT, move |connection| {
                let manner = Manner {
                    history: at.history,
                    now: now(),
                };
                kv::change(connection, |connection| {
                    Kv::there(connection, &at.table, manner)?
                        .map(|kv| work(&kv))
                        .transpose()
                })
            })
            .await
    }
}

// ---- one key ------------------------------------------------------------------------------------

/// Which key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct One {
    /// The key; it may hold slashes.
    #[serde(default)]
    key: String,
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
}

/// Which value.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct GetValue {
    /// The key; it may hold slashes.
    #[serde(default)]
    key: String,
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// Only this part of a JSON document: `prefs.theme`, `items[0]`.
    path: Option<String>,
    /// What it held at this moment, in seconds (or milliseconds) since 1970.
    at_timestamp: Option<i64>,
    /// Nothing is cached, so there is nothing to rebuild; taken and passed over.
    #[serde(default)]
    #[expect(dead_code, reason = "it is part of the interface")]
    rebuild: bool,
}

/// How a value is stored.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct SetValue {
    /// The key; it may hold slashes.
    #[serde(default)]
    key: String,
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// Only this part of a JSON document; the rest of it stays.
    path: Option<String>,
    /// Seconds after which it is gone; for ever where not given.
    ttl: Option<i64>,
    /// Store only if this is what is there now, byte by byte.
    if_match: Option<String>,
    /// Keep what it was in the history.
    #[serde(default = "yes")]
    history: bool,
    /// Make the database where it is missing.
    create_db_if_missing: Option<bool>,
    /// The same as `create_db_if_missing`.
    auto_create: Option<bool>,
}

async fn read_value(sqlite: &Sqlite, asked: GetValue) -> Result<Entry, Fault> {
    let at = Where::new(&asked.db, asked.table.as_deref())?;
    let key = kv::key(&asked.key)?.to_owned();
    let path = path(asked.path.as_deref())?;
    let absent = key.clone();
    let found = sqlite
        .look(at, move |kv| {
            let entry = match asked.at_timestamp {
                None => kv.get(&key)?,
                Some(timestamp) => match kv.at(&key, moment(timestamp))? {
                    Past::Held(entry, _) => Some(entry),
                    Past::Absent => None,
                    Past::Unknown => {
                        return Err(Fault::conflict(format!(
                            "time-travel chain gap: what `{key}` held then is not known"
                        ))
                        .code("HISTORY_GAP"));
                    }
                },
            };
            Ok(entry)
        })
        .await?
        .flatten()
        .ok_or_else(|| kv::missing(&absent))?;
    let Some(path) = path else {
        return Ok(found);
    };
    let document: Json = serde_json::from_slice(&found.bytes).map_err(|_| {
        Fault::conflict(format!(
            "the value of `{absent}` is not JSON; leave path out"
        ))
        .code("NOT_JSON")
    })?;
    let part = path
        .get(&document)
        .ok_or_else(|| Fault::not_found("Path not found").code("PATH_NOT_FOUND"))?;
    Ok(Entry {
        bytes: part.to_string().into_bytes(),
        content_type: "application/json".to_owned(),
        expires_at: found.expires_at,
    })
}

async fn store_value(
    sqlite: &Sqlite,
    asked: SetValue,
    bytes: Vec<u8>,
    said: Option<String>,
) -> Result<Stored, Fault> {
    let mut at = Where::new(&asked.db, asked.table.as_deref())?;
    at.history = asked.history;
    at.make = makes(asked.create_db_if_missing, asked.auto_create)?;
    let key = kv::key(&asked.key)?.to_owned();
    let path = path(asked.path.as_deref())?;
    let content_type = kv::content_type(said.as_deref(), &bytes);
    let shown = key.clone();
    let (created, expires_at) = sqlite
        .change(at, move |kv| {
            let expires_at = kv::expiry(asked.ttl, kv.manner.now)?;
            let entry = Entry {
                bytes: bytes.clone(),
                content_type: content_type.clone(),
                expires_at,
            };
            let keep = asked.ttl.is_none();
            let created = kv.set(&key, entry, path.as_ref(), asked.if_match.as_deref(), keep)?;
            Ok((created, expires_at))
        })
        .await?;
    Ok(Stored {
        success: true,
        key: shown,
        created,
        expires_at,
    })
}

#[derive(Serialize, JsonSchema)]
pub struct Stored {
    success: bool,
    key: String,
    /// Whether it was not there before.
    created: bool,
    /// Milliseconds since 1970; null where it does not expire.
    expires_at: Option<i64>,
}

/// Read a value, as JSON: for programs that take no bytes.
#[derive(Deserialize, JsonSchema)]
pub struct GetTool {
    #[serde(flatten)]
    asked: GetValue,
}

#[derive(Serialize, JsonSchema)]
pub struct Value {
    key: String,
    /// JSON as it is, text as a string, anything else as `{"type": "blob", "base64": ..}`.
    value: Json,
    content_type: String,
    /// Milliseconds since 1970; null where it does not expire.
    expires_at: Option<i64>,
}

const KEY: &str = "/api/v1/sqlite/kv/{key}";
const GET: Route = Route::get(KEY).named("getKvValue").cli("kv get");
const EXISTS: Route = Route::head(KEY).named("checkKvKeyExists").cli("kv exists");
const SET: Route = Route::put(KEY).named("setKvValue").cli("kv set");
const PUSH: Route = Route::post("/api/v1/sqlite/kv/{key}/push")
    .named("pushKvArray")
    .cli("kv arrays push");

impl Operation for GetTool {
    const ROUTE: Route = GET;
    type Service = Sqlite;
    type Reply = Value;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Value, Fault> {
        let key = self.asked.key.clone();
        let entry = read_value(&sqlite, self.asked).await?;
        Ok(Value {
            key,
            value: entry.shown(),
            content_type: entry.content_type,
            expires_at: entry.expires_at,
        })
    }
}

/// Store a JSON value: for programs that send no bytes.
#[derive(Deserialize, JsonSchema)]
pub struct SetTool {
    #[serde(flatten)]
    asked: SetValue,
    /// What to store.
    value: Json,
    /// What it is; without it, a string is stored as text and anything else as JSON.
    content_type: Option<String>,
}

impl Operation for SetTool {
    const ROUTE: Route = SET;
    type Service = Sqlite;
    type Reply = Stored;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Stored, Fault> {
        let (bytes, said) = match (self.value, self.content_type) {
            (Json::String(text), None) if self.asked.path.is_none() => {
                (text, "text/plain; charset=utf-8".to_owned())
            }
            (Json::String(text), Some(said)) if !kv::is_json(&said) => (text, said),
            (value, said) => (
                value.to_string(),
                said.unwrap_or_else(|| "application/json".to_owned()),
            ),
        };
        store_value(&sqlite, self.asked, bytes.into_bytes(), Some(said)).await
    }
}

/// Whether a key is there.
#[derive(Deserialize, JsonSchema)]
pub struct ExistsTool {
    #[serde(flatten)]
    one: One,
}

#[derive(Serialize, JsonSchema)]
pub struct There {
    exists: bool,
}

async fn exists(sqlite: &Sqlite, one: One) -> Result<bool, Fault> {
    let at = Where::new(&one.db, one.table.as_deref())?;
    let key = kv::key(&one.key)?.to_owned();
    let found = sqlite.look(at, move |kv| kv.exists(&key)).await?;
    Ok(found.unwrap_or(false))
}

impl Operation for ExistsTool {
    const ROUTE: Route = EXISTS;
    type Service = Sqlite;
    type Reply = There;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<There, Fault> {
        Ok(There {
            exists: exists(&sqlite, self.one).await?,
        })
    }
}

/// Append a value to a list.
#[derive(Deserialize, JsonSchema)]
pub struct PushTool {
    #[serde(flatten)]
    asked: Element,
    /// What to append.
    value: Json,
}

#[derive(Serialize, JsonSchema)]
pub struct Pushed {
    success: bool,
    /// Elements of the list now.
    length: usize,
}

async fn append(sqlite: &Sqlite, asked: Element, value: Json) -> Result<Pushed, Fault> {
    let (at, key, path) = asked.parts()?;
    let (_, length) = sqlite
        .change(at, move |kv| {
            kv.list_of(&key, path.as_ref(), true, "push", |items| {
                items.push(value.clone());
                Ok(())
            })
        })
        .await?;
    Ok(Pushed {
        success: true,
        length,
    })
}

impl Operation for PushTool {
    const ROUTE: Route = PUSH;
    type Service = Sqlite;
    type Reply = Pushed;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Pushed, Fault> {
        append(&sqlite, self.asked, self.value).await
    }
}

/// Parameters of a raw route.
fn asked<T: DeserializeOwned + JsonSchema>(parts: &Parts, key: String) -> Result<T, Fault> {
    let schema = schemars::schema_for!(T).to_value();
    let pairs = kit::arguments::query_pairs(parts.uri.query().unwrap_or_default());
    let merged = kit::arguments::merge(&schema, None, pairs, [("key".to_owned(), key)])?;
    serde_json::from_value(merged.into()).map_err(|error| {
        Fault::bad_request(format!("invalid parameters: {error}")).code("VALIDATION_ERROR")
    })
}

/// The key in the path of a request: everything behind `/kv/`, but for the word that ends it.
fn key_of(parts: &Parts, ends: &str) -> String {
    let path = parts.uri.path();
    let rest = path
        .split_once("/api/v1/sqlite/kv/")
        .map_or("", |(_, rest)| rest);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let rest = rest.strip_suffix(ends).unwrap_or(rest);
    kit_decode(rest)
}

fn kit_decode(text: &str) -> String {
    // a plus is a plus in a path
    let escaped = format!("k={}", text.replace('+', "%2B"));
    kit::arguments::query_all(&escaped)
        .pop()
        .map(|(_, value)| value)
        .unwrap_or_default()
}

/// Values are their authors': a page among them runs no scripts, and is never taken for what it is
/// not.
fn bytes(entry: Entry) -> Response {
    let content_type = HeaderValue::try_from(entry.content_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut response = (
        [
            (CONTENT_TYPE, content_type),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_static("default-src 'none'; sandbox"),
            ),
        ],
        entry.bytes,
    )
        .into_response();
    if let Some(at) = entry.expires_at {
        let name = HeaderName::from_static("x-expires-at");
        response.headers_mut().insert(name, HeaderValue::from(at));
    }
    response
}

fn answered<T: Serialize>(route: &Route, reply: Result<T, Fault>) -> Response {
    let json = reply.and_then(|reply| {
        serde_json::to_value(reply)
            .map_err(|error| Fault::internal(format!("the reply is no JSON: {error}")))
    });
    match json {
        Ok(json) => kit::http::succeed(Wire::SQLITE, route, json),
        Err(fault) => kit::http::refuse(Wire::SQLITE, &fault),
    }
}

async fn serve_get(sqlite: Sqlite, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let key = key_of(&parts, "");
    let found = match asked(&parts, key) {
        Ok(asked) => read_value(&sqlite, asked).await,
        Err(fault) => Err(fault),
    };
    match found {
        Ok(entry) => bytes(entry),
        Err(fault) => kit::http::refuse(Wire::SQLITE, &fault),
    }
}

async fn serve_head(sqlite: Sqlite, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let found = match asked::<One>(&parts, key_of(&parts, "")) {
        Ok(one) => exists(&sqlite, one).await,
        Err(fault) => Err(fault),
    };
    let status = match found {
        Ok(true) => StatusCode::OK,
        Ok(false) => StatusCode::NOT_FOUND,
        Err(fault) => fault.status,
    };
    (status, Body::empty()).into_response()
}

async fn serve_put(sqlite: Sqlite, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let stored = async {
        let asked: SetValue = asked(&parts, key_of(&parts, ""))?;
        let held = sqlite.bodies.read(body, kv::VALUE).await?;
        let said = parts
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        store_value(&sqlite, asked, held.bytes.to_vec(), said).await
    };
    answered(&SET, stored.await)
}

async fn serve_delete(sqlite: Sqlite, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let removed = async {
        let asked: Remove = asked(&parts, key_of(&parts, ""))?;
        asked.remove(&sqlite).await
    };
    answered(&Remove::ROUTE, removed.await)
}

async fn serve_push(sqlite: Sqlite, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let pushed = async {
        let asked: Element = asked(&parts, key_of(&parts, "/push"))?;
        let held = sqlite.bodies.read(body, kv::VALUE).await?;
        let value = serde_json::from_slice(&held.bytes).map_err(|error| {
            Fault::bad_request(format!("the request body is not JSON: {error}"))
                .code("INVALID_JSON")
        })?;
        append(&sqlite, asked, value).await
    };
    answered(&PUSH, pushed.await)
}

/// Routes that carry bytes.
pub fn raws(sqlite: &Sqlite) -> Vec<Raw> {
    let all = sqlite;
    let handler = |serve: fn(Sqlite, Request) -> Served| {
        let sqlite = all.clone();
        move |request: Request| serve(sqlite.clone(), request)
    };
    vec![
        Raw::new(
            GET,
            "Read a value.\n\nThe bytes come back as they were stored, under their content type. \
             With `path` it is a part of a JSON document, with `at_timestamp` what the key held \
             then. Keys named `snapshot`, `diff` and `batch` are read with `POST \
             /api/v1/sqlite/kv/batch/get`.",
        )
        .answers("application/octet-stream")
        .parameters::<GetValue>()
        .handler(get(handler(|sqlite, request| {
            Box::pin(serve_get(sqlite, request))
        }))),
        Raw::new(EXISTS, "Ask whether a key is there: 200, or 404.")
            .parameters::<One>()
            .handler(head(handler(|sqlite, request| {
                Box::pin(serve_head(sqlite, request))
            }))),
        Raw::new(
            SET,
            "Store a value.\n\nThe bytes of the body are kept as they are, with the content type \
             that they came with; where that is just JSON and they are not, they are text, or \
             bytes. With `ttl` the key is gone after so many seconds. With `if_match` it is stored \
             only if what is there now is exactly that.",
        )
        .takes("*/*")
        .replies::<Stored>()
        .parameters::<SetValue>()
        .handler(put(handler(|sqlite, request| {
            Box::pin(serve_put(sqlite, request))
        }))),
        Raw::new(
            PUSH,
            "Append a value to a list.\n\nThe body is the value, any JSON. A key that is not there \
             becomes a list.",
        )
        .takes("application/json")
        .replies::<Pushed>()
        .parameters::<Element>()
        .handler(post(handler(|sqlite, request| {
            Box::pin(serve_push(sqlite, request))
        }))),
    ]
}

type Served = futures::future::BoxFuture<'static, Response>;

/// Keys with slashes in them, as some clients write them; no other route has such a path.
pub async fn with_slashes(sqlite: Sqlite, request: Request) -> Option<Response> {
    let below = request.uri().path().starts_with("/api/v1/sqlite/kv/");
    if !below {
        return None;
    }
    Some(match request.method().as_str() {
        "GET" => serve_get(sqlite, request).await,
        "HEAD" => serve_head(sqlite, request).await,
        "PUT" => serve_put(sqlite, request).await,
        "DELETE" => serve_delete(sqlite, request).await,
        "POST" if request.uri().path().ends_with("/push") => serve_push(sqlite, request).await,
        _ => return None,
    })
}

/// Remove a key.
///
/// A key that is not there is a failure, 404.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Remove {
    /// The key; it may hold slashes.
    #[serde(default)]
    key: String,
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// Keep what it was in the history.
    #[serde(default = "yes")]
    history: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct Removed {
    success: bool,
    deleted: bool,
}

impl Remove {
    async fn remove(self, sqlite: &Sqlite) -> Result<Removed, Fault> {
        let mut at = Where::new(&self.db, self.table.as_deref())?;
        at.history = self.history;
        let key = kv::key(&self.key)?.to_owned();
        let wanted = key.clone();
        let removed = sqlite
            .change_there(at, move |kv| kv.remove(&key, "delete"))
            .await?;
        if removed != Some(true) {
            return Err(kv::missing(&wanted));
        }
        Ok(Removed {
            success: true,
            deleted: true,
        })
    }
}

impl Operation for Remove {
    const ROUTE: Route = Route::delete(KEY).named("deleteKvKey").cli("kv delete");
    type Service = Sqlite;
    type Reply = Removed;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Removed, Fault> {
        self.remove(&sqlite).await
    }
}

// ---- numbers and lists --------------------------------------------------------------------------

#[derive(Serialize, JsonSchema)]
pub struct Counted {
    success: bool,
    key: String,
    /// What it is now.
    value: i64,
}

/// Increment a number.
///
/// One after the other, whoever else does the same at that moment. A key that is not there counts
/// from 0. The time to live stays.
#[derive(Deserialize, JsonSchema)]
pub struct Increment {
    /// The key; it may hold slashes.
    key: String,
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// By how much; greater than 0.
    #[schemars(extend("default" = 1, "minimum" = 1))]
    delta: Option<i64>,
    /// A number in a JSON document.
    path: Option<String>,
    /// Keep what it was in the history.
    #[serde(default = "yes")]
    history: bool,
}

/// Decrement a number.
///
/// One after the other, whoever else does the same at that moment. A key that is not there counts
/// from 0. The time to live stays.
#[derive(Deserialize, JsonSchema)]
pub struct Decrement {
    /// The key; it may hold slashes.
    key: String,
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// By how much; greater than 0.
    #[schemars(extend("default" = 1, "minimum" = 1))]
    delta: Option<i64>,
    /// A number in a JSON document.
    path: Option<String>,
    /// Keep what it was in the history.
    #[serde(default = "yes")]
    history: bool,
}

/// A number, and by how much it changes.
struct Step {
    at: Where,
    key: String,
    path: Option<Path>,
    delta: i64,
}

impl Step {
    fn up(at: Where, key: &str, within: Option<&str>, delta: Option<i64>) -> Result<Step, Fault> {
        Ok(Step {
            at,
            key: kv::key(key)?.to_owned(),
            path: path(within)?,
            delta: positive(delta)?,
        })
    }

    async fn take(self, sqlite: &Sqlite, op: &'static str) -> Result<Counted, Fault> {
        let shown = self.key.clone();
        let value = sqlite
            .change(self.at, move |kv| {
                kv.add(&self.key, self.path.as_ref(), self.delta, op)
            })
            .await?;
        Ok(Counted {
            success: true,
            key: shown,
            value,
        })
    }
}

fn positive(delta: Option<i64>) -> Result<i64, Fault> {
    match delta.unwrap_or(1) {
        delta if delta > 0 => Ok(delta),
        _ => Err(Fault::bad_request("delta must be a positive integer")
            .field("/delta", "it is greater than 0")
            .code("VALIDATION_ERROR")),
    }
}

impl Operation for Increment {
    const ROUTE: Route = Route::post("/api/v1/sqlite/kv/{key}/incr")
        .named("incrKvValue")
        .cli("kv incr")
        .query(&["db", "table", "delta", "path", "history"]);
    type Service = Sqlite;
    type Reply = Counted;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Counted, Fault> {
        let mut at = Where::new(&self.db, self.table.as_deref())?;
        at.history = self.history;
        let step = Step::up(at, &self.key, self.path.as_deref(), self.delta)?;
        step.take(&sqlite, "incr").await
    }
}

impl Operation for Decrement {
    const ROUTE: Route = Route::post("/api/v1/sqlite/kv/{key}/decr")
        .named("decrKvValue")
        .cli("kv decr")
        .query(&["db", "table", "delta", "path", "history"]);
    type Service = Sqlite;
    type Reply = Counted;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Counted, Fault> {
        let mut at = Where::new(&self.db, self.table.as_deref())?;
        at.history = self.history;
        let mut step = Step::up(at, &self.key, self.path.as_deref(), self.delta)?;
        step.delta = -step.delta;
        step.take(&sqlite, "decr").await
    }
}

/// Which list.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct Element {
    /// The key; it may hold slashes.
    #[serde(default)]
    key: String,
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// A list in a JSON document.
    path: Option<String>,
    /// Keep what it was in the history.
    #[serde(default = "yes")]
    history: bool,
}

impl Element {
    fn parts(self) -> Result<(Where, String, Option<Path>), Fault> {
        let mut at = Where::new(&self.db, self.table.as_deref())?;
        at.history = self.history;
        let key = kv::key(&self.key)?.to_owned();
        Ok((at, key, path(self.path.as_deref())?))
    }
}

/// Take the last element of a list.
#[derive(Deserialize, JsonSchema)]
pub struct Pop {
    #[serde(flatten)]
    asked: Element,
}

#[derive(Serialize, JsonSchema)]
pub struct Popped {
    success: bool,
    /// The element; null where the list was empty.
    value: Json,
    /// Elements of the list now.
    length: usize,
}

impl Operation for Pop {
    const ROUTE: Route = Route::post("/api/v1/sqlite/kv/{key}/pop")
        .named("popKvArray")
        .cli("kv arrays pop")
        .query(&["db", "table", "path", "history"]);
    type Service = Sqlite;
    type Reply = Popped;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Popped, Fault> {
        let (at, key, path) = self.asked.parts()?;
        let wanted = key.clone();
        let popped = sqlite
            .change_there(at, move |kv| {
                kv.list_of(&key, path.as_ref(), false, "pop", |items| Ok(items.pop()))
            })
            .await?;
        let (value, length) = popped.ok_or_else(|| kv::missing(&wanted))?;
        Ok(Popped {
            success: true,
            value: value.unwrap_or(Json::Null),
            length,
        })
    }
}

/// Remove elements of a list.
///
/// The element at `index`, or every one that equals `value`.
#[derive(Deserialize, JsonSchema)]
pub struct RemoveElement {
    #[serde(flatten)]
    asked: Element,
    /// Which element, from 0.
    index: Option<usize>,
    /// What the elements to remove equal.
    #[serde(default, deserialize_with = "given")]
    value: Option<Json>,
}

/// A member that is there, be it null.
fn given<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(from).map(Some)
}

#[derive(Serialize, JsonSchema)]
pub struct RemovedElements {
    success: bool,
    /// Elements that were removed.
    removed: usize,
    /// Elements of the list now.
    length: usize,
}

impl Operation for RemoveElement {
    const ROUTE: Route = Route::post("/api/v1/sqlite/kv/{key}/remove")
        .named("removeKvArrayElement")
        .cli("kv arrays delete")
        .query(&["db", "table", "path", "index", "history"]);
    type Service = Sqlite;
    type Reply = RemovedElements;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<RemovedElements, Fault> {
        let (at, key, path) = self.asked.parts()?;
        if self.index.is_none() && self.value.is_none() {
            return Err(wrong(
                "index",
                "give the index of an element, or a value in the body",
            ));
        }
        let wanted = key.clone();
        let removed = sqlite
            .change_there(at, move |kv| {
                kv.list_of(&key, path.as_ref(), false, "remove", |items| {
                    let before = items.len();
                    match (self.index, &self.value) {
                        (Some(index), _) if index < before => {
                            items.remove(index);
                        }
                        (Some(index), _) => {
                            return Err(Fault::not_found(format!(
                                "no element {index}; the list has {before}"
                            ))
                            .code("INDEX_NOT_FOUND"));
                        }
                        (None, value) => items.retain(|item| Some(item) != value.as_ref()),
                    }
                    Ok(before - items.len())
                })
            })
            .await?;
        let (removed, length) = removed.ok_or_else(|| kv::missing(&wanted))?;
        Ok(RemovedElements {
            success: true,
            removed,
            length,
        })
    }
}

// ---- many keys ----------------------------------------------------------------------------------

/// List keys and their values.
///
/// In the order of the keys. With `at_timestamp` it is what the table held then, `offset` is passed
/// over, and `gap_keys` are those of which that is not known.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// Only keys that begin with this.
    prefix: Option<String>,
    /// Most keys, at most 1000.
    #[schemars(extend("default" = 100, "maximum" = 1000))]
    limit: Option<i64>,
    /// Keys to pass over.
    offset: Option<i64>,
    /// A moment, in seconds (or milliseconds) since 1970.
    at_timestamp: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
pub struct Keys {
    items: Vec<Listed>,
    /// All keys there are.
    count: i64,
    /// Whether there are more after these.
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    /// The moment, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    /// Whether of some keys it is not known what they held then.
    #[serde(skip_serializing_if = "Option::is_none")]
    has_gaps: Option<bool>,
    /// Those keys, a hundred of them at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_keys: Option<Vec<String>>,
}

/// Keys of one reply, where the caller does not say.
const LIMIT: i64 = 100;
/// At most.
const MOST: i64 = 1_000;

fn limit(asked: Option<i64>, usual: i64) -> Result<i64, Fault> {
    match asked {
        None | Some(0) => Ok(usual),
        Some(limit) if limit < 0 => Err(wrong("limit", "it is not negative")),
        Some(limit) => Ok(limit.min(MOST)),
    }
}

async fn past(
    sqlite: &Sqlite,
    at: Where,
    timestamp: i64,
    prefix: String,
    limit: i64,
) -> Result<Keys, Fault> {
    let (items, count, gaps) = sqlite
        .look(at, move |kv| kv.snapshot(moment(timestamp), &prefix, limit))
        .await?
        .unwrap_or_default();
    Ok(Keys {
        has_more: (items.len() as i64) < count,
        items,
        count,
        limit: None,
        offset: None,
        timestamp: Some(timestamp),
        has_gaps: Some(gaps.count > 0),
        gap_keys: Some(gaps.keys),
    })
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/sqlite/kv")
        .named("listKvKeys")
        .cli("kv list");
    type Service = Sqlite;
    type Reply = Keys;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Keys, Fault> {
        let at = Where::new(&self.db, self.table.as_deref())?;
        let limit = limit(self.limit, LIMIT)?;
        let offset = self.offset.unwrap_or(0);
        if offset < 0 {
            return Err(wrong("offset", "it is not negative"));
        }
        let prefix = self.prefix.unwrap_or_default();
        if let Some(timestamp) = self.at_timestamp {
            return past(&sqlite, at, timestamp, prefix, limit).await;
        }
        let (items, count) = sqlite
            .look(at, move |kv| kv.list(&prefix, limit, offset))
            .await?
            .unwrap_or_default();
        Ok(Keys {
            has_more: offset + (items.len() as i64) < count,
            items,
            count,
            limit: Some(limit),
            offset: Some(offset),
            timestamp: None,
            has_gaps: None,
            gap_keys: None,
        })
    }
}

/// Show what a table held at a moment.
#[derive(Deserialize, JsonSchema)]
pub struct TableSnapshot {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// The moment, in seconds (or milliseconds) since 1970.
    timestamp: i64,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// Most keys, at most 1000.
    #[schemars(extend("default" = 100, "maximum" = 1000))]
    limit: Option<i64>,
    /// Only keys that begin with this.
    prefix: Option<String>,
}

impl Operation for TableSnapshot {
    const ROUTE: Route = Route::get("/api/v1/sqlite/kv/snapshot")
        .named("getKvTableSnapshot")
        .cli("kv snapshots get-table");
    type Service = Sqlite;
    type Reply = Keys;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Keys, Fault> {
        let at = Where::new(&self.db, self.table.as_deref())?;
        let limit = limit(self.limit, LIMIT)?;
        past(
            &sqlite,
            at,
            self.timestamp,
            self.prefix.unwrap_or_default(),
            limit,
        )
        .await
    }
}

/// Store several values in one transaction.
#[derive(Deserialize, JsonSchema)]
pub struct BatchSet {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// Make the database where it is missing.
    create_db_if_missing: Option<bool>,
    /// What to store, at most 100 items.
    items: Vec<BatchItem>,
}

/// One key.
#[derive(Deserialize, JsonSchema)]
pub struct BatchItem {
    key: String,
    /// The bytes of the value, as a string: a JSON value is sent as its JSON.
    #[serde(default)]
    value: String,
    /// What it is; `application/octet-stream` where it is no JSON and nobody says.
    content_type: Option<String>,
    /// Seconds after which it is gone; for ever where not given.
    ttl: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
pub struct BatchStored {
    success: bool,
    /// Keys that were stored.
    count: usize,
}

fn bounded<T>(items: &[T], name: &str) -> Result<(), Fault> {
    if items.is_empty() || items.len() > kv::BATCH {
        return Err(wrong(name, &format!("it has 1 to {} of them", kv::BATCH)));
    }
    Ok(())
}

impl Operation for BatchSet {
    const ROUTE: Route = Route::post("/api/v1/sqlite/kv/batch/set")
        .named("batchSetKvKeys")
        .cli("kv batch set")
        .query(&["db", "table", "create_db_if_missing"]);
    type Service = Sqlite;
    type Reply = BatchStored;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<BatchStored, Fault> {
        let mut at = Where::new(&self.db, self.table.as_deref())?;
        at.make = self.create_db_if_missing.unwrap_or(false);
        bounded(&self.items, "items")?;
        for item in &self.items {
            kv::key(&item.key)?;
            kv::expiry(item.ttl, 0)?;
        }
        let items = self.items;
        let count = sqlite
            .change(at, move |kv| {
                for item in &items {
                    let bytes = item.value.as_bytes();
                    let said = item.content_type.as_deref();
                    let entry = Entry {
                        content_type: match said {
                            Some(said) => said.to_owned(),
                            None => kv::content_type(None, bytes),
                        },
                        bytes: bytes.to_vec(),
                        expires_at: kv::expiry(item.ttl, kv.manner.now)?,
                    };
                    kv.put(&item.key, &entry, "set")?;
                }
                Ok(items.len())
            })
            .await?;
        Ok(BatchStored {
            success: true,
            count,
        })
    }
}

/// Read several values at one moment.
#[derive(Deserialize, JsonSchema)]
pub struct BatchGet {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// At most 100 keys.
    keys: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct BatchRead {
    success: bool,
    /// By key what it holds; null where it is not there.
    results: BTreeMap<String, Option<Brief>>,
}

#[derive(Serialize, JsonSchema)]
pub struct Brief {
    /// JSON as it is, text as a string, anything else as `{"type": "blob", "base64": ..}`.
    value: Json,
    content_type: String,
}

impl Operation for BatchGet {
    const ROUTE: Route = Route::post("/api/v1/sqlite/kv/batch/get")
        .named("batchGetKvKeys")
        .cli("kv batch get")
        .query(&["db", "table"]);
    type Service = Sqlite;
    type Reply = BatchRead;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<BatchRead, Fault> {
        let at = Where::new(&self.db, self.table.as_deref())?;
        bounded(&self.keys, "keys")?;
        for key in &self.keys {
            kv::key(key)?;
        }
        let all = self.keys.clone();
        let found = sqlite
            .look(at, move |kv| {
                let mut left = kv::PAGE;
                let mut found = BTreeMap::new();
                for key in self.keys {
                    let entry = kv.get(&key)?;
                    let bytes = entry.as_ref().map_or(0, |entry| entry.bytes.len());
                    left = left.checked_sub(bytes).ok_or_else(crate::run::too_much)?;
                    let brief = entry.map(|entry| Brief {
                        value: entry.shown(),
                        content_type: entry.content_type,
                    });
                    found.insert(key, brief);
                }
                Ok(found)
            })
            .await?
            .unwrap_or_else(|| all.into_iter().map(|key| (key, None)).collect());
        Ok(BatchRead {
            success: true,
            results: found,
        })
    }
}

/// Remove several keys in one transaction.
///
/// Keys that are not there are passed over.
#[derive(Deserialize, JsonSchema)]
pub struct BatchDelete {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// At most 100 keys.
    keys: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct BatchRemoved {
    success: bool,
    /// Keys that were there.
    deleted: usize,
}

impl Operation for BatchDelete {
    const ROUTE: Route = Route::post("/api/v1/sqlite/kv/batch/delete")
        .named("batchDeleteKvKeys")
        .cli("kv batch delete")
        .query(&["db", "table"]);
    type Service = Sqlite;
    type Reply = BatchRemoved;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<BatchRemoved, Fault> {
        let at = Where::new(&self.db, self.table.as_deref())?;
        bounded(&self.keys, "keys")?;
        let deleted = sqlite
            .change_there(at, move |kv| {
                let mut deleted = 0;
                for key in &self.keys {
                    deleted += usize::from(kv.remove(key, "delete")?);
                }
                Ok(deleted)
            })
            .await?
            .unwrap_or_default();
        Ok(BatchRemoved {
            success: true,
            deleted,
        })
    }
}

// ---- the past -----------------------------------------------------------------------------------

/// List what was done to a key.
///
/// The newest operation comes first. The newest 1000 operations of a key are kept, and 64 MiB of
/// them; of a table 500000.
#[derive(Deserialize, JsonSchema)]
pub struct KeyHistory {
    /// The key; it may hold slashes.
    key: String,
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// Most operations, at most 1000; 50 where not given, or 0.
    #[schemars(extend("default" = 50, "maximum" = 1000))]
    limit: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
pub struct Operations {
    operations: Vec<Op>,
    /// Whether something was done that was not kept, or is no longer.
    has_gaps: bool,
    /// The key, where it has gaps.
    gap_keys: Vec<String>,
    /// Whether there are older operations than these.
    candidate_truncated: bool,
}

impl Operation for KeyHistory {
    const ROUTE: Route = Route::get("/api/v1/sqlite/kv/{key}/history")
        .named("getKvKeyHistory")
        .cli("kv history");
    type Service = Sqlite;
    type Reply = Operations;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Operations, Fault> {
        const USUAL: i64 = 50;
        let at = Where::new(&self.db, self.table.as_deref())?;
        let key = kv::key(&self.key)?.to_owned();
        let limit = limit(self.limit, USUAL)?;
        let shown = key.clone();
        let (operations, has_gaps, more) = sqlite
            .look(at, move |kv| kv.history(&key, limit))
            .await?
            .unwrap_or_default();
        Ok(Operations {
            operations,
            has_gaps,
            gap_keys: if has_gaps { vec![shown] } else { Vec::new() },
            candidate_truncated: more,
        })
    }
}

/// Show what a key held after one of its operations.
#[derive(Deserialize, JsonSchema)]
pub struct KeySnapshot {
    /// The key; it may hold slashes.
    key: String,
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// The number of the operation, from 1.
    op_number: i64,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Held {
    success: bool,
    /// JSON as it is, text as a string, anything else as `{"type": "blob", "base64": ..}`; null
    /// where the operation removed the key.
    value: Json,
    op_number: i64,
    content_type: String,
    /// Whether the operation left the key there.
    exists: bool,
    /// The bytes in base64, where the value is neither JSON nor text.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_value: Option<String>,
}

impl Operation for KeySnapshot {
    const ROUTE: Route = Route::get("/api/v1/sqlite/kv/{key}/snapshot")
        .named("getKvKeySnapshot")
        .cli("kv snapshots get-key");
    type Service = Sqlite;
    type Reply = Held;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Held, Fault> {
        let at = Where::new(&self.db, self.table.as_deref())?;
        let key = kv::key(&self.key)?.to_owned();
        let (shown, number) = (key.clone(), self.op_number);
        let past = sqlite.look(at, move |kv| kv.after(&key, number)).await?;
        match past.flatten() {
            None => Err(Fault::not_found(format!(
                "`{shown}` has no operation {number} in its history; list them with GET \
                 /api/v1/sqlite/kv/{shown}/history"
            ))
            .code("OPERATION_NOT_FOUND")),
            Some(Past::Unknown) => Err(Fault::conflict(format!(
                "time-travel chain gap: what `{shown}` held after its operation {number} was not \
                 kept"
            ))
            .code("HISTORY_GAP")),
            Some(Past::Absent) => Ok(Held {
                success: true,
                value: Json::Null,
                op_number: number,
                content_type: String::new(),
                exists: false,
                raw_value: None,
            }),
            Some(Past::Held(entry, _)) => {
                let value = entry.shown();
                let raw = !entry.is_json() && std::str::from_utf8(&entry.bytes).is_err();
                Ok(Held {
                    success: true,
                    raw_value: raw.then(|| BASE64.encode(&entry.bytes)),
                    value,
                    op_number: number,
                    content_type: entry.content_type,
                    exists: true,
                })
            }
        }
    }
}

/// Undo the last operations on a key.
///
/// What comes of it is an operation itself, so that it can be undone, too.
#[derive(Deserialize, JsonSchema)]
pub struct RollBack {
    /// The key; it may hold slashes.
    key: String,
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// How many operations to undo.
    #[schemars(extend("default" = 1, "minimum" = 1))]
    steps: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
pub struct RolledBack {
    success: bool,
    key: String,
    /// The operation after which the key held what it holds again; 0 is before the first.
    op_number: i64,
    /// What it holds now; null where it is not there.
    value: Json,
    exists: bool,
}

impl Operation for RollBack {
    const ROUTE: Route = Route::post("/api/v1/sqlite/kv/{key}/rollback")
        .named("rollbackKvKey")
        .cli("kv rollback")
        .query(&["db", "table", "steps"]);
    type Service = Sqlite;
    type Reply = RolledBack;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<RolledBack, Fault> {
        let at = Where::new(&self.db, self.table.as_deref())?;
        let key = kv::key(&self.key)?.to_owned();
        let steps = self.steps.unwrap_or(1);
        if steps < 1 {
            return Err(wrong("steps", "it is greater than 0"));
        }
        let shown = key.clone();
        let (op_number, entry) = sqlite
            .change_there(at, move |kv| kv.roll_back(&key, steps))
            .await?
            .ok_or_else(|| kv::missing(&shown))?;
        Ok(RolledBack {
            success: true,
            key: shown,
            op_number,
            exists: entry.is_some(),
            value: entry.map_or(Json::Null, |entry| entry.shown()),
        })
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Totals {
    created: u64,
    modified: u64,
    deleted: u64,
}

/// Compare what a table held at two moments.
#[derive(Deserialize, JsonSchema)]
pub struct Diff {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// The first moment, in seconds (or milliseconds) since 1970.
    from: i64,
    /// The second one.
    to: i64,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// Only these keys, with commas between.
    keys: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Differences {
    stats: Totals,
    /// Each key that differs, at most 1000 of them.
    changes: Vec<Difference>,
    /// Whether of some keys it is not known what they held.
    has_gaps: bool,
    /// Those keys, a hundred of them at most.
    gap_keys: Vec<String>,
    /// Whether more keys differ than are listed.
    truncated: bool,
}

impl Operation for Diff {
    const ROUTE: Route = Route::get("/api/v1/sqlite/kv/diff")
        .named("compareKvTableSnapshots")
        .cli("kv snapshots compare-table");
    type Service = Sqlite;
    type Reply = Differences;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Differences, Fault> {
        const LISTED: usize = 1_000;
        let at = Where::new(&self.db, self.table.as_deref())?;
        let (from, to) = (moment(self.from), moment(self.to));
        if from > to {
            return Err(wrong("to", "it is not before from"));
        }
        let only: Option<BTreeSet<String>> = self
            .keys
            .filter(|keys| !keys.is_empty())
            .map(|keys| keys.split(',').map(|key| key.trim().to_owned()).collect());
        let compared = sqlite
            .look(at, move |kv| {
                let wanted = |key: &str| only.as_ref().is_none_or(|only| only.contains(key));
                kv.compare(from, to, &wanted, LISTED)
            })
            .await?
            .unwrap_or_default();
        Ok(Differences {
            stats: totals(&compared),
            has_gaps: compared.gaps.count > 0,
            gap_keys: compared.gaps.keys,
            changes: compared.changes,
            truncated: compared.truncated,
        })
    }
}

fn totals(compared: &Compared) -> Totals {
    Totals {
        created: compared.created,
        modified: compared.modified,
        deleted: compared.deleted,
    }
}

/// Bring a table back to what it held at a moment.
///
/// With `dry_run` it only tells what would change; without it, `confirm` has to be `yes`. What comes
/// of it are operations themselves, so that they can be undone, too. Keys of which it is not known
/// what they held then are a failure, unless they are left out.
#[derive(Deserialize, JsonSchema)]
pub struct RollBackTable {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// The moment, in seconds (or milliseconds) since 1970.
    to_timestamp: i64,
    /// Name of the table.
    #[schemars(extend("default" = "kv_store"))]
    table: Option<String>,
    /// Only tell what would change.
    #[serde(default)]
    dry_run: bool,
    /// `yes`.
    confirm: Option<String>,
    /// Only these keys.
    keys: Option<Vec<String>>,
    /// All but these keys.
    exclude_keys: Option<Vec<String>>,
}

#[derive(Serialize, JsonSchema)]
pub struct TableRolledBack {
    success: bool,
    dry_run: bool,
    /// What it did, or would do.
    stats: Totals,
    /// Each key that it changed, or would change, at most 10000 of them.
    changes: Vec<Difference>,
    truncated: bool,
}

impl Operation for RollBackTable {
    const ROUTE: Route = Route::post("/api/v1/sqlite/kv/rollback")
        .named("rollbackKvTable")
        .cli("kv rollback-table")
        .query(&["db", "to_timestamp", "table", "dry_run", "confirm"]);
    type Service = Sqlite;
    type Reply = TableRolledBack;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<TableRolledBack, Fault> {
        let at = Where::new(&self.db, self.table.as_deref())?;
        let dry = self.dry_run;
        if !dry && self.confirm.as_deref() != Some("yes") {
            return Err(wrong(
                "confirm",
                "pass confirm=yes to change the table, or dry_run=true to see what would change",
            ));
        }
        let only: Option<BTreeSet<String>> = self.keys.map(|keys| keys.into_iter().collect());
        let but: BTreeSet<String> = self.exclude_keys.unwrap_or_default().into_iter().collect();
        let moment = moment(self.to_timestamp);
        let compared = sqlite
            .change_there(at, move |kv| {
                let wanted = |key: &str| {
                    only.as_ref().is_none_or(|only| only.contains(key)) && !but.contains(key)
                };
                kv.roll_back_table(moment, &wanted, dry)
            })
            .await?
            .unwrap_or_default();
        // it was compared from then to now; what is told is the way back
        let changes = compared.changes.into_iter().map(|change| Difference {
            key: change.key,
            r#type: match change.r#type {
                "created" => "deleted",
                "deleted" => "created",
                same => same,
            },
            old_value: change.new_value,
            new_value: change.old_value,
        });
        Ok(TableRolledBack {
            success: true,
            dry_run: dry,
            stats: Totals {
                created: compared.deleted,
                modified: compared.modified,
                deleted: compared.created,
            },
            changes: changes.collect(),
            truncated: compared.truncated,
        })
    }
}

/// What an attempt to sweep came to; kept here so that the clock is read in one place.
pub(crate) fn sweep(
    connection: &crate::connection::Guarded,
    table: &Table,
) -> Result<Attempt<usize>, Fault> {
    kv::sweep(connection, table, now())
}
