//! Machines that are kept ready and are no container's yet.
//!
//! A row is written before its machine is made and goes after it is gone, or becomes that of a
//! container: so nothing is in the runtime that no row tells of. The id is that of the container
//! which the machine will be.

use rusqlite::{Connection, OptionalExtension, Row, params};

use routes::Id;

use super::tombstones;
use crate::time::Millis;

/// A machine that is kept ready, or was or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: Id,
    /// Which containers it fits, as [`crate::prespawn::Kind::key`] says.
    pub kind: String,
    /// What it was made of.
    pub edition: String,
    pub state: State,
    /// Bytes that it holds.
    pub memory: u64,
    pub since: Millis,
}

/// How far a member has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Making,
    /// It can be claimed.
    Ready,
    Dropping,
}

impl State {
    pub const ALL: [State; 3] = [State::Making, State::Ready, State::Dropping];

    pub fn as_str(self) -> &'static str {
        match self {
            State::Making => "making",
            State::Ready => "ready",
            State::Dropping => "dropping",
        }
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Member> {
    let state: String = row.get("state")?;
    Ok(Member {
        id: super::id(row, "id")?,
        kind: row.get("kind")?,
        edition: row.get("edition")?,
        state: State::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .unwrap_or(State::Dropping), // the schema knows no other
        memory: row.get::<_, i64>("memory")?.cast_unsigned(),
        since: row.get("since")?,
    })
}

/// All of them, the oldest first.
pub fn all(connection: &Connection) -> rusqlite::Result<Vec<Member>> {
    let mut statement = connection.prepare_cached("SELECT * FROM prespawned ORDER BY since, id")?;
    statement.query_map([], read)?.collect()
}

/// Ids of all of them.
pub fn ids(connection: &Connection) -> rusqlite::Result<Vec<Id>> {
    let mut statement = connection.prepare_cached("SELECT id FROM prespawned")?;
    statement
        .query_map([], |row| super::id(row, "id"))?
        .collect()
}

/// Note one that is about to be made.
pub fn making(
    connection: &Connection,
    id: Id,
    kind: &str,
    edition: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO prespawned (id, kind, edition, state, since) VALUES (?1, ?2, ?3, 'making', ?4)",
        params![id.to_string(), kind, edition, now],
    )?;
    Ok(())
}

/// Note that one can be claimed.
pub fn ready(connection: &Connection, id: Id, memory: u64, now: Millis) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE prespawned SET state = 'ready', memory = ?2, since = ?3
         WHERE id = ?1 AND state = 'making'",
        params![id.to_string(), memory.cast_signed(), now],
    )?;
    Ok(())
}

/// Take one for a container: it is a member no more. The one that has been ready for longest.
pub fn take(connection: &Connection, kind: &str, edition: &str) -> rusqlite::Result<Option<Id>> {
    connection
        .query_row(
            "DELETE FROM prespawned WHERE id = (SELECT id FROM prespawned
                 WHERE state = 'ready' AND kind = ?1 AND edition = ?2 ORDER BY since, id LIMIT 1)
             RETURNING id",
            params![kind, edition],
            |row| super::id(row, "id"),
        )
        .optional()
}

/// Have one removed. False where it has become a container's meanwhile.
pub fn dropping(connection: &Connection, id: Id) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE prespawned SET state = 'dropping' WHERE id = ?1",
        params![id.to_string()],
    )?;
    Ok(changed > 0)
}

/// Forget one whose machine is a container's, as its engine says: this database is an old copy, and
/// the machine is left alone like any other that it does not know.
pub fn disown(connection: &Connection, id: Id) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM prespawned WHERE id = ?1",
        params![id.to_string()],
    )?;
    Ok(())
}

/// Forget one of which nothing is left.
pub fn forget(connection: &Connection, id: Id, now: Millis) -> rusqlite::Result<()> {
    let gone = connection.execute(
        "DELETE FROM prespawned WHERE id = ?1 AND state = 'dropping'",
        params![id.to_string()],
    )?;
    if gone > 0 {
        tombstones::insert(connection, id, now)?;
    }
    Ok(())
}
