//! Snapshots of containers, and what containers have of each other's disks.
//!
//! A snapshot is `taking` until the runtime has it, `kept`, then `dropping` until the runtime has
//! it no more; then its row goes. So nothing is in the runtime that no row tells of.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

use routes::Id;

use super::containers::{self, Container};
use crate::container::Status;
use crate::runtime::Source;
use crate::time::Millis;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub container: Id,
    pub name: String,
    pub alias: Option<String>,
    pub state: State,
    /// Bytes, where they are counted.
    pub size: Option<u64>,
    pub created_at: Millis,
    pub last_used_at: Option<Millis>,
    pub expires_at: Option<Millis>,
    /// Who asked last.
    pub requested_by: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Taking,
    Kept,
    Dropping,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Taking => "taking",
            State::Kept => "kept",
            State::Dropping => "dropping",
        }
    }
}

/// What is to be done about the disk of a container, and where it is from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// The snapshot to be taken next.
    pub taking: Option<String>,
    /// The snapshot to be removed next.
    pub dropping: Option<String>,
    /// The snapshot that is to be brought back.
    pub restoring: Option<String>,
    /// What it was copied from.
    pub source: Option<Source>,
    /// It is to be brought to what its source is.
    pub syncing: bool,
    /// The incarnation in which it was last the same as its source; none where its disk was
    /// changed since by a restore or by a sync that did not end.
    pub same_at: Option<u64>,
    /// How many snapshots there are that are not going.
    pub snapshots: u32,
    pub last_used: Option<String>,
}

/// The columns of a container, for what reads one: those of its table and those of [`Disk`].
pub const COLUMNS: &str = "containers.*,
    (SELECT name FROM snapshots WHERE container_id = containers.id AND state = 'taking'
        ORDER BY created_at, name LIMIT 1) AS taking,
    (SELECT name FROM snapshots WHERE container_id = containers.id AND state = 'dropping'
        ORDER BY created_at, name LIMIT 1) AS dropping,
    (SELECT count(*) FROM snapshots WHERE container_id = containers.id AND state <> 'dropping') AS snapshots";

pub(super) fn disk(row: &Row<'_>) -> rusqlite::Result<Disk> {
    let source = super::maybe_id(row, "source_id")?;
    let snapshot: Option<String> = row.get("source_snapshot")?;
    Ok(Disk {
        taking: row.get("taking")?,
        dropping: row.get("dropping")?,
        restoring: row.get("restoring")?,
        source: source.map(|id| Source { id, snapshot }),
        syncing: row.get("syncing")?,
        same_at: row
            .get::<_, Option<i64>>("same_at")?
            .map(i64::cast_unsigned),
        snapshots: row.get("snapshots")?,
        last_used: row.get("last_used_snapshot")?,
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    let state: String = row.get("state")?;
    Ok(Snapshot {
        container: super::id(row, "container_id")?,
        name: row.get("name")?,
        alias: row.get("alias")?,
        state: match state.as_str() {
            "taking" => State::Taking,
            "kept" => State::Kept,
            _ => State::Dropping,
        },
        size: row.get::<_, Option<i64>>("size")?.map(i64::cast_unsigned),
        created_at: row.get("created_at")?,
        last_used_at: row.get("last_used_at")?,
        expires_at: row.get("expires_at")?,
        requested_by: row.get("requested_by")?,
    })
}

/// A snapshot that is asked for.
#[derive(Debug, Clone)]
pub struct New {
    pub alias: Option<String>,
    pub expires_at: Option<Millis>,
    pub by: String,
    pub at: Millis,
}

/// Ask for a snapshot, under a name of its own.
pub fn take(connection: &Connection, container: Id, new: &New) -> rusqlite::Result<Snapshot> {
    let stamp = jiff::Timestamp::from_millisecond(new.at).unwrap_or_default();
    let first = stamp.strftime("snap-%Y%m%d-%H%M%S").to_string();
    let mut name = first.clone();
    let mut more = 1;
    while find(connection, container, &name)?.is_some() {
        more += 1;
        name = format!("{first}-{more}");
    }
    let snapshot = Snapshot {
        container,
        name,
        alias: new.alias.clone(),
        state: State::Taking,
        size: None,
        created_at: new.at,
        last_used_at: None,
        expires_at: new.expires_at,
        requested_by: new.by.clone(),
    };
    connection.execute(
        "INSERT INTO snapshots (container_id, name, alias, state, created_at, expires_at, requested_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            container.to_string(),
            snapshot.name,
            snapshot.alias,
            snapshot.state.as_str(),
            snapshot.created_at,
            snapshot.expires_at,
            snapshot.requested_by
        ],
    )?;
    touch(connection, container)?;
    Ok(snapshot)
}

/// What is wanted of the container changed: what failed before is tried again, and what was seen
/// before is stale.
fn touch(connection: &Connection, container: Id) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE containers SET revision = revision + 1 WHERE id = ?1",
        params![container.to_string()],
    )?;
    Ok(())
}

/// The snapshot of this name, whatever its state.
pub fn find(
    connection: &Connection,
    container: Id,
    name: &str,
) -> rusqlite::Result<Option<Snapshot>> {
    connection
        .query_row(
            "SELECT * FROM snapshots WHERE container_id = ?1 AND name = ?2",
            params![container.to_string(), name],
            read,
        )
        .optional()
}

/// Whether another snapshot of the container that is not going has the alias.
pub fn has_alias(
    connection: &Connection,
    container: Id,
    name: &str,
    alias: &str,
) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM snapshots
             WHERE container_id = ?1 AND name <> ?2 AND alias = ?3 AND state <> 'dropping')",
        params![container.to_string(), name, alias],
        |row| row.get(0),
    )
}

/// The snapshots of a container that are not going, newest first.
pub fn list(connection: &Connection, container: Id) -> rusqlite::Result<Vec<Snapshot>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM snapshots WHERE container_id = ?1 AND state <> 'dropping'
         ORDER BY created_at DESC, length(name) DESC, name DESC",
    )?;
    statement
        .query_map(params![container.to_string()], read)?
        .collect()
}

pub fn set_alias(
    connection: &Connection,
    container: Id,
    name: &str,
    alias: Option<&str>,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE snapshots SET alias = ?3 WHERE container_id = ?1 AND name = ?2",
        params![container.to_string(), name, alias],
    )?;
    Ok(())
}

/// Note that the runtime has the snapshot; one that is to go by now goes.
pub fn taken(
    connection: &Connection,
    container: &Container,
    name: &str,
    size: Option<u64>,
    now: Millis,
) -> rusqlite::Result<()> {
    let changed = connection.execute(
        "UPDATE snapshots SET state = 'kept', size = ?3
         WHERE container_id = ?1 AND name = ?2 AND state = 'taking'",
        params![container.id.to_string(), name, size.map(u64::cast_signed)],
    )?;
    if changed > 0 {
        let by = asked_by(connection, container.id, name)?;
        let event = json!({ "event": "snapshot_created", "snapshot": name });
        tell(connection, container.id, by, event, now)?;
    }
    Ok(())
}

/// Ask for a snapshot to be removed.
pub fn discard(
    connection: &Connection,
    container: Id,
    name: &str,
    by: &str,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE snapshots SET state = 'dropping', alias = NULL, requested_by = ?3
         WHERE container_id = ?1 AND name = ?2",
        params![container.to_string(), name, by],
    )?;
    touch(connection, container)
}

/// It could not be taken: what there is of it is removed.
pub fn not_taken(
    connection: &Connection,
    container: &Container,
    name: &str,
    reason: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    let changed = connection.execute(
        "UPDATE snapshots SET state = 'dropping', alias = NULL
         WHERE container_id = ?1 AND name = ?2 AND state = 'taking'",
        params![container.id.to_string(), name],
    )?;
    if changed > 0 {
        let by = asked_by(connection, container.id, name)?;
        let event = json!({ "event": "snapshot_failed", "snapshot": name, "reason": reason });
        tell(connection, container.id, by, event, now)?;
    }
    Ok(())
}

/// Note that the runtime has the snapshot no more.
pub fn dropped(
    connection: &Connection,
    container: &Container,
    name: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    let by = asked_by(connection, container.id, name)?;
    let event = json!({ "event": "snapshot_deleted", "snapshot": name });
    tell(connection, container.id, by, event, now)?;
    connection.execute(
        "DELETE FROM snapshots WHERE container_id = ?1 AND name = ?2 AND state = 'dropping'",
        params![container.id.to_string(), name],
    )?;
    Ok(())
}

/// Have snapshots removed whose time is over, unless they are being restored or copied. The
/// containers.
pub fn expire(connection: &Connection, now: Millis) -> rusqlite::Result<Vec<Id>> {
    const OVER: &str = "expires_at <= ?1 AND state = 'kept' AND NOT EXISTS (
        SELECT 1 FROM containers WHERE (id = container_id AND restoring = snapshots.name)
        OR (source_id = container_id AND source_snapshot = snapshots.name
            AND NOT made AND wants <> 'gone' AND failure IS NULL))";
    let mut statement = connection.prepare(&format!(
        "SELECT DISTINCT container_id FROM snapshots WHERE {OVER}"
    ))?;
    let containers: Vec<Id> = statement
        .query_map(params![now], |row| super::id(row, "container_id"))?
        .collect::<Result<_, _>>()?;
    connection.execute(
        &format!(
            "UPDATE snapshots SET state = 'dropping', alias = NULL, requested_by = 'system' WHERE {OVER}"
        ),
        params![now],
    )?;
    Ok(containers)
}

/// Ask for a snapshot to be brought back. What failed before is forgotten.
pub fn restore(
    connection: &Connection,
    container: &Container,
    name: &str,
    by: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE containers SET restoring = ?2, requested_by = ?3, failure = NULL, syncing = 0,
             revision = revision + 1, updated_at = ?4
         WHERE id = ?1 AND wants <> 'gone'",
        params![container.id.to_string(), name, by, now],
    )?;
    Ok(())
}

/// Note that a snapshot was brought back. The machine has to be told its settings again: the
/// snapshot brought back those of its time.
pub fn restored(
    connection: &Connection,
    container: &Container,
    name: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    let changed = connection.execute(
        "UPDATE containers SET restoring = NULL, last_used_snapshot = ?2, same_at = NULL,
             version = version + 1
         WHERE id = ?1 AND restoring = ?2",
        params![container.id.to_string(), name],
    )?;
    if changed > 0 {
        connection.execute(
            "UPDATE snapshots SET last_used_at = ?3 WHERE container_id = ?1 AND name = ?2",
            params![container.id.to_string(), name, now],
        )?;
        let event = json!({ "event": "snapshot_restored", "snapshot": name });
        tell(connection, container.id, None, event, now)?;
    }
    Ok(())
}

/// It cannot be brought back: the container goes on with the disk it has.
pub fn not_restored(
    connection: &Connection,
    container: &Container,
    name: &str,
    reason: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    let changed = connection.execute(
        "UPDATE containers SET restoring = NULL WHERE id = ?1 AND restoring = ?2",
        params![container.id.to_string(), name],
    )?;
    if changed > 0 {
        let event = json!({ "event": "restore_failed", "snapshot": name, "reason": reason });
        tell(connection, container.id, None, event, now)?;
    }
    Ok(())
}

/// Say what a new container is a copy of.
pub fn copy_of(connection: &Connection, container: Id, source: &Source) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE containers SET source_id = ?2, source_snapshot = ?3, same_at = 0 WHERE id = ?1",
        params![
            container.to_string(),
            source.id.to_string(),
            source.snapshot
        ],
    )?;
    Ok(())
}

/// How many containers are being made from this one or brought to what it is, or from one of its
/// snapshots where that is named.
pub fn readers(
    connection: &Connection,
    container: Id,
    snapshot: Option<&str>,
) -> rusqlite::Result<u32> {
    connection.query_row(
        "SELECT count(*) FROM containers WHERE source_id = ?1 AND wants <> 'gone' AND failure IS NULL
             AND ((NOT made AND (?2 IS NULL OR source_snapshot = ?2)) OR (syncing AND ?2 IS NULL))",
        params![container.to_string(), snapshot],
        |row| row.get(0),
    )
}

/// Ask for a copy to be brought to what its source is now.
pub fn sync(
    connection: &Connection,
    container: &Container,
    by: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    let changed = connection.execute(
        "UPDATE containers SET syncing = 1, requested_by = ?2, failure = NULL, status = ?3,
             status_since = ?4, revision = revision + 1, updated_at = ?4
         WHERE id = ?1 AND wants <> 'gone'",
        params![container.id.to_string(), by, Status::Copying.as_str(), now],
    )?;
    if changed == 0 {
        return Ok(());
    }
    let by = Container {
        requested_by: by.to_owned(),
        ..container.clone()
    };
    let (from, to) = (Some(container.status), Status::Copying);
    containers::log(connection, &by, from, to, now, None)
}

/// A sync begins: until it ends, the disk is neither what it was nor what the source's is.
pub fn sync_begins(connection: &Connection, container: Id) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE containers SET same_at = NULL WHERE id = ?1",
        params![container.to_string()],
    )?;
    Ok(())
}

/// Note that a copy is what its source was; it has to be told its own settings again.
pub fn synced(connection: &Connection, container: &Container, now: Millis) -> rusqlite::Result<()> {
    let changed = connection.execute(
        "UPDATE containers SET syncing = 0, same_at = incarnation, version = version + 1
         WHERE id = ?1 AND syncing",
        params![container.id.to_string()],
    )?;
    if changed > 0 {
        let source = container
            .disk
            .source
            .as_ref()
            .map(|source| source.id.to_string());
        let event = json!({ "event": "synced", "source_container_id": source });
        tell(connection, container.id, None, event, now)?;
    }
    Ok(())
}

/// Who asked last for something about a snapshot.
fn asked_by(
    connection: &Connection,
    container: Id,
    name: &str,
) -> rusqlite::Result<Option<String>> {
    Ok(find(connection, container, name)?.map(|snapshot| snapshot.requested_by))
}

/// A line in the status log of the container: its status stays, something was done. Whoever asked
/// for something of the container last had it done, where nobody is named.
fn tell(
    connection: &Connection,
    container: Id,
    by: Option<String>,
    event: Value,
    now: Millis,
) -> rusqlite::Result<()> {
    // A container that was deleted in between has no log any more.
    let Some(mut container) = containers::find(connection, container)? else {
        return Ok(());
    };
    if let Some(by) = by {
        container.requested_by = by;
    }
    let status = container.status;
    containers::log(
        connection,
        &container,
        Some(status),
        status,
        now,
        Some(event),
    )
}
