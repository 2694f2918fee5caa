//! Ids of containers that are gone for good: a machine that turns up with one of them (an engine
//! that finished late, a restored backup of its state) is nobody's, and is removed.

use rusqlite::{Connection, params};

use routes::Id;

use crate::time::{DAY, Millis};

/// Long after any engine has forgotten what it was asked.
const KEPT: Millis = 30 * DAY;

pub fn insert(connection: &Connection, id: Id, now: Millis) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM tombstones WHERE buried_at < ?1",
        params![now - KEPT],
    )?;
    connection.execute(
        "INSERT OR REPLACE INTO tombstones (container_id, buried_at) VALUES (?1, ?2)",
        params![id.to_string(), now],
    )?;
    Ok(())
}

pub fn has(connection: &Connection, id: Id) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM tombstones WHERE container_id = ?1)",
        params![id.to_string()],
        |row| row.get(0),
    )
}
