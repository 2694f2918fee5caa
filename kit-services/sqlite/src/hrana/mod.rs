//! Hrana, the protocol of libsql's clients, in its versions 2 and 3, over HTTP and WebSocket
//! (`HRANA_3_SPEC.md` in the repository of libsql). Version 1 of the WebSocket's is part of them.
//!
//! A stream is a connection of its own ([`stream`]). Over a WebSocket it lives as long as the socket
//! ([`socket`]); over HTTP a baton leads to it, and one that nobody asks for is ended ([`http`]).
//! Messages are JSON ([`json`]) or Protobuf ([`proto`]).
//!
//! | bound | |
//! |---|---|
//! | [`STREAMS`] | streams of all clients, each a connection |
//! | [`OF_SOCKET`] | streams, and cursors, of one WebSocket |
//! | [`SOCKETS`] | WebSockets |
//! | [`STREAM_IDLE`] | a stream over HTTP without a request |
//! | [`TRANSACTION_IDLE`] | a transaction without a statement |

use std::time::Duration;

use kit::Fault;
use rusqlite::types::Value as Sql;

pub mod http;
pub mod json;
pub mod proto;
pub mod socket;
pub mod stream;

/// Streams of all clients at a time. Each holds three files and some hundred KiB.
pub const STREAMS: usize = 128;
/// Streams of one WebSocket, and its cursors.
pub const OF_SOCKET: usize = 32;
/// WebSockets at a time. Each may hold a message while it comes.
pub const SOCKETS: usize = 64;
/// Largest message of a client over a WebSocket.
pub const MESSAGE: usize = 2 << 20;
/// Largest request over HTTP.
pub const BODY: usize = 16 << 20;
/// Statements that a client has stored, and their bytes.
pub const TEXTS: usize = 128;
pub const TEXT_BYTES: usize = 4 << 20;
/// Steps of a batch, and requests of a pipeline.
pub const STEPS: usize = 10_000;
/// A stream over HTTP that nobody has asked anything for this long is closed.
pub const STREAM_IDLE: Duration = Duration::from_secs(60);
/// A transaction in which nothing is done for this long is rolled back: it keeps others from
/// writing, or the log from being emptied.
pub const TRANSACTION_IDLE: Duration = Duration::from_secs(30);
/// Cursors at a time, of all clients. Each holds a thread.
pub const CURSORS: usize = 8;

/// A statement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stmt {
    pub text: Text,
    pub args: Vec<Sql>,
    pub named_args: Vec<(String, Sql)>,
    pub want_rows: bool,
}

/// SQL, or the number under which it was stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Text {
    pub sql: Option<String>,
    pub sql_id: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    pub condition: Option<Cond>,
    pub stmt: Stmt,
}

/// Whether a step is run.
#[derive(Debug, Clone, PartialEq)]
pub enum Cond {
    Ok(u32),
    Error(u32),
    Not(Box<Cond>),
    And(Vec<Cond>),
    Or(Vec<Cond>),
    IsAutocommit,
}

/// What a stream is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Close,
    Execute(Stmt),
    Batch(Batch),
    Sequence(Text),
    Describe(Text),
    StoreSql { sql_id: i32, sql: String },
    CloseSql { sql_id: i32 },
    GetAutocommit,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    Close,
    Execute(StmtResult),
    Batch(BatchResult),
    Sequence,
    Describe(Described),
    StoreSql,
    CloseSql,
    GetAutocommit(bool),
    // over a WebSocket only
    OpenStream,
    CloseStream,
    OpenCursor,
    CloseCursor,
    FetchCursor { entries: Vec<Entry>, done: bool },
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct StmtResult {
    pub cols: Vec<Col>,
    pub rows: Vec<Vec<Sql>>,
    pub affected_row_count: u64,
    pub last_insert_rowid: Option<i64>,
    pub duration: Duration,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Col {
    pub name: Option<String>,
    pub decltype: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct BatchResult {
    pub results: Vec<Option<StmtResult>>,
    pub errors: Vec<Option<Error>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// Names of the parameters.
    pub params: Vec<Option<String>>,
    pub cols: Vec<Col>,
    pub is_explain: bool,
    pub is_readonly: bool,
}

/// What a cursor gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    StepBegin { step: u32, cols: Vec<Col> },
    StepEnd { affected: u64, rowid: Option<i64> },
    StepError { step: u32, error: Error },
    Row(Vec<Sql>),
    Error(Error),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Error {
    pub message: String,
    pub code: String,
}

impl From<&Fault> for Error {
    fn from(fault: &Fault) -> Error {
        Error {
            message: fault.message.clone(),
            code: fault.code.unwrap_or("ERROR").to_owned(),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::from(&fault)
    }
}

/// A request over HTTP.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pipeline {
    pub baton: Option<String>,
    pub requests: Vec<Request>,
}

/// Its answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pipelined {
    pub baton: Option<String>,
    pub results: Vec<Result<Response, Error>>,
}

/// A request for a cursor over HTTP.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cursor {
    pub baton: Option<String>,
    pub batch: Batch,
}

/// A message of a client over a WebSocket.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMsg {
    Hello,
    Request { id: i32, request: SocketRequest },
}

/// What it asks.
#[derive(Debug, Clone, PartialEq)]
pub enum SocketRequest {
    OpenStream(i32),
    CloseStream(i32),
    Stream(i32, Request),
    OpenCursor {
        stream: i32,
        cursor: i32,
        batch: Batch,
    },
    CloseCursor(i32),
    FetchCursor {
        cursor: i32,
        most: u32,
    },
}

/// A message to a client over a WebSocket.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMsg {
    HelloOk,
    Ok { id: i32, response: Response },
    Error { id: i32, error: Error },
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Protobuf,
}

/// A sentence on what in a message is no Hrana.
pub type Wrong = String;

impl Encoding {
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/x-protobuf",
        }
    }
    pub fn pipeline(self, bytes: &[u8]) -> Result<Pipeline, Wrong> {
        match self {
            Encoding::Json => json::pipeline(bytes),
            Encoding::Protobuf => proto::pipeline(bytes),
        }
    }
    pub fn cursor(self, bytes: &[u8]) -> Result<Cursor, Wrong> {
        match self {
            Encoding::Json => json::cursor(bytes),
            Encoding::Protobuf => proto::cursor(bytes),
        }
    }
    pub fn client(self, bytes: &[u8]) -> Result<ClientMsg, Wrong> {
        match self {
            Encoding::Json => json::client(bytes),
            Encoding::Protobuf => proto::client(bytes),
        }
    }
    pub fn pipelined(self, pipelined: &Pipelined) -> Vec<u8> {
        match self {
            Encoding::Json => json::pipelined(pipelined),
            Encoding::Protobuf => proto::pipelined(pipelined),
        }
    }
    /// The head of a cursor's answer, ready to be followed by entries.
    pub fn head(self, baton: Option<&str>) -> Vec<u8> {
        match self {
            Encoding::Json => json::head(baton),
            Encoding::Protobuf => proto::head(baton),
        }
    }
    /// An entry of a cursor's answer, ready to be followed by others.
    pub fn entry(self, entry: &Entry) -> Vec<u8> {
        match self {
            Encoding::Json => json::entry_line(entry),
            Encoding::Protobuf => proto::entry_delimited(entry),
        }
    }
    pub fn server(self, message: &ServerMsg) -> Vec<u8> {
        match self {
            Encoding::Json => json::server(message),
            Encoding::Protobuf => proto::server(message),
        }
    }
    /// An error on its own.
    pub fn error(self, error: &Error) -> Vec<u8> {
        match self {
            Encoding::Json => json::error_alone(error),
            Encoding::Protobuf => proto::error_alone(error),
        }
    }
}
