//! Facts of the node itself: its id, when it began, which boot it last saw, what its machines were told.

use rusqlite::{Connection, OptionalExtension, params};

use routes::Id;

use crate::time::Millis;

/// Who this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The `server_id` of its containers.
    pub id: Id,
    pub since: Millis,
}

/// The node's identity, `fresh` where it has none yet.
pub fn identity(connection: &Connection, fresh: Identity) -> rusqlite::Result<Identity> {
    let id = first(connection, "id", &fresh.id.to_string())?;
    let since = first(connection, "since", &fresh.since.to_string())?;
    Ok(Identity {
        id: id.parse().unwrap_or(fresh.id),
        since: since.parse().unwrap_or(fresh.since),
    })
}

/// Note the boot the machine is in; the one seen before, if any.
pub fn boot(connection: &Connection, now: &str) -> rusqlite::Result<Option<String>> {
    replace(connection, "boot", now)
}

/// Note a fact. Returns whether it is another than before.
pub fn is_news(connection: &Connection, key: &str, now: &str) -> rusqlite::Result<bool> {
    Ok(replace(connection, key, now)?.as_deref() != Some(now))
}

/// Note a fact. Returns what it was before.
pub fn replace(connection: &Connection, key: &str, now: &str) -> rusqlite::Result<Option<String>> {
    let before = get(connection, key)?;
    set(connection, key, now)?;
    Ok(before)
}

fn first(connection: &Connection, key: &str, fresh: &str) -> rusqlite::Result<String> {
    connection.execute(
        "INSERT OR IGNORE INTO node (key, value) VALUES (?1, ?2)",
        params![key, fresh],
    )?;
    Ok(get(connection, key)?.unwrap_or_else(|| fresh.to_owned()))
}

fn get(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection
        .query_row(
            "SELECT value FROM node WHERE key = ?1",
            params![key],
            |row| row.get(0),
        )
        .optional()
}

fn set(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO node (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
        params![key, value],
    )?;
    Ok(())
}
