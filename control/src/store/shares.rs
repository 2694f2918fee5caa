//! Shares: directories that a container offers to others, and what those say of it.
//!
//! A share is its source's: it ends with it, and with the container or the project it is for. Each
//! container that it is for sees it, unless it said that it does not want to.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

use routes::Id;

use super::Realms;
use super::events::{self, Kind, News};
use crate::time::Millis;
use crate::words;

/// Whoever a share is for hears this long before that it ends.
pub const NOTICE: Millis = crate::time::DAY;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub id: Id,
    pub source: Id,
    /// On the source's own disk; absolute and without detours.
    pub path: String,
    pub target: Target,
    pub writable: bool,
    /// Its name below `/hoody/shares`; its id where it has none.
    pub alias: Option<String>,
    pub label: Option<String>,
    pub description: Option<String>,
    pub enabled: bool,
    pub expires_at: Option<Millis>,
    pub told: Told,
    /// Why somebody who should see it does not.
    pub failure: Option<String>,
    /// The account that made it.
    pub created_by: Id,
    pub created_at: Millis,
    pub updated_at: Millis,
}

/// Who a share is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Container(Id),
    /// Every container of it, now and later, but the source.
    Project(Id),
}

/// What was said of the end of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Nothing,
    Soon,
    Over,
}

/// What a container said of a share that is for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    pub id: Id,
    pub share: Id,
    pub container: Id,
    pub mount: bool,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl Target {
    fn container(self) -> Option<String> {
        match self {
            Target::Container(id) => Some(id.to_string()),
            Target::Project(_) => None,
        }
    }

    fn project(self) -> Option<String> {
        match self {
            Target::Container(_) => None,
            Target::Project(id) => Some(id.to_string()),
        }
    }
}

impl Told {
    fn as_str(self) -> &'static str {
        match self {
            Told::Nothing => "nothing",
            Told::Soon => "soon",
            Told::Over => "over",
        }
    }
}

impl Share {
    /// What it is called below `/hoody/shares`.
    pub fn name(&self) -> String {
        self.alias.clone().unwrap_or_else(|| self.id.to_string())
    }

    pub fn is_over(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|expires| expires <= now)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Share> {
    let container = super::maybe_id(row, "target_container_id")?;
    let project = super::maybe_id(row, "target_project_id")?;
    let told: String = row.get("told")?;
    Ok(Share {
        id: super::id(row, "id")?,
        source: super::id(row, "source_id")?,
        path: row.get("path")?,
        target: match (container, project) {
            (Some(id), _) => Target::Container(id),
            (None, Some(id)) => Target::Project(id),
            (None, None) => {
                return Err(rusqlite::Error::InvalidQuery); // the schema has it otherwise
            }
        },
        writable: row.get("writable")?,
        alias: row.get("alias")?,
        label: row.get("label")?,
        description: row.get("description")?,
        enabled: row.get("enabled")?,
        expires_at: row.get("expires_at")?,
        told: match told.as_str() {
            "soon" => Told::Soon,
            "over" => Told::Over,
            _ => Told::Nothing,
        },
        failure: row.get("failure")?,
        created_by: super::id(row, "created_by")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn read_override(row: &Row<'_>) -> rusqlite::Result<Override> {
    Ok(Override {
        id: super::id(row, "id")?,
        share: super::id(row, "share_id")?,
        container: super::id(row, "container_id")?,
        mount: row.get("mount")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

pub fn insert(connection: &Connection, share: &Share) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO shares (id, source_id, path, target_container_id, target_project_id, writable, alias,
             label, description, enabled, expires_at, told, failure, created_by, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        params![
            share.id.to_string(),
            share.source.to_string(),
            share.path,
            share.target.container(),
            share.target.project(),
            share.writable,
            share.alias,
            share.label,
            share.description,
            share.enabled,
            share.expires_at,
            share.told.as_str(),
            share.failure,
            share.created_by.to_string(),
            share.created_at,
            share.updated_at
        ],
    )?;
    Ok(())
}

/// Write what can change.
pub fn update(connection: &Connection, share: &Share) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE shares SET writable = ?2, alias = ?3, label = ?4, description = ?5, enabled = ?6,
             expires_at = ?7, told = ?8, updated_at = ?9
         WHERE id = ?1",
        params![
            share.id.to_string(),
            share.writable,
            share.alias,
            share.label,
            share.description,
            share.enabled,
            share.expires_at,
            share.told.as_str(),
            share.updated_at
        ],
    )?;
    Ok(())
}

pub fn delete(connection: &Connection, id: Id) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM shares WHERE id = ?1", params![id.to_string()])?;
    Ok(())
}

pub fn find(connection: &Connection, id: Id) -> rusqlite::Result<Option<Share>> {
    connection
        .query_row(
            "SELECT * FROM shares WHERE id = ?1",
            params![id.to_string()],
            read,
        )
        .optional()
}

/// The shares that a container offers, newest first.
pub fn of_source(connection: &Connection, source: Id) -> rusqlite::Result<Vec<Share>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM shares WHERE source_id = ?1 ORDER BY created_at DESC, id DESC",
    )?;
    statement
        .query_map(params![source.to_string()], read)?
        .collect()
}

/// The shares that are for a container, newest first; `share` for that one alone.
const INCOMING: &str = "FROM shares JOIN containers ON (containers.id = shares.target_container_id
         OR (containers.project_id = shares.target_project_id AND containers.id <> shares.source_id))
     WHERE containers.id = ?1 AND (?2 IS NULL OR shares.id = ?2)";

pub fn incoming(connection: &Connection, container: Id) -> rusqlite::Result<Vec<Share>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT shares.* {INCOMING} ORDER BY shares.created_at DESC, shares.id DESC"
    ))?;
    statement
        .query_map(params![container.to_string(), None::<String>], read)?
        .collect()
}

/// A share that is for a container.
pub fn incoming_one(
    connection: &Connection,
    container: Id,
    share: Id,
) -> rusqlite::Result<Option<Share>> {
    connection
        .query_row(
            &format!("SELECT shares.* {INCOMING}"),
            params![container.to_string(), share.to_string()],
            read,
        )
        .optional()
}

/// Containers that a caller sees.
const SEEN: &str = "projects.user_id = ?1 AND NOT projects.deleted AND containers.wants <> 'gone'
     AND (?2 IS NULL OR EXISTS (SELECT 1 FROM json_each(containers.realm_ids) mine
         JOIN json_each(?2) seen ON mine.value = seen.value))";

/// All that a user's containers offer, newest first.
pub fn of_user(connection: &Connection, user: Id, realms: &Realms) -> rusqlite::Result<Vec<Share>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT shares.* FROM shares JOIN containers ON containers.id = shares.source_id
             JOIN projects ON projects.id = containers.project_id
         WHERE {SEEN} ORDER BY shares.created_at DESC, shares.id DESC"
    ))?;
    statement
        .query_map(params![user.to_string(), realms.parameter()], read)?
        .collect()
}

/// All that is for a user's containers, each once, newest first.
pub fn incoming_of_user(
    connection: &Connection,
    user: Id,
    realms: &Realms,
) -> rusqlite::Result<Vec<Share>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT * FROM shares WHERE id IN (
             SELECT shares.id FROM shares
                 JOIN containers ON (containers.id = shares.target_container_id OR
                     (containers.project_id = shares.target_project_id AND containers.id <> shares.source_id))
                 JOIN projects ON projects.id = containers.project_id
             WHERE {SEEN})
         ORDER BY created_at DESC, id DESC"
    ))?;
    statement
        .query_map(params![user.to_string(), realms.parameter()], read)?
        .collect()
}

/// How many a container offers.
pub fn count(connection: &Connection, source: Id) -> rusqlite::Result<u32> {
    connection.query_row(
        "SELECT count(*) FROM shares WHERE source_id = ?1",
        params![source.to_string()],
        |row| row.get(0),
    )
}

/// The most that are for any one of the containers that a share of this target is for; those that
/// are for a project count for each of its containers, whether they are there yet or not.
pub fn count_for(connection: &Connection, target: Target) -> rusqlite::Result<u32> {
    const MOST: &str = "SELECT
         (SELECT count(*) FROM shares WHERE target_project_id = ?1)
         + (SELECT ifnull(max(n), 0) FROM (SELECT count(*) AS n FROM shares
             JOIN containers ON containers.id = shares.target_container_id
             WHERE containers.project_id = ?1 AND (?2 IS NULL OR containers.id = ?2)
             GROUP BY containers.id))";
    let project = match target {
        Target::Project(id) => id,
        Target::Container(id) => match super::containers::find(connection, id)? {
            Some(container) => container.project,
            None => return Ok(0),
        },
    };
    connection.query_row(
        MOST,
        params![project.to_string(), target.container()],
        |row| row.get(0),
    )
}

/// Whether one of the containers that this share is for has another of its alias.
pub fn is_taken(connection: &Connection, share: &Share) -> rusqlite::Result<bool> {
    let Some(alias) = &share.alias else {
        return Ok(false);
    };
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM shares LEFT JOIN containers ON containers.id = shares.target_container_id
             WHERE shares.alias = ?1 AND shares.id <> ?2 AND (
                 shares.target_container_id = ?3
                 OR shares.target_project_id = (SELECT project_id FROM containers WHERE id = ?3)
                 OR shares.target_project_id = ?4
                 OR containers.project_id = ?4))",
        params![
            alias,
            share.id.to_string(),
            share.target.container(),
            share.target.project()
        ],
        |row| row.get(0),
    )
}

/// What a container said of a share; it sees it where it said nothing.
pub fn said(
    connection: &Connection,
    share: Id,
    container: Id,
) -> rusqlite::Result<Option<Override>> {
    connection
        .query_row(
            "SELECT * FROM share_mounts WHERE share_id = ?1 AND container_id = ?2",
            params![share.to_string(), container.to_string()],
            read_override,
        )
        .optional()
}

/// Note what a container says of a share.
pub fn say(
    connection: &Connection,
    share: Id,
    container: Id,
    mount: bool,
    now: Millis,
) -> rusqlite::Result<Override> {
    connection.query_row(
        "INSERT INTO share_mounts (id, share_id, container_id, mount, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)
         ON CONFLICT (share_id, container_id) DO UPDATE SET mount = ?4, updated_at = ?5
         RETURNING *",
        params![
            words::id().to_string(),
            share.to_string(),
            container.to_string(),
            mount,
            now
        ],
        read_override,
    )
}

/// Every share that somebody is to see now, with who, oldest first. A container is nobody before it
/// is made and once it is going.
pub fn in_force(connection: &Connection, now: Millis) -> rusqlite::Result<Vec<(Share, Id)>> {
    let mut statement = connection.prepare_cached(
        "SELECT shares.*, target.id AS target_id FROM shares
             JOIN containers source ON source.id = shares.source_id
             JOIN containers target ON (target.id = shares.target_container_id
                 OR (target.project_id = shares.target_project_id AND target.id <> shares.source_id))
             LEFT JOIN share_mounts ON share_mounts.share_id = shares.id
                 AND share_mounts.container_id = target.id
         WHERE shares.enabled AND (shares.expires_at IS NULL OR shares.expires_at > ?1)
             AND source.made AND source.wants <> 'gone' AND target.made AND target.wants <> 'gone'
             AND ifnull(share_mounts.mount, 1)
         ORDER BY shares.created_at, shares.id, target.id",
    )?;
    statement
        .query_map(params![now], |row| {
            Ok((read(row)?, super::id(row, "target_id")?))
        })?
        .collect()
}

/// When the next share ends that has not yet.
pub fn next_end(connection: &Connection, now: Millis) -> rusqlite::Result<Option<Millis>> {
    connection.query_row(
        "SELECT min(expires_at) FROM shares WHERE enabled AND expires_at > ?1",
        params![now],
        |row| row.get(0),
    )
}

/// Write why shares are not seen; those that are not named are, by all that should. What changed is
/// told.
pub fn settle(
    connection: &Connection,
    failures: &BTreeMap<Id, String>,
    now: Millis,
) -> rusqlite::Result<()> {
    let before: Vec<Share> = connection
        .prepare_cached("SELECT * FROM shares WHERE failure IS NOT NULL OR id IN (SELECT value FROM json_each(?1))")?
        .query_map(
            params![super::to_json(&failures.keys().collect::<Vec<_>>())],
            read,
        )?
        .collect::<Result<_, _>>()?;
    for share in before {
        let failure = failures.get(&share.id);
        if failure == share.failure.as_ref() {
            continue;
        }
        connection.execute(
            "UPDATE shares SET failure = ?2 WHERE id = ?1",
            params![share.id.to_string(), failure],
        )?;
        let status = if failure.is_some() {
            "failed"
        } else {
            "active"
        };
        let more = json!({ "status": status, "status_message": failure });
        record(
            connection,
            Kind::StorageShareUpdated,
            &share,
            more,
            "system",
            now,
        )?;
    }
    Ok(())
}

/// Tell of the shares that end soon, and of those that have ended, once each.
pub fn expire(connection: &Connection, now: Millis) -> rusqlite::Result<()> {
    let due: Vec<Share> = connection
        .prepare_cached(
            "SELECT * FROM shares WHERE enabled AND expires_at IS NOT NULL
             AND ((expires_at <= ?1 AND told <> 'over')
                 OR (expires_at > ?1 AND expires_at <= ?2 AND told = 'nothing'))",
        )?
        .query_map(params![now, now + NOTICE], read)?
        .collect::<Result<_, _>>()?;
    for share in due {
        let (told, kind) = match share.is_over(now) {
            true => (Told::Over, Kind::StorageShareExpired),
            false => (Told::Soon, Kind::StorageShareExpiringSoon),
        };
        connection.execute(
            "UPDATE shares SET told = ?2 WHERE id = ?1",
            params![share.id.to_string(), told.as_str()],
        )?;
        let more = json!({ "expires_at": share.expires_at.map(crate::time::text) });
        record(connection, kind, &share, more, "system", now)?;
    }
    Ok(())
}

/// A container goes: what it offers ends, and what was for it alone.
pub fn remove_of(
    connection: &Connection,
    container: Id,
    by: &str,
    now: Millis,
) -> rusqlite::Result<usize> {
    let of = "SELECT * FROM shares WHERE source_id = ?1 OR target_container_id = ?1";
    end(connection, of, container, by, now)
}

/// A project goes: what was for it ends.
pub fn remove_for_project(
    connection: &Connection,
    project: Id,
    by: &str,
    now: Millis,
) -> rusqlite::Result<usize> {
    let of = "SELECT * FROM shares WHERE target_project_id = ?1";
    end(connection, of, project, by, now)
}

/// End the shares that a query finds by an id.
fn end(
    connection: &Connection,
    query: &str,
    of: Id,
    by: &str,
    now: Millis,
) -> rusqlite::Result<usize> {
    let ending: Vec<Share> = connection
        .prepare_cached(query)?
        .query_map(params![of.to_string()], read)?
        .collect::<Result<_, _>>()?;
    for share in &ending {
        record(
            connection,
            Kind::StorageShareDeleted,
            share,
            json!({}),
            by,
            now,
        )?;
        delete(connection, share.id)?;
    }
    Ok(ending.len())
}

/// Record what happened to a share, for its source and for whom it is for; each is seen by who sees
/// that container or project.
pub fn record(
    connection: &Connection,
    kind: Kind,
    share: &Share,
    more: Value,
    by: &str,
    at: Millis,
) -> rusqlite::Result<()> {
    record_for(connection, kind, share, share.target, more, by, at)
}

/// The same for one of those that it is for.
pub fn record_for(
    connection: &Connection,
    kind: Kind,
    share: &Share,
    target: Target,
    more: Value,
    by: &str,
    at: Millis,
) -> rusqlite::Result<()> {
    let facts = |side: &str| {
        let mut facts = json!({
            "side": side,
            "source_container_id": share.source.to_string(),
            "source_path": share.path,
            "target_container_id": share.target.container(),
            "target_project_id": share.target.project(),
            "mode": if share.writable { "readwrite" } else { "readonly" },
            "alias": share.alias,
            "enabled": share.enabled,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            facts[key] = value.clone();
        }
        facts
    };
    let news = |side| News {
        kind,
        by,
        at,
        facts: facts(side),
    };
    events::of_container(connection, share.source, Some(share.id), &news("source"))?;
    match target {
        Target::Container(id) => {
            events::of_container(connection, id, Some(share.id), &news("target"))
        }
        Target::Project(id) => events::of_project(connection, id, Some(share.id), &news("target")),
    }
}
