//! People who may log in.

use rusqlite::{Connection, OptionalExtension, Row, params};

use routes::Id;

use crate::time::Millis;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: Id,
    pub username: String,
    pub email: Option<String>,
    pub alias: String,
    /// PHC string of Argon2id.
    pub password_hash: String,
    pub is_admin: bool,
    pub is_banned: bool,
    pub created_at: Millis,
    pub updated_at: Millis,
}

fn read(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: super::id(row, "id")?,
        username: row.get("username")?,
        email: row.get("email")?,
        alias: row.get("alias")?,
        password_hash: row.get("password_hash")?,
        is_admin: row.get("is_admin")?,
        is_banned: row.get("is_banned")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

pub fn insert(connection: &Connection, user: &User) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO users (id, username, email, alias, password_hash, is_admin, is_banned, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            user.id.to_string(),
            user.username,
            user.email,
            user.alias,
            user.password_hash,
            user.is_admin,
            user.is_banned,
            user.created_at,
            user.updated_at
        ],
    )?;
    Ok(())
}

pub fn find(connection: &Connection, id: Id) -> rusqlite::Result<Option<User>> {
    connection
        .query_row(
            "SELECT * FROM users WHERE id = ?1",
            params![id.to_string()],
            read,
        )
        .optional()
}

/// By the name of the account, in its exact case.
pub fn by_name(connection: &Connection, username: &str) -> rusqlite::Result<Option<User>> {
    connection
        .query_row(
            "SELECT * FROM users WHERE username = ?1",
            params![username],
            read,
        )
        .optional()
}

/// By e-mail address, in any case.
pub fn by_email(connection: &Connection, email: &str) -> rusqlite::Result<Option<User>> {
    let email = email.to_lowercase();
    connection
        .query_row("SELECT * FROM users WHERE email = ?1", params![email], read)
        .optional()
}

/// The administrator who has been here longest.
pub fn administrator(connection: &Connection) -> rusqlite::Result<Option<User>> {
    connection
        .query_row(
            "SELECT * FROM users WHERE is_admin ORDER BY created_at, id LIMIT 1",
            [],
            read,
        )
        .optional()
}

/// Change the password; whoever is logged in stays so.
pub fn set_password(
    connection: &Connection,
    id: Id,
    password_hash: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE users SET password_hash = ?2, updated_at = ?3 WHERE id = ?1",
        params![id.to_string(), password_hash, now],
    )?;
    Ok(())
}

pub fn set_alias(
    connection: &Connection,
    id: Id,
    alias: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE users SET alias = ?2, updated_at = ?3 WHERE id = ?1",
        params![id.to_string(), alias, now],
    )?;
    Ok(())
}
