//! Auth tokens: what programs carry instead of a password. Only their hashes are kept.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use routes::Id;

use crate::auth::permissions::Permissions;
use crate::time::Millis;

#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub id: Id,
    pub user: Id,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// The beginning of the secret, to tell tokens apart by eye.
    pub prefix: String,
    pub alias: String,
    pub public_key: Option<String>,
    pub public_storage: Option<Value>,
    /// Addresses and networks it may be used from; `*` is any.
    pub ip_whitelist: Vec<String>,
    pub realms: Vec<Id>,
    pub allow_no_realm: bool,
    pub permissions: Permissions,
    pub vault_access: bool,
    pub event_access: bool,
    pub is_enabled: bool,
    pub expires_at: Option<Millis>,
    /// The token that made it.
    pub created_by: Option<Id>,
    /// How many tokens stand between it and a person.
    pub depth: u32,
    pub last_used_at: Option<Millis>,
    pub last_used_ip: Option<String>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: super::id(row, "id")?,
        user: super::id(row, "user_id")?,
        hash: row.get("hash")?,
        prefix: row.get("prefix")?,
        alias: row.get("alias")?,
        public_key: row.get("public_key")?,
        public_storage: match row.get::<_, Option<String>>("public_storage")? {
            Some(_) => Some(super::json(row, "public_storage")?),
            None => None,
        },
        ip_whitelist: super::json(row, "ip_whitelist")?,
        realms: super::json(row, "realm_ids")?,
        allow_no_realm: row.get("allow_no_realm")?,
        permissions: super::json(row, "permissions")?,
        vault_access: row.get("vault_access")?,
        event_access: row.get("event_access")?,
        is_enabled: row.get("is_enabled")?,
        expires_at: row.get("expires_at")?,
        created_by: super::maybe_id(row, "created_by")?,
        depth: row.get("depth")?,
        last_used_at: row.get("last_used_at")?,
        last_used_ip: row.get("last_used_ip")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

pub fn insert(connection: &Connection, token: &Token) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO tokens (id, user_id, hash, prefix, alias, public_key, public_storage, ip_whitelist,
             realm_ids, allow_no_realm, permissions, vault_access, event_access, is_enabled, expires_at,
             created_by, depth, last_used_at, last_used_ip, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
        params![
            token.id.to_string(),
            token.user.to_string(),
            token.hash,
            token.prefix,
            token.alias,
            token.public_key,
            token.public_storage.as_ref().map(super::to_json),
            super::to_json(&token.ip_whitelist),
            super::to_json(&token.realms),
            token.allow_no_realm,
            super::to_json(&token.permissions),
            token.vault_access,
            token.event_access,
            token.is_enabled,
            token.expires_at,
            token.created_by.map(|id| id.to_string()),
            token.depth,
            token.last_used_at,
            token.last_used_ip,
            token.created_at,
            token.updated_at
        ],
    )?;
    Ok(())
}

/// Write what can change.
pub fn update(connection: &Connection, token: &Token) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE tokens SET alias = ?2, public_key = ?3, public_storage = ?4, ip_whitelist = ?5,
             realm_ids = ?6, allow_no_realm = ?7, permissions = ?8, vault_access = ?9, event_access = ?10,
             is_enabled = ?11, expires_at = ?12, updated_at = ?13
         WHERE id = ?1",
        params![
            token.id.to_string(),
            token.alias,
            token.public_key,
            token.public_storage.as_ref().map(super::to_json),
            super::to_json(&token.ip_whitelist),
            super::to_json(&token.realms),
            token.allow_no_realm,
            super::to_json(&token.permissions),
            token.vault_access,
            token.event_access,
            token.is_enabled,
            token.expires_at,
            token.updated_at
        ],
    )?;
    Ok(())
}

pub fn find(connection: &Connection, id: Id) -> rusqlite::Result<Option<Token>> {
    connection
        .query_row(
            "SELECT * FROM tokens WHERE id = ?1",
            params![id.to_string()],
            read,
        )
        .optional()
}

pub fn by_hash(connection: &Connection, hash: &[u8; 32]) -> rusqlite::Result<Option<Token>> {
    connection
        .query_row("SELECT * FROM tokens WHERE hash = ?1", params![hash], read)
        .optional()
}

/// The tokens of a user, newest first; of those made by one token where it is named, and that
/// token itself.
pub fn list(connection: &Connection, user: Id, by: Option<Id>) -> rusqlite::Result<Vec<Token>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM tokens WHERE user_id = ?1 AND (?2 IS NULL OR created_by = ?2 OR id = ?2)
         ORDER BY created_at DESC, id",
    )?;
    statement
        .query_map(params![user.to_string(), by.map(|id| id.to_string())], read)?
        .collect()
}

pub fn count(connection: &Connection, user: Id) -> rusqlite::Result<u32> {
    connection.query_row(
        "SELECT count(*) FROM tokens WHERE user_id = ?1",
        params![user.to_string()],
        |row| row.get(0),
    )
}

/// Delete a token and all that descend from it: what it made has no more right than it had.
pub fn delete(connection: &Connection, id: Id) -> rusqlite::Result<()> {
    connection.execute(
        "WITH RECURSIVE line(id) AS (
             VALUES (?1) UNION SELECT tokens.id FROM tokens JOIN line ON tokens.created_by = line.id)
         DELETE FROM tokens WHERE id IN (SELECT id FROM line)",
        params![id.to_string()],
    )?;
    Ok(())
}

pub fn used(connection: &Connection, id: Id, address: &str, now: Millis) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE tokens SET last_used_at = ?2, last_used_ip = ?3 WHERE id = ?1",
        params![id.to_string(), now, address],
    )?;
    Ok(())
}
