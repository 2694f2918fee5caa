//! Storage shares: directories that one container offers to others.
//!
//! The source says what is shared, with whom and how; whoever it is for says whether they want it.
//! Both sides are of one account: a caller names only what they see.

use kit::{Call, Fault, Operation, Route};
use routes::Id;
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::containers::{going, invalid, no_container, sees};
use super::network::changeable;
use super::projects::no_project;
use super::text::{IdText, ShareDescription, ShareName, SourcePath, given};
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::container::Wants;
use crate::control::Control;
use crate::runtime::{NoDirectory, SHARES};
use crate::store::events::Kind;
use crate::store::shares::{self, Target, Told};
use crate::store::{containers, projects};
use crate::time::{self, Millis, SECOND};
use crate::words;

/// What is not on a container's own disk, whatever its image: made by its kernel and its system at
/// each start, or shared with it by the server or by another container.
const NOT_ITS_OWN: [&str; 11] = [
    "/boot",
    "/dev",
    "/hoody/run",
    SHARES,
    "/opt/hoody",
    "/proc",
    "/ramdisk",
    "/run",
    "/sys",
    "/tmp",
    "/var/run",
];
/// The longest name of a file (`NAME_MAX`).
const NAME: usize = 255;
/// The end of the year 9999, in seconds.
const LATEST: f64 = 253_402_300_799.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Readonly,
    Readwrite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum TargetType {
    Container,
    Project,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// All that it is for and that want it see it, or will from their start on.
    Active,
    /// Some do not; the message says who and why. It is tried again.
    Failed,
}

/// A directory that a container offers.
#[derive(Serialize, JsonSchema)]
pub struct Share {
    id: String,
    source_container_id: String,
    /// The directory, on the source's own disk.
    source_path: String,
    target_container_id: Option<String>,
    target_project_id: Option<String>,
    target_type: TargetType,
    mode: Mode,
    /// Its name below `/hoody/shares`; the id of the share where null.
    alias: Option<String>,
    label: Option<String>,
    description: Option<String>,
    enabled: bool,
    status: Status,
    status_message: Option<String>,
    /// Unix time in seconds; never where null.
    expires_at: Option<i64>,
    /// Whether its end was announced.
    expiry_notified: bool,
    /// The account that made it.
    created_by: String,
    /// The realms of the source.
    realm_ids: Vec<String>,
    created_at: String,
    updated_at: String,
}

impl Share {
    fn of(control: &Control, share: &shares::Share, realms: &[Id]) -> Share {
        // What could not be brought to the runtime as a whole is true of each.
        let failure = share.failure.clone().or_else(|| {
            let failure = control.shares.last().failure.clone()?;
            Some(format!("the server could not see to it: {failure}"))
        });
        let failure = failure.filter(|_| share.enabled && !share.is_over(control.now()));
        let (container, project) = match share.target {
            Target::Container(id) => (Some(id.to_string()), None),
            Target::Project(id) => (None, Some(id.to_string())),
        };
        Share {
            id: share.id.to_string(),
            source_container_id: share.source.to_string(),
            source_path: share.path.clone(),
            target_type: match share.target {
                Target::Container(_) => TargetType::Container,
                Target::Project(_) => TargetType::Project,
            },
            target_container_id: container,
            target_project_id: project,
            mode: match share.writable {
                true => Mode::Readwrite,
                false => Mode::Readonly,
            },
            alias: share.alias.clone(),
            label: share.label.clone(),
            description: share.description.clone(),
            enabled: share.enabled,
            status: match failure {
                Some(_) => Status::Failed,
                None => Status::Active,
            },
            status_message: failure,
            expires_at: share.expires_at.map(|at| at / SECOND),
            expiry_notified: share.told != Told::Nothing,
            created_by: share.created_by.to_string(),
            realm_ids: realms.iter().map(Id::to_string).collect(),
            created_at: time::text(share.created_at),
            updated_at: time::text(share.updated_at),
        }
    }
}

/// What one container said of a share that is for it.
#[derive(Serialize, JsonSchema)]
struct Override {
    id: String,
    share_id: String,
    container_id: String,
    /// Whether it sees it.
    mount: bool,
    created_at: String,
    updated_at: String,
}

impl Override {
    fn of(said: &shares::Override) -> Override {
        Override {
            id: said.id.to_string(),
            share_id: said.share.to_string(),
            container_id: said.container.to_string(),
            mount: said.mount,
            created_at: time::text(said.created_at),
            updated_at: time::text(said.updated_at),
        }
    }
}

fn no_share(id: Id) -> Fault {
    Fault::not_found(format!(
        "no share {id}; list them with `hoody storage list-all`"
    ))
    .code("NOT_FOUND")
}

/// Refused where the runtime cannot do it.
fn supported(control: &Control) -> Result<(), Fault> {
    match control.runtime.shares_directories() {
        true => Ok(()),
        false => Err(Fault::new(
            http::StatusCode::NOT_IMPLEMENTED,
            format!(
                "the runtime `{}` cannot share directories between containers; `incus` can",
                control.runtime.name()
            ),
        )
        .code("RUNTIME_UNSUPPORTED")),
    }
}

/// A path without detours, of what is on the container's own disk. Whether it leads over a link
/// shows when it is opened.
fn own_path(text: &str) -> Result<String, Fault> {
    let wrong = |message: String| Err(invalid("source_path", message));
    let mut path = String::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => return wrong("must not contain `..`".to_owned()),
            name if name.len() > NAME => {
                return wrong(format!("has a part of more than {NAME} bytes"));
            }
            name => {
                path.push('/');
                path.push_str(name);
            }
        }
    }
    let within = |root: &&&str| {
        path.strip_prefix(**root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if let Some(root) = NOT_ITS_OWN.iter().find(within) {
        return wrong(format!(
            "`{root}` is not on the disk of the container; share a directory that is, such as /home/user/data"
        ));
    }
    if path.is_empty() {
        path.push('/');
    }
    Ok(path)
}

/// Seconds of Unix time.
fn ends(seconds: f64, now: Millis) -> Result<Millis, Fault> {
    if !(0.0..=LATEST).contains(&seconds) {
        return Err(invalid("expires_at", "must be a Unix time in seconds"));
    }
    let at = (seconds * SECOND as f64) as Millis;
    match at > now {
        true => Ok(at),
        false => Err(invalid(
            "expires_at",
            "is in the past; it is a Unix time in seconds",
        )),
    }
}

/// An alias that is no id: shares without one are called by theirs.
fn alias(name: ShareName) -> Result<String, Fault> {
    match name.parse::<Id>() {
        Ok(_) => Err(invalid(
            "alias",
            "must not look like an id: shares without an alias are called by theirs",
        )),
        Err(_) => Ok(name.into_string()),
    }
}

fn taken(share: &shares::Share) -> Fault {
    let alias = share.alias.clone().unwrap_or_default();
    Fault::conflict(format!(
        "whoever this is for sees another share as `{SHARES}/{alias}`; choose another alias"
    ))
    .code("ALIAS_IN_USE")
}

/// What the directory lacks, to who wants to share it.
fn cannot(why: NoDirectory) -> Option<Fault> {
    match why {
        NoDirectory::NotMade(_) | NoDirectory::NextStart(_) => None, // it will be looked at then
        NoDirectory::Missing(_) | NoDirectory::NotOne(_) | NoDirectory::Link(_) => {
            Some(invalid("source_path", why.to_string()))
        }
        NoDirectory::Host(reason) => Some(
            Fault::unavailable(format!(
                "the server cannot share it now: {reason}; try again"
            ))
            .code("RUNTIME_UNAVAILABLE"),
        ),
    }
}

/// A share with the realms of its source, if the caller sees that; `of` that source alone.
fn seen(
    db: &Connection,
    principal: &Principal,
    of: Option<Id>,
    id: Id,
) -> rusqlite::Result<Result<(shares::Share, containers::Owned), Fault>> {
    let share = shares::find(db, id)?.filter(|share| of.is_none_or(|of| of == share.source));
    let Some(share) = share else {
        return Ok(Err(no_share(id)));
    };
    let owned = containers::owned(db, share.source)?;
    Ok(match owned.filter(|owned| sees(principal, owned)) {
        Some(owned) => Ok((share, owned)),
        None => Err(no_share(id)),
    })
}

/// The realms of a share's source.
fn realms(db: &Connection, share: &shares::Share) -> rusqlite::Result<Vec<Id>> {
    let source = containers::find(db, share.source)?;
    Ok(source.map(|source| source.realms).unwrap_or_default())
}

fn with_realms(
    db: &Connection,
    all: Vec<shares::Share>,
) -> rusqlite::Result<Vec<(shares::Share, Vec<Id>)>> {
    all.into_iter()
        .map(|share| {
            let realms = realms(db, &share)?;
            Ok((share, realms))
        })
        .collect()
}

fn shown(control: &Control, all: &[(shares::Share, Vec<Id>)]) -> Vec<Share> {
    all.iter()
        .map(|(share, realms)| Share::of(control, share, realms))
        .collect()
}

/// Bring a change to the machines, and say what the share is now.
async fn settled(control: &Control, share: shares::Share, realms: &[Id]) -> Result<Share, Fault> {
    // Where it fails, the answer's status says so, and it is tried again.
    if let Err(error) = crate::shares::apply(control).await {
        tracing::warn!(error = %crate::auth::chain(&error), "a share is not where it should be yet");
    }
    control.shares.nudge(); // its end may be the next, or it may be missing
    let id = share.id;
    let now = control
        .store
        .read("look up a share", move |db| shares::find(db, id))
        .await
        .map_err(broken)?;
    Ok(Share::of(control, &now.unwrap_or(share), realms))
}

/// The directories that a container offers to others, newest first.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    id: IdText,
    /// Only those for a container, or for a project.
    target_type: Option<TargetType>,
    /// Only those with this label.
    label: Option<String>,
    /// Only those that all see, or that some do not.
    status: Option<Status>,
    /// Only those that are on, or off.
    enabled: Option<bool>,
    /// Whether to list those that have expired.
    #[serde(default)]
    include_expired: bool,
    /// Only those of containers in this realm.
    #[expect(dead_code, reason = "the gate reads it")]
    realm_id: Option<String>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/storage/shares")
        .named("listStorageShares")
        .cli("storage list");
    type Service = Control;
    type Reply = Vec<Share>;

    async fn run(self, control: Control, call: Call) -> Result<Vec<Share>, Fault> {
        let principal = Principal::who_may(&call, Permission::StorageShares)?;
        let owned = super::containers::seen(&control, &principal, self.id.0).await?;
        let all = control
            .store
            .read("list the shares of a container", move |db| {
                shares::of_source(db, owned.container.id)
            })
            .await
            .map_err(broken)?;
        let now = control.now();
        Ok(all
            .iter()
            .filter(|share| self.include_expired || !share.is_over(now))
            .map(|share| Share::of(&control, share, &owned.container.realms))
            .filter(|share| {
                self.target_type
                    .is_none_or(|kind| kind == share.target_type)
                    && self.status.is_none_or(|status| status == share.status)
                    && self.enabled.is_none_or(|enabled| enabled == share.enabled)
                    && (self.label.is_none() || self.label == share.label)
            })
            .collect())
    }
}

/// Offer a directory of a container to another container, or to all of a project.
///
/// It is seen below `/hoody/shares`, by its alias or else its id, at once where machines run, until
/// it is withdrawn, switched off or expired, or who sees it says that they do not want it. Of a
/// project, containers that come later see it as well; the source itself does not. Files keep their
/// owners' numbers. What is written counts as the source's. A share for reading is read-only for
/// root in the container as well.
///
/// The path is one on the container's own disk. It must not lead over symbolic links; those in the
/// directory lead to what is at their place in who sees them. Whoever has a file open keeps it.
#[derive(Deserialize, JsonSchema)]
pub struct Create {
    /// The container that offers it.
    id: IdText,
    /// The directory. Not below /proc, /sys, /dev, /run, /tmp, /boot, /ramdisk, /opt/hoody,
    /// /hoody/run or /hoody/shares, which are not on the container's disk.
    source_path: SourcePath,
    /// The container that it is for; either this or a project.
    target_container_id: Option<IdText>,
    /// The project whose containers it is for.
    target_project_id: Option<IdText>,
    mode: Mode,
    /// Its name below `/hoody/shares`, which no other share has of those that are for the same
    /// container; its id where there is none.
    alias: Option<ShareName>,
    label: Option<ShareName>,
    description: Option<ShareDescription>,
    /// One that is off is kept and not seen.
    #[serde(default = "yes")]
    enabled: bool,
    /// When it ends by itself: a Unix time in seconds; never where null.
    #[schemars(range(min = 0))]
    expires_at: Option<f64>,
}

fn yes() -> bool {
    true
}

impl Operation for Create {
    const ROUTE: Route = Route::post("/api/v1/containers/{id}/storage/shares")
        .named("createStorageShare")
        .cli("storage create")
        .status(201)
        .says("Storage share created");
    type Service = Control;
    type Reply = Share;

    async fn run(self, control: Control, call: Call) -> Result<Share, Fault> {
        let principal = Principal::who_may(&call, Permission::StorageShares)?;
        supported(&control)?;
        let now = control.now();
        let source = self.id.0;
        let target = match (self.target_container_id, self.target_project_id) {
            (Some(id), None) if id.0 == source => {
                return Err(invalid(
                    "target_container_id",
                    "is the container itself, which has the directory",
                ));
            }
            (Some(id), None) => Target::Container(id.0),
            (None, Some(id)) => Target::Project(id.0),
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "target_project_id",
                    "must not be given with `target_container_id`: a share is for one of them",
                ));
            }
            (None, None) => {
                return Err(invalid(
                    "target_container_id",
                    "is missing; name a container, or a project in `target_project_id`",
                ));
            }
        };
        let share = shares::Share {
            id: words::id(),
            source,
            path: own_path(&self.source_path)?,
            target,
            writable: self.mode == Mode::Readwrite,
            alias: self.alias.map(alias).transpose()?,
            label: self.label.map(ShareName::into_string),
            description: self.description.map(ShareDescription::into_string),
            enabled: self.enabled,
            expires_at: self.expires_at.map(|at| ends(at, now)).transpose()?,
            told: Told::Nothing,
            failure: None,
            created_by: principal.user.id,
            created_at: now,
            updated_at: now,
        };
        let owned = super::containers::seen(&control, &principal, source).await?;
        if owned.container.made
            && let Err(why) = control.runtime.directory(source, &share.path).await
            && let Some(fault) = cannot(why)
        {
            return Err(fault);
        }
        let limits = control.config.limits.clone();
        let made = control
            .store
            .write("make a share", move |db| {
                let owned = match changeable(db, &principal, source)? {
                    Ok(owned) => owned,
                    Err(fault) => return Ok(Err(fault)),
                };
                if let Err(fault) = offered_to(db, &principal, target)? {
                    return Ok(Err(fault));
                }
                if shares::is_taken(db, &share)? {
                    return Ok(Err(taken(&share)));
                }
                let full = |who: &str, most: u32| {
                    Fault::conflict(format!("{who} {most} shares, and has them; delete some"))
                        .code("LIMIT_REACHED")
                };
                let most = limits.shares_per_container;
                if shares::count(db, source)? >= most {
                    return Ok(Err(full("a container may offer", most)));
                }
                let most = limits.shares_per_target;
                if shares::count_for(db, target)? >= most {
                    return Ok(Err(full("a container may be offered", most)));
                }
                shares::insert(db, &share)?;
                let by = principal.label();
                shares::record(db, Kind::StorageShareCreated, &share, json!({}), &by, now)?;
                Ok(Ok((share, owned.container.realms)))
            })
            .await
            .map_err(broken)?;
        let (share, realms) = made?;
        settled(&control, share, &realms).await
    }
}

/// Whether the caller may offer something to these.
fn offered_to(
    db: &Connection,
    principal: &Principal,
    target: Target,
) -> rusqlite::Result<Result<(), Fault>> {
    match target {
        Target::Container(id) => {
            let owned = containers::owned(db, id)?.filter(|owned| sees(principal, owned));
            Ok(match owned {
                None => Err(no_container(id)),
                Some(owned) if owned.container.wants == Wants::Gone => Err(going(id)),
                Some(_) => Ok(()),
            })
        }
        Target::Project(id) => {
            let project = projects::find(db, id)?.filter(|project| {
                project.user == principal.user.id && principal.realms().see(&project.realms)
            });
            Ok(project.map(drop).ok_or_else(|| no_project(id)))
        }
    }
}

/// One directory that a container offers.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Get {
    id: IdText,
    share_id: IdText,
}

impl Operation for Get {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/storage/shares/{shareId}")
        .named("getStorageShareById")
        .cli("storage get");
    type Service = Control;
    type Reply = Share;

    async fn run(self, control: Control, call: Call) -> Result<Share, Fault> {
        let principal = Principal::who_may(&call, Permission::StorageShares)?;
        let (source, id) = (self.id.0, self.share_id.0);
        super::containers::seen(&control, &principal, source).await?;
        let found = control
            .store
            .read("look up a share", move |db| {
                seen(db, &principal, Some(source), id)
            })
            .await
            .map_err(broken)?;
        let (share, owned) = found?;
        Ok(Share::of(&control, &share, &owned.container.realms))
    }
}

/// Change a share; what is not named stays. It holds at once where machines run.
#[derive(Deserialize, JsonSchema)]
pub struct Update {
    id: IdText,
    #[serde(rename = "shareId")]
    share_id: IdText,
    mode: Option<Mode>,
    /// Its name below `/hoody/shares`; null for its id.
    #[serde(default, deserialize_with = "given")]
    alias: Option<Option<ShareName>>,
    #[serde(default, deserialize_with = "given")]
    label: Option<Option<ShareName>>,
    #[serde(default, deserialize_with = "given")]
    description: Option<Option<ShareDescription>>,
    /// One that is off is kept and not seen.
    enabled: Option<bool>,
    /// When it ends by itself: a Unix time in seconds; never where null.
    #[serde(default, deserialize_with = "given")]
    expires_at: Option<Option<f64>>,
}

impl Operation for Update {
    const ROUTE: Route = Route::patch("/api/v1/containers/{id}/storage/shares/{shareId}")
        .named("updateStorageShare")
        .cli("storage update")
        .says("Storage share updated");
    type Service = Control;
    type Reply = Share;

    async fn run(self, control: Control, call: Call) -> Result<Share, Fault> {
        let principal = Principal::who_may(&call, Permission::StorageShares)?;
        supported(&control)?;
        let (source, id, now) = (self.id.0, self.share_id.0, control.now());
        super::containers::seen(&control, &principal, source).await?;
        let alias = match self.alias {
            Some(Some(name)) => Some(Some(alias(name)?)),
            Some(None) => Some(None),
            None => None,
        };
        let ends = match self.expires_at {
            Some(Some(at)) => Some(Some(ends(at, now)?)),
            Some(None) => Some(None),
            None => None,
        };
        let changed = control
            .store
            .write("change a share", move |db| {
                let (before, owned) = match seen(db, &principal, Some(source), id)? {
                    Ok(found) => found,
                    Err(fault) => return Ok(Err(fault)),
                };
                let mut share = before.clone();
                if let Some(mode) = self.mode {
                    share.writable = mode == Mode::Readwrite;
                }
                if let Some(alias) = alias {
                    share.alias = alias;
                }
                if let Some(label) = self.label {
                    share.label = label.map(ShareName::into_string);
                }
                if let Some(description) = self.description {
                    share.description = description.map(ShareDescription::into_string);
                }
                if let Some(ends) = ends {
                    share.expires_at = ends;
                    share.told = Told::Nothing;
                }
                if let Some(enabled) = self.enabled {
                    share.enabled = enabled;
                }
                if share.enabled && !before.enabled && share.is_over(now) {
                    return Ok(Err(Fault::conflict(format!(
                        "share {id} has expired; give it another `expires_at` first"
                    ))
                    .code("SHARE_EXPIRED")));
                }
                if shares::is_taken(db, &share)? {
                    return Ok(Err(taken(&share)));
                }
                if share == before {
                    return Ok(Ok((share, owned.container.realms)));
                }
                share.updated_at = now;
                shares::update(db, &share)?;
                let kind = match (before.enabled, share.enabled) {
                    (false, true) => Kind::StorageShareEnabled,
                    (true, false) => Kind::StorageShareDisabled,
                    _ => Kind::StorageShareUpdated,
                };
                shares::record(db, kind, &share, json!({}), &principal.label(), now)?;
                Ok(Ok((share, owned.container.realms)))
            })
            .await
            .map_err(broken)?;
        let (share, realms) = changed?;
        settled(&control, share, &realms).await
    }
}

/// Withdraw a share. Nobody sees it any more once this is answered.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delete {
    share_id: IdText,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/storage/shares/{shareId}")
        .named("deleteStorageShare")
        .cli("storage delete")
        .says("Storage share deleted");
    type Service = Control;
    type Reply = ();

    async fn run(self, control: Control, call: Call) -> Result<(), Fault> {
        let principal = Principal::who_may(&call, Permission::StorageShares)?;
        let (id, now) = (self.share_id.0, control.now());
        let gone = control
            .store
            .write("withdraw a share", move |db| {
                let (share, _) = match seen(db, &principal, None, id)? {
                    Ok(found) => found,
                    Err(fault) => return Ok(Err(fault)),
                };
                let by = principal.label();
                shares::record(db, Kind::StorageShareDeleted, &share, json!({}), &by, now)?;
                shares::delete(db, id)?;
                Ok(Ok(()))
            })
            .await
            .map_err(broken)?;
        gone?;
        taken_away(&control).await
    }
}

/// Have machines see no more what they should not. A promise that cannot be kept is not made.
async fn taken_away(control: &Control) -> Result<(), Fault> {
    crate::shares::apply(control).await.map_err(|error| {
        control.shares.nudge();
        tracing::warn!(error = %crate::auth::chain(&error), "a share that was withdrawn may still be seen");
        Fault::unavailable(
            "the share is withdrawn, but the server could not take it from the containers yet; it goes on trying",
        )
        .code("RUNTIME_UNAVAILABLE")
    })
}

/// All that the account's containers offer, newest first, expired ones included.
#[derive(Deserialize, JsonSchema)]
pub struct ListAll {
    /// Only those of containers in this realm.
    #[expect(dead_code, reason = "the gate reads it")]
    realm_id: Option<String>,
}

impl Operation for ListAll {
    const ROUTE: Route = Route::get("/api/v1/storage/shares")
        .named("listAllStorageShares")
        .cli("storage list-all");
    type Service = Control;
    type Reply = Vec<Share>;

    async fn run(self, control: Control, call: Call) -> Result<Vec<Share>, Fault> {
        let principal = Principal::who_may(&call, Permission::StorageShares)?;
        let (user, realms) = (principal.user.id, principal.realms());
        let all = control
            .store
            .read("list all shares", move |db| {
                with_realms(db, shares::of_user(db, user, &realms)?)
            })
            .await
            .map_err(broken)?;
        Ok(shown(&control, &all))
    }
}

/// What others offer to a container, directly or with its project, newest first; also what it does
/// not want to see.
#[derive(Deserialize, JsonSchema)]
pub struct ListIncoming {
    id: IdText,
}

impl Operation for ListIncoming {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/storage/incoming")
        .named("getIncomingShares")
        .cli("storage incoming list");
    type Service = Control;
    type Reply = Vec<Incoming>;

    async fn run(self, control: Control, call: Call) -> Result<Vec<Incoming>, Fault> {
        let principal = Principal::who_may(&call, Permission::StorageShares)?;
        let id = self.id.0;
        super::containers::seen(&control, &principal, id).await?;
        let all = control
            .store
            .read("list what is offered to a container", move |db| {
                let mut all = Vec::new();
                for share in shares::incoming(db, id)? {
                    let realms = realms(db, &share)?;
                    let said = shares::said(db, share.id, id)?;
                    all.push((share, realms, said));
                }
                Ok(all)
            })
            .await
            .map_err(broken)?;
        Ok(all
            .iter()
            .map(|(share, realms, said)| Incoming {
                share: Share::of(&control, share, realms),
                mount: said.as_ref().is_none_or(|said| said.mount),
                mount_path: format!("{SHARES}/{}", share.name()),
            })
            .collect())
    }
}

/// A share as one that it is for sees it.
#[derive(Serialize, JsonSchema)]
pub struct Incoming {
    #[serde(flatten)]
    share: Share,
    /// Whether the container wants to see it; it does where it has not said otherwise.
    mount: bool,
    /// Where it sees it.
    mount_path: String,
}

/// All that is offered to the account's containers, each share once, newest first.
#[derive(Deserialize, JsonSchema)]
pub struct ListAllIncoming {
    /// Only those for containers in this realm.
    #[expect(dead_code, reason = "the gate reads it")]
    realm_id: Option<String>,
}

impl Operation for ListAllIncoming {
    const ROUTE: Route = Route::get("/api/v1/storage/incoming")
        .named("getAllIncomingShares")
        .cli("storage incoming list-all");
    type Service = Control;
    type Reply = Vec<Share>;

    async fn run(self, control: Control, call: Call) -> Result<Vec<Share>, Fault> {
        let principal = Principal::who_may(&call, Permission::StorageShares)?;
        let (user, realms) = (principal.user.id, principal.realms());
        let all = control
            .store
            .read("list all that is offered", move |db| {
                with_realms(db, shares::incoming_of_user(db, user, &realms)?)
            })
            .await
            .map_err(broken)?;
        Ok(shown(&control, &all))
    }
}

/// Say whether a container wants to see a share that is for it. It holds at once where it runs.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetMount {
    /// The container that it is for.
    id: IdText,
    share_id: IdText,
    /// True to see it, false not to.
    mount: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct Mounted {
    share: Share,
    #[serde(rename = "override")]
    said: Override,
}

impl Operation for SetMount {
    const ROUTE: Route = Route::patch("/api/v1/containers/{id}/storage/incoming/{shareId}/mount")
        .named("toggleIncomingShareMount")
        .cli("storage incoming toggle-mount")
        .says("Mount changed");
    type Service = Control;
    type Reply = Mounted;

    async fn run(self, control: Control, call: Call) -> Result<Mounted, Fault> {
        let principal = Principal::who_may(&call, Permission::StorageShares)?;
        supported(&control)?;
        let (id, share, mount, now) = (self.id.0, self.share_id.0, self.mount, control.now());
        let changed = control
            .store
            .write("note whether a container wants a share", move |db| {
                if let Err(fault) = changeable(db, &principal, id)? {
                    return Ok(Err(fault));
                }
                let Some(share) = shares::incoming_one(db, id, share)? else {
                    return Ok(Err(Fault::not_found(format!(
                        "no share {share} is for container {id}; list them with `hoody storage incoming list`"
                    ))
                    .code("NOT_FOUND")));
                };
                let before = shares::said(db, share.id, id)?;
                let said = shares::say(db, share.id, id, mount, now)?;
                if before.is_none_or(|before| before.mount) != mount {
                    let more: Value = json!({ "mount": mount, "mounting_container_id": id.to_string() });
                    let kind = Kind::StorageShareMountChanged;
                    let (to, by) = (Target::Container(id), principal.label());
                    shares::record_for(db, kind, &share, to, more, &by, now)?;
                }
                let realms = realms(db, &share)?;
                Ok(Ok((share, realms, said)))
            })
            .await
            .map_err(broken)?;
        let (share, realms, said) = changed?;
        if !mount {
            taken_away(&control).await?;
        }
        Ok(Mounted {
            share: settled(&control, share, &realms).await?,
            said: Override::of(&said),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_of_the_containers_own_disk() {
        for (given, path) in [
            ("/srv", "/srv"),
            ("/srv//data/./x/", "/srv/data/x"),
            ("/", "/"),
            ("/hoody", "/hoody"),
            ("/hoody/storage", "/hoody/storage"),
            ("/procedures", "/procedures"),
            ("/home/user/proc", "/home/user/proc"),
            ("/a b\\c", "/a b\\c"),
        ] {
            assert_eq!(own_path(given).unwrap(), path, "{given}");
        }
        let long = format!("/{}", "x".repeat(256));
        for given in [
            "/srv/../etc",
            "/..",
            "/srv/..",
            "/proc",
            "/proc/1/root",
            "//proc/",
            "/./proc/self",
            "/sys",
            "/dev/shm",
            "/run/secrets",
            "/var/run",
            "/tmp/x",
            "/ramdisk",
            "/hoody/run",
            "/hoody/shares/other",
            "/opt/hoody/bin",
            "/boot",
            long.as_str(),
        ] {
            assert!(own_path(given).is_err(), "{given}");
        }
    }

    #[test]
    fn an_end_is_in_the_future() {
        assert_eq!(ends(2.5, 1000).unwrap(), 2500);
        for wrong in [0.0, 1.0, -1.0, 1e300, f64::NAN, 1_790_000_000_000.0] {
            assert!(ends(wrong, 1000).is_err(), "{wrong}");
        }
    }
}
