//! Databases out and in.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use kit::{Fault, Raw, Route, Wire};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use super::database::makes;
use super::wrong;
use crate::store::Attempt;
use crate::transfer::{self, Format, Taken};
use crate::{Sqlite, body, copy, fault, limits};

/// Exports and imports at a time. Each holds a thread, or a file.
pub const AT_ONCE: usize = 4;
/// Bytes that one import may have.
pub const LARGEST: u64 = 4 << 30;
/// Bytes that are sent on together.
const PIECE: usize = 64 << 10;
/// Pieces that wait for the reader.
const AHEAD: usize = 2;
/// How long an export waits for its reader to take some.
const SLOW: Duration = Duration::from_secs(30);

/// The turns of exports and imports.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Turns(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Turns {
    fn take(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Fault> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            Fault::unavailable(format!(
                "{AT_ONCE} exports or imports are under way; try again when one is over"
            ))
            .code("TOO_MUCH")
            .retry_after(Duration::from_secs(2))
        })
    }
}

/// What is exported.
#[derive(Deserialize, JsonSchema)]
struct Export {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// How it is written; the file itself where not given.
    format: Option<Format>,
    /// Only this table; `csv` and `jsonl` need one.
    table: Option<String>,
    /// How long it may work, in seconds.
    #[schemars(extend("default" = 300, "minimum" = 1, "maximum" = 300))]
    timeout: Option<u64>,
}

/// What is imported.
#[derive(Deserialize, JsonSchema)]
struct Import {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// How it is written.
    format: Format,
    /// The table that `csv` and `jsonl` go into, made where it is missing.
    table: Option<String>,
    /// Make the database where it is missing.
    create_db_if_missing: Option<bool>,
    /// The same as `create_db_if_missing`.
    auto_create: Option<bool>,
    /// Let a file take the place of what is in the database.
    #[serde(default)]
    replace: bool,
    /// How long it may work, in seconds, once all of it has come.
    #[schemars(extend("default" = 300, "minimum" = 1, "maximum" = 300))]
    timeout: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct Imported {
    success: bool,
    /// The database.
    path: String,
    /// Rows that were put in.
    rows: u64,
    /// Statements that were run.
    statements: u64,
    /// Bytes of the database now.
    bytes: u64,
}

const EXPORT: Route = Route::get("/api/v1/sqlite/export")
    .named("exportDatabase")
    .cli("db export");
const IMPORT: Route = Route::post("/api/v1/sqlite/import")
    .named("importDatabase")
    .cli("db import");

fn asked<T: DeserializeOwned + JsonSchema>(parts: &Parts) -> Result<T, Fault> {
    let schema = schemars::schema_for!(T).to_value();
    let pairs = kit::arguments::query_pairs(parts.uri.query().unwrap_or_default());
    let merged = kit::arguments::merge(&schema, None, pairs, [])?;
    serde_json::from_value(merged.into()).map_err(|error| {
        Fault::bad_request(format!("invalid parameters: {error}")).code("VALIDATION_ERROR")
    })
}

/// A file of the service's own that nobody else opens, and that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(sqlite: &Sqlite) -> Result<(Scratch, File), Fault> {
        let directory = sqlite.config.state.join("scratch");
        let name: u128 = rand::random();
        let path = directory.join(format!("{name:032x}"));
        let file = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .and_then(|()| {
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
            })
            .map_err(|error| full(&error))?;
        Ok((Scratch(path), file))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.0.clone().into_os_string();
            path.push(suffix);
            let _ = std::fs::remove_file(path); // most of them are not there
        }
    }
}

fn full(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "the disk is full; make room and try again",
        )
        .code("DISK_FULL"),
        kind => Fault::internal(format!(
            "a file of the service could not be written: {kind}"
        ))
        .code("IO_ERROR"),
    }
}

/// Sends what is written to whoever reads the answer, as fast as they take it.
struct Sender {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    handle: Handle,
    held: Vec<u8>,
}

impl Sender {
    fn send(&mut self, piece: io::Result<Bytes>) -> io::Result<()> {
        let sent = self
            .handle
            .block_on(tokio::time::timeout(SLOW, self.pieces.send(piece)));
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.held.len();
        let taken = room.min(bytes.len());
        self.held.extend_from_slice(&bytes[..taken]);
        if self.held.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.held));
        self.send(Ok(piece))
    }
}

async fn export(sqlite: &Sqlite, parts: Parts) -> Result<Response, Fault> {
    let asked: Export = asked(&parts)?;
    let format = asked.format.unwrap_or(Format::Sqlite);
    let allowed = limits::timeout(Some(asked.timeout.unwrap_or(limits::LONGEST.as_secs())));
    if format == Format::Sqlite && asked.table.is_some() {
        return Err(wrong(
            "table",
            "a file holds all tables; choose another format",
        ));
    }
    let database = sqlite.database(&asked.db, false).await?;
    let turn = sqlite.transfers.take()?;
    let name = database
        .place
        .real
        .file_stem()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let (pieces, receiver) = mpsc::channel(AHEAD);
    let mut sender = Sender {
        pieces,
        handle: Handle::current(),
        held: Vec::with_capacity(PIECE),
    };
    // a failure before the first byte has a status of its own
    let (begun, begins) = tokio::sync::oneshot::channel::<Result<(), Fault>>();
    let (service, table) = (sqlite.clone(), asked.table);
    let kept = database.clone();
    tokio::spawn(async move {
        let _turn = turn;
        let store = service.store.clone();
        let written = store.read(&kept, allowed, move |connection| {
            let mut begun = Some(begun);
            let mut done = if format == Format::Sqlite {
                let (scratch, file) = Scratch::new(&service)?;
                drop(file);
                copy::into_file(connection, &scratch.0).and_then(|()| {
                    if let Some(begun) = begun.take() {
                        let _ = begun.send(Ok(()));
                    }
                    let mut file = File::open(&scratch.0).map_err(|error| full(&error))?;
                    io::copy(&mut file, &mut sender)
                        .and_then(|_| sender.flush())
                        .map_err(|error| full(&error))
                })
            } else {
                let mut first = First {
                    sender: &mut sender,
                    begun: &mut begun,
                };
                transfer::export(connection, format, table.as_deref(), &mut first)
            };
            match begun.take() {
                // nothing was written: an empty answer, or a failure
                Some(begun) => {
                    let _ = begun.send(std::mem::replace(&mut done, Ok(())));
                }
                None => {
                    if let Err(fault) = &done {
                        // the answer breaks off, so that nobody takes it for all there is
                        let broken = io::Error::other(fault.message.clone());
                        let _ = sender.send(Err(broken));
                    }
                }
            }
            Ok(())
        });
        if let Err(fault) = written.await {
            tracing::debug!(%fault, "an export ended early");
        }
    });
    match begins.await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => return Err(fault),
        Err(_) => return Err(Fault::internal("the export could not begin")),
    }
    let (kind, extension) = match format {
        Format::Sqlite => ("application/vnd.sqlite3", "db"),
        Format::Sql => ("application/sql", "sql"),
        Format::Csv => ("text/csv; charset=utf-8", "csv"),
        Format::Jsonl => ("application/jsonl", "jsonl"),
    };
    let file: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let disposition = format!("attachment; filename=\"{file}.{extension}\"");
    let disposition = HeaderValue::try_from(disposition).expect("plain ASCII");
    let body = tokio_stream::wrappers::ReceiverStream::new(receiver);
    Ok((
        [
            (CONTENT_TYPE, HeaderValue::from_static(kind)),
            (CONTENT_DISPOSITION, disposition),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ],
        Body::from_stream(body.boxed()),
    )
        .into_response())
}

/// Says when the first piece is about to go.
struct First<'a> {
    sender: &'a mut Sender,
    begun: &'a mut Option<tokio::sync::oneshot::Sender<Result<(), Fault>>>,
}

impl First<'_> {
    fn begin(&mut self) {
        if let Some(begun) = self.begun.take() {
            let _ = begun.send(Ok(()));
        }
    }
}

impl Write for First<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.sender.held.len() + bytes.len() >= PIECE {
            self.begin();
        }
        self.sender.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.begin();
        self.sender.flush()
    }
}

/// Put a body into a file, as it comes.
async fn spool(body: Body, file: File) -> Result<File, Fault> {
    let mut stream = body.into_data_stream();
    let mut file = tokio::fs::File::from_std(file);
    let mut count = 0_u64;
    let whole = async {
        use tokio::io::AsyncWriteExt;
        while let Some(piece) = body::next(&mut stream).await? {
            count += piece.len() as u64;
            if count > LARGEST {
                return Err(
                    Fault::too_large(format!("an import has at most {LARGEST} bytes"))
                        .code("TOO_BIG"),
                );
            }
            file.write_all(&piece).await.map_err(|error| full(&error))?;
        }
        file.flush().await.map_err(|error| full(&error))
    };
    whole.await?;
    Ok(file.into_std().await)
}

async fn import(sqlite: &Sqlite, parts: Parts, body: Body) -> Result<Imported, Fault> {
    use std::io::Seek;
    let asked: Import = asked(&parts)?;
    let make = makes(asked.create_db_if_missing, asked.auto_create)?;
    let needs_table = matches!(asked.format, Format::Csv | Format::Jsonl);
    if needs_table != asked.table.is_some() {
        return Err(wrong(
            "table",
            "csv and jsonl go into one table, which is named; sql and sqlite name their own",
        ));
    }
    let allowed = limits::timeout(Some(asked.timeout.unwrap_or(limits::LONGEST.as_secs())));
    let _turn = sqlite.transfers.take()?;
    // a database that is not there is told before anything is sent
    let database = sqlite.database(&asked.db, make).await?;
    let (scratch, file) = Scratch::new(sqlite)?;
    let file = spool(body, file).await?;
    let (format, table, replace) = (asked.format, asked.table, asked.replace);
    let taken = sqlite
        .store
        .write(&database, allowed, move |connection| {
            if format == Format::Sqlite {
                return whole(connection, &scratch, replace);
            }
            match connection.own("BEGIN IMMEDIATE") {
                Err(error) if fault::is_busy(&error) => return Ok(Attempt::Busy),
                Err(error) => return Err(connection.fault(&error)),
                Ok(()) => {}
            }
            let mut file = file.try_clone().map_err(|error| full(&error))?;
            file.rewind().map_err(|error| full(&error))?;
            let taken = transfer::import(connection, format, table.as_deref(), file)?;
            if connection.is_autocommit() {
                let message = "a statement rolled the import back; nothing of it was kept";
                return Err(Fault::conflict(message).code("ROLLED_BACK"));
            }
            connection
                .own("COMMIT")
                .map_err(|error| connection.fault(&error))?;
            Ok(Attempt::Done(taken))
        })
        .await?;
    Ok(Imported {
        success: true,
        path: database.place.shown.clone(),
        rows: taken.rows,
        statements: taken.statements,
        bytes: database.place.bytes(),
    })
}

/// Put a file in place of the database.
fn whole(
    connection: &mut crate::connection::Guarded,
    scratch: &Scratch,
    replace: bool,
) -> Result<Attempt<Taken>, Fault> {
    let failed = |error: rusqlite::Error| fault::of(&error, &connection.watch);
    let (tables, page): (i64, i64) = connection
        .query_row(
            "SELECT (SELECT count(*) FROM sqlite_schema), (SELECT page_size FROM pragma_page_size)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(failed)?;
    if tables > 0 && !replace {
        return Err(Fault::conflict(
            "the database is not empty; pass replace=true to put the file in its place",
        )
        .code("DATABASE_NOT_EMPTY"));
    }
    let from = copy::checked(&scratch.0)?;
    // a database that writes ahead keeps the size of its pages
    from.execute_batch(&format!("PRAGMA page_size = {page}; VACUUM"))
        .map_err(failed)?;
    if !copy::replace(connection, &from)? {
        return Ok(Attempt::Busy);
    }
    // the copy is of a file that does not write ahead: the next connection has it do so
    connection.watch.mark();
    Ok(Attempt::Done(Taken::default()))
}

/// Routes that carry bytes.
pub fn raws(sqlite: &Sqlite) -> [Raw; 2] {
    let (out, into) = (sqlite.clone(), sqlite.clone());
    [
        Raw::new(
            EXPORT,
            "Export a database, or a table of it.\n\nAs the file itself, which is a backup: its \
             state at one moment, while others go on writing; as `sql`, the statements that make \
             it; or one table as `csv` or `jsonl`. An answer that breaks off is not all of it.",
        )
        .answers("application/vnd.sqlite3")
        .parameters::<Export>()
        .handler(get(move |request: Request| {
            let sqlite = out.clone();
            async move {
                let (parts, _) = request.into_parts();
                export(&sqlite, parts)
                    .await
                    .unwrap_or_else(|fault| kit::http::refuse(Wire::SQLITE, &fault))
            }
        })),
        Raw::new(
            IMPORT,
            "Import a file, statements, or the rows of a table.\n\nAll of it happens in one \
             transaction, once it has come, or nothing does. `sqlite` puts a file in place of the \
             whole database, and needs `replace` where there is something in it. `csv` has the \
             names of the columns in its first record; an empty field is NULL, one in quotes is \
             text. `jsonl` is an object a line; the first one says which columns there are.",
        )
        .takes("*/*")
        .replies::<Imported>()
        .parameters::<Import>()
        .handler(post(move |request: Request| {
            let sqlite = into.clone();
            async move {
                let (parts, body) = request.into_parts();
                let imported = import(&sqlite, parts, body).await.and_then(|imported| {
                    serde_json::to_value(imported)
                        .map_err(|error| Fault::internal(format!("the reply is no JSON: {error}")))
                });
                match imported {
                    Ok(json) => kit::http::succeed(Wire::SQLITE, &IMPORT, json),
                    Err(fault) => kit::http::refuse(Wire::SQLITE, &fault),
                }
            }
        })),
    ]
}
