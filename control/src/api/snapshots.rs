//! Snapshots of containers: what a disk held, kept and brought back.

use kit::{Call, Fault, Operation, Route, Verb};
use routes::Id;
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

use super::containers::{going, no_container, seen, sees};
use super::text::{IdText, Number, SnapshotAlias, given};
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::container::{Status, Wants};
use crate::control::Control;
use crate::store::containers::{self, Owned};
use crate::store::events::{Kind, News};
use crate::store::snapshots::{self, State};
use crate::store::{self, status_logs};
use crate::time::{self, DAY};

/// How long a caller waits for a snapshot to be taken or brought back, or for its end; less than
/// clients wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A snapshot.
#[derive(Serialize, JsonSchema)]
pub struct Snapshot {
    /// `snap-YYYYMMDD-HHMMSS`, in UTC.
    name: String,
    alias: Option<String>,
    created_at: String,
    /// When it was last brought back.
    last_used_at: Option<String>,
    /// When it is removed; never where null.
    expires_at: Option<String>,
    /// Whether it holds what ran; it holds the disk alone.
    stateful: bool,
    /// Bytes that it holds by itself; 0 where they are not counted.
    size: u64,
}

impl Snapshot {
    fn of(snapshot: &snapshots::Snapshot) -> Snapshot {
        Snapshot {
            name: snapshot.name.clone(),
            alias: snapshot.alias.clone(),
            created_at: time::text(snapshot.created_at),
            last_used_at: snapshot.last_used_at.map(time::text),
            expires_at: snapshot.expires_at.map(time::text),
            stateful: false,
            size: snapshot.size.unwrap_or_default(),
        }
    }
}

/// A snapshot and whose it is.
#[derive(Serialize, JsonSchema)]
pub struct OfContainer {
    container_id: String,
    project_id: String,
    snapshot: Snapshot,
}

impl OfContainer {
    fn of(owned: &Owned, snapshot: &snapshots::Snapshot) -> OfContainer {
        OfContainer {
            container_id: owned.container.id.to_string(),
            project_id: owned.project.id.to_string(),
            snapshot: Snapshot::of(snapshot),
        }
    }
}

/// The container is not in a state for it.
pub fn not_now(owned: &Owned, why: &str) -> Fault {
    let id = owned.container.id;
    Fault::conflict(format!("container {id} {why}")).code("INVALID_STATE")
}

/// Whether the disk of the container is there and nobody is about to replace it.
pub fn at_rest(owned: &Owned) -> Result<(), Fault> {
    let container = &owned.container;
    if container.wants == Wants::Gone {
        return Err(going(container.id));
    }
    if !container.made {
        return Err(not_now(owned, &format!("is {}", container.status)));
    }
    // Its machine was removed from outside, or the engine says it is broken.
    if container.status == Status::Failed && container.failure.is_none() {
        return Err(not_now(owned, "is failed; its status logs say why"));
    }
    if container.disk.syncing && container.failure.is_none() {
        return Err(not_now(owned, "is being synced with its source"));
    }
    match &container.disk.restoring {
        Some(name) => Err(not_now(owned, &format!("is being restored to {name}"))),
        None => Ok(()),
    }
}

/// The snapshot of a container by its name or alias, unless it is going.
pub fn found(
    db: &Connection,
    container: Id,
    text: &str,
) -> rusqlite::Result<Result<snapshots::Snapshot, Fault>> {
    let all = snapshots::list(db, container)?;
    let named = all.iter().find(|snapshot| snapshot.name == text);
    let called = || {
        all.iter()
            .find(|snapshot| snapshot.alias.as_deref() == Some(text))
    };
    Ok(named.or_else(called).cloned().ok_or_else(|| {
        Fault::not_found(format!(
            "container {container} has no snapshot `{text}`; list them with `hoody snapshots list -c {container}`"
        ))
        .code("SNAPSHOT_NOT_FOUND")
    }))
}

/// Change something about a container that the caller sees, in one transaction, and have it
/// looked at.
pub async fn change<T: Send + 'static>(
    control: &Control,
    principal: &Principal,
    id: Id,
    change: impl FnOnce(&Connection, &Owned) -> rusqlite::Result<Result<T, Fault>> + Send + 'static,
) -> Result<(Owned, T), Fault> {
    let principal = principal.clone();
    let changed = control
        .store
        .write("change the disk of a container", move |db| {
            let owned = containers::owned(db, id)?;
            let Some(owned) = owned.filter(|owned| sees(&principal, owned)) else {
                return Ok(Err(no_container(id)));
            };
            Ok(change(db, &owned)?.map(|done| (owned, done)))
        })
        .await
        .map_err(broken)??;
    control.nudges.nudge(id);
    Ok(changed)
}

/// Wait until `end` finds one, as long as a caller waits.
async fn wait<T: Send + 'static>(
    control: &Control,
    end: impl Fn(&Connection) -> rusqlite::Result<Option<T>> + Clone + Send + 'static,
) -> Result<Option<T>, Fault> {
    let mut ends = control.disks.subscribe();
    let until = Instant::now() + PATIENCE;
    loop {
        let look = end.clone();
        let seen = control
            .store
            .read("look for the end of a step", move |db| look(db))
            .await
            .map_err(broken)?;
        if seen.is_some() {
            return Ok(seen);
        }
        if !matches!(
            tokio::time::timeout_at(until, ends.changed()).await,
            Ok(Ok(()))
        ) {
            return Ok(None);
        }
    }
}

/// What a step that failed for good is answered with. Its whole reason, which may name places of
/// the host, is in the log.
fn failed(act: &str, container: Id, reason: &str) -> Fault {
    let words = reason.to_ascii_lowercase();
    if ["no space left", "quota exceeded", "enospc"]
        .iter()
        .any(|full| words.contains(full))
    {
        return Fault::new(
            http::StatusCode::INSUFFICIENT_STORAGE,
            format!("{act} of container {container} failed: the disk is full; delete snapshots or files and try again"),
        )
        .code("DISK_FULL");
    }
    if words.contains("the runtime cannot") {
        let message = format!("{act} of container {container} failed: {reason}");
        return Fault::new(http::StatusCode::NOT_IMPLEMENTED, message).code("NOT_SUPPORTED");
    }
    Fault::internal(format!(
        "{act} of container {container} failed; `hoody containers status-logs {container}` says why"
    ))
    .code("SNAPSHOT_FAILED")
}

/// Keep what the disk of a container holds now; it may run.
///
/// The answer comes when the snapshot is taken, or after 20 seconds with `size` 0 while that is
/// still under way.
#[derive(Deserialize, JsonSchema)]
pub struct Create {
    id: IdText,
    /// Another name for it, that no other snapshot of the container has.
    alias: Option<SnapshotAlias>,
    /// Days after which it is removed; it stays where none are given.
    expiry: Option<Number<1, 3650>>,
}

impl Operation for Create {
    const ROUTE: Route = Route::post("/api/v1/containers/{id}/snapshots")
        .named("createContainerSnapshot")
        .cli("snapshots create")
        .says("Snapshot created");
    type Service = Control;
    type Reply = OfContainer;

    async fn run(self, control: Control, call: Call) -> Result<OfContainer, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        principal.may(Permission::Snapshots)?;
        let (id, now) = (self.id.0, control.now());
        let new = snapshots::New {
            alias: self.alias.map(SnapshotAlias::into_string),
            expires_at: self.expiry.map(|days| now + i64::from(days.0) * DAY),
            by: principal.label(),
            at: now,
        };
        let most = control.config.limits.snapshots_per_container;
        let (owned, asked) = change(&control, &principal, id, move |db, owned| {
            if let Err(fault) = at_rest(owned) {
                return Ok(Err(fault));
            }
            if owned.container.failure.is_some() {
                return Ok(Err(not_now(owned, "is failed; start or restore it first")));
            }
            if owned.container.disk.snapshots >= most {
                return Ok(Err(Fault::conflict(format!(
                    "a container may have {most} snapshots, and this one has them; delete some"
                ))
                .code("LIMIT_REACHED")));
            }
            if let Some(alias) = &new.alias
                && snapshots::has_alias(db, id, "", alias)?
            {
                return Ok(Err(taken(alias)));
            }
            snapshots::take(db, id, &new).map(Ok)
        })
        .await?;
        let name = asked.name.clone();
        let end = wait(&control, move |db| match snapshots::find(db, id, &name)? {
            Some(snapshot) if snapshot.state == State::Taking => Ok(None),
            Some(snapshot) if snapshot.state == State::Kept => Ok(Some(Ok(snapshot))),
            _ => Ok(Some(Err(status_logs::reason(
                db,
                id,
                "snapshot_failed",
                &name,
            )?))),
        })
        .await?;
        match end {
            None => Ok(OfContainer::of(&owned, &asked)),
            Some(Ok(snapshot)) => Ok(OfContainer::of(&owned, &snapshot)),
            Some(Err(Some(reason))) => Err(failed("snapshot", id, &reason)),
            Some(Err(None)) => Err(Fault::conflict(format!(
                "snapshot `{}` was deleted before it was taken",
                asked.name
            ))
            .code("SNAPSHOT_DELETED")),
        }
    }
}

fn taken(alias: &str) -> Fault {
    Fault::conflict(format!(
        "the container has a snapshot `{alias}` already; choose another alias"
    ))
    .code("ALIAS_TAKEN")
}

/// The snapshots of a container, newest first.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    id: IdText,
}

#[derive(Serialize, JsonSchema)]
pub struct Snapshots {
    container_id: String,
    project_id: String,
    snapshot_count: usize,
    max_snapshots: Option<u32>,
    snapshots: Vec<Snapshot>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/snapshots")
        .named("listContainerSnapshots")
        .cli("snapshots list");
    type Service = Control;
    type Reply = Snapshots;

    async fn run(self, control: Control, call: Call) -> Result<Snapshots, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        let owned = seen(&control, &principal, self.id.0).await?;
        let id = owned.container.id;
        let all = control
            .store
            .read("list snapshots", move |db| snapshots::list(db, id))
            .await
            .map_err(broken)?;
        Ok(Snapshots {
            container_id: id.to_string(),
            project_id: owned.project.id.to_string(),
            snapshot_count: all.len(),
            max_snapshots: Some(control.config.limits.snapshots_per_container),
            snapshots: all.iter().map(Snapshot::of).collect(),
        })
    }
}

/// Delete a snapshot.
#[derive(Deserialize, JsonSchema)]
pub struct Delete {
    id: IdText,
    /// Its name or alias.
    name: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Deleted {
    container_id: String,
    project_id: String,
    snapshot_name: String,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/containers/{id}/snapshots/{name}")
        .named("deleteContainerSnapshot")
        .cli("snapshots delete")
        .says("Snapshot deleted");
    type Service = Control;
    type Reply = Deleted;

    async fn run(self, control: Control, call: Call) -> Result<Deleted, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        principal.may(Permission::Snapshots)?;
        let by = principal.label();
        let (owned, name) = change(&control, &principal, self.id.0, move |db, owned| {
            let container = &owned.container;
            let snapshot = match found(db, container.id, &self.name)? {
                Ok(snapshot) => snapshot,
                Err(fault) => return Ok(Err(fault)),
            };
            if container.wants == Wants::Gone {
                return Ok(Err(going(container.id)));
            }
            if container.disk.restoring.as_ref() == Some(&snapshot.name) {
                return Ok(Err(not_now(owned, "is being restored to that snapshot")));
            }
            if snapshots::readers(db, container.id, Some(&snapshot.name))? > 0 {
                return Ok(Err(not_now(owned, "is being copied from that snapshot")));
            }
            snapshots::discard(db, container.id, &snapshot.name, &by)?;
            Ok(Ok(snapshot.name))
        })
        .await?;
        Ok(Deleted {
            container_id: owned.container.id.to_string(),
            project_id: owned.project.id.to_string(),
            snapshot_name: name,
        })
    }
}

/// Bring back what the disk of a container held when a snapshot was taken.
///
/// A container that runs is turned off at once, since what it would write is not kept, and on
/// again. Its address, identity, settings, environment and limits stay those of today. The answer
/// comes when the disk is back, or after 20 seconds while that is still under way.
#[derive(Deserialize, JsonSchema)]
pub struct Restore {
    id: IdText,
    /// Its name or alias.
    name: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Restored {
    success: bool,
    message: String,
    snapshot: Option<Snapshot>,
}

impl Operation for Restore {
    const ROUTE: Route = Route::put("/api/v1/containers/{id}/snapshots/{name}")
        .also(Verb::Patch)
        .named("restoreContainerSnapshot")
        .cli("snapshots restore")
        .says("Snapshot restored");
    type Service = Control;
    type Reply = Restored;

    async fn run(self, control: Control, call: Call) -> Result<Restored, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        principal.may(Permission::Snapshots)?;
        let (id, by, now) = (self.id.0, principal.label(), control.now());
        let (owned, asked) = change(&control, &principal, id, move |db, owned| {
            if let Err(fault) = at_rest(owned) {
                return Ok(Err(fault));
            }
            let snapshot = match found(db, id, &self.name)? {
                Ok(snapshot) => snapshot,
                Err(fault) => return Ok(Err(fault)),
            };
            if snapshot.state == State::Taking {
                return Ok(Err(not_now(owned, "has not taken that snapshot yet")));
            }
            if snapshots::readers(db, id, None)? > 0 {
                return Ok(Err(not_now(owned, "is being copied")));
            }
            snapshots::restore(db, &owned.container, &snapshot.name, &by, now)?;
            Ok(Ok(snapshot))
        })
        .await?;
        let name = asked.name.clone();
        let end = wait(&control, move |db| {
            let Some(container) = containers::find(db, id)? else {
                return Ok(Some(Err(None)));
            };
            if container.disk.restoring.as_ref() == Some(&name) && container.wants != Wants::Gone {
                return Ok(None);
            }
            // since it was asked for
            let reason = status_logs::reason_since(db, id, "restore_failed", &name, now)?;
            Ok(Some(match reason {
                None if container.wants != Wants::Gone => Ok(snapshots::find(db, id, &name)?),
                reason => Err(reason),
            }))
        })
        .await?;
        let name = &asked.name;
        let on = owned.container.wants == Wants::On;
        match end {
            None => Ok(Restored {
                success: true,
                message: format!("restore to {name} is under way"),
                snapshot: Some(Snapshot::of(&asked)),
            }),
            Some(Ok(snapshot)) => Ok(Restored {
                success: true,
                message: format!(
                    "container `{}` is what it was at {name}{}",
                    owned.container.name,
                    if on { " and is being started" } else { "" }
                ),
                snapshot: snapshot.as_ref().map(Snapshot::of),
            }),
            Some(Err(Some(reason))) => Err(failed("restore", id, &reason)),
            Some(Err(None)) => Err(going(id)),
        }
    }
}

/// Give a snapshot another alias; null takes it away.
#[derive(Deserialize, JsonSchema)]
pub struct SetAlias {
    id: IdText,
    /// Its name or present alias.
    name: String,
    #[serde(deserialize_with = "given")]
    alias: Option<Option<SnapshotAlias>>,
}

impl Operation for SetAlias {
    const ROUTE: Route = Route::put("/api/v1/containers/{id}/snapshots/{name}/alias")
        .also(Verb::Patch)
        .named("updateSnapshotAlias")
        .cli("snapshots update-alias")
        .says("Snapshot updated");
    type Service = Control;
    type Reply = OfContainer;

    async fn run(self, control: Control, call: Call) -> Result<OfContainer, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersUpdate)?;
        principal.may(Permission::Snapshots)?;
        let alias = self.alias.flatten().map(SnapshotAlias::into_string);
        let (by, now) = (principal.label(), control.now());
        let (owned, snapshot) = change(&control, &principal, self.id.0, move |db, owned| {
            let id = owned.container.id;
            if owned.container.wants == Wants::Gone {
                return Ok(Err(going(id)));
            }
            let snapshot = match found(db, id, &self.name)? {
                Ok(snapshot) => snapshot,
                Err(fault) => return Ok(Err(fault)),
            };
            if let Some(alias) = &alias
                && snapshots::has_alias(db, id, &snapshot.name, alias)?
            {
                return Ok(Err(taken(alias)));
            }
            snapshots::set_alias(db, id, &snapshot.name, alias.as_deref())?;
            let news = News {
                kind: Kind::ContainerSnapshotRenamed,
                by: &by,
                at: now,
                facts: json!({ "snapshot": snapshot.name, "alias": alias }),
            };
            store::events::of_container(db, id, None, &news)?;
            Ok(Ok(store::snapshots::Snapshot { alias, ..snapshot }))
        })
        .await?;
        Ok(OfContainer::of(&owned, &snapshot))
    }
}
