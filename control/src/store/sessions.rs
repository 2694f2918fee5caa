//! Logins: each is a family of refresh tokens of which only the newest is good.

use rusqlite::{Connection, OptionalExtension, Row, params};

use routes::Id;

use crate::time::Millis;

/// Logins one user has at once; the oldest make way.
const PER_USER: u32 = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub id: Id,
    pub user: Id,
    /// How often it was refreshed: the number in the only refresh token that is good.
    pub rotation: u64,
    pub rotated_at: Millis,
    pub expires_at: Millis,
    /// Where the login came from.
    pub address: String,
    pub created_at: Millis,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: super::id(row, "id")?,
        user: super::id(row, "user_id")?,
        rotation: row.get::<_, i64>("rotation")?.cast_unsigned(),
        rotated_at: row.get("rotated_at")?,
        expires_at: row.get("expires_at")?,
        address: row.get("address")?,
        created_at: row.get("created_at")?,
    })
}

/// Begin a session, and let go of what has expired or is too much.
pub fn insert(connection: &Connection, session: &Session) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM sessions WHERE expires_at < ?1",
        params![session.created_at],
    )?;
    connection.execute(
        "DELETE FROM sessions WHERE user_id = ?1 AND id NOT IN (
             SELECT id FROM sessions WHERE user_id = ?1 ORDER BY created_at DESC, id LIMIT ?2)",
        params![session.user.to_string(), PER_USER - 1],
    )?;
    connection.execute(
        "INSERT INTO sessions (id, user_id, rotation, rotated_at, expires_at, address, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            session.id.to_string(),
            session.user.to_string(),
            session.rotation.cast_signed(),
            session.rotated_at,
            session.expires_at,
            session.address,
            session.created_at
        ],
    )?;
    Ok(())
}

pub fn find(connection: &Connection, id: Id) -> rusqlite::Result<Option<Session>> {
    connection
        .query_row(
            "SELECT * FROM sessions WHERE id = ?1",
            params![id.to_string()],
            read,
        )
        .optional()
}

/// Make the next refresh token the good one.
pub fn rotate(
    connection: &Connection,
    id: Id,
    expires_at: Millis,
    now: Millis,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE sessions SET rotation = rotation + 1, rotated_at = ?3, expires_at = ?2 WHERE id = ?1",
        params![id.to_string(), expires_at, now],
    )?;
    Ok(())
}

pub fn delete(connection: &Connection, id: Id) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM sessions WHERE id = ?1",
        params![id.to_string()],
    )?;
    Ok(())
}

/// End all logins of a user.
pub fn delete_of(connection: &Connection, user: Id) -> rusqlite::Result<usize> {
    connection.execute(
        "DELETE FROM sessions WHERE user_id = ?1",
        params![user.to_string()],
    )
}

/// The newest logins of a user: address and time.
pub fn recent(
    connection: &Connection,
    user: Id,
    most: u32,
) -> rusqlite::Result<Vec<(String, Millis)>> {
    let mut statement = connection.prepare_cached(
        "SELECT address, created_at FROM sessions WHERE user_id = ?1 ORDER BY created_at DESC, id LIMIT ?2",
    )?;
    statement
        .query_map(params![user.to_string(), most], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect()
}
