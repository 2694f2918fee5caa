//! Messages as JSON.
//!
//! What is written goes straight to text: a value has its type beside it, an integer is a string,
//! and infinity is `1e999`, which readers of JSON take for it.

use std::fmt::Write;

use base64::Engine as _;
use rusqlite::types::Value as Sql;
use serde::Deserialize;
use serde_json::Value as Json;

use super::{
    Batch, BatchResult, ClientMsg, Col, Cond, Cursor, Described, Entry, Error, Pipeline, Pipelined,
    Request, Response, STEPS, ServerMsg, SocketRequest, Step, Stmt, StmtResult, Text, Wrong,
};
use crate::value::{self, BASE64};

// ---- reading ------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct PipelineIn {
    baton: Option<String>,
    #[serde(default)]
    requests: Vec<RequestIn>,
}

#[derive(Deserialize)]
struct CursorIn {
    baton: Option<String>,
    batch: BatchIn,
}

#[derive(Deserialize)]
struct TextIn {
    sql: Option<String>,
    sql_id: Option<i32>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum RequestIn {
    Close,
    Execute { stmt: StmtIn },
    Batch { batch: BatchIn },
    Sequence(TextIn),
    Describe(TextIn),
    StoreSql { sql_id: i32, sql: String },
    CloseSql { sql_id: i32 },
    GetAutocommit,
}

#[derive(Deserialize)]
struct StmtIn {
    sql: Option<String>,
    sql_id: Option<i32>,
    #[serde(default)]
    args: Vec<Json>,
    #[serde(default)]
    named_args: Vec<NamedIn>,
    want_rows: Option<bool>,
}

#[derive(Deserialize)]
struct NamedIn {
    name: String,
    value: Json,
}

#[derive(Deserialize)]
struct BatchIn {
    steps: Vec<StepIn>,
}

#[derive(Deserialize)]
struct StepIn {
    condition: Option<CondIn>,
    stmt: StmtIn,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CondIn {
    Ok { step: u32 },
    Error { step: u32 },
    Not { cond: Box<CondIn> },
    And { conds: Vec<CondIn> },
    Or { conds: Vec<CondIn> },
    IsAutocommit,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ClientIn {
    Hello,
    Request { request_id: i32, request: SocketIn },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum SocketIn {
    OpenStream {
        stream_id: i32,
    },
    CloseStream {
        stream_id: i32,
    },
    Execute {
        stream_id: i32,
        stmt: StmtIn,
    },
    Batch {
        stream_id: i32,
        batch: BatchIn,
    },
    OpenCursor {
        stream_id: i32,
        cursor_id: i32,
        batch: BatchIn,
    },
    CloseCursor {
        cursor_id: i32,
    },
    FetchCursor {
        cursor_id: i32,
        max_count: u32,
    },
    Sequence {
        stream_id: i32,
        sql: Option<String>,
        sql_id: Option<i32>,
    },
    Describe {
        stream_id: i32,
        sql: Option<String>,
        sql_id: Option<i32>,
    },
    StoreSql {
        sql_id: i32,
        sql: String,
    },
    CloseSql {
        sql_id: i32,
    },
    GetAutocommit {
        stream_id: i32,
    },
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Wrong> {
    serde_json::from_slice(bytes).map_err(|error| format!("the message is no Hrana: {error}"))
}

pub fn pipeline(bytes: &[u8]) -> Result<Pipeline, Wrong> {
    let read: PipelineIn = parse(bytes)?;
    bounded(read.requests.len())?;
    Ok(Pipeline {
        baton: read.baton,
        requests: read
            .requests
            .into_iter()
            .map(request)
            .collect::<Result<_, _>>()?,
    })
}

pub fn cursor(bytes: &[u8]) -> Result<Cursor, Wrong> {
    let read: CursorIn = parse(bytes)?;
    Ok(Cursor {
        baton: read.baton,
        batch: batch(read.batch)?,
    })
}

pub fn client(bytes: &[u8]) -> Result<ClientMsg, Wrong> {
    let (id, request) = match parse(bytes)? {
        ClientIn::Hello => return Ok(ClientMsg::Hello),
        ClientIn::Request {
            request_id,
            request,
        } => (request_id, request),
    };
    let request = match request {
        SocketIn::OpenStream { stream_id } => SocketRequest::OpenStream(stream_id),
        SocketIn::CloseStream { stream_id } => SocketRequest::CloseStream(stream_id),
        SocketIn::Execute { stream_id, stmt: s } => {
            SocketRequest::Stream(stream_id, Request::Execute(stmt(s)?))
        }
        SocketIn::Batch {
            stream_id,
            batch: b,
        } => SocketRequest::Stream(stream_id, Request::Batch(batch(b)?)),
        SocketIn::OpenCursor {
            stream_id,
            cursor_id,
            batch: b,
        } => SocketRequest::OpenCursor {
            stream: stream_id,
            cursor: cursor_id,
            batch: batch(b)?,
        },
        SocketIn::CloseCursor { cursor_id } => SocketRequest::CloseCursor(cursor_id),
        SocketIn::FetchCursor {
            cursor_id,
            max_count,
        } => SocketRequest::FetchCursor {
            cursor: cursor_id,
            most: max_count,
        },
        SocketIn::Sequence {
            stream_id,
            sql,
            sql_id,
        } => SocketRequest::Stream(stream_id, Request::Sequence(Text { sql, sql_id })),
        SocketIn::Describe {
            stream_id,
            sql,
            sql_id,
        } => SocketRequest::Stream(stream_id, Request::Describe(Text { sql, sql_id })),
        // these belong to the whole connection
        SocketIn::StoreSql { sql_id, sql } => {
            SocketRequest::Stream(0, Request::StoreSql { sql_id, sql })
        }
        SocketIn::CloseSql { sql_id } => SocketRequest::Stream(0, Request::CloseSql { sql_id }),
        SocketIn::GetAutocommit { stream_id } => {
            SocketRequest::Stream(stream_id, Request::GetAutocommit)
        }
    };
    Ok(ClientMsg::Request { id, request })
}

pub(super) fn bounded(count: usize) -> Result<(), Wrong> {
    if count > STEPS {
        return Err(format!("at most {STEPS} requests, or steps, at a time"));
    }
    Ok(())
}

fn request(read: RequestIn) -> Result<Request, Wrong> {
    let text = |text: TextIn| Text {
        sql: text.sql,
        sql_id: text.sql_id,
    };
    Ok(match read {
        RequestIn::Close => Request::Close,
        RequestIn::Execute { stmt: s } => Request::Execute(stmt(s)?),
        RequestIn::Batch { batch: b } => Request::Batch(batch(b)?),
        RequestIn::Sequence(t) => Request::Sequence(text(t)),
        RequestIn::Describe(t) => Request::Describe(text(t)),
        RequestIn::StoreSql { sql_id, sql } => Request::StoreSql { sql_id, sql },
        RequestIn::CloseSql { sql_id } => Request::CloseSql { sql_id },
        RequestIn::GetAutocommit => Request::GetAutocommit,
    })
}

fn stmt(read: StmtIn) -> Result<Stmt, Wrong> {
    let one = |json: Json| {
        if !json.is_object() {
            return Err("a value is an object with a type".to_owned());
        }
        value::read(json)
    };
    Ok(Stmt {
        text: Text {
            sql: read.sql,
            sql_id: read.sql_id,
        },
        args: read.args.into_iter().map(one).collect::<Result<_, _>>()?,
        named_args: read
            .named_args
            .into_iter()
            .map(|named| Ok((named.name, one(named.value)?)))
            .collect::<Result<_, Wrong>>()?,
        want_rows: read.want_rows.unwrap_or(true),
    })
}

fn batch(read: BatchIn) -> Result<Batch, Wrong> {
    bounded(read.steps.len())?;
    let steps = read.steps.into_iter().map(|step| {
        Ok(Step {
            condition: step.condition.map(cond),
            stmt: stmt(step.stmt)?,
        })
    });
    Ok(Batch {
        steps: steps.collect::<Result<_, Wrong>>()?,
    })
}

fn cond(read: CondIn) -> Cond {
    match read {
        CondIn::Ok { step } => Cond::Ok(step),
        CondIn::Error { step } => Cond::Error(step),
        CondIn::Not { cond: inner } => Cond::Not(Box::new(cond(*inner))),
        CondIn::And { conds } => Cond::And(conds.into_iter().map(cond).collect()),
        CondIn::Or { conds } => Cond::Or(conds.into_iter().map(cond).collect()),
        CondIn::IsAutocommit => Cond::IsAutocommit,
    }
}

// ---- writing ------------------------------------------------------------------------------------

/// Text that is being written. Writing to a string does not fail.
#[derive(Default)]
struct Out(String);

impl Out {
    fn raw(&mut self, text: &str) -> &mut Out {
        self.0.push_str(text);
        self
    }
    fn show(&mut self, value: impl std::fmt::Display) -> &mut Out {
        let _ = write!(self.0, "{value}");
        self
    }
    fn text(&mut self, text: &str) -> &mut Out {
        self.show(Json::from(text))
    }
    fn maybe(&mut self, text: Option<&str>) -> &mut Out {
        match text {
            Some(text) => self.text(text),
            None => self.raw("null"),
        }
    }
    fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Out, &T)) -> &mut Out {
        self.raw("[");
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.raw(",");
            }
            write(self, item);
        }
        self.raw("]")
    }
    fn done(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

pub fn pipelined(pipelined: &Pipelined) -> Vec<u8> {
    let mut out = Out::default();
    out.raw("{\"baton\":")
        .maybe(pipelined.baton.as_deref())
        .raw(",\"base_url\":null,\"results\":")
        .list(&pipelined.results, |out, result| match result {
            Ok(it) => {
                out.raw("{\"type\":\"ok\",\"response\":");
                response(out, it);
                out.raw("}");
            }
            Err(it) => {
                out.raw("{\"type\":\"error\",\"error\":");
                error(out, it);
                out.raw("}");
            }
        })
        .raw("}");
    out.done()
}

pub fn head(baton: Option<&str>) -> Vec<u8> {
    let mut out = Out::default();
    out.raw("{\"baton\":")
        .maybe(baton)
        .raw(",\"base_url\":null}\n");
    out.done()
}

pub fn entry_line(it: &Entry) -> Vec<u8> {
    let mut out = Out::default();
    entry(&mut out, it);
    out.raw("\n");
    out.done()
}

pub fn server(message: &ServerMsg) -> Vec<u8> {
    let mut out = Out::default();
    match message {
        ServerMsg::HelloOk => {
            out.raw("{\"type\":\"hello_ok\"}");
        }
        ServerMsg::Ok { id, response: it } => {
            out.raw("{\"type\":\"response_ok\",\"request_id\":")
                .show(id)
                .raw(",\"response\":");
            response(&mut out, it);
            out.raw("}");
        }
        ServerMsg::Error { id, error: it } => {
            out.raw("{\"type\":\"response_error\",\"request_id\":")
                .show(id)
                .raw(",\"error\":");
            error(&mut out, it);
            out.raw("}");
        }
    }
    out.done()
}

/// As Hrana has it, and as all other failures of this service have it.
pub fn error_alone(it: &Error) -> Vec<u8> {
    let mut out = Out::default();
    out.raw("{\"message\":")
        .text(&it.message)
        .raw(",\"code\":")
        .text(&it.code)
        .raw(",\"error\":")
        .text(&it.message)
        .raw("}");
    out.done()
}

fn error(out: &mut Out, it: &Error) {
    out.raw("{\"message\":")
        .text(&it.message)
        .raw(",\"code\":")
        .text(&it.code)
        .raw("}");
}

fn response(out: &mut Out, it: &Response) {
    let plain = |out: &mut Out, name: &str| {
        out.raw("{\"type\":\"").raw(name).raw("\"}");
    };
    match it {
        Response::Close => plain(out, "close"),
        Response::Sequence => plain(out, "sequence"),
        Response::StoreSql => plain(out, "store_sql"),
        Response::CloseSql => plain(out, "close_sql"),
        Response::OpenStream => plain(out, "open_stream"),
        Response::CloseStream => plain(out, "close_stream"),
        Response::OpenCursor => plain(out, "open_cursor"),
        Response::CloseCursor => plain(out, "close_cursor"),
        Response::Execute(it) => {
            out.raw("{\"type\":\"execute\",\"result\":");
            result(out, it);
            out.raw("}");
        }
        Response::Batch(BatchResult { results, errors }) => {
            out.raw("{\"type\":\"batch\",\"result\":{\"step_results\":")
                .list(results, |out, it| match it {
                    Some(it) => result(out, it),
                    None => {
                        out.raw("null");
                    }
                })
                .raw(",\"step_errors\":")
                .list(errors, |out, it| match it {
                    Some(it) => error(out, it),
                    None => {
                        out.raw("null");
                    }
                })
                .raw("}}");
        }
        Response::Describe(it) => {
            out.raw("{\"type\":\"describe\",\"result\":");
            described(out, it);
            out.raw("}");
        }
        Response::GetAutocommit(is) => {
            out.raw("{\"type\":\"get_autocommit\",\"is_autocommit\":")
                .show(is)
                .raw("}");
        }
        Response::FetchCursor { entries, done } => {
            out.raw("{\"type\":\"fetch_cursor\",\"entries\":")
                .list(entries, entry)
                .raw(",\"done\":")
                .show(done)
                .raw("}");
        }
    }
}

fn cols(out: &mut Out, it: &[Col]) {
    out.list(it, |out, col| {
        out.raw("{\"name\":")
            .maybe(col.name.as_deref())
            .raw(",\"decltype\":")
            .maybe(col.decltype.as_deref())
            .raw("}");
    });
}

fn rowid(out: &mut Out, it: Option<i64>) {
    match it {
        Some(it) => out.raw("\"").show(it).raw("\""),
        None => out.raw("null"),
    };
}

fn result(out: &mut Out, it: &StmtResult) {
    out.raw("{\"cols\":");
    cols(out, &it.cols);
    out.raw(",\"rows\":")
        .list(&it.rows, |out, it| row(out, it))
        .raw(",\"affected_row_count\":")
        .show(it.affected_row_count)
        .raw(",\"last_insert_rowid\":");
    rowid(out, it.last_insert_rowid);
    out.raw(",\"query_duration_ms\":")
        .show(it.duration.as_micros() as f64 / 1e3)
        .raw("}");
}

fn row(out: &mut Out, it: &[Sql]) {
    out.list(it, sql);
}

fn sql(out: &mut Out, it: &Sql) {
    match it {
        Sql::Null => out.raw("{\"type\":\"null\"}"),
        Sql::Integer(number) => out
            .raw("{\"type\":\"integer\",\"value\":\"")
            .show(number)
            .raw("\"}"),
        Sql::Real(number) => {
            out.raw("{\"type\":\"float\",\"value\":");
            match number {
                number if number.is_finite() => out.show(Json::from(*number)),
                number if *number > 0.0 => out.raw("1e999"),
                _ => out.raw("-1e999"),
            };
            out.raw("}")
        }
        Sql::Text(text) => out.raw("{\"type\":\"text\",\"value\":").text(text).raw("}"),
        // padded, as clients have it
        Sql::Blob(bytes) => out
            .raw("{\"type\":\"blob\",\"base64\":\"")
            .raw(&BASE64.encode(bytes))
            .raw("\"}"),
    };
}

fn described(out: &mut Out, it: &Described) {
    out.raw("{\"params\":")
        .list(&it.params, |out, name| {
            out.raw("{\"name\":").maybe(name.as_deref()).raw("}");
        })
        .raw(",\"cols\":");
    cols(out, &it.cols);
    out.raw(",\"is_explain\":")
        .show(it.is_explain)
        .raw(",\"is_readonly\":")
        .show(it.is_readonly)
        .raw("}");
}

fn entry(out: &mut Out, it: &Entry) {
    match it {
        Entry::StepBegin { step, cols: it } => {
            out.raw("{\"type\":\"step_begin\",\"step\":")
                .show(step)
                .raw(",\"cols\":");
            cols(out, it);
            out.raw("}");
        }
        Entry::StepEnd {
            affected,
            rowid: it,
        } => {
            out.raw("{\"type\":\"step_end\",\"affected_row_count\":")
                .show(affected)
                .raw(",\"last_insert_rowid\":");
            rowid(out, *it);
            out.raw("}");
        }
        Entry::StepError { step, error: it } => {
            out.raw("{\"type\":\"step_error\",\"step\":")
                .show(step)
                .raw(",\"error\":");
            error(out, it);
            out.raw("}");
        }
        Entry::Row(it) => {
            out.raw("{\"type\":\"row\",\"row\":");
            row(out, it);
            out.raw("}");
        }
        Entry::Error(it) => {
            out.raw("{\"type\":\"error\",\"error\":");
            error(out, it);
            out.raw("}");
        }
    }
}
