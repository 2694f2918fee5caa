//! When a container changed its status, and who had it changed.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use routes::Id;

use super::Slice;
use crate::container::Status;
use crate::time::Millis;

/// Changes kept for each container; older ones go first.
const PER_CONTAINER: u32 = 1000;

#[derive(Debug, Clone, PartialEq)]
pub struct StatusLog {
    pub id: Id,
    pub container: Id,
    pub from: Option<Status>,
    pub to: Status,
    pub at: Millis,
    /// How long it was in the status it left.
    pub duration_ms: Option<i64>,
    pub triggered_by: String,
    pub metadata: Option<Value>,
}

fn status(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Status>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| {
        text.parse()
            .map_err(|error| super::unreadable(column, error))
    })
    .transpose()
}

fn read(row: &Row<'_>) -> rusqlite::Result<StatusLog> {
    Ok(StatusLog {
        id: super::id(row, "id")?,
        container: super::id(row, "container_id")?,
        from: status(row, "from_status")?,
        to: status(row, "to_status")?.unwrap_or(Status::Failed),
        at: row.get("transition_time")?,
        duration_ms: row.get("duration_ms")?,
        triggered_by: row.get("triggered_by")?,
        metadata: match row.get::<_, Option<String>>("metadata")? {
            Some(_) => Some(super::json(row, "metadata")?),
            None => None,
        },
    })
}

pub fn insert(connection: &Connection, log: &StatusLog) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO status_logs (id, container_id, from_status, to_status, transition_time, duration_ms,
             triggered_by, metadata)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            log.id.to_string(),
            log.container.to_string(),
            log.from.map(Status::as_str),
            log.to.as_str(),
            log.at,
            log.duration_ms,
            log.triggered_by,
            log.metadata.as_ref().map(super::to_json)
        ],
    )?;
    connection.execute(
        "DELETE FROM status_logs WHERE container_id = ?1 AND id NOT IN (
             SELECT id FROM status_logs WHERE container_id = ?1
             ORDER BY transition_time DESC, rowid DESC LIMIT ?2)",
        params![log.container.to_string(), PER_CONTAINER],
    )?;
    Ok(())
}

/// Why the last event of this kind about a snapshot came about, if there was one.
pub fn reason(
    connection: &Connection,
    container: Id,
    event: &str,
    snapshot: &str,
) -> rusqlite::Result<Option<String>> {
    reason_since(connection, container, event, snapshot, 0)
}

/// The same, of those not before a time.
pub fn reason_since(
    connection: &Connection,
    container: Id,
    event: &str,
    snapshot: &str,
    since: Millis,
) -> rusqlite::Result<Option<String>> {
    connection
        .query_row(
            "SELECT metadata ->> '$.reason' FROM status_logs
             WHERE container_id = ?1 AND metadata ->> '$.event' = ?2
                 AND metadata ->> '$.snapshot' = ?3 AND transition_time >= ?4
             ORDER BY transition_time DESC, rowid DESC LIMIT 1",
            params![container.to_string(), event, snapshot, since],
            |row| row.get(0),
        )
        .optional()
}

/// A page of a container's changes, and how many there are.
pub fn list(
    connection: &Connection,
    container: Id,
    slice: Slice,
) -> rusqlite::Result<(Vec<StatusLog>, u64)> {
    let total = connection.query_row(
        "SELECT count(*) FROM status_logs WHERE container_id = ?1",
        params![container.to_string()],
        |row| row.get::<_, i64>(0),
    )?;
    let direction = if slice.descending { "DESC" } else { "ASC" };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT * FROM status_logs WHERE container_id = ?1
         ORDER BY {} {direction}, rowid {direction} LIMIT {} OFFSET {}",
        slice.column, slice.limit, slice.offset
    ))?;
    let page = statement
        .query_map(params![container.to_string()], read)?
        .collect::<Result<_, _>>()?;
    Ok((page, total.cast_unsigned()))
}
