//! Tables and databases as text, in and out, a piece at a time: however large they are, little of
//! them is in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use kit::Fault;
use rusqlite::types::{Value as Sql, ValueRef};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::connection::Guarded;
use crate::csv;
use crate::limits;
use crate::run::{self, Budget, Parameters};
use crate::text::{self, Splitter};
use crate::value;

/// How a database, or a table of it, is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The file itself.
    Sqlite,
    /// Statements that make it.
    Sql,
    /// Records of one table (RFC 4180), the first with the names of the columns.
    Csv,
    /// Rows of one table, an object of JSON a line.
    Jsonl,
}

/// A failure of writing is the reader's, who has gone.
fn left(error: &io::Error) -> Fault {
    Fault::unavailable(format!("the reader went away: {error}")).code("CANCELLED")
}

fn name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A value as a literal that reads back as the same.
fn literal(out: &mut impl Write, value: ValueRef<'_>) -> io::Result<()> {
    let hex = |out: &mut dyn Write, bytes: &[u8]| -> io::Result<()> {
        out.write_all(b"X'")?;
        for byte in bytes {
            write!(out, "{byte:02x}")?;
        }
        out.write_all(b"'")
    };
    match value {
        ValueRef::Null => out.write_all(b"NULL"),
        ValueRef::Integer(number) => write!(out, "{number}"),
        ValueRef::Real(number) if number == f64::INFINITY => out.write_all(b"9e999"),
        ValueRef::Real(number) if number == f64::NEG_INFINITY => out.write_all(b"-9e999"),
        ValueRef::Real(number) => write!(out, "{number:?}"),
        ValueRef::Blob(bytes) => hex(out, bytes),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => write!(out, "'{}'", text.replace('\'', "''")),
            // text with a NUL in it has no other literal
            _ => {
                out.write_all(b"CAST(")?;
                hex(out, bytes)?;
                out.write_all(b" AS TEXT)")
            }
        },
    }
}

/// The columns of a table that are stored.
fn columns(connection: &Guarded, table: &str) -> Result<Vec<String>, Fault> {
    let listed = connection
        .prepare_cached("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0")
        .and_then(|mut select| {
            select
                .query_map([table], |row| row.get(0))?
                .collect::<Result<Vec<String>, _>>()
        })
        .map_err(|error| connection.fault(&error))?;
    if listed.is_empty() {
        return Err(Fault::not_found(format!(
            "no table `{table}`; list them with GET /api/v1/sqlite/tables"
        ))
        .code("TABLE_NOT_FOUND"));
    }
    Ok(listed)
}

/// Do something with each row of a table.
fn each(
    connection: &Guarded,
    table: &str,
    columns: &[String],
    mut with: impl FnMut(&rusqlite::Row<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let failed = |error: rusqlite::Error| connection.fault(&error);
    let list: Vec<_> = columns.iter().map(|column| name(column)).collect();
    let sql = format!("SELECT {} FROM {}", list.join(", "), name(table));
    let mut select = connection.prepare(&sql).map_err(failed)?;
    let mut rows = select.raw_query();
    while let Some(row) = rows.next().map_err(failed)? {
        with(row)?;
    }
    Ok(())
}

/// Write one table, or all of the database as SQL.
pub fn export(
    connection: &Guarded,
    format: Format,
    table: Option<&str>,
    out: &mut impl Write,
) -> Result<(), Fault> {
    connection
        .own("BEGIN")
        .map_err(|error| connection.fault(&error))?;
    let written = connection.watch.trusted(|| match (format, table) {
        (Format::Csv, Some(table)) => records(connection, table, out),
        (Format::Jsonl, Some(table)) => objects(connection, table, out),
        (Format::Csv | Format::Jsonl, None) => Err(crate::ops::wrong(
            "table",
            "csv and jsonl hold one table; name it",
        )),
        (_, table) => statements(connection, table, out),
    });
    connection.roll_back();
    written?;
    out.flush().map_err(|error| left(&error))
}

fn records(connection: &Guarded, table: &str, out: &mut impl Write) -> Result<(), Fault> {
    let columns = columns(connection, table)?;
    let names = columns.iter().map(|column| Some(column.as_str()));
    csv::write(out, names).map_err(|error| left(&error))?;
    each(connection, table, &columns, |row| {
        let mut fields = Vec::with_capacity(columns.len());
        for at in 0..columns.len() {
            let value = row.get_ref(at).map_err(|error| connection.fault(&error))?;
            fields.push(match value::of(value) {
                Sql::Null => None,
                Sql::Text(text) => Some(text),
                Sql::Integer(number) => Some(number.to_string()),
                Sql::Real(number) => Some(format!("{number:?}")),
                Sql::Blob(bytes) => Some(base64::Engine::encode(&value::BASE64, bytes)),
            });
        }
        csv::write(out, fields.iter().map(Option::as_deref)).map_err(|error| left(&error))
    })
}

fn objects(connection: &Guarded, table: &str, out: &mut impl Write) -> Result<(), Fault> {
    let columns = columns(connection, table)?;
    each(connection, table, &columns, |row| {
        let mut object = Map::new();
        for (at, column) in columns.iter().enumerate() {
            let value = row.get_ref(at).map_err(|error| connection.fault(&error))?;
            object.insert(column.clone(), value::plain(value::of(value)));
        }
        serde_json::to_writer(&mut *out, &object)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .map_err(|error| left(&error))
    })
}

/// What is in the schema, in the order in which it is made.
fn schema(
    connection: &Guarded,
    kinds: &str,
    table: Option<&str>,
) -> Result<Vec<(String, String)>, Fault> {
    let sql = format!(
        "SELECT s.name, s.sql FROM sqlite_schema AS s
         LEFT JOIN pragma_table_list AS l ON l.schema = 'main' AND l.name = s.name
         WHERE s.type IN ({kinds}) AND s.sql IS NOT NULL AND s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND coalesce(l.type, '') <> 'shadow' AND (?1 IS NULL OR s.tbl_name = ?1) ORDER BY s.rowid"
    );
    connection
        .prepare(&sql)
        .and_then(|mut select| {
            select
                .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
        .map_err(|error| connection.fault(&error))
}

fn statements(
    connection: &Guarded,
    table: Option<&str>,
    out: &mut impl Write,
) -> Result<(), Fault> {
    if let Some(table) = table {
        columns(connection, table)?;
    }
    let tables = schema(connection, "'table'", table)?;
    let rest = schema(connection, "'index', 'trigger', 'view'", table)?;
    let line = |out: &mut dyn Write, text: &str| writeln!(out, "{text}").map_err(|e| left(&e));
    line(out, "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;")?;
    for (table, sql) in &tables {
        line(out, &format!("{sql};"))?;
        let columns = columns(connection, table)?;
        let list: Vec<_> = columns.iter().map(|column| name(column)).collect();
        let begin = format!("INSERT INTO {} ({}) VALUES(", name(table), list.join(","));
        each(connection, table, &columns, |row| {
            let mut write = || -> io::Result<()> {
                out.write_all(begin.as_bytes())?;
                for at in 0..columns.len() {
                    if at > 0 {
                        out.write_all(b",")?;
                    }
                    literal(out, row.get_ref(at).unwrap_or(ValueRef::Null))?;
                }
                out.write_all(b");\n")
            };
            write().map_err(|error| left(&error))
        })?;
    }
    for (_, sql) in &rest {
        line(out, &format!("{sql};"))?;
    }
    line(out, "COMMIT;")
}

/// What was taken in.
#[derive(Debug, Default, Clone, Copy)]
pub struct Taken {
    pub rows: u64,
    pub statements: u64,
}

/// Take in a text, in the transaction that is open.
pub fn import(
    connection: &Guarded,
    format: Format,
    table: Option<&str>,
    from: File,
) -> Result<Taken, Fault> {
    let from = BufReader::with_capacity(64 << 10, from);
    let table =
        || table.ok_or_else(|| crate::ops::wrong("table", "csv and jsonl hold one table; name it"));
    match format {
        Format::Csv => from_records(connection, table()?, from),
        Format::Jsonl => from_objects(connection, table()?, from),
        _ => from_statements(connection, from),
    }
}

fn unreadable(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::InvalidData => {
            Fault::bad_request("what was sent is not UTF-8").code("INVALID_IMPORT")
        }
        kind => Fault::internal(format!("what was sent could not be read again: {kind}")),
    }
}

fn at(line: u64, mut fault: Fault) -> Fault {
    fault.message = format!("line {line}: {}", fault.message);
    fault
}

/// What a dump says of its own transaction is passed over: all of it is one already.
const PASSED_OVER: [&str; 4] = ["BEGIN", "COMMIT", "END", "ROLLBACK"];

fn from_statements(connection: &Guarded, mut from: impl BufRead) -> Result<Taken, Fault> {
    connection
        .own("PRAGMA defer_foreign_keys = ON")
        .map_err(|error| connection.fault(&error))?;
    let mut taken = Taken::default();
    let mut splitter = Splitter::default();
    let mut line = 1_u64;
    let mut begins = None;
    let mut run = |sql: &str, line: u64| -> Result<(), Fault> {
        let word = text::first_word(sql);
        let of_connection = word == "PRAGMA"
            && text::without_values(sql, 40)
                .to_ascii_lowercase()
                .contains("foreign_keys");
        if text::is_empty(sql) || PASSED_OVER.contains(&word.as_str()) || of_connection {
            return Ok(());
        }
        let mut budget = Budget::default();
        let outcome = run::run(connection, sql, &Parameters::default(), false, &mut budget)
            .map_err(|fault| at(line, fault))?;
        taken.statements += 1;
        taken.rows += outcome.changed;
        Ok(())
    };
    // characters may be split between two pieces
    let mut held: Vec<u8> = Vec::new();
    loop {
        let piece = from.fill_buf().map_err(|error| unreadable(&error))?;
        if piece.is_empty() {
            break;
        }
        held.extend_from_slice(piece);
        let count = piece.len();
        from.consume(count);
        let whole = match std::str::from_utf8(&held) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(unreadable(&io::ErrorKind::InvalidData.into())),
        };
        let rest = held.split_off(whole);
        let text = String::from_utf8(std::mem::replace(&mut held, rest))
            .map_err(|_| unreadable(&io::ErrorKind::InvalidData.into()))?;
        for character in text.chars() {
            if character == '\n' {
                line += 1;
            }
            if begins.is_none() && !character.is_whitespace() {
                begins = Some(line);
            }
            if let Some(sql) = splitter.push(character) {
                run(&sql, begins.take().unwrap_or(line))?;
            }
        }
        if splitter.waiting() > limits::STATEMENT {
            let message = format!("a statement has at most {} bytes", limits::STATEMENT);
            return Err(at(
                begins.unwrap_or(line),
                Fault::too_large(message).code("TOO_BIG"),
            ));
        }
    }
    if !held.is_empty() {
        return Err(unreadable(&io::ErrorKind::InvalidData.into()));
    }
    run(&splitter.rest(), begins.unwrap_or(line))?;
    Ok(taken)
}

/// A table for what comes, made where it is missing; columns without a type keep what they get.
fn prepare<'c>(
    connection: &'c Guarded,
    table: &str,
    columns: &[String],
) -> Result<rusqlite::Statement<'c>, Fault> {
    let failed = |error: rusqlite::Error| connection.fault(&error);
    let there = connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = ?1")
        .and_then(|mut select| select.exists([table]))
        .map_err(failed)?;
    let list: Vec<_> = columns.iter().map(|column| name(column)).collect();
    let list = list.join(", ");
    if !there {
        // the guard decides, as for anybody's statement
        let sql = format!("CREATE TABLE {} ({list})", name(table));
        run::run(
            connection,
            &sql,
            &Parameters::default(),
            false,
            &mut Budget::default(),
        )?;
    }
    let marks = vec!["?"; columns.len()].join(", ");
    run::prepare(
        connection,
        &format!("INSERT INTO {} ({list}) VALUES ({marks})", name(table)),
    )
}

fn from_records(connection: &Guarded, table: &str, from: impl BufRead) -> Result<Taken, Fault> {
    let wrong = |wrong: csv::Wrong| match wrong {
        csv::Wrong::Io(error) => unreadable(&error),
        wrong => Fault::bad_request(wrong.to_string()).code("INVALID_IMPORT"),
    };
    let mut reader = csv::Reader::new(from, limits::VALUE);
    let Some(header) = reader.record().map_err(wrong)? else {
        return Err(
            Fault::bad_request("there is no record with the names of the columns")
                .code("INVALID_IMPORT"),
        );
    };
    let columns: Vec<String> = header.into_iter().map(Option::unwrap_or_default).collect();
    let mut insert = prepare(connection, table, &columns)?;
    let mut taken = Taken {
        statements: 1,
        ..Taken::default()
    };
    loop {
        let line = reader.line;
        let Some(record) = reader.record().map_err(wrong)? else {
            return Ok(taken);
        };
        if record.len() != columns.len() {
            return Err(Fault::bad_request(format!(
                "line {line}: {} fields for {} columns",
                record.len(),
                columns.len()
            ))
            .code("INVALID_IMPORT"));
        }
        let positional = record
            .into_iter()
            .map(|field| field.map_or(Sql::Null, Sql::Text))
            .collect();
        insert_one(connection, &mut insert, positional).map_err(|fault| at(line, fault))?;
        taken.rows += 1;
    }
}

fn from_objects(connection: &Guarded, table: &str, mut from: impl BufRead) -> Result<Taken, Fault> {
    let mut insert: Option<(Vec<String>, rusqlite::Statement<'_>)> = None;
    let mut taken = Taken::default();
    let mut line = 0;
    let mut text = String::new();
    loop {
        text.clear();
        line += 1;
        let most = limits::VALUE as u64;
        let read = from.by_ref().take(most).read_line(&mut text);
        if read.map_err(|error| unreadable(&error))? == 0 {
            return Ok(taken);
        }
        if text.len() as u64 == most {
            let message = format!("a line has at most {most} bytes");
            return Err(at(line, Fault::too_large(message).code("TOO_BIG")));
        }
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |why: String| at(line, Fault::bad_request(why).code("INVALID_IMPORT"));
        let mut object: Map<String, Json> = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("it is no object of JSON: {error}")))?;
        if insert.is_none() {
            // the first one says which columns there are
            let columns: Vec<String> = object.keys().cloned().collect();
            let statement = prepare(connection, table, &columns)?;
            taken.statements = 1;
            insert = Some((columns, statement));
        }
        let Some((columns, statement)) = &mut insert else {
            continue;
        };
        let mut positional = Vec::with_capacity(columns.len());
        for column in columns.iter() {
            let value = match object.remove(column).unwrap_or(Json::Null) {
                // what has no type in SQLite is kept as its JSON
                value @ Json::Array(_) => Sql::Text(value.to_string()),
                value @ Json::Object(_) => match value::read(value.clone()) {
                    Ok(value) => value,
                    Err(_) => Sql::Text(value.to_string()),
                },
                value => value::read(value).map_err(&wrong)?,
            };
            positional.push(value);
        }
        if let Some(more) = object.keys().next() {
            return Err(wrong(format!("the first line has no `{more}`")));
        }
        insert_one(connection, statement, positional).map_err(|fault| at(line, fault))?;
        taken.rows += 1;
    }
}

fn insert_one(
    connection: &Guarded,
    insert: &mut rusqlite::Statement<'_>,
    positional: Vec<Sql>,
) -> Result<(), Fault> {
    let parameters = Parameters {
        positional,
        named: Vec::new(),
    };
    run::bind(connection, insert, &parameters)?;
    run::step(connection, insert, false, &mut Budget::default())?;
    Ok(())
}
