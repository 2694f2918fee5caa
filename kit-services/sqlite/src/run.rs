//! Running statements of a caller's, with bounds on what comes out.

use kit::Fault;
use rusqlite::Statement;
use rusqlite::types::Value as Sql;
use serde_json::{Map, Value as Json};

use crate::connection::Guarded;
use crate::limits;
use crate::text;
use crate::value;

/// What a statement's parameters are bound to.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    pub positional: Vec<Sql>,
    /// Names with or without `:`, `@` or `$`.
    pub named: Vec<(String, Sql)>,
}

impl Parameters {
    /// From the JSON of a request: a list by position, an object by name.
    pub fn read(json: Json) -> Result<Parameters, Fault> {
        let wrong = |which: String, why: String| {
            Fault::bad_request(format!("parameter {which}: {why}")).code("INVALID_PARAMETER")
        };
        let mut parameters = Parameters::default();
        match json {
            Json::Null => {}
            Json::Array(items) => {
                for (at, item) in items.into_iter().enumerate() {
                    let value =
                        value::read(item).map_err(|why| wrong((at + 1).to_string(), why))?;
                    parameters.positional.push(value);
                }
            }
            Json::Object(members) => {
                for (name, item) in members {
                    let value = value::read(item).map_err(|why| wrong(name.clone(), why))?;
                    parameters.named.push((name, value));
                }
            }
            _ => {
                let message = "values are a list, by position, or an object, by name";
                return Err(Fault::bad_request(message).code("INVALID_PARAMETER"));
            }
        }
        Ok(parameters)
    }

    pub fn is_empty(&self) -> bool {
        self.positional.is_empty() && self.named.is_empty()
    }
}

/// How much more one request may get.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Rows of one result.
    pub rows: usize,
    /// Bytes of all of them.
    pub bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            rows: limits::ROWS,
            bytes: limits::RESULT,
        }
    }
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub declared: Option<String>,
}

/// What came out of a statement.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Sql>>,
    /// Whether there were more rows than the budget had.
    pub truncated: bool,
    /// Rows that it changed itself, without those that triggers did.
    pub changed: u64,
    pub last_rowid: i64,
}

impl Outcome {
    /// The names of the columns, each once: the second `id` is `id_2`.
    pub fn unique_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let mut name = column.name.clone();
            let mut count = 1;
            while names.contains(&name) {
                count += 1;
                name = format!("{}_{count}", column.name);
            }
            names.push(name);
        }
        names
    }
}

/// Prepare one statement; what it may do is judged here.
pub fn prepare<'c>(connection: &'c Guarded, sql: &str) -> Result<Statement<'c>, Fault> {
    connection.watch.forget_refusal();
    if sql.len() > limits::STATEMENT {
        return Err(Fault::too_large(format!(
            "a statement has at most {} bytes; send values as parameters",
            limits::STATEMENT
        ))
        .code("TOO_BIG"));
    }
    if text::is_empty(sql) {
        return Err(Fault::bad_request("the statement is empty").code("SQL_ERROR"));
    }
    connection
        .prepare(sql)
        .map_err(|error| connection.fault(&error))
}

/// Bind what a caller gave; all of it has to fit.
pub fn bind(
    connection: &Guarded,
    statement: &mut Statement<'_>,
    parameters: &Parameters,
) -> Result<(), Fault> {
    let wrong = |message: String| Fault::bad_request(message).code("INVALID_PARAMETER");
    let wanted = statement.parameter_count();
    if parameters.positional.len() > wanted {
        return Err(wrong(format!(
            "{} values for {wanted} parameters",
            parameters.positional.len()
        )));
    }
    let mut bound = vec![false; wanted];
    for (at, value) in parameters.positional.iter().enumerate() {
        set(connection, statement, at + 1, value)?;
        bound[at] = true;
    }
    for (name, value) in &parameters.named {
        let index = index(statement, name)
            .ok_or_else(|| wrong(format!("the statement has no parameter `{name}`")))?;
        set(connection, statement, index, value)?;
        bound[index - 1] = true;
    }
    if let Some(missing) = bound.iter().position(|bound| !bound) {
        let index = missing + 1;
        let name = statement.parameter_name(index).map(str::to_owned);
        return Err(wrong(match name {
            Some(name) => format!("no value for the parameter `{name}`"),
            None => format!("no value for parameter {index} of {wanted}"),
        }));
    }
    Ok(())
}

fn set(
    connection: &Guarded,
    statement: &mut Statement<'_>,
    index: usize,
    value: &Sql,
) -> Result<(), Fault> {
    statement
        .raw_bind_parameter(index, value)
        .map_err(|error| connection.fault(&error))
}

fn index(statement: &Statement<'_>, name: &str) -> Option<usize> {
    let known = |name: &str| statement.parameter_index(name).ok().flatten();
    if name.starts_with([':', '@', '$', '?']) {
        return known(name);
    }
    [":", "@", "$"]
        .iter()
        .find_map(|sign| known(&format!("{sign}{name}")))
}

/// Run a statement to its end and keep what the budget allows.
pub fn run(
    connection: &Guarded,
    sql: &str,
    parameters: &Parameters,
    want_rows: bool,
    budget: &mut Budget,
) -> Result<Outcome, Fault> {
    // looked at by the authorizer, which sees only that a file without a name is attached
    let vacuum = text::first_word(sql) == "VACUUM";
    let mut work = || {
        let mut statement = prepare(connection, sql)?;
        bind(connection, &mut statement, parameters)?;
        step(connection, &mut statement, want_rows, budget)
    };
    if vacuum {
        connection.watch.vacuuming(work)
    } else {
        work()
    }
}

/// Run a statement whose parameters are bound.
pub fn step(
    connection: &Guarded,
    statement: &mut Statement<'_>,
    want_rows: bool,
    budget: &mut Budget,
) -> Result<Outcome, Fault> {
    let mut outcome = Outcome {
        columns: columns(statement),
        ..Outcome::default()
    };
    let width = outcome.columns.len();
    let before = connection.total_changes();
    let mut left = budget.rows;
    let mut rows = statement.raw_query();
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(error) => return Err(connection.fault(&error)),
        };
        if !want_rows {
            continue;
        }
        if left == 0 {
            outcome.truncated = true;
            // a statement that writes has to come to its end; one that only reads need not
            if row.as_ref().readonly() {
                break;
            }
            continue;
        }
        left -= 1;
        let mut values = Vec::with_capacity(width);
        for at in 0..width {
            let value = row.get_ref(at).map_err(|error| connection.fault(&error))?;
            budget.bytes = budget
                .bytes
                .checked_sub(value::weight(value))
                .ok_or_else(too_much)?;
            values.push(value::of(value));
        }
        outcome.rows.push(values);
    }
    drop(rows);
    if connection.total_changes() > before {
        outcome.changed = connection.changes();
    }
    outcome.last_rowid = connection.last_insert_rowid();
    Ok(outcome)
}

/// The columns of a statement.
pub fn columns(statement: &Statement<'_>) -> Vec<Column> {
    statement
        .columns()
        .map(|column| Column {
            name: column.name().to_owned(),
            declared: column.decl_type().map(str::to_owned),
        })
        .collect()
}

pub fn too_much() -> Fault {
    Fault::too_large(format!(
        "the result is larger than {} bytes; ask for fewer columns or rows, or export the table",
        limits::RESULT
    ))
    .code("RESULT_TOO_LARGE")
}

/// Rows as objects, by the names of their columns.
pub fn objects(outcome: Outcome, write: fn(Sql) -> Json) -> (Vec<String>, Vec<Map<String, Json>>) {
    let names = outcome.unique_names();
    let rows = outcome.rows.into_iter().map(|row| {
        names
            .iter()
            .cloned()
            .zip(row.into_iter().map(write))
            .collect()
    });
    let rows = rows.collect();
    (names, rows)
}
