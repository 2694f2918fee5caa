//! Containers: what is wanted of each, and what it was last seen to be.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

use routes::Id;

use super::events::{self, Kind, News};
use super::projects::Project;
use super::snapshots::{self, COLUMNS, Disk};
use super::status_logs::{self, StatusLog};
use super::{Realms, Slice};
use crate::container::{Claim, Desired, Status, Wants};
use crate::runtime::Limits;
use crate::time::Millis;
use crate::words;

#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    pub id: Id,
    pub project: Id,
    pub name: String,
    /// `#RRGGBB`.
    pub color: String,
    /// The image it was asked to be made from; the node's default where none was named.
    pub image: Option<String>,
    pub kit: bool,
    pub autostart: bool,
    pub ramdisk: bool,
    pub kvm: bool,
    /// Its own, below what the node gives to all.
    pub limits: Limits,
    pub environment: BTreeMap<String, String>,
    pub ssh_public_key: Option<String>,
    pub comment: Option<String>,
    pub realms: Vec<Id>,

    pub wants: Wants,
    pub force: bool,
    pub restart_from: Option<u64>,
    /// Counts changes of what the machine is made of; `applied` is the last it was told.
    pub version: i64,
    pub applied: i64,
    /// Counts changes of this side by the user: what was seen under an older one is stale.
    pub revision: i64,
    /// Who asked last: `user:admin`.
    pub requested_by: String,
    /// Why nothing more is tried.
    pub failure: Option<String>,

    /// Its machine was kept ready before it was asked for.
    pub prespawned: bool,
    /// How far it has come in taking over that machine; none when it has.
    pub claim: Option<Claim>,
    pub made: bool,
    pub status: Status,
    pub status_since: Millis,
    pub incarnation: u64,
    pub started_at: Option<Millis>,
    pub created_at: Millis,
    pub updated_at: Millis,
    pub disk: Disk,
}

/// A container with the project it is in.
#[derive(Debug, Clone)]
pub struct Owned {
    pub container: Container,
    pub project: Project,
}

/// What the reconciler has to say of a container.
#[derive(Debug, Clone)]
pub struct Sighting {
    pub status: Status,
    pub incarnation: u64,
    pub started_at: Option<Millis>,
    pub triggered_by: String,
    pub metadata: Option<Value>,
}

impl Container {
    pub fn desired(&self) -> Desired {
        Desired {
            wants: self.wants,
            force: self.force,
            restart_from: self.restart_from,
            made: self.made,
            stale: self.applied < self.version,
            given_up: self.failure.is_some(),
            copied: self.disk.source.is_some(),
            claim: self.claim,
            take: self.disk.taking.is_some(),
            drop: self.disk.dropping.is_some(),
            restore: self.disk.restoring.is_some(),
            sync: self.disk.syncing,
        }
    }
}

fn word<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|error| super::unreadable(column, error))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Container> {
    Ok(Container {
        id: super::id(row, "id")?,
        project: super::id(row, "project_id")?,
        name: row.get("name")?,
        color: row.get("color")?,
        image: row.get("image")?,
        kit: row.get("kit")?,
        autostart: row.get("autostart")?,
        ramdisk: row.get("ramdisk")?,
        kvm: row.get("kvm")?,
        limits: super::json(row, "limits")?,
        environment: super::json(row, "environment")?,
        ssh_public_key: row.get("ssh_public_key")?,
        comment: row.get("comment")?,
        realms: super::json(row, "realm_ids")?,
        wants: word(row, "wants")?,
        force: row.get("force")?,
        restart_from: row
            .get::<_, Option<i64>>("restart_from")?
            .map(i64::cast_unsigned),
        version: row.get("version")?,
        applied: row.get("applied")?,
        revision: row.get("revision")?,
        requested_by: row.get("requested_by")?,
        failure: row.get("failure")?,
        prespawned: row.get("prespawned")?,
        claim: row
            .get::<_, Option<String>>("claim")?
            .map(|text| text.parse())
            .transpose()
            .map_err(|error| super::unreadable("claim", error))?,
        made: row.get("made")?,
        status: word(row, "status")?,
        status_since: row.get("status_since")?,
        incarnation: row.get::<_, i64>("incarnation")?.cast_unsigned(),
        started_at: row.get("started_at")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
        disk: snapshots::disk(row)?,
    })
}

/// What stands in the way of writing a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash {
    /// Another container of the project has the name.
    Name,
    /// Another container has the SSH key.
    Key,
}

/// Whether another container that is not going has this one's name or key.
pub fn clash(connection: &Connection, container: &Container) -> rusqlite::Result<Option<Clash>> {
    let taken = |sql: &str, value: &str| {
        connection.query_row(
            sql,
            params![
                container.id.to_string(),
                value,
                container.project.to_string()
            ],
            |row| row.get::<_, bool>(0),
        )
    };
    if taken(
        "SELECT EXISTS (SELECT 1 FROM containers
             WHERE id <> ?1 AND name = ?2 AND project_id = ?3 AND wants <> 'gone')",
        &container.name,
    )? {
        return Ok(Some(Clash::Name));
    }
    if let Some(key) = &container.ssh_public_key
        && taken(
            "SELECT EXISTS (SELECT 1 FROM containers
                 WHERE id <> ?1 AND ssh_public_key = ?2 AND ?3 IS NOT NULL AND wants <> 'gone')",
            key,
        )?
    {
        return Ok(Some(Clash::Key));
    }
    Ok(None)
}

/// Write a new container; `metadata` goes into the first of its status logs.
pub fn insert(
    connection: &Connection,
    container: &Container,
    metadata: Option<Value>,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO containers (id, project_id, name, color, image, kit, autostart, environment,
             ssh_public_key, comment, realm_ids, wants, force, restart_from, version, applied, revision,
             requested_by, failure, made, status, status_since, incarnation, started_at, created_at, updated_at,
             ramdisk, kvm, prespawned, claim, limits)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
             ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31)",
        params![
            container.id.to_string(),
            container.project.to_string(),
            container.name,
            container.color,
            container.image,
            container.kit,
            container.autostart,
            super::to_json(&container.environment),
            container.ssh_public_key,
            container.comment,
            super::to_json(&container.realms),
            container.wants.as_str(),
            container.force,
            container.restart_from.map(u64::cast_signed),
            container.version,
            container.applied,
            container.revision,
            container.requested_by,
            container.failure,
            container.made,
            container.status.as_str(),
            container.status_since,
            container.incarnation.cast_signed(),
            container.started_at,
            container.created_at,
            container.updated_at,
            container.ramdisk,
            container.kvm,
            container.prespawned,
            container.claim.map(Claim::as_str),
            super::to_json(&container.limits)
        ],
    )?;
    log(
        connection,
        container,
        None,
        container.status,
        container.created_at,
        metadata,
    )
}

pub(super) fn log(
    connection: &Connection,
    container: &Container,
    from: Option<Status>,
    to: Status,
    at: Millis,
    metadata: Option<Value>,
) -> rusqlite::Result<()> {
    let mut facts = json!({ "status": to.as_str(), "from_status": from.map(Status::as_str) });
    if let Some(Value::Object(more)) = &metadata {
        for (key, value) in more {
            facts[key] = value.clone();
        }
    }
    let done = metadata.as_ref().and_then(|more| more["event"].as_str());
    let kind = match done {
        Some("snapshot_created") => Kind::ContainerSnapshotCreated,
        Some("snapshot_deleted") => Kind::ContainerSnapshotDeleted,
        Some("snapshot_restored") => Kind::ContainerSnapshotRestored,
        Some(_) => Kind::ContainerResourceUpdated,
        None => told_as(to),
    };
    status_logs::insert(
        connection,
        &StatusLog {
            id: words::id(),
            container: container.id,
            from,
            to,
            at,
            duration_ms: from.map(|_| at - container.status_since),
            triggered_by: container.requested_by.clone(),
            metadata,
        },
    )?;
    let news = News {
        kind,
        by: &container.requested_by,
        at,
        facts,
    };
    events::of_container(connection, container.id, None, &news)
}

/// The event that tells of a status. Clients have no word for a pause: it is a change of what the
/// container takes.
fn told_as(status: Status) -> Kind {
    match status {
        Status::Creating | Status::Claiming | Status::Copying => Kind::ContainerCreating,
        Status::Running => Kind::ContainerRunning,
        Status::Paused => Kind::ContainerResourceUpdated,
        Status::Stopped => Kind::ContainerStopped,
        Status::Failed => Kind::ContainerFailed,
        Status::Deleting => Kind::ContainerDeleting,
    }
}

pub fn find(connection: &Connection, id: Id) -> rusqlite::Result<Option<Container>> {
    connection
        .query_row(
            &format!("SELECT {COLUMNS} FROM containers WHERE id = ?1"),
            params![id.to_string()],
            read,
        )
        .optional()
}

/// A container and its project, if that is not deleted.
pub fn owned(connection: &Connection, id: Id) -> rusqlite::Result<Option<Owned>> {
    let Some(container) = find(connection, id)? else {
        return Ok(None);
    };
    let project = super::projects::find(connection, container.project)?;
    Ok(project.map(|project| Owned { container, project }))
}

/// Every container of the node.
pub fn all(connection: &Connection) -> rusqlite::Result<Vec<Container>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM containers"))?;
    statement.query_map([], read)?.collect()
}

/// How many there are that are not going.
pub fn count(connection: &Connection, project: Option<Id>) -> rusqlite::Result<u32> {
    connection.query_row(
        "SELECT count(*) FROM containers WHERE wants <> 'gone' AND (?1 IS NULL OR project_id = ?1)",
        params![project.map(|id| id.to_string())],
        |row| row.get(0),
    )
}

/// How many are in each status.
pub fn census(connection: &Connection) -> rusqlite::Result<Vec<(Status, u64)>> {
    let mut statement = connection
        .prepare_cached("SELECT status, count(*) AS n FROM containers GROUP BY status")?;
    statement
        .query_map([], |row| {
            Ok((
                word(row, "status")?,
                row.get::<_, i64>("n")?.cast_unsigned(),
            ))
        })?
        .collect()
}

/// Which containers a list is of.
#[derive(Debug, Clone)]
pub struct Filter {
    pub user: Id,
    pub project: Option<Id>,
    pub realms: Realms,
    pub deleting: bool,
}

/// A page of containers with their projects, and how many there are.
pub fn list(
    connection: &Connection,
    filter: &Filter,
    slice: Slice,
) -> rusqlite::Result<(Vec<Owned>, u64)> {
    const SEEN: &str = "FROM containers JOIN projects ON projects.id = containers.project_id
        WHERE projects.user_id = ?1 AND NOT projects.deleted
        AND (?2 IS NULL OR containers.project_id = ?2)
        AND (?3 IS NULL OR EXISTS (SELECT 1 FROM json_each(containers.realm_ids) mine
            JOIN json_each(?3) seen ON mine.value = seen.value))
        AND (?4 OR containers.wants <> 'gone')";
    let given = params![
        filter.user.to_string(),
        filter.project.map(|id| id.to_string()),
        filter.realms.parameter(),
        filter.deleting
    ];
    let total: i64 =
        connection.query_row(&format!("SELECT count(*) {SEEN}"), given, |row| row.get(0))?;
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} {SEEN}{}",
        slice.sql("containers")
    ))?;
    let containers: Vec<Container> = statement
        .query_map(given, read)?
        .collect::<Result<_, _>>()?;
    let mut projects: BTreeMap<Id, Project> = BTreeMap::new();
    let mut page = Vec::with_capacity(containers.len());
    for container in containers {
        let project = match projects.get(&container.project) {
            Some(project) => project.clone(),
            None => {
                let Some(project) = super::projects::find(connection, container.project)? else {
                    continue;
                };
                projects.insert(project.id, project.clone());
                project
            }
        };
        page.push(Owned { container, project });
    }
    Ok((page, total.cast_unsigned()))
}

/// Write what the user may change; `machine` where the machine has to be told.
pub fn update(
    connection: &Connection,
    container: &Container,
    machine: bool,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE containers SET name = ?2, color = ?3, autostart = ?4, environment = ?5, ssh_public_key = ?6,
             comment = ?7, realm_ids = ?8, version = version + ?9, revision = revision + 1, updated_at = ?10,
             kvm = ?11, limits = ?12
         WHERE id = ?1 AND wants <> 'gone'",
        params![
            container.id.to_string(),
            container.name,
            container.color,
            container.autostart,
            super::to_json(&container.environment),
            container.ssh_public_key,
            container.comment,
            super::to_json(&container.realms),
            machine,
            container.updated_at,
            container.kvm,
            super::to_json(&container.limits)
        ],
    )?;
    Ok(())
}

/// Record what a user changed of a container, an event for each thing that clients have a word for.
/// Values of variables are nobody's business here: their names are told.
pub fn record_change(
    connection: &Connection,
    before: &Container,
    after: &Container,
    by: &str,
) -> rusqlite::Result<()> {
    let mut told: Vec<(Kind, Value)> = Vec::new();
    if before.name != after.name {
        let facts = json!({ "old_name": before.name, "name": after.name });
        told.push((Kind::ContainerRenamed, facts));
    }
    match (before.autostart, after.autostart) {
        (false, true) => told.push((Kind::ContainerAutostartEnabled, json!({}))),
        (true, false) => told.push((Kind::ContainerAutostartDisabled, json!({}))),
        _ => {}
    }
    match (&before.ssh_public_key, &after.ssh_public_key) {
        (before, Some(key)) if before.as_ref() != Some(key) => {
            told.push((Kind::ContainerSshKeyAdded, json!({})));
        }
        (Some(_), None) => told.push((Kind::ContainerSshKeyRemoved, json!({}))),
        _ => {}
    }
    let mut fields = Vec::new();
    for (field, changed) in [
        ("color", before.color != after.color),
        ("kvm", before.kvm != after.kvm),
        ("limits", before.limits != after.limits),
        ("comment", before.comment != after.comment),
        ("realm_ids", before.realms != after.realms),
        ("environment_vars", before.environment != after.environment),
    ] {
        if changed {
            fields.push(field);
        }
    }
    if !fields.is_empty() {
        let variables: Vec<&String> = before
            .environment
            .keys()
            .chain(after.environment.keys())
            .filter(|key| before.environment.get(*key) != after.environment.get(*key))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let facts = json!({ "fields": fields, "variables": variables });
        told.push((Kind::ContainerResourceUpdated, facts));
    }
    for (kind, facts) in told {
        let news = News {
            kind,
            by,
            at: after.updated_at,
            facts,
        };
        events::of_container(connection, after.id, None, &news)?;
    }
    Ok(())
}

/// What a user asks of a container.
#[derive(Debug, Clone)]
pub struct Request {
    pub wants: Wants,
    pub force: bool,
    pub restart: bool,
    pub by: String,
    pub at: Millis,
}

/// Take a request. An earlier failure is forgotten: the user wants it tried again. What is going
/// goes on going. Returns the aliases that ended with it: a container that goes has none, and no
/// shares.
pub fn ask(
    connection: &Connection,
    container: &Container,
    request: &Request,
) -> rusqlite::Result<Vec<String>> {
    let status = match (request.wants, container.failure.is_some()) {
        (Wants::Gone, _) => Status::Deleting,
        (_, true) if container.made => Status::Stopped,
        (_, true) if container.disk.source.is_some() => Status::Copying,
        (_, true) => Status::Creating,
        _ => container.status,
    };
    let restart_from = request
        .restart
        .then_some(container.incarnation.cast_signed());
    let changed = connection.execute(
        "UPDATE containers SET wants = ?2, force = ?3, restart_from = ?4, requested_by = ?5, failure = NULL,
             version = version + (syncing AND failure IS NOT NULL), syncing = syncing AND failure IS NULL,
             revision = revision + 1, status = ?6, status_since = iif(status = ?6, status_since, ?7),
             updated_at = ?7
         WHERE id = ?1 AND wants <> 'gone'",
        params![
            container.id.to_string(),
            request.wants.as_str(),
            request.force,
            restart_from,
            request.by,
            status.as_str(),
            request.at
        ],
    )?;
    if changed > 0 && status != container.status {
        let container = Container {
            requested_by: request.by.clone(),
            ..container.clone()
        };
        log(
            connection,
            &container,
            Some(container.status),
            status,
            request.at,
            None,
        )?;
    }
    if request.wants != Wants::Gone {
        return Ok(Vec::new());
    }
    super::shares::remove_of(connection, container.id, &request.by, request.at)?;
    super::aliases::remove_of(connection, container.id)
}

/// What all machines are made of changed: each is told.
pub fn outdate(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE containers SET version = version + 1 WHERE made AND wants <> 'gone'",
        [],
    )
}

/// Note that the machine was made, with the settings of `version`. One that was to be claimed was
/// made in place of it.
pub fn made(connection: &Connection, id: Id, version: i64) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE containers SET made = 1, applied = max(applied, ?2), claim = NULL,
             prespawned = prespawned AND claim IS NULL
         WHERE id = ?1",
        params![id.to_string(), version],
    )?;
    Ok(())
}

/// Note that a machine that was kept ready is the container, with the settings of `version`.
pub fn claimed(connection: &Connection, id: Id, version: i64) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE containers SET made = 1, applied = max(applied, ?2), claim = 'taken' WHERE id = ?1",
        params![id.to_string(), version],
    )?;
    Ok(())
}

/// Note that the engine knows what a claim did.
pub fn adopted(connection: &Connection, id: Id) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE containers SET claim = NULL WHERE id = ?1",
        params![id.to_string()],
    )?;
    Ok(())
}

/// A machine that was kept ready could not be made the container: one is to be made.
pub fn spoilt(
    connection: &Connection,
    container: &Container,
    reason: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    let changed = connection.execute(
        "UPDATE containers SET claim = 'spoilt', status = 'creating', status_since = ?2, updated_at = ?2
         WHERE id = ?1 AND claim = 'open' AND wants <> 'gone'",
        params![container.id.to_string(), now],
    )?;
    if changed > 0 {
        log(
            connection,
            container,
            Some(container.status),
            Status::Creating,
            now,
            Some(missed(reason)),
        )?;
    }
    Ok(())
}

/// What the status logs say of a container that was not given a machine that was kept ready.
pub fn missed(reason: &str) -> Value {
    json!({ "prespawn": "missed", "reason": reason })
}

/// Note that the machine knows the settings of `version`.
pub fn applied(connection: &Connection, id: Id, version: i64) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE containers SET applied = max(applied, ?2) WHERE id = ?1",
        params![id.to_string(), version],
    )?;
    Ok(())
}

/// Stop trying: it fails the same way each time.
pub fn give_up(
    connection: &Connection,
    container: &Container,
    reason: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    let changed = connection.execute(
        "UPDATE containers SET failure = ?3, status = 'failed', status_since = ?4, updated_at = ?4
         WHERE id = ?1 AND revision = ?2",
        params![container.id.to_string(), container.revision, reason, now],
    )?;
    if changed > 0 {
        let metadata = json!({ "reason": reason });
        log(
            connection,
            container,
            Some(container.status),
            Status::Failed,
            now,
            Some(metadata),
        )?;
        super::notifications::gave_up(connection, container, reason, now)?;
    }
    Ok(())
}

/// Want something else, because what the user asked for cannot be had. Nothing where the user has
/// asked for something since.
pub fn settle_for(
    connection: &Connection,
    container: &Container,
    wants: Wants,
    now: Millis,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE containers SET wants = ?3, force = 0, restart_from = NULL, updated_at = ?4
         WHERE id = ?1 AND revision = ?2",
        params![
            container.id.to_string(),
            container.revision,
            wants.as_str(),
            now
        ],
    )?;
    Ok(())
}

/// Write what was seen of a container; nothing where the user has asked for something since.
/// Returns whether it was written.
pub fn sighted(
    connection: &Connection,
    container: &Container,
    sighting: &Sighting,
    now: Millis,
) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE containers SET status = ?3, status_since = iif(status = ?3, status_since, ?4),
             incarnation = ?5, started_at = ?6
         WHERE id = ?1 AND revision = ?2",
        params![
            container.id.to_string(),
            container.revision,
            sighting.status.as_str(),
            now,
            sighting.incarnation.cast_signed(),
            sighting.started_at
        ],
    )?;
    if changed > 0 && sighting.status != container.status {
        let by = Container {
            requested_by: sighting.triggered_by.clone(),
            ..container.clone()
        };
        log(
            connection,
            &by,
            Some(container.status),
            sighting.status,
            now,
            sighting.metadata.clone(),
        )?;
    }
    Ok(changed > 0)
}

/// Forget a container of which nothing is left, and its project with the last of its containers.
pub fn purge(connection: &Connection, id: Id, now: Millis) -> rusqlite::Result<()> {
    super::tombstones::insert(connection, id, now)?;
    if let Some(container) = find(connection, id)?.filter(|row| row.wants == Wants::Gone) {
        let news = News {
            kind: Kind::ContainerDeleted,
            by: &container.requested_by,
            at: now,
            facts: json!({ "status": "deleted" }),
        };
        events::of_container(connection, id, None, &news)?;
    }
    connection.execute(
        "DELETE FROM containers WHERE id = ?1 AND wants = 'gone'",
        params![id.to_string()],
    )?;
    super::projects::bury(connection)
}

/// The host was booted: what does not start with it stays off, and what was frozen in memory is off.
pub fn booted(connection: &Connection, now: Millis) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE containers SET wants = 'off', force = 0, restart_from = NULL, requested_by = 'system',
             revision = revision + 1, updated_at = ?1
         WHERE made AND (wants = 'frozen' OR (wants = 'on' AND NOT autostart))",
        params![now],
    )
}

/// Ids of the containers of a project that are not going yet, with their names.
pub fn of_project(connection: &Connection, project: Id) -> rusqlite::Result<Vec<Container>> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM containers WHERE project_id = ?1 AND wants <> 'gone' ORDER BY created_at, id"))?;
    statement
        .query_map(params![project.to_string()], read)?
        .collect()
}
