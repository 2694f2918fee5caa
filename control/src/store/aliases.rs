//! Aliases: names of the node's own that lead into containers.

use rusqlite::{Connection, OptionalExtension, Row, params};

use routes::Id;

use super::Realms;
use crate::time::Millis;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    pub id: Id,
    pub name: String,
    pub container: Id,
    /// The canonical name of the program, such as `files`, `http` or `ssh`.
    pub program: String,
    /// Its index, or the port of `http` and `https`.
    pub number: u32,
    pub target_path: Option<String>,
    pub allow_path_override: bool,
    pub expires_at: Option<Millis>,
    pub enabled: bool,
    pub created_at: Millis,
    pub updated_at: Millis,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Alias> {
    Ok(Alias {
        id: super::id(row, "id")?,
        name: row.get("name")?,
        container: super::id(row, "container_id")?,
        program: row.get("program")?,
        number: row.get("number")?,
        target_path: row.get("target_path")?,
        allow_path_override: row.get("allow_path_override")?,
        expires_at: row.get("expires_at")?,
        enabled: row.get("enabled")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

pub fn insert(connection: &Connection, alias: &Alias) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO aliases (id, name, container_id, program, number, target_path, allow_path_override,
             expires_at, enabled, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            alias.id.to_string(),
            alias.name,
            alias.container.to_string(),
            alias.program,
            alias.number,
            alias.target_path,
            alias.allow_path_override,
            alias.expires_at,
            alias.enabled,
            alias.created_at,
            alias.updated_at
        ],
    )?;
    Ok(())
}

/// Write what can change.
pub fn update(connection: &Connection, alias: &Alias) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE aliases SET name = ?2, program = ?3, number = ?4, target_path = ?5, allow_path_override = ?6,
             expires_at = ?7, enabled = ?8, updated_at = ?9
         WHERE id = ?1",
        params![
            alias.id.to_string(),
            alias.name,
            alias.program,
            alias.number,
            alias.target_path,
            alias.allow_path_override,
            alias.expires_at,
            alias.enabled,
            alias.updated_at
        ],
    )?;
    Ok(())
}

pub fn delete(connection: &Connection, id: Id) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM aliases WHERE id = ?1", params![id.to_string()])?;
    Ok(())
}

pub fn find(connection: &Connection, id: Id) -> rusqlite::Result<Option<Alias>> {
    connection
        .query_row(
            "SELECT * FROM aliases WHERE id = ?1",
            params![id.to_string()],
            read,
        )
        .optional()
}

/// Whether another alias of the node has this name.
pub fn is_taken(connection: &Connection, name: &str, by_other_than: Id) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM aliases WHERE name = ?1 AND id <> ?2)",
        params![name, by_other_than.to_string()],
        |row| row.get(0),
    )
}

/// The aliases of a container, oldest first.
pub fn of_container(connection: &Connection, container: Id) -> rusqlite::Result<Vec<Alias>> {
    let mut statement = connection
        .prepare_cached("SELECT * FROM aliases WHERE container_id = ?1 ORDER BY created_at, id")?;
    statement
        .query_map(params![container.to_string()], read)?
        .collect()
}

pub fn count(connection: &Connection, container: Id) -> rusqlite::Result<u32> {
    connection.query_row(
        "SELECT count(*) FROM aliases WHERE container_id = ?1",
        params![container.to_string()],
        |row| row.get(0),
    )
}

/// Every alias of the node that is switched on.
pub fn enabled(connection: &Connection) -> rusqlite::Result<Vec<Alias>> {
    let mut statement = connection.prepare_cached("SELECT * FROM aliases WHERE enabled")?;
    statement.query_map([], read)?.collect()
}

/// Remove all aliases of a container and say what they were called.
pub fn remove_of(connection: &Connection, container: Id) -> rusqlite::Result<Vec<String>> {
    let mut statement =
        connection.prepare_cached("DELETE FROM aliases WHERE container_id = ?1 RETURNING name")?;
    statement
        .query_map(params![container.to_string()], |row| row.get(0))?
        .collect()
}

/// Which aliases a list is of.
#[derive(Debug, Clone)]
pub struct Filter {
    pub user: Id,
    pub project: Option<Id>,
    pub container: Option<Id>,
    pub realms: Realms,
    pub enabled: Option<bool>,
    pub expired: Option<bool>,
    pub now: Millis,
}

/// The aliases of a user's containers that a filter lets through, newest first.
pub fn list(connection: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Alias>> {
    let mut statement = connection.prepare_cached(
        "SELECT aliases.* FROM aliases JOIN containers ON containers.id = aliases.container_id
             JOIN projects ON projects.id = containers.project_id
         WHERE projects.user_id = ?1 AND NOT projects.deleted
         AND (?2 IS NULL OR containers.project_id = ?2)
         AND (?3 IS NULL OR containers.id = ?3)
         AND (?4 IS NULL OR EXISTS (SELECT 1 FROM json_each(containers.realm_ids) mine
             JOIN json_each(?4) seen ON mine.value = seen.value))
         AND (?5 IS NULL OR aliases.enabled = ?5)
         AND (?6 IS NULL OR (aliases.expires_at IS NOT NULL AND aliases.expires_at <= ?7) = ?6)
         ORDER BY aliases.created_at DESC, aliases.id DESC",
    )?;
    let given = params![
        filter.user.to_string(),
        filter.project.map(|id| id.to_string()),
        filter.container.map(|id| id.to_string()),
        filter.realms.parameter(),
        filter.enabled,
        filter.expired,
        filter.now
    ];
    statement.query_map(given, read)?.collect()
}
