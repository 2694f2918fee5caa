//! Signed links: what was given out, what was taken back, and the keys they are signed with.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use routes::Id;
use routes::link::{LinkKey, Links};

use crate::time::{Millis, SECOND};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub id: Id,
    pub container: Id,
    pub service: String,
    pub instance: u32,
    /// Nothing for all.
    pub methods: Option<Vec<String>>,
    pub prefix: Option<String>,
    pub comment: Option<String>,
    pub created_by: String,
    pub created_at: Millis,
    /// Whole seconds.
    pub expires_at: Millis,
    pub revoked_at: Option<Millis>,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Link> {
    Ok(Link {
        id: super::id(row, "id")?,
        container: super::id(row, "container_id")?,
        service: row.get("service")?,
        instance: row.get("instance")?,
        methods: match row.get::<_, Option<String>>("methods")? {
            Some(_) => Some(super::json(row, "methods")?),
            None => None,
        },
        prefix: row.get("prefix")?,
        comment: row.get("comment")?,
        created_by: row.get("created_by")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        revoked_at: row.get("revoked_at")?,
    })
}

pub fn insert(connection: &Connection, link: &Link) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO links (id, container_id, service, instance, methods, prefix, comment, created_by,
             created_at, expires_at, revoked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            link.id.to_string(),
            link.container.to_string(),
            link.service,
            link.instance,
            link.methods.as_ref().map(super::to_json),
            link.prefix,
            link.comment,
            link.created_by,
            link.created_at,
            link.expires_at,
            link.revoked_at
        ],
    )?;
    Ok(())
}

/// A link of a container that has not expired, revoked or not.
pub fn find(
    connection: &Connection,
    container: Id,
    id: Id,
    now: Millis,
) -> rusqlite::Result<Option<Link>> {
    connection
        .query_row(
            "SELECT * FROM links WHERE id = ?1 AND container_id = ?2 AND expires_at > ?3",
            params![id.to_string(), container.to_string(), now],
            read,
        )
        .optional()
}

/// The links of a container that have not expired, newest first.
pub fn of_container(
    connection: &Connection,
    container: Id,
    now: Millis,
) -> rusqlite::Result<Vec<Link>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM links WHERE container_id = ?1 AND expires_at > ?2
         ORDER BY created_at DESC, id DESC",
    )?;
    statement
        .query_map(params![container.to_string(), now], read)?
        .collect()
}

pub fn revoke(connection: &Connection, id: Id, now: Millis) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE links SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1",
        params![id.to_string(), now],
    )?;
    Ok(())
}

/// Forget the links that have expired.
pub fn expire(connection: &Connection, now: Millis) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM links WHERE expires_at <= ?1", params![now])?;
    Ok(())
}

/// The key of a container's links; `fresh` becomes it where it has none.
pub fn key(connection: &Connection, container: Id, fresh: &str) -> rusqlite::Result<LinkKey> {
    connection.execute(
        "INSERT INTO link_keys (container_id, key) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![container.to_string(), fresh],
    )?;
    connection.query_row(
        "SELECT key FROM link_keys WHERE container_id = ?1",
        params![container.to_string()],
        read_key,
    )
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<LinkKey> {
    let text: String = row.get("key")?;
    text.parse()
        .map_err(|error| super::unreadable("key", error))
}

/// What the proxy checks a container's links with.
pub fn checked_with(
    connection: &Connection,
    container: Id,
    now: Millis,
) -> rusqlite::Result<Option<Links>> {
    let key = connection
        .query_row(
            "SELECT key FROM link_keys WHERE container_id = ?1",
            params![container.to_string()],
            read_key,
        )
        .optional()?;
    let Some(key) = key else {
        return Ok(None);
    };
    let revoked = of_container(connection, container, now)?
        .into_iter()
        .filter(|link| link.revoked_at.is_some())
        .map(|link| (link.id, (link.expires_at / SECOND).cast_unsigned()));
    Ok(Some(Links {
        key,
        revoked: revoked.collect(),
    }))
}

/// The same of every container that ever had a link.
pub fn all(connection: &Connection, now: Millis) -> rusqlite::Result<BTreeMap<Id, Links>> {
    let mut statement = connection.prepare_cached("SELECT container_id FROM link_keys")?;
    let containers: Vec<Id> = statement
        .query_map([], |row| super::id(row, "container_id"))?
        .collect::<Result<_, _>>()?;
    let mut all = BTreeMap::new();
    for container in containers {
        if let Some(links) = checked_with(connection, container, now)? {
            all.insert(container, links);
        }
    }
    Ok(all)
}
