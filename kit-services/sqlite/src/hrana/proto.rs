//! Messages as Protobuf: varints, little-endian doubles and pieces of a given length.
//!
//! Of a field that is there more than once the last one counts, and fields that are not known are
//! passed over, as the encoding wants it.

use rusqlite::types::Value as Sql;

use super::json::bounded;
use super::{
    Batch, ClientMsg, Col, Cond, Cursor, Described, Entry, Error, Pipeline, Pipelined, Request,
    Response, ServerMsg, SocketRequest, Step, Stmt, StmtResult, Text, Wrong,
};

/// How deep conditions lie in one another.
const DEEPEST: usize = 100;

// ---- reading ------------------------------------------------------------------------------------

/// What a field holds.
#[derive(Debug, Clone, Copy)]
enum Held<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

impl<'a> Held<'a> {
    fn bytes(self) -> Result<&'a [u8], Wrong> {
        match self {
            Held::Bytes(bytes) => Ok(bytes),
            _ => Err(broken()),
        }
    }
    fn string(self) -> Result<String, Wrong> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| broken())
    }
    fn number(self) -> Result<u64, Wrong> {
        match self {
            Held::Varint(number) => Ok(number),
            _ => Err(broken()),
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "negative numbers are sent as 64 bits"
    )]
    fn int32(self) -> Result<i32, Wrong> {
        Ok(self.number()? as i32)
    }
    #[expect(clippy::cast_possible_truncation, reason = "as the encoding wants it")]
    fn uint32(self) -> Result<u32, Wrong> {
        Ok(self.number()? as u32)
    }
    fn flag(self) -> Result<bool, Wrong> {
        Ok(self.number()? != 0)
    }
    fn sint64(self) -> Result<i64, Wrong> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }
    fn double(self) -> Result<f64, Wrong> {
        match self {
            Held::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(broken()),
        }
    }
}

fn broken() -> Wrong {
    "the message is no Hrana: its Protobuf is broken".to_owned()
}

/// The fields of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Wrong> {
        let mut number = 0_u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or_else(broken)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift < 64 {
                number |= bits << shift;
            }
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(broken())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Wrong> {
        if count > self.0.len() {
            return Err(broken());
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    fn next(&mut self) -> Result<Option<(u64, Held<'a>)>, Wrong> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let held = match key & 7 {
            0 => Held::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Held::Fixed64(u64::from_le_bytes(bytes.try_into().map_err(|_| broken())?))
            }
            2 => {
                let count = usize::try_from(self.varint()?).map_err(|_| broken())?;
                Held::Bytes(self.take(count)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Held::Varint(u64::from(u32::from_le_bytes(
                    bytes.try_into().map_err(|_| broken())?,
                )))
            }
            _ => return Err(broken()),
        };
        Ok(Some((key >> 3, held)))
    }

    /// Do something with each field.
    fn each(
        bytes: &'a [u8],
        mut with: impl FnMut(u64, Held<'a>) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        let mut fields = Fields(bytes);
        while let Some((number, held)) = fields.next()? {
            with(number, held)?;
        }
        Ok(())
    }
}

pub fn pipeline(bytes: &[u8]) -> Result<Pipeline, Wrong> {
    let mut read = Pipeline::default();
    Fields::each(bytes, |number, held| {
        match number {
            1 => read.baton = Some(held.string()?),
            2 => {
                bounded(read.requests.len() + 1)?;
                read.requests.push(request(held.bytes()?)?);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(read)
}

pub fn cursor(bytes: &[u8]) -> Result<Cursor, Wrong> {
    let mut read = Cursor::default();
    Fields::each(bytes, |number, held| {
        match number {
            1 => read.baton = Some(held.string()?),
            2 => read.batch = batch(held.bytes()?)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(read)
}

fn missing(what: &str) -> Wrong {
    format!("the message is no Hrana: it has no {what}")
}

fn request(bytes: &[u8]) -> Result<Request, Wrong> {
    let mut read = None;
    Fields::each(bytes, |number, held| {
        read = Some(match number {
            1 => Request::Close,
            2 => Request::Execute(stmt_in(held.bytes()?, 1)?),
            3 => Request::Batch(batch_in(held.bytes()?, 1)?),
            4 => Request::Sequence(text(held.bytes()?, 1)?),
            5 => Request::Describe(text(held.bytes()?, 1)?),
            6 => {
                let (sql_id, sql) = stored(held.bytes()?)?;
                Request::StoreSql { sql_id, sql }
            }
            7 => Request::CloseSql {
                sql_id: one_id(held.bytes()?)?,
            },
            8 => Request::GetAutocommit,
            _ => return Ok(()),
        });
        Ok(())
    })?;
    read.ok_or_else(|| missing("request that is known"))
}

/// The statement in the field of this number.
fn stmt_in(bytes: &[u8], field: u64) -> Result<Stmt, Wrong> {
    let mut read = None;
    Fields::each(bytes, |number, held| {
        if number == field {
            read = Some(stmt(held.bytes()?)?);
        }
        Ok(())
    })?;
    read.ok_or_else(|| missing("statement"))
}

fn batch_in(bytes: &[u8], field: u64) -> Result<Batch, Wrong> {
    let mut read = None;
    Fields::each(bytes, |number, held| {
        if number == field {
            read = Some(batch(held.bytes()?)?);
        }
        Ok(())
    })?;
    read.ok_or_else(|| missing("batch"))
}

/// SQL in the field of this number, or its own number in the one after.
fn text(bytes: &[u8], field: u64) -> Result<Text, Wrong> {
    let mut read = Text::default();
    Fields::each(bytes, |number, held| {
        match number {
            it if it == field => read.sql = Some(held.string()?),
            it if it == field + 1 => read.sql_id = Some(held.int32()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(read)
}

fn stored(bytes: &[u8]) -> Result<(i32, String), Wrong> {
    let mut read = (0, String::new());
    Fields::each(bytes, |number, held| {
        match number {
            1 => read.0 = held.int32()?,
            2 => read.1 = held.string()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(read)
}

/// A number in the first field; 0 is not sent.
fn one_id(bytes: &[u8]) -> Result<i32, Wrong> {
    let mut read = 0;
    Fields::each(bytes, |number, held| {
        if number == 1 {
            read = held.int32()?;
        }
        Ok(())
    })?;
    Ok(read)
}

fn stmt(bytes: &[u8]) -> Result<Stmt, Wrong> {
    let mut read = Stmt {
        want_rows: true,
        ..Stmt::default()
    };
    Fields::each(bytes, |number, held| {
        match number {
            1 => read.text.sql = Some(held.string()?),
            2 => read.text.sql_id = Some(held.int32()?),
            3 => read.args.push(sql(held.bytes()?)?),
            4 => read.named_args.push(named(held.bytes()?)?),
            5 => read.want_rows = held.flag()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(read)
}

fn named(bytes: &[u8]) -> Result<(String, Sql), Wrong> {
    let mut read = (String::new(), Sql::Null);
    Fields::each(bytes, |number, held| {
        match number {
            1 => read.0 = held.string()?,
            2 => read.1 = sql(held.bytes()?)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(read)
}

fn sql(bytes: &[u8]) -> Result<Sql, Wrong> {
    let mut read = None;
    Fields::each(bytes, |number, held| {
        read = Some(match number {
            1 => Sql::Null,
            2 => Sql::Integer(held.sint64()?),
            3 => Sql::Real(held.double()?),
            4 => Sql::Text(held.string()?),
            5 => Sql::Blob(held.bytes()?.to_vec()),
            _ => return Ok(()),
        });
        Ok(())
    })?;
    read.ok_or_else(|| missing("value of a type that is known"))
}

fn batch(bytes: &[u8]) -> Result<Batch, Wrong> {
    let mut read = Batch::default();
    Fields::each(bytes, |number, held| {
        if number == 1 {
            bounded(read.steps.len() + 1)?;
            let mut step = Step {
                condition: None,
                stmt: Stmt::default(),
            };
            Fields::each(held.bytes()?, |number, held| {
                match number {
                    1 => step.condition = Some(cond(held.bytes()?, 0)?),
                    2 => step.stmt = stmt(held.bytes()?)?,
                    _ => {}
                }
                Ok(())
            })?;
            read.steps.push(step);
        }
        Ok(())
    })?;
    Ok(read)
}

fn cond(bytes: &[u8], depth: usize) -> Result<Cond, Wrong> {
    if depth == DEEPEST {
        return Err(format!(
            "conditions lie at most {DEEPEST} deep in one another"
        ));
    }
    let conds = |bytes| {
        let mut conds = Vec::new();
        Fields::each(bytes, |number, held| {
            if number == 1 {
                bounded(conds.len() + 1)?;
                conds.push(cond(held.bytes()?, depth + 1)?);
            }
            Ok(())
        })?;
        Ok::<_, Wrong>(conds)
    };
    let mut read = None;
    Fields::each(bytes, |number, held| {
        read = Some(match number {
            1 => Cond::Ok(held.uint32()?),
            2 => Cond::Error(held.uint32()?),
            3 => Cond::Not(Box::new(cond(held.bytes()?, depth + 1)?)),
            4 => Cond::And(conds(held.bytes()?)?),
            5 => Cond::Or(conds(held.bytes()?)?),
            6 => Cond::IsAutocommit,
            _ => return Ok(()),
        });
        Ok(())
    })?;
    read.ok_or_else(|| missing("condition that is known"))
}

pub fn client(bytes: &[u8]) -> Result<ClientMsg, Wrong> {
    let mut read = None;
    Fields::each(bytes, |number, held| {
        read = Some(match number {
            1 => ClientMsg::Hello,
            2 => socket(held.bytes()?)?,
            _ => return Ok(()),
        });
        Ok(())
    })?;
    read.ok_or_else(|| missing("message that is known"))
}

fn socket(bytes: &[u8]) -> Result<ClientMsg, Wrong> {
    let mut id = 0;
    let mut read = None;
    Fields::each(bytes, |number, held| {
        if number == 1 {
            id = held.int32()?;
            return Ok(());
        }
        let bytes = held.bytes()?;
        read = Some(match number {
            2 => SocketRequest::OpenStream(one_id(bytes)?),
            3 => SocketRequest::CloseStream(one_id(bytes)?),
            4 => SocketRequest::Stream(one_id(bytes)?, Request::Execute(stmt_in(bytes, 2)?)),
            5 => SocketRequest::Stream(one_id(bytes)?, Request::Batch(batch_in(bytes, 2)?)),
            6 => SocketRequest::OpenCursor {
                stream: one_id(bytes)?,
                cursor: second_id(bytes)?,
                batch: batch_in(bytes, 3)?,
            },
            7 => SocketRequest::CloseCursor(one_id(bytes)?),
            8 => SocketRequest::FetchCursor {
                cursor: one_id(bytes)?,
                most: u32::try_from(second_id(bytes)?).unwrap_or(u32::MAX),
            },
            9 => SocketRequest::Stream(one_id(bytes)?, Request::Sequence(text(bytes, 2)?)),
            10 => SocketRequest::Stream(one_id(bytes)?, Request::Describe(text(bytes, 2)?)),
            11 => {
                let (sql_id, sql) = stored(bytes)?;
                SocketRequest::Stream(0, Request::StoreSql { sql_id, sql })
            }
            12 => SocketRequest::Stream(
                0,
                Request::CloseSql {
                    sql_id: one_id(bytes)?,
                },
            ),
            13 => SocketRequest::Stream(one_id(bytes)?, Request::GetAutocommit),
            _ => return Ok(()),
        });
        Ok(())
    })?;
    let request = read.ok_or_else(|| missing("request that is known"))?;
    Ok(ClientMsg::Request { id, request })
}

fn second_id(bytes: &[u8]) -> Result<i32, Wrong> {
    let mut read = 0;
    Fields::each(bytes, |number, held| {
        if number == 2 {
            read = held.int32()?;
        }
        Ok(())
    })?;
    Ok(read)
}

// ---- writing ------------------------------------------------------------------------------------

/// A message that is being written.
#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
    fn number(&mut self, field: u64, number: u64) -> &mut Out {
        self.varint(field << 3);
        self.varint(number);
        self
    }
    fn int32(&mut self, field: u64, number: i32) -> &mut Out {
        self.number(field, i64::from(number).cast_unsigned())
    }
    fn sint64(&mut self, field: u64, number: i64) -> &mut Out {
        self.number(field, ((number << 1) ^ (number >> 63)).cast_unsigned())
    }
    fn double(&mut self, field: u64, number: f64) -> &mut Out {
        self.varint(field << 3 | 1);
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }
    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Out {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }
    fn maybe(&mut self, field: u64, text: Option<&str>) -> &mut Out {
        if let Some(text) = text {
            self.bytes(field, text.as_bytes());
        }
        self
    }
    fn message(&mut self, field: u64, write: impl FnOnce(&mut Out)) -> &mut Out {
        let mut inner = Out::default();
        write(&mut inner);
        self.bytes(field, &inner.0)
    }
    fn delimited(self) -> Vec<u8> {
        let mut out = Out::default();
        out.varint(self.0.len() as u64);
        out.0.extend_from_slice(&self.0);
        out.0
    }
}

fn nothing(_: &mut Out) {}

pub fn pipelined(it: &Pipelined) -> Vec<u8> {
    let mut out = Out::default();
    out.maybe(1, it.baton.as_deref());
    for result in &it.results {
        out.message(3, |out| match result {
            Ok(response) => {
                out.message(1, |out| stream_response(out, response));
            }
            Err(it) => {
                out.message(2, |out| error(out, it));
            }
        });
    }
    out.0
}

pub fn head(baton: Option<&str>) -> Vec<u8> {
    let mut out = Out::default();
    out.maybe(1, baton);
    out.delimited()
}

pub fn entry_delimited(it: &Entry) -> Vec<u8> {
    let mut out = Out::default();
    entry(&mut out, it);
    out.delimited()
}

pub fn error_alone(it: &Error) -> Vec<u8> {
    let mut out = Out::default();
    error(&mut out, it);
    out.0
}

pub fn server(message: &ServerMsg) -> Vec<u8> {
    let mut out = Out::default();
    match message {
        ServerMsg::HelloOk => out.message(1, nothing),
        ServerMsg::Ok { id, response } => out.message(3, |out| {
            out.int32(1, *id);
            socket_response(out, response);
        }),
        ServerMsg::Error { id, error: it } => out.message(4, |out| {
            out.int32(1, *id).message(2, |out| error(out, it));
        }),
    };
    out.0
}

fn error(out: &mut Out, it: &Error) {
    out.bytes(1, it.message.as_bytes())
        .bytes(2, it.code.as_bytes());
}

/// The field of a response, over HTTP.
fn stream_response(out: &mut Out, it: &Response) {
    let field = match it {
        Response::Execute(_) => 2,
        Response::Batch(_) => 3,
        Response::Sequence => 4,
        Response::Describe(_) => 5,
        Response::StoreSql => 6,
        Response::CloseSql => 7,
        Response::GetAutocommit(_) => 8,
        _ => 1,
    };
    out.message(field, |out| content(out, it));
}

/// The field of a response, over a WebSocket.
fn socket_response(out: &mut Out, it: &Response) {
    let field = match it {
        Response::OpenStream => 2,
        Response::CloseStream | Response::Close => 3,
        Response::Execute(_) => 4,
        Response::Batch(_) => 5,
        Response::OpenCursor => 6,
        Response::CloseCursor => 7,
        Response::FetchCursor { .. } => 8,
        Response::Sequence => 9,
        Response::Describe(_) => 10,
        Response::StoreSql => 11,
        Response::CloseSql => 12,
        Response::GetAutocommit(_) => 13,
    };
    out.message(field, |out| content(out, it));
}

fn content(out: &mut Out, it: &Response) {
    match it {
        Response::Execute(it) => {
            out.message(1, |out| result(out, it));
        }
        Response::Batch(it) => {
            out.message(1, |out| {
                for (at, it) in it.results.iter().enumerate() {
                    if let Some(it) = it {
                        out.message(1, |out| {
                            out.number(1, at as u64).message(2, |out| result(out, it));
                        });
                    }
                }
                for (at, it) in it.errors.iter().enumerate() {
                    if let Some(it) = it {
                        out.message(2, |out| {
                            out.number(1, at as u64).message(2, |out| error(out, it));
                        });
                    }
                }
            });
        }
        Response::Describe(it) => {
            out.message(1, |out| described(out, it));
        }
        Response::GetAutocommit(is) => {
            out.number(1, u64::from(*is));
        }
        Response::FetchCursor { entries, done } => {
            for it in entries {
                out.message(1, |out| entry(out, it));
            }
            out.number(2, u64::from(*done));
        }
        _ => {}
    }
}

fn result(out: &mut Out, it: &StmtResult) {
    cols(out, 1, &it.cols);
    for it in &it.rows {
        out.message(2, |out| row(out, it));
    }
    out.number(3, it.affected_row_count);
    if let Some(rowid) = it.last_insert_rowid {
        out.sint64(4, rowid);
    }
}

fn cols(out: &mut Out, field: u64, it: &[Col]) {
    for col in it {
        out.message(field, |out| {
            out.maybe(1, col.name.as_deref())
                .maybe(2, col.decltype.as_deref());
        });
    }
}

fn row(out: &mut Out, it: &[Sql]) {
    for value in it {
        out.message(1, |out| {
            match value {
                Sql::Null => out.message(1, nothing),
                Sql::Integer(number) => out.sint64(2, *number),
                Sql::Real(number) => out.double(3, *number),
                Sql::Text(text) => out.bytes(4, text.as_bytes()),
                Sql::Blob(bytes) => out.bytes(5, bytes),
            };
        });
    }
}

fn described(out: &mut Out, it: &Described) {
    for name in &it.params {
        out.message(1, |out| {
            out.maybe(1, name.as_deref());
        });
    }
    cols(out, 2, &it.cols);
    out.number(3, u64::from(it.is_explain))
        .number(4, u64::from(it.is_readonly));
}

fn entry(out: &mut Out, it: &Entry) {
    match it {
        Entry::StepBegin { step, cols: it } => out.message(1, |out| {
            out.number(1, u64::from(*step));
            cols(out, 2, it);
        }),
        Entry::StepEnd { affected, rowid } => out.message(2, |out| {
            out.number(1, *affected);
            if let Some(rowid) = rowid {
                out.sint64(2, *rowid);
            }
        }),
        Entry::StepError { step, error: it } => out.message(3, |out| {
            out.number(1, u64::from(*step))
                .message(2, |out| error(out, it));
        }),
        Entry::Row(it) => out.message(4, |out| row(out, it)),
        Entry::Error(it) => out.message(5, |out| error(out, it)),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A value as a client writes it.
    fn written(value: &Sql) -> Vec<u8> {
        let mut out = Out::default();
        row(&mut out, std::slice::from_ref(value));
        let mut fields = Fields(&out.0);
        let (_, held) = fields.next().unwrap().unwrap();
        held.bytes().unwrap().to_vec()
    }

    proptest! {
        #[test]
        fn values_come_back(number in proptest::num::i64::ANY, real in proptest::num::f64::ANY, text in "\\PC{0,20}", blob in proptest::collection::vec(0_u8..=255, 0..40)) {
            for value in [Sql::Null, Sql::Integer(number), Sql::Text(text), Sql::Blob(blob)] {
                prop_assert_eq!(sql(&written(&value)).unwrap(), value);
            }
            match sql(&written(&Sql::Real(real))).unwrap() {
                Sql::Real(back) => prop_assert_eq!(back.to_bits(), real.to_bits()),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(0_u8..=255, 0..200)) {
            let _ = pipeline(&bytes);
            let _ = cursor(&bytes);
            let _ = client(&bytes);
        }

        #[test]
        fn nothing_that_is_nearly_a_message_panics(fields in proptest::collection::vec((0_u8..16, 0_u8..6, 0_u8..40), 0..40)) {
            let bytes: Vec<u8> = fields.iter().flat_map(|(field, kind, count)| [field << 3 | kind, *count]).collect();
            let _ = pipeline(&bytes);
            let _ = cursor(&bytes);
            let _ = client(&bytes);
        }
    }

    #[test]
    fn conditions_have_an_end() {
        let mut bytes = vec![0x32, 0];
        for _ in 0..500 {
            let mut out = Out::default();
            out.bytes(3, &bytes);
            bytes = out.0;
        }
        cond(&bytes, 0).unwrap_err();
    }

    #[test]
    fn a_pipeline_is_what_its_bytes_say() {
        // baton "b"; execute { sql "S", args [integer -1], want_rows false }; close
        let value = [0x10, 0x01];
        let mut statement = Out::default();
        statement.bytes(1, b"S").bytes(3, &value).number(5, 0);
        let mut out = Out::default();
        out.bytes(1, b"b")
            .message(2, |out| {
                out.message(2, |out| {
                    out.bytes(1, &statement.0);
                });
            })
            .message(2, |out| {
                out.message(1, nothing);
            });
        let read = pipeline(&out.0).unwrap();
        assert_eq!(read.baton.as_deref(), Some("b"));
        assert_eq!(
            read.requests,
            [
                Request::Execute(Stmt {
                    text: Text {
                        sql: Some("S".into()),
                        sql_id: None
                    },
                    args: vec![Sql::Integer(-1)],
                    named_args: Vec::new(),
                    want_rows: false,
                }),
                Request::Close,
            ]
        );
    }
}
