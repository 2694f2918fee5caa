//! Several statements as one: all of them happen, or none.

use std::time::Instant;

use kit::Fault;
use rusqlite::types::Value as Sql;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::connection::Guarded;
use crate::fault;
use crate::history::Asked;
use crate::run::{self, Budget, Outcome, Parameters};
use crate::store::Attempt;
use crate::value;

/// One item of a transaction, ready to run.
#[derive(Debug)]
pub struct Step {
    pub sql: String,
    /// Whether its rows are wanted.
    pub query: bool,
    /// Whether the others go on when it fails.
    pub no_fail: bool,
    pub parameters: Parameters,
    /// It is run once for each of these.
    pub batch: Option<Vec<Parameters>>,
}

/// The shape of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Objects, by the names of columns.
    #[default]
    Map,
    /// Lists, in the order of columns.
    List,
    /// Lists of values with their types, as in Hrana: no reader loses digits.
    Typed,
}

/// What came of one item.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    pub success: bool,
    /// Why it failed, where `noFail` let the others go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Rows that a statement changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_updated: Option<u64>,
    /// Rows that it changed for each of `valuesBatch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_updated_batch: Option<Vec<u64>>,
    /// Why each of `valuesBatch` failed, empty where it did not, where `noFail` let the others go
    /// on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_errors: Option<Vec<String>>,
    /// Names of the columns, in order. In objects the second `id` is `id_2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_headers: Option<Vec<String>>,
    /// Rows as objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_set: Option<Vec<Map<String, Json>>>,
    /// Rows as lists, with the formats `list` and `typed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_set_list: Option<Vec<Vec<Json>>>,
    /// Whether there were more than 10000 rows; the others are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
    /// The rowid of the last row that was inserted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_insert_rowid: Option<i64>,
}

/// What came of a transaction, and what the history is told.
#[derive(Debug)]
pub struct Done {
    pub result: Result<Vec<Item>, Failed>,
    pub asked: Vec<Asked>,
}

/// The item that ended a transaction, and why.
#[derive(Debug)]
pub struct Failed {
    pub at: usize,
    pub fault: Fault,
}

impl Failed {
    /// Whether it only has to be done by a connection that writes.
    pub fn needs_a_writer(&self) -> bool {
        self.fault.code == Some("NOT_ALLOWED")
    }
}

/// Run all of them in one transaction that writes.
pub fn write(connection: &Guarded, steps: &[Step], format: Format) -> Result<Attempt<Done>, Fault> {
    match connection.own("BEGIN IMMEDIATE") {
        Err(error) if fault::is_busy(&error) => return Ok(Attempt::Busy),
        Err(error) => return Err(connection.fault(&error)),
        Ok(()) => {}
    }
    let mut done = all(connection, steps, format);
    if done.result.is_ok()
        && let Err(error) = connection.own("COMMIT")
    {
        let fault = connection.fault(&error);
        done.result = Err(Failed {
            at: steps.len().saturating_sub(1),
            fault,
        });
    }
    connection.roll_back();
    Ok(Attempt::Done(done))
}

/// Run all of them on one state of the database.
pub fn read(connection: &Guarded, steps: &[Step], format: Format) -> Result<Done, Fault> {
    connection
        .own("BEGIN")
        .map_err(|error| connection.fault(&error))?;
    let done = all(connection, steps, format);
    connection.roll_back();
    Ok(done)
}

fn all(connection: &Guarded, steps: &[Step], format: Format) -> Done {
    let mut items = Vec::with_capacity(steps.len());
    let mut asked = Vec::with_capacity(steps.len());
    let mut budget = Budget::default();
    for (at, step) in steps.iter().enumerate() {
        let began = Instant::now();
        let done = one(connection, step, format, &mut budget);
        let (rows, error) = match &done {
            Ok(item) => (
                item.result_set.as_ref().map_or(0, Vec::len) as u64
                    + item.result_set_list.as_ref().map_or(0, Vec::len) as u64
                    + item.rows_updated.unwrap_or_default()
                    + item.rows_updated_batch.iter().flatten().sum::<u64>(),
                item.error.clone(),
            ),
            Err(fault) => (0, Some(fault.message.clone())),
        };
        asked.push(Asked {
            sql: step.sql.clone(),
            kind: if step.query { "query" } else { "statement" },
            error,
            rows,
            took: began.elapsed(),
        });
        match done {
            Ok(item) => items.push(item),
            Err(fault) => {
                return Done {
                    result: Err(Failed { at, fault }),
                    asked,
                };
            }
        }
    }
    Done {
        result: Ok(items),
        asked,
    }
}

/// The transaction is over although nobody ended it: a trigger or a conflict clause said ROLLBACK.
fn still_there(connection: &Guarded) -> Result<(), Fault> {
    if connection.is_autocommit() {
        let message = "the statement rolled the whole transaction back (ON CONFLICT ROLLBACK, or \
                       RAISE(ROLLBACK) in a trigger); nothing of it was written";
        return Err(Fault::conflict(message).code("ROLLED_BACK"));
    }
    Ok(())
}

fn one(
    connection: &Guarded,
    step: &Step,
    format: Format,
    budget: &mut Budget,
) -> Result<Item, Fault> {
    if !step.no_fail {
        let item = plain(connection, step, format, budget)?;
        still_there(connection)?;
        return Ok(item);
    }
    // what it did is undone when it fails, and nothing else
    let save = |sql: &str| {
        connection
            .own(sql)
            .map_err(|error| connection.fault(&error))
    };
    save("SAVEPOINT item")?;
    match plain(connection, step, format, budget) {
        Ok(item) => {
            still_there(connection)?;
            save("RELEASE item")?;
            Ok(item)
        }
        Err(mut fault) => {
            if connection.watch.over().is_some() {
                return Err(fault); // there is no time for the others either
            }
            if connection.is_autocommit() {
                fault
                    .message
                    .push_str("; the whole transaction was rolled back with it");
                return Err(fault);
            }
            save("ROLLBACK TO item; RELEASE item")?;
            Ok(Item {
                success: false,
                error: Some(fault.message),
                ..Item::default()
            })
        }
    }
}

fn plain(
    connection: &Guarded,
    step: &Step,
    format: Format,
    budget: &mut Budget,
) -> Result<Item, Fault> {
    if let Some(batch) = &step.batch {
        return batched(connection, step, batch, budget);
    }
    let outcome = run::run(connection, &step.sql, &step.parameters, step.query, budget)?;
    let mut item = Item {
        success: true,
        ..Item::default()
    };
    if step.query {
        shape(outcome, format, &mut item);
    } else {
        item.rows_updated = Some(outcome.changed);
        item.last_insert_rowid = (outcome.changed > 0).then_some(outcome.last_rowid);
    }
    Ok(item)
}

fn shape(outcome: Outcome, format: Format, item: &mut Item) {
    item.truncated = Some(outcome.truncated);
    let list = |outcome: Outcome, write: fn(Sql) -> Json| {
        let rows = outcome.rows.into_iter();
        Some(
            rows.map(|row| row.into_iter().map(write).collect())
                .collect(),
        )
    };
    if format == Format::Map {
        let (headers, rows) = run::objects(outcome, value::plain);
        item.result_headers = Some(headers);
        item.result_set = Some(rows);
    } else {
        let names = outcome.columns.iter().map(|column| column.name.clone());
        item.result_headers = Some(names.collect());
        item.result_set_list = match format {
            Format::Typed => list(outcome, value::typed),
            _ => list(outcome, value::plain),
        };
    }
}

fn batched(
    connection: &Guarded,
    step: &Step,
    batch: &[Parameters],
    budget: &mut Budget,
) -> Result<Item, Fault> {
    let mut statement = run::prepare(connection, &step.sql)?;
    let mut updated = Vec::with_capacity(batch.len());
    let mut errors = Vec::new();
    for (at, parameters) in batch.iter().enumerate() {
        let mut once = || {
            statement.clear_bindings();
            run::bind(connection, &mut statement, parameters)?;
            run::step(connection, &mut statement, false, budget)
        };
        let save = |sql: &str| {
            connection
                .own(sql)
                .map_err(|error| connection.fault(&error))
        };
        if !step.no_fail {
            let outcome = once().map_err(|mut fault| {
                fault.message = format!("valuesBatch[{at}]: {}", fault.message);
                fault
            })?;
            updated.push(outcome.changed);
            continue;
        }
        save("SAVEPOINT row")?;
        match once() {
            Ok(outcome) => {
                updated.push(outcome.changed);
                errors.push(String::new());
                save("RELEASE row")?;
            }
            Err(fault) => {
                if connection.watch.over().is_some() || connection.is_autocommit() {
                    return Err(fault);
                }
                updated.push(0);
                errors.push(fault.message);
                save("ROLLBACK TO row; RELEASE row")?;
            }
        }
    }
    Ok(Item {
        success: errors.iter().all(String::is_empty),
        rows_updated_batch: Some(updated),
        row_errors: step.no_fail.then_some(errors),
        ..Item::default()
    })
}
