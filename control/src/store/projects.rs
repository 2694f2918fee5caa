//! Projects: what containers belong to.

use rusqlite::{Connection, OptionalExtension, Row, params};

use routes::Id;

use super::{Realms, Slice};
use crate::time::Millis;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub id: Id,
    pub user: Id,
    pub alias: String,
    /// `#RRGGBB`.
    pub color: String,
    pub max_containers: Option<u32>,
    pub realms: Vec<Id>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Project> {
    Ok(Project {
        id: super::id(row, "id")?,
        user: super::id(row, "user_id")?,
        alias: row.get("alias")?,
        color: row.get("color")?,
        max_containers: row.get("max_containers")?,
        realms: super::json(row, "realm_ids")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

pub fn insert(connection: &Connection, project: &Project) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO projects (id, user_id, alias, color, max_containers, realm_ids, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            project.id.to_string(),
            project.user.to_string(),
            project.alias,
            project.color,
            project.max_containers,
            super::to_json(&project.realms),
            project.created_at,
            project.updated_at
        ],
    )?;
    Ok(())
}

/// Write what can change.
pub fn update(connection: &Connection, project: &Project) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE projects SET alias = ?2, color = ?3, max_containers = ?4, realm_ids = ?5, updated_at = ?6
         WHERE id = ?1",
        params![
            project.id.to_string(),
            project.alias,
            project.color,
            project.max_containers,
            super::to_json(&project.realms),
            project.updated_at
        ],
    )?;
    Ok(())
}

/// A project that is not deleted.
pub fn find(connection: &Connection, id: Id) -> rusqlite::Result<Option<Project>> {
    connection
        .query_row(
            "SELECT * FROM projects WHERE id = ?1 AND NOT deleted",
            params![id.to_string()],
            read,
        )
        .optional()
}

const SEEN: &str = "projects.user_id = ?1 AND NOT projects.deleted AND (?2 IS NULL OR EXISTS (
    SELECT 1 FROM json_each(projects.realm_ids) mine JOIN json_each(?2) seen ON mine.value = seen.value))";

/// A page of a user's projects, and how many there are.
pub fn list(
    connection: &Connection,
    user: Id,
    realms: &Realms,
    slice: Slice,
) -> rusqlite::Result<(Vec<Project>, u64)> {
    let given = params![user.to_string(), realms.parameter()];
    let total = count(connection, user, realms)?;
    let mut statement = connection.prepare_cached(&format!(
        "SELECT * FROM projects WHERE {SEEN}{}",
        slice.sql("projects")
    ))?;
    let page = statement
        .query_map(given, read)?
        .collect::<Result<_, _>>()?;
    Ok((page, total))
}

pub fn count(connection: &Connection, user: Id, realms: &Realms) -> rusqlite::Result<u64> {
    connection.query_row(
        &format!("SELECT count(*) FROM projects WHERE {SEEN}"),
        params![user.to_string(), realms.parameter()],
        |row| row.get::<_, i64>(0).map(i64::cast_unsigned),
    )
}

/// Hide a project. It goes for good once its last container has gone.
pub fn delete(connection: &Connection, id: Id, now: Millis) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE projects SET deleted = 1, updated_at = ?2 WHERE id = ?1",
        params![id.to_string(), now],
    )?;
    bury(connection)
}

/// Remove deleted projects that have no containers left.
pub fn bury(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM projects WHERE deleted
         AND NOT EXISTS (SELECT 1 FROM containers WHERE containers.project_id = projects.id)",
        [],
    )?;
    Ok(())
}

/// Every realm that a user's projects, containers and tokens are in.
pub fn realms(connection: &Connection, user: Id) -> rusqlite::Result<Vec<Id>> {
    let mut statement = connection.prepare_cached(
        "SELECT value AS id FROM projects, json_each(projects.realm_ids)
             WHERE user_id = ?1 AND NOT deleted
         UNION SELECT value FROM containers JOIN projects ON projects.id = project_id,
             json_each(containers.realm_ids) WHERE user_id = ?1 AND wants <> 'gone'
         UNION SELECT value FROM tokens, json_each(tokens.realm_ids) WHERE user_id = ?1
         ORDER BY 1",
    )?;
    statement
        .query_map(params![user.to_string()], |row| super::id(row, "id"))?
        .collect()
}
