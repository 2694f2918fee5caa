//! A stream: a connection of one client's own, and what it is asked.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kit::Fault;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::{
    Batch, BatchResult, CURSORS, Col, Cond, Described, Entry, Error, Request, Response, SOCKETS,
    STREAMS, Stmt, StmtResult, TEXT_BYTES, TEXTS, Text,
};
use crate::connection::Guarded;
use crate::history::Asked;
use crate::name::Name;
use crate::run::{self, Budget, Parameters};
use crate::store::Database;
use crate::watch::{Role, Waiting, Wanted};
use crate::{Sqlite, limits, text};

/// Entries of a cursor that are sent on together.
const TOGETHER: usize = 256;
/// Bytes of them.
const TOGETHER_BYTES: usize = 64 << 10;
/// Groups of entries that wait for the client.
const AHEAD: usize = 2;
/// How long a cursor waits for its client to take some.
const SLOW: Duration = Duration::from_secs(30);

/// The turns of all clients.
#[derive(Debug)]
pub struct Turns {
    pub streams: Arc<Semaphore>,
    pub sockets: Arc<Semaphore>,
    pub cursors: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Turns {
            streams: Arc::new(Semaphore::new(STREAMS)),
            sockets: Arc::new(Semaphore::new(SOCKETS)),
            cursors: Arc::new(Semaphore::new(CURSORS)),
        }
    }
}

/// Which database a client's streams are of.
#[derive(Debug, Clone)]
pub struct Target {
    pub name: Name,
    pub reads_only: bool,
}

/// A stream. Dropping it rolls back what is open in it.
#[derive(Debug)]
pub struct Stream {
    database: Arc<Database>,
    connection: Guarded,
    _permit: OwnedSemaphorePermit,
}

/// SQL that a client has stored.
#[derive(Debug, Default)]
pub struct Texts {
    texts: HashMap<i32, String>,
    bytes: usize,
}

impl Texts {
    /// Whether it could be stored; a number that is taken breaks the protocol.
    pub fn store(&mut self, id: i32, sql: String) -> Result<(), Error> {
        if self.texts.contains_key(&id) {
            return Err(error(
                "SQL_STORE",
                format!("there is a text {id} already; close it first"),
            ));
        }
        if self.texts.len() >= TEXTS || self.bytes + sql.len() > TEXT_BYTES {
            return Err(error(
                "SQL_STORE_LIMIT",
                format!(
                    "at most {TEXTS} texts are stored, of {TEXT_BYTES} bytes in all; close some"
                ),
            ));
        }
        self.bytes += sql.len();
        self.texts.insert(id, sql);
        Ok(())
    }

    pub fn close(&mut self, id: i32) {
        if let Some(sql) = self.texts.remove(&id) {
            self.bytes -= sql.len();
        }
    }

    fn find(&self, text: &mut Text) -> Result<(), Error> {
        match (&text.sql, text.sql_id) {
            (Some(_), None) => Ok(()),
            (None, Some(id)) => {
                let sql = self.texts.get(&id).ok_or_else(|| {
                    error(
                        "SQL_NOT_FOUND",
                        format!("no text {id} is stored; send store_sql first"),
                    )
                })?;
                text.sql = Some(sql.clone());
                Ok(())
            }
            _ => Err(error("SQL_MISSING", "give one of sql and sql_id")),
        }
    }

    /// Put the text in place of its number wherever a request has one.
    pub fn resolve(&self, request: &mut Request) -> Result<(), Error> {
        match request {
            Request::Execute(stmt) => self.find(&mut stmt.text),
            Request::Batch(batch) => self.resolve_batch(batch),
            Request::Sequence(text) | Request::Describe(text) => self.find(text),
            _ => Ok(()),
        }
    }

    pub fn resolve_batch(&self, batch: &mut Batch) -> Result<(), Error> {
        // a text that is named a thousand times is a thousand texts in memory
        let mut bytes = 0;
        for step in &mut batch.steps {
            self.find(&mut step.stmt.text)?;
            bytes += step.stmt.text.sql.as_ref().map_or(0, String::len);
            if bytes > super::BODY {
                return Err(error(
                    "TOO_BIG",
                    "the statements of the batch are too large together",
                ));
            }
        }
        Ok(())
    }
}

pub fn error(code: &str, message: impl Into<String>) -> Error {
    Error {
        message: message.into(),
        code: code.to_owned(),
    }
}

/// What a stream that is over says.
pub fn ended() -> Error {
    error(
        "STREAM_CLOSED",
        "the stream is closed, and what was open in it was rolled back; open another one",
    )
}

/// Something a stream works on, in steps that may have to wait for a lock.
enum Task {
    One(Stmt),
    Batch { batch: Batch, done: BatchResult },
    Sequence(VecDeque<String>),
    Describe(String),
    Autocommit,
}

enum Progress {
    Done(Result<Response, Error>),
    /// Somebody else writes.
    Busy,
}

impl Stream {
    /// Open one.
    pub async fn open(sqlite: &Sqlite, target: &Target) -> Result<Stream, Error> {
        let permit = sqlite.turns.streams.clone().try_acquire_owned();
        let permit = permit.map_err(|_| {
            error(
                "TOO_MANY_STREAMS",
                format!("{STREAMS} streams are open, of all clients; close some, or try again"),
            )
        })?;
        sqlite.tend();
        let database = match target.reads_only {
            true => sqlite.store.find(&target.name).await?,
            false => sqlite.store.find_or_make(&target.name).await?.0,
        };
        let role = match target.reads_only {
            true => Role::ReadingStream,
            false => Role::Stream,
        };
        let place = database.place.clone();
        let connection = sqlite
            .store
            .aside(move || Guarded::open(&place, role))
            .await?;
        Ok(Stream {
            database,
            connection,
            _permit: permit,
        })
    }

    /// Whether a transaction is open in it.
    pub fn is_in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Ask it something. The stream comes back unless the caller leaves, or it broke.
    pub async fn ask(
        self,
        sqlite: &Sqlite,
        request: Request,
        budget: &mut Budget,
    ) -> (Option<Stream>, Result<Response, Error>) {
        let sql = |text: Text| text.sql.unwrap_or_default();
        let mut task = match request {
            Request::Execute(stmt) => Task::One(stmt),
            Request::Batch(batch) => Task::Batch {
                batch,
                done: BatchResult::default(),
            },
            Request::Sequence(text) => Task::Sequence(text::statements(&sql(text)).into()),
            Request::Describe(text) => Task::Describe(sql(text)),
            Request::GetAutocommit => Task::Autocommit,
            // told by whoever keeps the stream, and its texts
            Request::Close | Request::StoreSql { .. } | Request::CloseSql { .. } => {
                return (Some(self), Ok(Response::Close));
            }
        };
        let mut stream = self;
        let waiting = Waiting::default();
        let until = Instant::now() + limits::BUSY;
        let mut pause = Duration::from_millis(2);
        let mut left = budget.clone();
        let mut asked = Vec::new();
        let database = stream.database.clone();
        let result = loop {
            let turn = match sqlite.store.turn().await {
                Ok(turn) => turn,
                Err(fault) => break (Some(stream), Err(fault.into())),
            };
            let wanted = waiting.0.clone();
            let last = Instant::now() >= until;
            let job = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                let progress = stream.work(&mut task, &mut left, &mut asked, &wanted, last);
                (stream, task, left, asked, progress)
            });
            match job.await {
                Ok((back, again, rest, told, progress)) => {
                    (task, left, asked) = (again, rest, told);
                    match progress {
                        Progress::Done(done) => break (Some(back), done),
                        Progress::Busy => stream = back,
                    }
                }
                Err(failed) => {
                    tracing::error!(%failed, "a stream broke");
                    return (None, Err(ended()));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        };
        *budget = left;
        if !asked.is_empty() {
            sqlite.remember(&database, asked).await;
        }
        result
    }

    fn work(
        &self,
        task: &mut Task,
        budget: &mut Budget,
        asked: &mut Vec<Asked>,
        wanted: &Wanted,
        last: bool,
    ) -> Progress {
        self.connection.watch.begin(limits::TIMEOUT, wanted);
        match task {
            Task::One(stmt) => match self.execute(stmt, budget, asked, last) {
                None => Progress::Busy,
                Some(done) => Progress::Done(done.map(Response::Execute)),
            },
            Task::Batch { batch, done } => {
                while done.results.len() < batch.steps.len() {
                    let step = &batch.steps[done.results.len()];
                    let (result, failed) = match self.wants(step.condition.as_ref(), done) {
                        Err(fault) => (None, Some(fault)),
                        Ok(false) => (None, None),
                        Ok(true) => match self.execute(&step.stmt, budget, asked, last) {
                            None => return Progress::Busy,
                            Some(Ok(result)) => (Some(result), None),
                            Some(Err(failed)) => (None, Some(failed)),
                        },
                    };
                    done.results.push(result);
                    done.errors.push(failed);
                }
                Progress::Done(Ok(Response::Batch(std::mem::take(done))))
            }
            Task::Sequence(statements) => {
                while let Some(sql) = statements.front() {
                    let stmt = Stmt {
                        text: Text {
                            sql: Some(sql.clone()),
                            sql_id: None,
                        },
                        ..Stmt::default()
                    };
                    match self.execute(&stmt, budget, asked, last) {
                        None => return Progress::Busy,
                        Some(Ok(_)) => {
                            statements.pop_front();
                        }
                        Some(Err(failed)) => return Progress::Done(Err(failed)),
                    }
                }
                Progress::Done(Ok(Response::Sequence))
            }
            Task::Describe(sql) => Progress::Done(
                self.describe(sql)
                    .map(Response::Describe)
                    .map_err(Error::from),
            ),
            Task::Autocommit => {
                Progress::Done(Ok(Response::GetAutocommit(self.connection.is_autocommit())))
            }
        }
    }

    /// Run a statement; nothing where somebody else writes and there is time to wait.
    fn execute(
        &self,
        stmt: &Stmt,
        budget: &mut Budget,
        asked: &mut Vec<Asked>,
        last: bool,
    ) -> Option<Result<StmtResult, Error>> {
        let began = Instant::now();
        let sql = stmt.text.sql.as_deref().unwrap_or_default();
        let parameters = Parameters {
            positional: stmt.args.clone(),
            named: stmt.named_args.clone(),
        };
        // there is no word for rows that were left out
        let mut all = Budget {
            rows: usize::MAX,
            bytes: budget.bytes,
        };
        let done = run::run(&self.connection, sql, &parameters, stmt.want_rows, &mut all);
        budget.bytes = all.bytes;
        if matches!(&done, Err(fault) if fault.code == Some("BUSY")) && !last {
            return None;
        }
        let took = began.elapsed();
        asked.push(told(sql, &done, took));
        Some(done.map_err(Error::from).map(|outcome| StmtResult {
            cols: outcome.columns.into_iter().map(col).collect(),
            rows: outcome.rows,
            affected_row_count: outcome.changed,
            last_insert_rowid: Some(outcome.last_rowid),
            duration: took,
        }))
    }

    fn wants(&self, condition: Option<&Cond>, done: &BatchResult) -> Result<bool, Error> {
        condition.map_or(Ok(true), |condition| {
            holds(condition, &self.connection, &|step| {
                let result = done.results.get(step)?;
                Some((result.is_some(), done.errors.get(step)?.is_some()))
            })
        })
    }

    fn describe(&self, sql: &str) -> Result<Described, Fault> {
        let statement = run::prepare(&self.connection, sql)?;
        let params = (1..=statement.parameter_count())
            .map(|index| statement.parameter_name(index).map(str::to_owned))
            .collect();
        Ok(Described {
            params,
            cols: run::columns(&statement).into_iter().map(col).collect(),
            is_explain: statement.is_explain() != 0,
            is_readonly: statement.readonly(),
        })
    }

    /// Roll back what is open.
    pub async fn roll_back(self) -> Option<Stream> {
        let job = tokio::task::spawn_blocking(move || {
            self.connection.roll_back();
            self
        });
        job.await.ok()
    }
}

fn col(column: run::Column) -> Col {
    Col {
        name: Some(column.name),
        decltype: column.declared,
    }
}

fn told(sql: &str, done: &Result<run::Outcome, Fault>, took: Duration) -> Asked {
    let writes = matches!(done, Ok(outcome) if outcome.columns.is_empty());
    Asked {
        sql: sql.to_owned(),
        kind: if writes { "statement" } else { "query" },
        error: done.as_ref().err().map(|fault| fault.message.clone()),
        rows: done
            .as_ref()
            .map_or(0, |outcome| outcome.rows.len() as u64 + outcome.changed),
        took,
    }
}

/// Whether a condition holds; `step` says of one whether it succeeded and whether it failed.
fn holds(
    condition: &Cond,
    connection: &Guarded,
    step: &dyn Fn(usize) -> Option<(bool, bool)>,
) -> Result<bool, Error> {
    let of = |number: u32| {
        step(number as usize).ok_or_else(|| {
            error(
                "BATCH_COND_BAD_STEP",
                format!("a condition names step {number}, which does not come before it"),
            )
        })
    };
    Ok(match condition {
        Cond::Ok(number) => of(*number)?.0,
        Cond::Error(number) => of(*number)?.1,
        Cond::Not(inner) => !holds(inner, connection, step)?,
        Cond::And(all) => {
            for inner in all {
                if !holds(inner, connection, step)? {
                    return Ok(false);
                }
            }
            true
        }
        Cond::Or(any) => {
            for inner in any {
                if holds(inner, connection, step)? {
                    return Ok(true);
                }
            }
            false
        }
        Cond::IsAutocommit => connection.is_autocommit(),
    })
}

/// A cursor that runs: what comes out of it, and the stream once it is over.
#[derive(Debug)]
pub struct Running {
    pub entries: mpsc::Receiver<Vec<Entry>>,
    stream: JoinHandle<(Stream, Vec<Asked>)>,
    database: Arc<Database>,
    /// Ends what is under way when nobody takes more.
    waiting: Waiting,
}

impl Running {
    /// Begin to run a batch.
    pub fn begin(
        sqlite: &Sqlite,
        stream: Stream,
        batch: Batch,
    ) -> Result<Running, Box<(Stream, Error)>> {
        let Ok(turn) = sqlite.turns.cursors.clone().try_acquire_owned() else {
            let message = format!("{CURSORS} cursors are open, of all clients; try again");
            return Err(Box::new((stream, error("TOO_MANY_CURSORS", message))));
        };
        let (sender, entries) = mpsc::channel(AHEAD);
        let waiting = Waiting::default();
        let wanted = waiting.0.clone();
        let database = stream.database.clone();
        let handle = Handle::current();
        let stream = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut cursor = Sending {
                stream: &stream,
                sender,
                handle,
                held: Vec::new(),
                bytes: 0,
                asked: Vec::new(),
            };
            stream.connection.watch.begin(limits::LONGEST, &wanted);
            cursor.run(&batch);
            let asked = std::mem::take(&mut cursor.asked);
            drop(cursor);
            (stream, asked)
        });
        Ok(Running {
            entries,
            stream,
            database,
            waiting,
        })
    }

    /// The stream, once what runs has ended; it is ended where it has not.
    pub async fn end(self, sqlite: &Sqlite) -> Option<Stream> {
        let Running {
            entries,
            stream,
            database,
            waiting,
        } = self;
        drop(entries);
        drop(waiting);
        let (stream, asked) = stream.await.ok()?;
        sqlite.remember(&database, asked).await;
        Some(stream)
    }
}

/// The end of a cursor that runs the batch.
struct Sending<'s> {
    stream: &'s Stream,
    sender: mpsc::Sender<Vec<Entry>>,
    handle: Handle,
    held: Vec<Entry>,
    bytes: usize,
    asked: Vec<Asked>,
}

/// Nobody takes more.
struct Left;

impl Sending<'_> {
    fn run(&mut self, batch: &Batch) {
        let mut states = Vec::with_capacity(batch.steps.len());
        for (at, step) in batch.steps.iter().enumerate() {
            let number = u32::try_from(at).unwrap_or(u32::MAX);
            let wants = step.condition.as_ref().map_or(Ok(true), |condition| {
                holds(condition, &self.stream.connection, &|step| {
                    states.get(step).copied()
                })
            });
            let state = match wants {
                Ok(false) => (false, false),
                Ok(true) => match self.step(number, &step.stmt) {
                    Ok(state) => state,
                    Err(Left) => return,
                },
                Err(error) => {
                    let entry = Entry::StepError {
                        step: number,
                        error,
                    };
                    if self.push(entry, 0).is_err() {
                        return;
                    }
                    (false, true)
                }
            };
            states.push(state);
        }
        let _ = self.flush();
    }

    fn step(&mut self, number: u32, stmt: &Stmt) -> Result<(bool, bool), Left> {
        let sql = stmt.text.sql.clone().unwrap_or_default();
        let began = Instant::now();
        let until = began + limits::BUSY;
        loop {
            let mut begun = false;
            let done = self.rows(number, &sql, stmt, &mut begun)?;
            match done {
                Err(fault) if fault.code == Some("BUSY") && !begun && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                done => {
                    let mut asked = told(&sql, &Ok(run::Outcome::default()), began.elapsed());
                    asked.kind = "query";
                    asked.error = done.as_ref().err().map(|fault| fault.message.clone());
                    asked.rows = done.as_ref().map_or(0, |rows| *rows);
                    self.asked.push(asked);
                    return match done {
                        Ok(_) => Ok((true, false)),
                        Err(fault) => {
                            let error = Error::from(&fault);
                            self.push(
                                Entry::StepError {
                                    step: number,
                                    error,
                                },
                                0,
                            )?;
                            Ok((false, true))
                        }
                    };
                }
            }
        }
    }

    /// Send the rows of one statement as they come.
    fn rows(
        &mut self,
        number: u32,
        sql: &str,
        stmt: &Stmt,
        begun: &mut bool,
    ) -> Result<Result<u64, Fault>, Left> {
        let connection = &self.stream.connection;
        let mut statement = match run::prepare(connection, sql) {
            Ok(statement) => statement,
            Err(fault) => return Ok(Err(fault)),
        };
        let parameters = Parameters {
            positional: stmt.args.clone(),
            named: stmt.named_args.clone(),
        };
        if let Err(fault) = run::bind(connection, &mut statement, &parameters) {
            return Ok(Err(fault));
        }
        let cols: Vec<_> = run::columns(&statement).into_iter().map(col).collect();
        let width = cols.len();
        let before = connection.total_changes();
        let mut rows = statement.raw_query();
        let mut count = 0;
        let mut next = rows.next();
        if let Err(error) = &next {
            return Ok(Err(connection.fault(error)));
        }
        *begun = true;
        self.push(Entry::StepBegin { step: number, cols }, 0)?;
        loop {
            match next {
                Err(error) => return Ok(Err(connection.fault(&error))),
                Ok(None) => break,
                Ok(Some(row)) if stmt.want_rows => {
                    let mut values = Vec::with_capacity(width);
                    let mut bytes = 0;
                    for at in 0..width {
                        match row.get_ref(at) {
                            Ok(value) => {
                                bytes += crate::value::weight(value);
                                values.push(crate::value::of(value));
                            }
                            Err(error) => return Ok(Err(connection.fault(&error))),
                        }
                    }
                    count += 1;
                    self.push(Entry::Row(values), bytes)?;
                }
                Ok(Some(_)) => {}
            }
            next = rows.next();
        }
        drop(rows);
        let affected = match connection.total_changes() > before {
            true => connection.changes(),
            false => 0,
        };
        let rowid = Some(connection.last_insert_rowid());
        self.push(Entry::StepEnd { affected, rowid }, 0)?;
        Ok(Ok(count + affected))
    }

    fn push(&mut self, entry: Entry, bytes: usize) -> Result<(), Left> {
        self.held.push(entry);
        self.bytes += bytes;
        if self.held.len() >= TOGETHER || self.bytes >= TOGETHER_BYTES {
            return self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Left> {
        if self.held.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let held = std::mem::take(&mut self.held);
        let sent = self
            .handle
            .block_on(tokio::time::timeout(SLOW, self.sender.send(held)));
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(Left),
        }
    }
}
